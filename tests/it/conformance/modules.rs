//! What the modules of the Basic plan do, which the Form Post plan does as well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use serde_json::json;

use super::{Suite, append, without};
use crate::support::issuer::{Algorithm, Endpoint, Fault, Signature};
use crate::support::shop::parameter;

pub async fn code_flow(suite: Suite) {
    let browser = suite.accepts().await;
    let asked = browser.visited.iter().find(|url| url.path().ends_with("/authorize")).unwrap();
    assert_eq!(parameter(asked, "response_type").as_deref(), Some("code"));
    assert!(parameter(asked, "scope").unwrap().split(' ').any(|scope| scope == "openid"));
    let nonce = parameter(asked, "nonce").unwrap();
    assert!(
        nonce.len() <= 43 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    );
    let redeemed = suite.issuer().received_at(Endpoint::Token).remove(0);
    assert!(redeemed.query.is_empty() && redeemed.field("code_verifier").is_some());
}

pub async fn invalid_iss(suite: Suite) {
    suite.tamper(|draft| append(&mut draft.claims["iss"], "1")).refuses().await;
}

pub async fn missing_sub(suite: Suite) {
    suite.tamper(|draft| without(&mut draft.claims, "sub")).refuses().await;
}

pub async fn invalid_aud(suite: Suite) {
    suite.tamper(|draft| append(&mut draft.claims["aud"], "1")).refuses().await;
}

pub async fn missing_iat(suite: Suite) {
    suite.tamper(|draft| without(&mut draft.claims, "iat")).refuses().await;
}

pub async fn kid_absent_single_jwks(suite: Suite) {
    suite.issuer().behave(|behaviour| {
        behaviour.algorithm = Algorithm::Rs256;
        behaviour.publish = Some(Box::new(|keys| {
            keys.retain(|key| key["kty"] == "RSA");
            without(&mut keys[0], "kid");
        }));
    });
    suite.tamper(|draft| without(&mut draft.header, "kid")).accepts().await;
}

/// The suite lets a client refuse it, or try all keys, as the gateway does.
pub async fn kid_absent_multiple_jwks(suite: Suite) {
    suite.issuer().behave(|behaviour| {
        behaviour.algorithm = Algorithm::Rs256;
        behaviour.publish = Some(Box::new(|keys| {
            super::among_others(keys);
            keys.iter_mut().for_each(|key| without(key, "kid"));
        }));
    });
    suite.tamper(|draft| without(&mut draft.header, "kid")).accepts().await;
}

pub async fn idtoken_sig_rs256(suite: Suite) {
    signs_with(&suite, Algorithm::Rs256);
    suite.accepts().await;
}

/// The suite lets a client accept it, or stop, as the gateway does.
pub async fn idtoken_sig_none(suite: Suite) {
    let unsigned = suite.tamper(|draft| {
        draft.header = json!({"alg": "none"});
        draft.signature = Signature::Absent;
    });
    unsigned.refuses().await;
}

pub async fn invalid_sig(suite: Suite, algorithm: Algorithm) {
    signs_with(&suite, algorithm);
    suite.tamper(|draft| draft.signature = Signature::Foreign).refuses().await;
}

pub async fn userinfo_invalid_sub(suite: Suite) {
    suite.issuer().fail(Endpoint::Userinfo, Fault::json(200, json!({"sub": "aliceinvalid"})));
    suite.refuses_after_userinfo().await;
}

pub async fn nonce_invalid(suite: Suite) {
    suite.tamper(|draft| append(&mut draft.claims["nonce"], "1")).refuses().await;
}

pub async fn scope_userinfo_claims(suite: Suite) {
    suite.issuer().behave(|behaviour| behaviour.user = json!({"sub": "user-subject-1234531"}));
    let user = json!({"sub": "user-subject-1234531", "given_name": "Demo", "address": {"country": "US"}});
    suite.issuer().fail(Endpoint::Userinfo, Fault::json(200, user));
    let mut browser = suite.accepts().await;
    let asked = browser.visited.iter().find(|url| url.path().ends_with("/authorize")).unwrap();
    assert!(parameter(asked, "scope").unwrap().split(' ').any(|scope| scope == "profile"));
    let told = browser.fetch("/bff/session").await.json();
    assert_eq!(
        (&told["user"]["given_name"], &told["user"]["address"]["country"]),
        (&json!("Demo"), &json!("US"))
    );
}

pub async fn client_secret_basic(suite: Suite) {
    suite.accepts().await;
    let redeemed = suite.issuer().received_at(Endpoint::Token).remove(0);
    let credentials = redeemed.headers[AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap();
    let credentials = String::from_utf8(STANDARD.decode(credentials).unwrap()).unwrap();
    assert!(credentials.starts_with("shop%3A1:"), "{credentials}");
    assert_eq!((redeemed.field("client_id"), redeemed.field("client_secret")), (None, None));
}

/// The issuer's metadata name this algorithm alone.
fn signs_with(suite: &Suite, algorithm: Algorithm) {
    suite.issuer().behave(|behaviour| {
        behaviour.algorithm = algorithm;
        let name = "id_token_signing_alg_values_supported".to_owned();
        behaviour.metadata.insert(name, json!([algorithm.name()]));
    });
}
