//! The authorization request and the redemption of its code.

use std::collections::BTreeMap;
use std::time::Duration;

use cloakroom::config::ClientAuth;
use cloakroom::oidc::{
    AuthorizationRequest, CallFault, JwtFault, RedeemError, ResponseIssuerError, TokenFault, UserinfoFault,
};
use cloakroom::secret::Secret;
use http::header::{ACCEPT, AUTHORIZATION};
use serde_json::{Value, json};

use crate::support::clock::NOW;
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Endpoint, Fault};

use super::{Parties, REDIRECT_URI, request};

async fn refusal(fault: Fault) -> RedeemError {
    let parties = Parties::start().await;
    parties.issuer.fail(Endpoint::Token, fault);
    parties.log_in().await.expect_err("the login fails")
}

#[tokio::test]
async fn r1_r2_r7_the_request_asks_for_a_code_with_pkce_and_for_what_is_configured() {
    let parties = Parties::start().await;
    parties.issuer.behave(|behaviour| {
        // R2: whatever discovery says.
        behaviour.metadata.insert("code_challenge_methods_supported".to_owned(), json!(["plain"]));
        let endpoint = json!(format!("{}/authorize?tenant=t", parties.issuer.url()));
        behaviour.metadata.insert("authorization_endpoint".to_owned(), endpoint);
    });
    let expected = parties.client.expect(None, None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    let mut query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    assert_eq!(query.remove("code_challenge").unwrap().len(), 43);
    let expected: BTreeMap<String, String> = [
        ("audience", "https://api.test"),
        ("client_id", CLIENT_ID),
        ("code_challenge_method", "S256"),
        ("nonce", expected.nonce.expose()),
        ("redirect_uri", REDIRECT_URI),
        ("response_type", "code"),
        ("scope", "openid profile offline_access"),
        ("state", "state-1"),
        ("tenant", "t"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(query, expected);
    assert_eq!(url.query_pairs().count(), 10, "no parameter stands twice");
}

#[tokio::test]
async fn what_the_request_names_wins_over_the_configuration() {
    let parties = Parties::start_with(|oidc| {
        oidc.max_age = Some(600);
        let configured = [("prompt", "consent"), ("acr_values", "silver"), ("ui_locales", "de")];
        oidc.authorization_parameters =
            configured.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    let configured = parties.client.expect(None, None);
    assert_eq!(
        (configured.max_age, configured.acr_values.clone()),
        (Some(600), Some(vec!["silver".to_owned()]))
    );
    let expected = parties.client.expect(Some(0), Some("gold platinum"));
    let request = AuthorizationRequest {
        prompt: Some("login"),
        login_hint: Some("alice@example.com"),
        ui_locales: Some("en fr"),
        ..request(&expected)
    };
    let url = parties.client.authorization_url(&request).await.unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    for (name, value) in [
        ("prompt", "login"),
        ("login_hint", "alice@example.com"),
        ("ui_locales", "en fr"),
        ("max_age", "0"),
        ("acr_values", "gold platinum"),
    ] {
        assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn r3_each_login_has_its_own_nonce_and_verifier() {
    let parties = Parties::start().await;
    let (one, other) = (parties.client.expect(None, None), parties.client.expect(None, None));
    assert_ne!(one.nonce, other.nonce);
    assert_ne!(one.verifier, other.verifier);
    let code = parties.code(&one).await;
    let refused = parties.client.redeem(&code, &other).await.unwrap_err();
    assert!(matches!(refused, RedeemError::InvalidGrant), "{refused:?}");
}

#[tokio::test]
async fn r4_the_responses_iss_is_the_issuer_and_there_where_promised() {
    let parties = Parties::start().await;
    let issuer = parties.issuer.url();
    assert!(parties.client.check_response_issuer(Some(&issuer)).await.is_ok());
    for other in ["https://evil.test", &format!("{issuer}/"), ""] {
        let refused = parties.client.check_response_issuer(Some(other)).await;
        assert!(matches!(refused, Err(ResponseIssuerError::Mismatch)), "{other}");
    }
    assert!(matches!(parties.client.check_response_issuer(None).await, Err(ResponseIssuerError::Missing)));

    let silent = Parties::start().await;
    silent.issuer.behave(|behaviour| behaviour.sends_iss = false);
    assert!(silent.client.check_response_issuer(None).await.is_ok());
    assert!(matches!(
        silent.client.check_response_issuer(Some("https://evil.test")).await,
        Err(ResponseIssuerError::Mismatch)
    ));
}

#[tokio::test]
async fn r4_where_the_promise_cannot_be_looked_up_the_response_is_not_accepted() {
    let parties = Parties::start().await;
    parties.issuer.fail(Endpoint::Discovery, Fault::status(500));
    let refused = parties.client.check_response_issuer(None).await;
    assert!(matches!(refused, Err(ResponseIssuerError::Unavailable(_))));
}

#[tokio::test]
async fn a_login_yields_tokens_and_the_users_claims_without_the_protocols() {
    let parties = Parties::start().await;
    let (tokens, identity) = parties.log_in().await.unwrap();
    assert!(parties.issuer.is_alive(tokens.access_token.expose()));
    assert!(parties.issuer.is_alive(tokens.refresh_token.as_ref().unwrap().expose()));
    assert_eq!(tokens.expires_at.since(tokens.issued_at), Duration::from_secs(300));
    assert_eq!(tokens.scopes, ["openid", "profile", "offline_access"]);
    assert!(tokens.id_token.is_some());
    assert_eq!(identity.issuer, parties.issuer.url());
    assert_eq!(identity.subject, "alice");
    assert!(identity.sid.is_some());
    let claims: Vec<&str> = identity.claims.keys().map(String::as_str).collect();
    assert_eq!(claims, ["auth_time", "email", "name", "sub"]);
}

#[tokio::test]
async fn a_granted_scope_is_taken_from_the_answer() {
    let parties = Parties::start().await;
    parties.issuer.behave(|behaviour| behaviour.scope = Some("openid".to_owned()));
    assert_eq!(parties.log_in().await.unwrap().0.scopes, ["openid"]);
}

#[tokio::test]
async fn r60_each_client_authentication_method_is_understood_by_the_issuer() {
    let secret = || Secret::new(CLIENT_SECRET);
    for method in
        [ClientAuth::ClientSecretBasic(secret()), ClientAuth::ClientSecretPost(secret()), ClientAuth::None]
    {
        let name = format!("{method:?}");
        let is_basic = matches!(method, ClientAuth::ClientSecretBasic(_));
        let parties = Parties::start_with(|oidc| oidc.client_auth = method).await;
        parties.issuer.behave(|behaviour| behaviour.public_client = true);
        assert!(parties.log_in().await.is_ok(), "{name}");
        let request = parties.issuer.received_at(Endpoint::Token).remove(0);
        assert_eq!(request.headers.contains_key(AUTHORIZATION), is_basic, "{name}");
        assert_eq!(request.field("client_id").is_some(), !is_basic, "{name}");
        assert_eq!(request.headers[ACCEPT], "application/json");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_the_operators_fault() {
    let wrong = ClientAuth::ClientSecretBasic(Secret::new("wrong"));
    let parties = Parties::start_with(|oidc| oidc.client_auth = wrong).await;
    let refused = parties.log_in().await.unwrap_err();
    assert!(matches!(&refused, RedeemError::Refused { error } if error == "invalid_client"), "{refused:?}");
}

#[tokio::test]
async fn a_code_is_good_once() {
    let parties = Parties::start().await;
    let expected = parties.client.expect(None, None);
    let code = parties.code(&expected).await;
    assert!(parties.client.redeem(&code, &expected).await.is_ok());
    let refused = parties.client.redeem(&code, &expected).await.unwrap_err();
    assert!(matches!(refused, RedeemError::InvalidGrant), "{refused:?}");
}

#[tokio::test]
async fn an_issuer_in_trouble_is_unavailable() {
    for fault in [
        Fault::status(500),
        Fault::html(503),
        Fault::status(429),
        Fault::status(302),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::huge(),
        Fault::error(400, "temporarily_unavailable"),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(matches!(refused, RedeemError::Unavailable(_)), "{fault:?}: {refused:?}");
    }
    let RedeemError::Unavailable(unavailable) = refusal(Fault::busy(7)).await else { panic!("a 503") };
    assert_eq!(unavailable.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_unavailable() {
    let parties = Parties::start().await;
    let impatient = parties.impatient().await;
    let expected = impatient.expect(None, None);
    let code = parties.code(&expected).await;
    parties.issuer.fail(Endpoint::Token, Fault::Silence);
    let refused = impatient.redeem(&code, &expected).await.unwrap_err();
    assert!(
        matches!(&refused, RedeemError::Unavailable(why) if matches!(why.fault(), CallFault::TimedOut(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_issuer_that_went_away_between_login_and_callback_got_nothing() {
    let mut parties = Parties::start().await;
    parties.issuer.behave(|behaviour| behaviour.keeps_connections = false);
    let expected = parties.client.expect(None, None);
    let code = parties.code(&expected).await;
    parties.issuer.stop().await;
    let refused = parties.client.redeem(&code, &expected).await.unwrap_err();
    assert!(
        matches!(&refused, RedeemError::Unavailable(why) if matches!(why.fault(), CallFault::NotSent(_))),
        "{refused:?}"
    );
    parties.issuer.restart().await;
    assert!(parties.client.redeem(&code, &expected).await.is_ok());
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_a_failed_login() {
    let good = json!({"access_token": "a", "token_type": "Bearer", "id_token": "x"});
    let with = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        Fault::json(200, answer)
    };
    for (fault, reason) in [
        (Fault::html(200), TokenFault::NotJson),
        (Fault::text(200, "text/plain", &good.to_string()), TokenFault::NotJson),
        (Fault::text(200, "application/json", ""), TokenFault::NotJson),
        (
            Fault::text(200, "application/json", r#"{"access_token":"a","access_token":"b"}"#),
            TokenFault::NotJson,
        ),
        (Fault::json(200, json!([])), TokenFault::NotJson),
        (Fault::json(200, json!({})), TokenFault::AccessToken),
        (with("access_token", json!("")), TokenFault::AccessToken),
        (with("token_type", json!("DPoP")), TokenFault::TokenType),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(
            matches!(refused, RedeemError::TokenAnswer(found) if found == reason),
            "{fault:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn r20_only_a_clean_error_code_of_the_issuers_words_is_kept() {
    for (fault, kept) in [
        (Fault::error(401, "invalid_client"), "invalid_client"),
        (Fault::error(400, "line\nbreak"), "status 400"),
        (Fault::error(400, &"x".repeat(65)), "status 400"),
        (Fault::html(404), "status 404"),
        (Fault::json(403, json!({"error": {"a": 1}})), "status 403"),
        (Fault::text(400, "text/plain", r#"{"error":"invalid_client"}"#), "invalid_client"),
    ] {
        let refused = refusal(fault.clone()).await;
        assert!(
            matches!(&refused, RedeemError::Refused { error } if error == kept),
            "{fault:?}: {refused:?}"
        );
        assert!(!format!("{refused:?} {refused}").contains("own words"));
    }
}

#[tokio::test]
async fn r16_userinfo_of_the_same_user_is_merged() {
    let parties = Parties::start_with(|oidc| oidc.userinfo = true).await;
    let told = json!({
        "sub": "alice", "email": "new@example.com", "groups": ["a"],
        "auth_time": 1, "acr": "forged", "aud": "x", "nonce": "y",
    });
    parties.issuer.fail(Endpoint::Userinfo, Fault::json(200, told));
    let (tokens, identity) = parties.log_in().await.unwrap();
    assert_eq!(
        Value::Object(identity.claims),
        json!({"sub": "alice", "name": "Alice", "email": "new@example.com", "groups": ["a"], "auth_time": NOW}),
    );
    let request = parties.issuer.received_at(Endpoint::Userinfo).remove(0);
    assert_eq!(request.headers[AUTHORIZATION], format!("Bearer {}", tokens.access_token.expose()));
}

#[tokio::test]
async fn r16_userinfo_that_cannot_be_trusted_fails_the_login() {
    for (fault, reason) in [
        (Fault::json(200, json!({"sub": "mallory"})), UserinfoFault::Subject),
        (Fault::json(200, json!({"name": "Alice"})), UserinfoFault::Subject),
        (Fault::html(200), UserinfoFault::NotJson),
        (Fault::text(200, "application/jwt", "a.b.c"), UserinfoFault::Jwt(JwtFault::Malformed)),
        (Fault::status(403), UserinfoFault::Status(http::StatusCode::FORBIDDEN)),
    ] {
        let parties = Parties::start_with(|oidc| oidc.userinfo = true).await;
        parties.issuer.fail(Endpoint::Userinfo, fault.clone());
        let refused = parties.log_in().await.unwrap_err();
        assert!(matches!(refused, RedeemError::Userinfo(found) if found == reason), "{fault:?}: {refused:?}");
    }
    let parties = Parties::start_with(|oidc| oidc.userinfo = true).await;
    parties.issuer.fail(Endpoint::Userinfo, Fault::status(503));
    assert!(matches!(parties.log_in().await, Err(RedeemError::Unavailable(_))));
}

#[tokio::test]
async fn r62_debug_shows_neither_secrets_nor_tokens() {
    let parties = Parties::start().await;
    let expected = parties.client.expect(None, None);
    let (tokens, _) = parties.log_in_expecting(&expected).await.unwrap();
    let shown = format!("{:?} {expected:?} {tokens:?}", parties.client);
    for secret in [
        CLIENT_SECRET,
        expected.nonce.expose(),
        expected.verifier.expose(),
        tokens.access_token.expose(),
        tokens.refresh_token.as_ref().unwrap().expose(),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
