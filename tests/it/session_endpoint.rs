//! What the app is told of its session, and when a session ends by itself.

use std::time::Duration;

use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Endpoint, Fault};
use crate::support::redis::Redis;
use crate::support::shop::Shop;
use crate::support::wait::until;

const MINUTE: Duration = Duration::from_secs(60);

async fn session(browser: &mut Browser) -> Value {
    browser.fetch("/bff/session").await.json()
}

#[tokio::test]
async fn it_tells_who_is_logged_in_and_for_how_long_and_never_a_token() {
    let shop = Shop::open().await;
    assert_eq!(session(&mut shop.browser()).await, json!({"authenticated": false}));

    let mut browser = shop.user().await;
    browser.fetch("/api/orders").await;
    let answer = browser.fetch("/bff/session").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    let mut told = answer.json();
    let user = told.as_object_mut().unwrap().remove("user").unwrap();
    assert_eq!(user["sub"], "alice");
    assert_eq!(user["email"], "alice@example.com");
    assert_eq!(
        told,
        json!({"authenticated": true, "expires_in": 12 * 3600, "idle_expires_in": 1800, "access_token_expires_in": 300})
    );
    let secrets = [shop.upstream.tokens(), shop.issuer.living_refresh_tokens()].concat();
    assert_eq!(secrets.len(), 2);
    for secret in secrets {
        assert!(!answer.text().contains(&secret));
    }
    assert!(!answer.text().contains("eyJhbGci"), "no ID token either: {}", answer.text());
    assert!(answer.set_cookies().is_empty());
}

#[tokio::test]
async fn r47_it_is_read_by_the_apps_own_scripts_alone() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let requests: [&[(&str, &str)]; 4] = [
        &[],
        &[("x-csrf", "0")],
        &[("x-csrf", "1"), ("sec-fetch-site", "cross-site")],
        &[("x-csrf", "1"), ("origin", "https://evil.example")],
    ];
    for fields in requests {
        let answer = browser.script(Method::GET, "/bff/session", fields, "").await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "csrf"), "{fields:?}");
    }
    let answer = browser.script(Method::POST, "/bff/session", &[("x-csrf", "1")], "").await;
    assert_eq!((answer.status.as_u16(), &answer.headers["allow"]), (405, &"GET".parse().unwrap()));
    assert_eq!(session(&mut browser).await["authenticated"], true);
}

#[tokio::test]
async fn r25_asking_for_the_session_does_not_keep_it_alive() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for minutes in [30, 20, 10] {
        assert_eq!(session(&mut browser).await["idle_expires_in"], minutes * 60);
        shop.clock.advance(10 * MINUTE);
    }
    let answer = browser.fetch("/bff/session").await;
    assert_eq!(answer.json(), json!({"authenticated": false}));
    assert!(answer.clears(SESSION_COOKIE));
}

#[tokio::test]
async fn r25_use_keeps_a_session_alive_until_its_lifetime_is_over() {
    let shop = Shop::open_with(|_, setup| setup.session = "idle_timeout: 20m\nlifetime: 1h".to_owned()).await;
    let mut browser = shop.user().await;
    for passed in [15, 30] {
        shop.clock.advance(15 * MINUTE);
        assert_eq!(browser.fetch("/api/orders").await.status, 200, "after {passed} minutes");
        until(async || session(&mut browser).await["idle_expires_in"] == 1200).await;
        assert_eq!(session(&mut browser).await["expires_in"], (60 - passed) * 60);
    }
    shop.clock.advance(15 * MINUTE);
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    // Never longer than the lifetime.
    until(async || session(&mut browser).await["idle_expires_in"] == 900).await;
    shop.clock.advance(15 * MINUTE);
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.problem().as_str(), answer.clears(SESSION_COOKIE)), ("unauthenticated", true));
    assert_eq!(answer.json()["login_url"], "/bff/login");
}

#[tokio::test]
async fn r25_a_session_that_nobody_uses_ends() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    shop.clock.advance(30 * MINUTE);
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.problem().as_str(), answer.clears(SESSION_COOKIE)), ("unauthenticated", true));
    assert!(shop.upstream.tokens().is_empty());
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0, "an ended session is not refreshed");
}

