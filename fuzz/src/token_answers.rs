//! Answers of the token endpoint: whatever an issuer sends, the tokens can be sent on and their life is
//! bounded (RFC 6749 §5.1, R33).

use std::time::Duration;

use cloakroom::clock::Timestamp;
use cloakroom::oidc::json;
use cloakroom::oidc::token::{Binding, TokenAnswer};
use cloakroom::secret::Secret;
use http::HeaderValue;
use serde_json::{Map, Value};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// The body of an answer.
pub fn run(data: &[u8]) {
    let Some(body) = json::object(data) else { return };
    check_same_json(data, &body);
    let scopes = ["openid".to_owned()];
    let bound = TokenAnswer::new(body.clone(), Binding::Required)
        .map(|answer| answer.into_tokens(NOW, &scopes, None));
    let bearer =
        TokenAnswer::new(body.clone(), Binding::Unbound).map(|answer| answer.into_tokens(NOW, &scopes, None));
    let (tokens, kind) = match (bearer, bound) {
        (Ok(tokens), Err(_)) => (tokens, "bearer"),
        (Err(_), Ok(tokens)) => (tokens, "dpop"),
        (Err(_), Err(_)) => return,
        (Ok(_), Ok(_)) => panic!("one answer is of both kinds"),
    };

    assert_eq!(body["access_token"], tokens.access_token.expose());
    let credentials = format!("Bearer {}", tokens.access_token.expose());
    assert!(HeaderValue::from_str(&credentials).is_ok() && !credentials[7..].contains(' '));
    assert!(body["token_type"].as_str().is_some_and(|written| written.eq_ignore_ascii_case(kind)));
    let life = tokens.expires_at.since(tokens.issued_at);
    assert_eq!(tokens.issued_at, NOW);
    assert!((Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600)).contains(&life), "{life:?}");
    if let Some(seconds) = body.get("expires_in").and_then(Value::as_u64)
        && (1..365 * 24 * 3600).contains(&seconds)
    {
        assert_eq!(life, Duration::from_secs(seconds));
    }
    for (name, token) in [("refresh_token", &tokens.refresh_token), ("id_token", &tokens.id_token)] {
        let sent = body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        assert_eq!(token.as_ref().map(Secret::expose), sent, "{name}");
    }
    assert!(tokens.scopes.iter().all(|scope| !scope.is_empty() && !scope.contains(' ')));
    assert!(body.contains_key("scope") || tokens.scopes == scopes);
    // A scope that holds the token's very letters is shown as a scope.
    let (shown, token) = (format!("{tokens:?}"), tokens.access_token.expose());
    let is_scope_too = tokens.scopes.iter().any(|scope| scope.contains(token));
    assert!(token.len() < 16 || is_scope_too || !shown.contains(token));
}

/// What is read strictly another reader reads alike.
pub fn check_same_json(data: &[u8], object: &Map<String, Value>) {
    let lenient: Value = serde_json::from_slice(data).expect("what is read strictly is JSON");
    assert_eq!(lenient, Value::Object(object.clone()));
}
