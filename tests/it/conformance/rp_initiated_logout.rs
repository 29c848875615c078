//! `oidcc-client-rp-initiated-logout-rp-basic`: the issuer tells the client by both channels while the browser is with it, and sends the browser
//! back.

use super::Suite;
use crate::support::shop::parameter;

#[tokio::test]
async fn oidcc_client_test_rp_init_logout() {
    logs_out(Some).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_init_logout_other_state() {
    logs_out(|state| Some(format!("{state}_INVALID"))).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_init_logout_no_state() {
    logs_out(|_| None).await;
}

/// The browser comes back with this in place of the `state` that it took along.
async fn logs_out(state: impl FnOnce(String) -> Option<String>) {
    let suite = Suite::open().await;
    let mut browser = suite.accepts().await;
    let sid = suite.issuer().last_sid();
    let request = suite.log_out(&mut browser).await;
    assert_eq!(suite.tell(&sid, |_| {}).await.status, 200);
    assert_eq!(suite.frame(&sid).await.status, 200);
    suite.is_back(&mut browser, state(parameter(&request, "state").unwrap()).as_deref()).await;
}
