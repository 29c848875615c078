//! Access tokens that may die before their time (RFC 7662).

use std::time::Duration;

use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::browser::{Answer, Browser, metric};
use crate::support::gateway::SESSION_COOKIE;
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::shop::Shop;

/// Tokens live for 300 s, and are confirmed every 30 s.
async fn shop() -> Shop {
    shop_with(|_| {}).await
}

async fn shop_with(change: impl FnOnce(&Issuer)) -> Shop {
    Shop::open_with(|issuer, setup| {
        issuer.behave(|behaviour| behaviour.keeps_connections = false);
        change(issuer);
        setup.oidc += "\nintrospection: {interval: 30s}";
    })
    .await
}

impl Shop {
    fn introspections(&self) -> usize {
        self.issuer.received_at(Endpoint::Introspect).len()
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn says(&self, what: &Value) {
        let what = what.as_object().unwrap().clone();
        self.issuer.behave(|behaviour| behaviour.introspection = what);
    }
}

/// Calls the API, and gives the token that came upstream.
async fn token(shop: &Shop, browser: &mut Browser) -> String {
    let answer = browser.fetch("/api/orders").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.upstream.tokens().pop().unwrap()
}

/// The same, once the issuer has called that token active. From then on it is believed when it calls one dead.
async fn confirmed(shop: &Shop, browser: &mut Browser) -> String {
    shop.pass(30);
    token(shop, browser).await
}

/// A shop with a user, and the token that is confirmed.
async fn in_use(change: impl FnOnce(&Issuer)) -> (Shop, Browser, String) {
    let shop = shop_with(change).await;
    let mut browser = shop.user().await;
    let first = confirmed(&shop, &mut browser).await;
    (shop, browser, first)
}

/// The same a while later, when the issuer has taken that token back.
async fn in_use_and_dead(change: impl FnOnce(&Issuer)) -> (Shop, Browser, String) {
    let (shop, browser, first) = in_use(change).await;
    shop.issuer.kill(&first);
    shop.pass(30);
    (shop, browser, first)
}

/// Twenty at a time call the API, and each is let through.
async fn twenty_at_a_time(browser: &Browser) {
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let mut window = browser.window();
        calls.spawn(async move { window.fetch("/api/orders").await.status.as_u16() });
    }
    assert_eq!(calls.join_all().await, [200; 20]);
}

async fn assert_counted(shop: &Shop, name: &str, label: &str, expected: f64) {
    let counted = metric(shop.gateway.admin, name, label).await;
    assert!((counted - expected).abs() < f64::EPSILON, "{name} {label}: {counted}");
}

#[track_caller]
fn assert_ended(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, code), "{}", answer.text());
    assert!(answer.clears(SESSION_COOKIE));
}

#[tokio::test]
async fn nobody_is_asked_unless_that_is_wanted() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    shop.pass(200);
    token(&shop, &mut browser).await;
    assert_eq!(shop.introspections(), 0);
}

#[tokio::test]
async fn rfc7662_a_token_in_use_is_confirmed_once_in_an_interval_however_many_use_it() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    shop.pass(29);
    let first = token(&shop, &mut browser).await;
    assert_eq!(shop.introspections(), 0, "it was issued less than an interval ago");
    for round in 1..=3 {
        shop.pass(30);
        twenty_at_a_time(&browser).await;
        assert_eq!(shop.introspections(), round);
    }
    assert!(shop.upstream.tokens().iter().all(|token| *token == first));
    assert_eq!(shop.issuer.token_requests("refresh_token"), 0);
    let asked = shop.issuer.received_at(Endpoint::Introspect).pop().unwrap();
    assert_eq!(
        (asked.field("token"), asked.field("token_type_hint")),
        (Some(first.as_str()), Some("access_token"))
    );
    assert!(asked.headers[AUTHORIZATION].to_str().unwrap().starts_with("Basic "), "the client proves itself");
    assert_counted(&shop, "cloakroom_token_introspections_total", "result=\"active\"", 3.0).await;
}

#[tokio::test]
async fn rfc7662_a_dead_token_is_replaced_before_it_is_sent() {
    let (shop, browser, first) = in_use_and_dead(|_| {}).await;
    twenty_at_a_time(&browser).await;
    let sent = shop.upstream.tokens();
    assert!(sent[1..].iter().all(|token| *token != first && *token == sent[1]), "{sent:?}");
    assert_eq!(shop.issuer.token_requests("refresh_token"), 1);
    assert_eq!(shop.introspections(), 2);
}

#[tokio::test]
async fn rfc7662_a_dead_token_that_nothing_can_replace_ends_the_session() {
    let without = |issuer: &Issuer| issuer.behave(|behaviour| behaviour.issues_refresh_tokens = false);
    let (shop, mut browser, first) = in_use_and_dead(without).await;
    let cookie = browser.session_cookie().unwrap();
    assert_ended(&browser.fetch("/api/orders").await, "session-ended");
    browser.plant(SESSION_COOKIE, &cookie);
    assert_ended(&browser.fetch("/api/orders").await, "unauthenticated");
    assert_eq!(shop.upstream.tokens(), [first], "it was not sent again");
    assert_counted(&shop, "cloakroom_logouts_total", "cause=\"token_inactive\"", 1.0).await;
}

