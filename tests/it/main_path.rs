//! The main job: log in, call an API, outlive the access token, log out.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::support::gateway::SESSION_COOKIE;
use crate::support::shop::Shop;

#[tokio::test]
async fn from_login_to_logout_no_token_reaches_the_browser_and_none_survives() {
    let shop = Shop::open().await;
    let Shop { clock, issuer, upstream, .. } = &shop;
    let mut browser = shop.browser();

    assert_eq!(browser.fetch("/bff/session").await.json(), serde_json::json!({"authenticated": false}));
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");

    browser.log_in("/shop").await;
    let session = browser.fetch("/bff/session").await.json();
    assert_eq!(session["authenticated"], Value::Bool(true), "{session}");

    let answer = browser.fetch("/api/orders?page=2").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.last().target, "/api/orders?page=2");
    let first = upstream.tokens().last().unwrap().clone();
    assert!(issuer.is_alive(&first));

    clock.advance(Duration::from_secs(1200));
    assert!(!issuer.is_alive(&first));
    let cookie = browser.session_cookie().unwrap();
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = upstream.tokens().last().unwrap().clone();
    assert_ne!(first, second);
    assert_eq!(browser.session_cookie().unwrap(), cookie, "the cookie does not change at a refresh");
    assert_eq!(issuer.token_requests("refresh_token"), 1);

    let refresh_token = issuer.living_refresh_tokens().pop().unwrap();
    let fields = [("x-csrf", "1"), ("accept", "application/json")];
    let answer = browser.script(Method::POST, "/bff/logout", &fields, "").await;
    assert!(answer.json()["redirect_to"].as_str().unwrap().starts_with(&issuer.url()), "{}", answer.text());
    assert!(answer.clears(SESSION_COOKIE));
    assert_eq!(issuer.revoked(), [refresh_token, second], "the refresh token first");
    assert!(issuer.living_refresh_tokens().is_empty());

    browser.plant(SESSION_COOKIE, &cookie);
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.problem(), answer.clears(SESSION_COOKIE)), ("unauthenticated".to_owned(), true));
}