#[tokio::test]
async fn r25_without_a_refresh_token_a_session_ends_with_its_access_token() {
    let shop =
        Shop::open_with(|issuer, _| issuer.behave(|behaviour| behaviour.issues_refresh_tokens = false)).await;
    let mut browser = shop.user().await;
    let told = session(&mut browser).await;
    assert_eq!((&told["expires_in"], &told["idle_expires_in"]), (&json!(300), &json!(300)), "{told}");
    shop.clock.advance(Duration::from_secs(299));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(session(&mut browser.window()).await, json!({"authenticated": false}));
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.problem().as_str(), answer.clears(SESSION_COOKIE)), ("unauthenticated", true));
}

#[tokio::test]
async fn a_session_is_said_to_have_ended_by_the_request_that_ended_it_alone() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    let cookie = browser.session_cookie().unwrap();
    shop.clock.advance(5 * MINUTE);
    shop.issuer.fail(Endpoint::Token, Fault::invalid_grant());
    let answer = browser.fetch("/api/orders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "session-ended"));
    assert_eq!(answer.json()["login_url"], "/bff/login");
    assert!(answer.clears(SESSION_COOKIE));
    browser.plant(SESSION_COOKIE, &cookie);
    assert_eq!(browser.fetch("/api/orders").await.problem(), "unauthenticated");
}

#[tokio::test]
async fn touches_are_written_once_in_a_tenth_of_the_idle_timeout() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|issuer, setup| {
        issuer.behave(|behaviour| behaviour.expires_in = Some(json!(7200)));
        setup.store_in(&redis);
    })
    .await;
    let writes = async || {
        let statistics: String = redis.command(&["INFO", "commandstats"]).await;
        let (_, rest) = statistics.split_once("cmdstat_hset:calls=").unwrap();
        rest.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let mut browser = shop.user().await;
    assert_eq!(writes().await, 1, "the session itself");
    for touched in 1..=2 {
        shop.clock.advance(MINUTE);
        browser.fetch("/api/orders").await;
        shop.clock.advance(2 * MINUTE);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let mut window = browser.window();
            tasks.spawn(async move { window.fetch("/api/orders").await.status.as_u16() });
        }
        assert_eq!(tasks.join_all().await, [200; 20]);
        until(async || session(&mut browser).await["idle_expires_in"] == 1800).await;
        assert_eq!(writes().await, 1 + touched);
    }
}

#[tokio::test]
async fn r63_while_the_store_is_away_nobody_is_told_that_they_are_logged_out() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| {
        setup.store_in(&redis);
        setup.sessions = "store_outage_grace: 0s".to_owned();
    })
    .await;
    let mut browser = shop.user().await;
    redis.freeze();
    for path in ["/bff/session", "/api/orders"] {
        let answer = browser.fetch(path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "store-unavailable"), "{path}");
        assert!(answer.headers.contains_key(RETRY_AFTER));
        assert!(answer.set_cookies().is_empty(), "the cookie is kept");
    }
    // Whoever has no cookie, or none of ours, has nothing to do with the store.
    let mut stranger = shop.browser();
    assert_eq!(session(&mut stranger).await, json!({"authenticated": false}));
    assert_eq!(stranger.fetch("/api/orders").await.problem(), "unauthenticated");
    assert_eq!(stranger.visit("/bff/login").await.status, 303);
    stranger.plant(SESSION_COOKIE, "forged");
    assert_eq!(stranger.fetch("/api/orders").await.problem(), "unauthenticated");
    redis.thaw();
    until(async || session(&mut browser).await["authenticated"] == true).await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn a_cookie_that_opens_nothing_is_taken_back_as_it_was_set() {
    let shop = Shop::open().await;
    let mut browser = shop.browser();
    browser.plant(SESSION_COOKIE, "garbage");
    let answer = browser.fetch("/bff/session").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"authenticated": false})));
    assert!(answer.clears(SESSION_COOKIE));
    let cookie = answer.set_cookies().pop().unwrap();
    assert_eq!((cookie.path(), cookie.secure(), cookie.http_only()), (Some("/"), Some(true), Some(true)));
    assert_eq!((cookie.same_site(), cookie.domain()), (Some(cookie::SameSite::Strict), None));
    assert!(
        browser.fetch("/bff/session").await.set_cookies().is_empty(),
        "without a cookie nothing is cleared"
    );
}