#[tokio::test]
async fn rfc7662_a_login_that_has_ended_at_the_issuer_ends_here() {
    let (shop, mut browser, first) = in_use(|_| {}).await;
    shop.issuer.end_login_of(&first);
    shop.pass(30);
    assert_ended(&browser.fetch("/api/orders").await, "session-ended");
    assert_eq!(shop.upstream.tokens(), [first]);
}

#[tokio::test]
async fn rfc7662_an_answer_about_somebody_else_is_that_of_a_dead_token_and_no_new_identity() {
    for other in [json!({"sub": "mallory"}), json!({"client_id": "other"}), json!({"sub": ["alice"]})] {
        let (shop, mut browser, first) = in_use(|_| {}).await;
        shop.says(&other);
        shop.pass(30);
        assert_ne!(token(&shop, &mut browser).await, first, "{other}");
        assert_eq!(browser.fetch("/bff/session").await.json()["user"]["sub"], "alice");
    }
    let shop = shop().await;
    let mut browser = shop.user().await;
    shop.says(&json!({"username": "mallory", "scope": "admin", "exp": 1}));
    let first = token(&shop, &mut browser).await;
    shop.pass(30);
    assert_eq!(token(&shop, &mut browser).await, first, "nothing else is looked at");
}

#[tokio::test]
async fn rfc7662_an_issuer_that_does_not_say_ends_nothing_and_is_asked_again_soon() {
    let faults = [
        Fault::status(503),
        Fault::busy(60),
        Fault::status(302),
        Fault::ResetBefore,
        Fault::html(200),
        Fault::huge(),
        Fault::invalid_client(),
        Fault::json(200, json!({})),
        Fault::json(200, json!({"active": "true"})),
        Fault::json(200, json!({"active": null})),
        Fault::text(200, "application/json", "{\"active\":true,\"active\":false}"),
    ];
    for fault in faults {
        let (shop, mut browser, first) = in_use(|_| {}).await;
        shop.issuer.fail(Endpoint::Introspect, fault.clone());
        shop.pass(30);
        for _ in 0..5 {
            assert_eq!(token(&shop, &mut browser).await, first, "{fault:?}");
        }
        assert_eq!((shop.introspections(), shop.issuer.token_requests("refresh_token")), (2, 0), "{fault:?}");
        shop.issuer.heal(Endpoint::Introspect);
        shop.issuer.kill(&first);
        shop.pass(5);
        assert_ne!(token(&shop, &mut browser).await, first, "{fault:?}");
    }
}

#[tokio::test]
async fn rfc7662_an_issuer_without_the_endpoint_ends_nothing() {
    let missing = |issuer: &Issuer| {
        issuer.behave(|behaviour| {
            behaviour.metadata.extend([("introspection_endpoint".to_owned(), Value::Null)]);
        });
    };
    let shop = shop_with(missing).await;
    let mut browser = shop.user().await;
    shop.pass(30);
    token(&shop, &mut browser).await;
    assert_eq!(shop.introspections(), 0);
}

#[tokio::test]
async fn rfc7662_an_issuer_that_never_answers_holds_one_request_up_and_not_for_long() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    let first = token(&shop, &mut browser).await;
    shop.issuer.fail(Endpoint::Introspect, Fault::Silence);
    shop.pass(30);
    assert_eq!(token(&shop, &mut browser).await, first);
    let started = tokio::time::Instant::now();
    assert_eq!(token(&shop, &mut browser).await, first);
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "it joins a question that was waited for long enough"
    );
    assert_eq!(shop.introspections(), 1);
}

#[tokio::test]
async fn rfc7662_a_dead_token_is_not_sent_while_its_replacement_is_not_to_be_had() {
    let (shop, mut browser, first) = in_use_and_dead(|_| {}).await;
    shop.issuer.fail(Endpoint::Token, Fault::status(503));
    for _ in 0..3 {
        let answer = browser.fetch("/api/orders").await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "issuer-unavailable"));
        assert!(answer.set_cookies().is_empty() && answer.headers.contains_key("retry-after"));
    }
    assert_eq!((shop.upstream.tokens().len(), shop.introspections()), (1, 2));
    shop.issuer.heal(Endpoint::Token);
    shop.pass(31);
    assert_ne!(token(&shop, &mut browser).await, first);
}

#[tokio::test]
async fn rfc7662_an_issuer_that_calls_every_token_dead_is_no_storm_of_refreshes() {
    let shop = shop().await;
    let mut browser = shop.user().await;
    confirmed(&shop, &mut browser).await;
    shop.says(&json!({"active": false}));
    for refreshes in 1..=3 {
        shop.pass(30);
        for _ in 0..10 {
            token(&shop, &mut browser).await;
        }
        assert_eq!(shop.issuer.token_requests("refresh_token"), refreshes);
    }
}

#[tokio::test]
async fn rfc7662_an_issuer_that_calls_every_token_of_a_client_dead_that_may_not_ask_ends_nothing() {
    for has_refresh_tokens in [false, true] {
        let shop = shop_with(|issuer| {
            issuer.behave(|behaviour| behaviour.issues_refresh_tokens = has_refresh_tokens);
        })
        .await;
        let mut browser = shop.user().await;
        shop.says(&json!({"active": false}));
        let first = token(&shop, &mut browser).await;
        for _ in 0..3 {
            assert_eq!(confirmed(&shop, &mut browser).await, first);
        }
        assert_eq!((shop.introspections(), shop.issuer.token_requests("refresh_token")), (3, 0));
        assert_counted(&shop, "cloakroom_token_introspections_total", "result=\"refused\"", 3.0).await;
    }
}
