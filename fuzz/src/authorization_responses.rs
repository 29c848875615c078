//! Authorization responses: what finds a login is what the response itself says, and a code comes from nothing that
//! another reader would refuse (RFC 6749 §4.1.2, JARM §2.4).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::oidc::jwt::Jwt;
use cloakroom::oidc::{AuthorizationResponse, ResponseError, json};
use cloakroom::secret::Secret;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::signed;

/// Either a form, which anybody may have made, or a header and claims, which our own issuer signs.
pub fn run(data: &[u8]) {
    form(data);
    let (header, claims) = signed::parts(data);
    let token = signed::token(header, claims);
    assert!(accept(&signed::altered(&token), claims).is_err_and(|error| is_fault(&error)));
    // Beside a signed response nothing else counts.
    let beside = [("response", token.expose()), ("state", "another"), ("code", "another")];
    let beside = beside.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let response = AuthorizationResponse::new(beside, false);
    assert!(!response.is_encrypted());
    let accepted = accept(&token, claims);
    if accepted.as_ref().is_err_and(is_fault) {
        return;
    }
    let read = check_claims(header, claims);
    assert_eq!(response.state(), read["state"].as_str().filter(|state| !state.is_empty()));
    check_code(accepted, |name| read.get(name).cloned());
}

fn form(data: &[u8]) {
    let parameters: BTreeMap<String, String> = form_urlencoded::parse(data).into_owned().collect();
    let response = AuthorizationResponse::new(parameters.clone(), true);
    let again: BTreeMap<_, _> = response.fields().collect();
    assert!(again.into_iter().eq(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
    let alleged = match parameters.get("response") {
        Some(signed) => {
            let parts: Vec<_> = signed.split('.').collect();
            assert_eq!(response.is_encrypted(), parts.len() == 5);
            let claims = parts.get(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
            claims.and_then(|claims| claims["state"].as_str().map(str::to_owned))
        }
        None => parameters.get("state").cloned(),
    };
    assert!(response.state().is_none_or(|state| !state.is_empty() && alleged.as_deref() == Some(state)));

    let text = |text: &String| Value::String(text.clone());
    let members: Map<_, _> = parameters.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    check_code(AuthorizationResponse::code(&members), |name| parameters.get(name).map(text));
}

/// A code alone is one, an error is told by a word alone, and where there are tokens there is neither.
fn check_code(accepted: Result<Secret, ResponseError>, said: impl Fn(&str) -> Option<Value>) {
    let has_tokens = said("access_token").is_some() || said("id_token").is_some();
    match accepted {
        Ok(code) => {
            assert!(!code.expose().is_empty() && said("error").is_none() && !has_tokens);
            assert_eq!(said("code"), Some(code.expose().into()));
        }
        Err(ResponseError::Denied { error }) => {
            assert!(said("error").is_some() && said("code").is_none() && !has_tokens);
            assert!(
                error.len() <= 64 && error.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
                "{error:?}"
            );
        }
        Err(ResponseError::Tokens) => assert!(has_tokens),
        Err(_) => assert!(!has_tokens),
    }
}

/// All that is checked of a signed response.
fn accept(token: &Secret, claims: &[u8]) -> Result<Secret, ResponseError> {
    let jwt = Jwt::read(token, &signed::ALGORITHMS)?;
    AuthorizationResponse::check(&jwt, signed::ISSUER, signed::CLIENT, signed::NOW)?;
    jwt.check_signature(&signed::KEYS)?;
    AuthorizationResponse::code(&json::object(claims).expect("it was read before"))
}

/// Whether it is the token itself that is refused, and not what it says.
fn is_fault(error: &ResponseError) -> bool {
    matches!(error, ResponseError::Jwt(_) | ResponseError::Type)
}

/// The claims of a token that passed, by another reader.
fn check_claims(header: &[u8], claims: &[u8]) -> Value {
    let header: Value = serde_json::from_slice(header).expect("an accepted header is JSON");
    let claims: Value = serde_json::from_slice(claims).expect("accepted claims are JSON");
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("crit").is_none());
    assert!(
        header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("jwt")))
    );
    assert_eq!(claims["iss"], signed::ISSUER);
    let now = signed::NOW.as_secs() as f64;
    assert!(claims["exp"].as_f64().is_some_and(|at| at + 60.0 > now), "{claims}");
    assert!(claims.get("nbf").is_none_or(|at| at.as_f64().is_some_and(|at| at <= now + 61.0)), "{claims}");
    let is_us = |audience: &Value| audience == signed::CLIENT;
    assert!(
        is_us(&claims["aud"])
            || claims["aud"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is_us))
    );
    claims
}
