//! `oidcc-client-refreshtoken-test-plan`. The API stands for userinfo, which the suite asks to be called with the new token: the
//! gateway takes a token wherever its routes lead.

use std::time::Duration;

use super::{Suite, append};

#[tokio::test]
async fn oidcc_client_test_refresh_token() {
    let suite = Suite::open().await;
    let mut browser = suite.accepts().await;
    suite.shop.clock.advance(Duration::from_secs(300));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    let tokens = suite.shop.upstream.tokens();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "the call carries the new token");
    assert!(suite.issuer().is_alive(&tokens[1]));
}

#[tokio::test]
async fn oidcc_client_test_refresh_token_invalid_issuer() {
    ends_the_session("iss").await;
}

#[tokio::test]
async fn oidcc_client_test_refresh_token_invalid_sub() {
    ends_the_session("sub").await;
}

/// The ID token of a refresh has another value of this claim (Core §12.2).
async fn ends_the_session(claim: &'static str) {
    let suite = Suite::open().await;
    let mut browser = suite.accepts().await;
    let suite = suite.tamper(move |draft| append(&mut draft.claims[claim], "1"));
    suite.shop.clock.advance(Duration::from_secs(300));
    assert_eq!(browser.fetch("/api/orders").await.problem(), "session-ended");
    assert_eq!(suite.shop.upstream.tokens().len(), 1, "no call goes out with the new token");
    assert_eq!(browser.session_cookie(), None);
}
