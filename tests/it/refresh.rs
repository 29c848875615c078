//! The refresh: one for a session, however many want it, and nobody logged out who did not have to be.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::ManualClock;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::browser::{Answer, Browser};
use crate::support::clock::clock;
use crate::support::gateway::{Gateway, SESSION_COOKIE, Setup};
use crate::support::issuer::Issuer;
use crate::support::shop::Shop;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

mod crash;
mod failures;
mod parallel;
mod races;
mod refused;
mod steps;
mod store_outage;

/// A gateway between an issuer and an upstream, all by one clock that stands still, and a browser that has
/// logged in. An access token lives for 300 s, and is stale in the last 60 s.
struct World {
    clock: Arc<ManualClock>,
    issuer: Issuer,
    upstream: Upstream,
    setup: Setup,
    gateway: Gateway,
    browser: Browser,
}

impl World {
    async fn start() -> Self {
        Self::start_with(Upstream::start().await, |_, _| {}).await
    }

    /// The same, after the issuer and the setup were changed.
    async fn start_with(upstream: Upstream, change: impl FnOnce(&Issuer, &mut Setup)) -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        // Without connections kept open, a stopped issuer is a refused connection and nothing else.
        issuer.behave(|behaviour| behaviour.keeps_connections = false);
        let shop = Shop::open_among(clock, issuer, upstream, change).await;
        let Shop { clock, issuer, upstream, setup, gateway } = shop;
        let mut browser = Browser::new(gateway.address);
        browser.log_in("/shop").await;
        Self { clock, issuer, upstream, setup, gateway, browser }
    }

    async fn call(&mut self) -> Answer {
        self.browser.fetch("/api/orders").await
    }

    /// Calls the API, and gives the token that came upstream.
    async fn token(&mut self) -> String {
        let answer = self.call().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.upstream.tokens().pop().unwrap()
    }

    /// That many calls at a time, each from a window of its own, from the next moment on.
    fn calls(&self, count: usize) -> JoinSet<Answer> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let mut window = self.browser.window();
            calls.spawn(async move { window.fetch("/api/orders").await });
        }
        calls
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token")
    }

    /// What `GET session` tells, which refreshes nothing.
    async fn session(&mut self) -> Value {
        self.browser.fetch("/bff/session").await.json()
    }

    /// Waits until the session has a token of 300 s.
    async fn until_renewed(&mut self) {
        let browser = &mut self.browser;
        until(async || browser.fetch("/bff/session").await.json()["access_token_expires_in"] == json!(300))
            .await;
    }

    async fn log_out(&self) -> Answer {
        let fields = [("x-csrf", "1"), ("accept", "application/json")];
        self.browser.window().script(Method::POST, "/bff/logout", &fields, "").await
    }
}

/// A 503 that keeps the session: when to come back, and not a word about the cookie.
#[track_caller]
fn assert_unavailable(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, code), "{}", answer.text());
    assert!(retry_after(answer) >= 1);
    assert!(answer.set_cookies().is_empty(), "the cookie is kept");
}

#[track_caller]
fn assert_ended(answer: &Answer, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, code), "{}", answer.text());
    assert_eq!(answer.json()["login_url"], "/bff/login");
    assert!(answer.clears(SESSION_COOKIE));
}

fn retry_after(answer: &Answer) -> u64 {
    answer.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn r27_a_fresh_token_is_used_as_it_is() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.advance(240);
    assert_eq!(world.token().await, first);
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn r27_a_stale_token_is_used_now_and_replaced_once_in_the_background() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.advance(241);
    world.issuer.hold_token_answers();
    for answer in world.calls(20).join_all().await {
        assert_eq!(answer.status, 200);
    }
    assert!(world.upstream.tokens().iter().all(|token| *token == first), "no request waits");
    world.issuer.until(|issuer| issuer.held() == 1).await;
    world.issuer.release_token_answers();
    world.until_renewed().await;
    assert_ne!(world.token().await, first);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn r27_an_expired_token_is_waited_for() {
    let mut world = World::start().await;
    let first = world.token().await;
    world.advance(300);
    world.issuer.hold_token_answers();
    let calls = world.calls(50);
    world.issuer.until(|issuer| issuer.held() == 1).await;
    world.issuer.release_token_answers();
    assert!(calls.join_all().await.iter().all(|answer| answer.status == 200));
    let second = world.token().await;
    assert_ne!(first, second);
    assert!(world.upstream.tokens()[1..].iter().all(|token| *token == second));
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn the_margin_is_at_most_a_third_of_the_tokens_life() {
    let short = |issuer: &Issuer| issuer.behave(|behaviour| behaviour.expires_in = Some(json!(30)));
    let mut world = World::start_with(Upstream::start().await, |issuer, _| short(issuer)).await;
    world.advance(20);
    world.token().await;
    assert_eq!(world.refreshes(), 0);
    world.issuer.behave(|behaviour| behaviour.expires_in = Some(json!(300)));
    world.advance(1);
    world.token().await;
    world.until_renewed().await;
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn r33_an_odd_expires_in_is_no_loop() {
    for odd in [None, Some(json!(0)), Some(json!(-1)), Some(json!("soon")), Some(json!({})), Some(json!(0.1))]
    {
        let behave = |issuer: &Issuer| issuer.behave(|behaviour| behaviour.expires_in.clone_from(&odd));
        let mut world = World::start_with(Upstream::start().await, |issuer, _| behave(issuer)).await;
        for round in 0..3 {
            for _ in 0..10 {
                world.token().await;
            }
            assert_eq!(world.refreshes(), round, "{odd:?}");
            world.advance(61);
        }
    }
}

#[tokio::test]
async fn a_session_without_a_refresh_token_ends_with_its_access_token() {
    let without = |issuer: &Issuer| issuer.behave(|behaviour| behaviour.issues_refresh_tokens = false);
    let mut world = World::start_with(Upstream::start().await, |issuer, _| without(issuer)).await;
    world.advance(299);
    world.token().await;
    assert_eq!(world.session().await["expires_in"], 1);
    world.advance(1);
    assert_ended(&world.call().await, "unauthenticated");
    assert_eq!(world.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test]
async fn r29_what_the_answer_omits_is_kept() {
    let mut world = World::start().await;
    world.issuer.behave(|behaviour| {
        behaviour.rotates = false;
        behaviour.refreshes_id_token = false;
    });
    for _ in 0..3 {
        world.advance(300);
        world.token().await;
    }
    let seen = world.issuer.refresh_tokens_seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|token| *token == seen[0]));
    let answer = world.browser.submit("/bff/logout").await;
    let location = answer.headers["location"].to_str().unwrap();
    assert!(location.contains("id_token_hint="), "{location}");
}

#[tokio::test]
async fn r32_a_shrunk_scope_is_forbidden_where_it_is_required() {
    let upstream = Upstream::start().await;
    let profile = format!("path: /profile, upstream: \"{}\", required_scopes: [profile]", upstream.url());
    let mut world = World::start_with(upstream, |_, setup| setup.add_route(&profile)).await;
    assert_eq!(world.browser.fetch("/profile").await.status, 200);
    world.issuer.behave(|behaviour| behaviour.scope = Some("openid offline_access".to_owned()));
    world.advance(300);
    let answer = world.browser.fetch("/profile").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "forbidden"));
    assert!(answer.set_cookies().is_empty());
    world.token().await;
    assert_eq!(world.refreshes(), 1);
}
