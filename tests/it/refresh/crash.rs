//! A gateway that is killed in the middle of a refresh. What it alone knew is lost with it, and that costs at
//! most one login: no loop, no storm, and nobody else.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::browser::{Answer, Browser};
use crate::support::gateway::{GatewayProcess, SESSION_COOKIE, Setup};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::redis::Redis;
use crate::support::relay::Relay;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

/// A gateway that will be killed, behind a network of its own to Redis, and two users. The token of one is about
/// to expire, that of the bystander lives long.
struct Scene {
    issuer: Issuer,
    upstream: Upstream,
    redis: Redis,
    network: Relay,
    setup: Setup,
    doomed: GatewayProcess,
    browser: Browser,
    bystander: Browser,
    /// How often a token was refreshed before anything happens.
    earlier: usize,
}

impl Scene {
    async fn start() -> Self {
        let (issuer, upstream, redis) =
            (Issuer::start().await, Upstream::start().await, Redis::start().await);
        let network = Relay::to(redis.port()).await;
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .route(&format!("path: /page, upstream: \"{}\", csrf: same_origin", upstream.url()))
            .for_anybody("/", &upstream.url())
            .redis(&network.redis_url());
        let doomed = setup.start_process().await;
        setup.store_in(&redis);
        let (mut browser, mut bystander) = (Browser::new(doomed.address), Browser::new(doomed.address));
        let lifetime = |seconds: u64| issuer.behave(|behaviour| behaviour.expires_in = Some(json!(seconds)));
        // A gateway that has refreshed before: Redis knows its scripts.
        lifetime(2);
        bystander.log_in("/shop").await;
        lifetime(300);
        until(async || {
            bystander.fetch("/api").await;
            token_life(&mut bystander).await > 2
        })
        .await;
        lifetime(2);
        browser.log_in("/shop").await;
        lifetime(300);
        let earlier = issuer.token_requests("refresh_token");
        Self { issuer, upstream, redis, network, setup, doomed, browser, bystander, earlier }
    }

    /// Sends requests until one of them has made the gateway ask the issuer; nobody waits for their answers.
    async fn until_issuer_is_asked(&self, is_asked: impl Fn(&Issuer) -> bool) {
        let mut requests = JoinSet::new();
        until(async || {
            let mut window = self.browser.window();
            requests.spawn(async move { window.fetch("/api").await });
            is_asked(&self.issuer)
        })
        .await;
    }

    /// Has the issuer answer while the gateway cannot write, and waits until the gateway has the new tokens.
    async fn refresh_unwritten(&mut self, cut_off: impl AsyncFnOnce(&Self)) {
        self.issuer.hold_token_answers();
        self.until_issuer_is_asked(|issuer| issuer.held() == 1).await;
        cut_off(self).await;
        let before = self.upstream.tokens();
        self.issuer.release_token_answers();
        until(async || self.doomed.has_logged("refresh.unwritten")).await;
        assert_eq!(self.browser.fetch("/api").await.status, 200);
        let served = self.upstream.tokens().pop().unwrap();
        assert!(self.issuer.is_alive(&served) && !before.contains(&served), "the new token is served");
    }

    /// Kills the gateway, starts another one straight on the same Redis, and turns the browsers to it.
    async fn replace_gateway(self) -> Aftermath {
        let Self { issuer, upstream, redis, setup, doomed, mut browser, mut bystander, earlier, .. } = self;
        doomed.kill().await;
        redis.thaw();
        let gateway = setup.start_process().await;
        browser.switch_to(gateway.address);
        bystander.switch_to(gateway.address);
        Aftermath { issuer, _upstream: upstream, redis, _gateway: gateway, browser, bystander, earlier }
    }
}

/// What there is after the gateway was killed.
struct Aftermath {
    issuer: Issuer,
    _upstream: Upstream,
    redis: Redis,
    _gateway: GatewayProcess,
    browser: Browser,
    bystander: Browser,
    earlier: usize,
}

impl Aftermath {
    /// The token in the store has expired: whoever wants one must ask the issuer.
    async fn until_expired(&mut self) {
        until(async || token_life(&mut self.browser).await == 0).await;
        // It is told in whole seconds, and the last of them is to be over.
        let rounded = Instant::now();
        until(async || rounded.elapsed() > Duration::from_secs(1)).await;
    }

