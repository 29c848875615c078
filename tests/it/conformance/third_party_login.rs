//! `oidcc-client-test-3rd-party-init-login-test-plan`: the suite sends the browser to `initiate_login_uri`, which is the gateway's `login`.

use url::Url;

use super::Suite;
use crate::support::shop::{arrive, location};
use crate::support::wait::in_time;

#[tokio::test]
async fn oidcc_client_test_3rd_party_init_login() {
    let suite = Suite::open().await;
    let mut browser = suite.shop.browser();
    let mut initiate = Url::parse("https://shop.test/bff/login").unwrap();
    initiate.query_pairs_mut().append_pair("iss", &suite.issuer().url());
    let sent = arrive(&mut browser, &initiate).await;
    let page = in_time(browser.navigate(location(&sent).as_str())).await;
    assert_eq!((page.status.as_u16(), page.url.path()), (200, "/"), "{}", page.text());
    suite.is_used(&mut browser).await;
}
