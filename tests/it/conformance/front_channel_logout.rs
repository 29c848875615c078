//! `oidcc-client-front-channel-logout-rp-basic`, and from the plan of all logouts the one that the issuer begins. The client is registered with
//! `frontchannel_logout_session_required`.

use super::Suite;
use crate::support::shop::parameter;

#[tokio::test]
async fn oidcc_client_test_rp_frontchannel_rpinitlogout() {
    let suite = Suite::open().await;
    let mut browser = suite.accepts().await;
    let mut other = suite.accepts().await;
    let request = suite.log_out(&mut browser).await;
    assert_eq!(suite.frame(&suite.issuer().last_sid()).await.status, 200);
    assert_eq!(other.fetch("/bff/session").await.json()["authenticated"], false);
    suite.is_back(&mut browser, parameter(&request, "state").as_deref()).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_frontchannel_opinitlogout() {
    let suite = Suite::open().await;
    let mut browser = suite.accepts().await;
    let page = suite.frame(&suite.issuer().last_sid()).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let origin = url::Url::parse(&suite.issuer().url()).unwrap().origin().ascii_serialization();
    // An ancestor is compared by its origin alone: with the issuer's path, its own page could not show the frame.
    assert!(policy.ends_with(&format!("frame-ancestors {origin}")), "{policy}");
    assert_eq!(browser.fetch("/bff/session").await.json()["authenticated"], false);
}
