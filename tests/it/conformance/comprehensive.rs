//! `oidcc-client-test-plan`, the suite's collection beyond what is certified: those modules for `response_type=code` that are in no other
//! plan.

use http::header::AUTHORIZATION;
use serde_json::json;

use super::{Suite, modules, without};
use crate::support::issuer::{Algorithm, Endpoint, Fault, Signature};
use crate::support::shop::parameter;
use crate::support::wait::in_time;

#[tokio::test]
async fn oidcc_client_test_missing_aud() {
    Suite::open().await.tamper(|draft| without(&mut draft.claims, "aud")).refuses().await;
}

#[tokio::test]
async fn oidcc_client_test_userinfo_bearer_header() {
    let suite = Suite::open().await;
    suite.accepts().await;
    let asked = suite.issuer().received_at(Endpoint::Userinfo).remove(0);
    assert!(asked.headers[AUTHORIZATION].to_str().unwrap().starts_with("Bearer "));
}

#[tokio::test]
async fn oidcc_client_test_nonce_unless_code_flow() {
    let suite = Suite::open().await;
    let browser = suite.accepts().await;
    let asked = browser.visited.iter().find(|url| url.path().ends_with("/authorize")).unwrap();
    assert!(parameter(asked, "nonce").is_some(), "in the code flow too");
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_hs256() {
    let symmetric = Suite::open().await.tamper(|draft| {
        draft.header = json!({"alg": "HS256"});
        draft.signature = Signature::HmacOfPublicKey;
    });
    symmetric.refuses().await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_es256() {
    modules::invalid_sig(Suite::open().await, Algorithm::Es256).await;
}

#[tokio::test]
async fn oidcc_client_test_form_post_error() {
    let suite = Suite::open_with("response_mode: form_post").await;
    suite.issuer().behave(|behaviour| behaviour.authorization_error = Some("login_required".to_owned()));
    let mut browser = suite.shop.browser();
    let page = in_time(browser.navigate("/bff/login?prompt=none&max_age=0")).await;
    assert_eq!(
        (page.status.as_u16(), page.url.path()),
        (200, "/"),
        "back in the app, which asked for no page"
    );
    assert_eq!(browser.session_cookie(), None);
    let asked = browser.visited.iter().find(|url| url.path().ends_with("/authorize")).unwrap();
    assert_eq!(parameter(asked, "response_mode").as_deref(), Some("form_post"));
    assert_eq!(
        (parameter(asked, "prompt"), parameter(asked, "max_age")),
        (Some("none".into()), Some("0".into()))
    );
    assert_eq!(suite.issuer().received_at(Endpoint::Token).len(), 0);
}

#[tokio::test]
async fn oidcc_client_test_userinfo_signed() {
    let suite = Suite::open().await;
    let signed = suite.issuer().userinfo_token(|draft| draft.claims["given_name"] = json!("Demo"));
    suite.issuer().fail(Endpoint::Userinfo, Fault::text(200, "application/jwt;charset=UTF-8", &signed));
    let told = suite.accepts().await.fetch("/bff/session").await.json();
    assert_eq!(told["user"]["given_name"], "Demo");

    let suite = Suite::open().await;
    let foreign = suite.issuer().userinfo_token(|draft| draft.signature = Signature::Foreign);
    suite.issuer().fail(Endpoint::Userinfo, Fault::text(200, "application/jwt;charset=UTF-8", &foreign));
    suite.refuses_after_userinfo().await;
}

/// The gateway neither reads the claims of others nor fetches them: the login succeeds without.
#[tokio::test]
async fn oidcc_client_test_aggregated_claims() {
    withholds(json!({"src1": {"JWT": "eyJhbGciOiJub25lIn0.e30."}})).await;
}

/// The same. A source's access token stays with the gateway.
#[tokio::test]
async fn oidcc_client_test_distributed_claims() {
    withholds(json!({"src1": {"endpoint": "https://bank.test/claims", "access_token": "ksj3n283dke"}})).await;
}

async fn withholds(sources: serde_json::Value) {
    let suite = Suite::open().await;
    suite.issuer().behave(|behaviour| {
        behaviour.user =
            json!({"sub": "alice", "_claim_names": {"credit_score": "src1"}, "_claim_sources": sources});
    });
    let told = suite.accepts().await.fetch("/bff/session").await.json();
    assert_eq!(told["user"], json!({"sub": "alice", "auth_time": told["user"]["auth_time"]}));
}