    async fn call_at_once(&self, count: usize) -> Vec<Answer> {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let mut window = self.browser.window();
            calls.spawn(async move { window.fetch("/api").await });
        }
        calls.join_all().await
    }

    /// All of many requests at once see one end of the session, which asked the issuer this often in all.
    async fn ends_once(&mut self, refreshes: usize) {
        let mut told = Vec::new();
        for answer in self.call_at_once(20).await {
            assert_eq!(answer.status, 401, "{}", answer.text());
            assert!(answer.clears(SESSION_COOKIE));
            told.push(answer.problem());
        }
        assert!(told.iter().all(|code| code == "session-ended" || code == "unauthenticated"), "{told:?}");
        assert!(told.iter().any(|code| code == "session-ended"), "{told:?}");
        // With the cookie still in hand, as scripts have it that do not wait for one another.
        for answer in self.call_at_once(20).await {
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
        }
        assert_eq!(self.refreshes(), refreshes, "nothing storms the issuer");
        self.is_over(refreshes).await;
    }

    /// Nobody but this user has to log in, once, and then all works.
    async fn is_over(&mut self, refreshes: usize) {
        let logins = self.issuer.token_requests("authorization_code");
        assert_eq!(self.bystander.fetch("/api").await.status, 200);
        let page = self.browser.navigate("/page").await;
        assert_eq!((page.status.as_u16(), page.url.path()), (200, "/page"));
        for answer in self.call_at_once(20).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(self.issuer.token_requests("authorization_code"), logins + 1);
        assert_eq!(self.issuer.received_at(Endpoint::Authorize).len(), logins + 1);
        assert_eq!(self.refreshes(), refreshes);
        let records: Vec<String> = self.redis.command(&["KEYS", "cloakroom:session:*}"]).await;
        assert_eq!(records.len(), 2, "of the dead session nothing is left");
    }

    /// Nobody has to log in at all.
    async fn goes_on(&mut self, refreshes: usize) {
        for answer in self.call_at_once(20).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(self.bystander.fetch("/api").await.status, 200);
        assert_eq!(self.refreshes(), refreshes);
        assert_eq!(self.issuer.token_requests("authorization_code"), 2, "the first logins");
    }

    fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token") - self.earlier
    }
}

/// How many seconds the session's token has left. To ask refreshes nothing.
async fn token_life(browser: &mut Browser) -> u64 {
    browser.fetch("/bff/session").await.json()["access_token_expires_in"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_die_with_their_gateway_cost_one_clean_end_and_one_login() {
    let mut scene = Scene::start().await;
    scene.refresh_unwritten(async |scene| scene.network.cut().await).await;
    let mut aftermath = scene.replace_gateway().await;
    aftermath.until_expired().await;
    // The spent token, sent a second time: to the issuer a theft, to the user one login.
    aftermath.ends_once(2).await;
    let sent = &aftermath.issuer.refresh_tokens_seen()[aftermath.earlier..];
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_tokens_died_with_their_gateway_offers_login_and_the_next_one_goes_there_once() {
    let mut scene = Scene::start().await;
    scene.refresh_unwritten(async |scene| scene.network.cut().await).await;
    let mut aftermath = scene.replace_gateway().await;
    aftermath.until_expired().await;
    let answer = aftermath.browser.visit("/page").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    assert!(answer.text().contains("href=\"/bff/login\"") && answer.clears(SESSION_COOKIE));
    // By itself a page goes to login only where there was no session to begin with, so that nothing loops.
    let answer = aftermath.browser.visit("/page").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    assert_eq!(answer.headers["location"], "/bff/login?return_to=%2Fpage");
    aftermath.is_over(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_has_reached_a_frozen_redis_counts_though_its_sender_is_dead() {
    let mut scene = Scene::start().await;
    scene.refresh_unwritten(async |scene| scene.redis.freeze()).await;
    // Killed while nothing is answered: the write lies in Redis' own socket.
    let mut aftermath = scene.replace_gateway().await;
    aftermath.goes_on(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_came_to_its_gateway_costs_one_clean_end_and_one_login() {
    let scene = Scene::start().await;
    scene.issuer.hold_token_answers();
    scene.until_issuer_is_asked(|issuer| issuer.held() == 1).await;
    let mut aftermath = scene.replace_gateway().await;
    aftermath.issuer.release_token_answers();
    aftermath.until_expired().await;
    aftermath.ends_once(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_before_the_issuer_has_done_anything_costs_nobody_anything() {
    let scene = Scene::start().await;
    scene.issuer.fail_once(Endpoint::Token, Fault::Silence);
    let asked = scene.earlier + 1;
    scene.until_issuer_is_asked(|issuer| issuer.token_requests("refresh_token") == asked).await;
    let mut aftermath = scene.replace_gateway().await;
    aftermath.until_expired().await;
    aftermath.goes_on(2).await;
}
