//! What the gateway counts of sessions: their beginnings, their refreshes and their ends.

use std::time::Duration;

use http::Method;

use crate::support::browser::metric;
use crate::support::issuer::{Endpoint, Fault};
use crate::support::shop::Shop;
use crate::support::wait::until;

#[tokio::test]
async fn logins_refreshes_and_ends_are_counted_by_what_became_of_them() {
    let shop = Shop::open().await;
    let count =
        async |name: &str, label: &str| metric(shop.gateway.admin, &format!("cloakroom_{name}"), label).await;

    shop.issuer.behave(|behaviour| behaviour.authorization_error = Some("access_denied".to_owned()));
    let mut browser = shop.browser();
    browser.navigate("/bff/login?return_to=/shop").await;
    assert_eq!(count("logins_total", "\"failed\"").await, 1.0);
    shop.issuer.behave(|behaviour| behaviour.authorization_error = None);
    shop.issuer.fail_once(Endpoint::Token, Fault::status(503));
    browser.navigate("/bff/login?return_to=/shop").await;
    assert_eq!(count("logins_total", "\"unavailable\"").await, 1.0);
    browser.log_in("/shop").await;
    assert_eq!(count("logins_total", "app=\"https://shop.test\",result=\"succeeded\"").await, 1.0);

    browser.log_in("/shop").await;
    assert_eq!(count("logouts_total", "\"replaced\"").await, 1.0);

    shop.clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    until(async || count("token_refreshes_total", "\"succeeded\"").await == 1.0).await;
    assert_eq!(count("token_refresh_duration_seconds_count", "").await, 1.0);

    shop.clock.advance(Duration::from_secs(301));
    shop.issuer.fail_once(Endpoint::Token, Fault::invalid_grant());
    assert_eq!(browser.fetch("/api/orders").await.problem(), "session-ended");
    assert_eq!(count("logouts_total", "\"invalid_grant\"").await, 1.0);
    until(async || count("token_refreshes_total", "\"session_ended\"").await == 1.0).await;

    browser.log_in("/shop").await;
    let fields = [("x-csrf", "1"), ("accept", "application/json")];
    browser.script(Method::POST, "/bff/logout", &fields, "").await;
    assert_eq!(count("logouts_total", "app=\"https://shop.test\",cause=\"logout\"").await, 1.0);
}
