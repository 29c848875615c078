//! What a gateway has learned, counted and under way outlasts a change of its configuration.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::ManualClock;
use cloakroom::session::store::Store;
use cloakroom::session::store::outbox::Outbox;

use super::{OTHER, further_app};
use crate::support::browser::{Browser, metric};
use crate::support::clock::clock;
use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::metrics::count;
use crate::support::reloadable::Reloadable;
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Wire, head};

/// A user of a gateway over a store in which a test can bring about trouble.
struct Scene {
    clock: Arc<ManualClock>,
    issuer: Issuer,
    upstream: Upstream,
    store: Arc<TroubledStore>,
    reloadable: Reloadable,
    browser: Browser,
    changes: usize,
}

impl Scene {
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(change: impl FnOnce(&mut Setup)) -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        let store = Arc::new(TroubledStore::new(clock.clone()));
        let upstream = Upstream::start().await;
        let mut setup = Self::setup(&issuer, &upstream).clock(clock.clone());
        setup.stand_in = Some(store.clone() as Arc<dyn Store>);
        change(&mut setup);
        let reloadable = Reloadable::start(&setup).await;
        let mut browser = Browser::new(reloadable.gateway.address);
        browser.log_in("/shop").await;
        Self { clock, issuer, upstream, store, reloadable, browser, changes: 0 }
    }

    fn setup(issuer: &Issuer, upstream: &Upstream) -> Setup {
        Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .for_anybody("/", &upstream.url())
            .route(&format!("path: /limited, upstream: \"{}\", auth: none, {LIMIT}", upstream.url()))
    }

    /// Changes something about the app, each time anew: the limit of its sessions, and all that is built upon it.
    async fn change(&mut self) {
        self.changes += 1;
        let mut setup = Self::setup(&self.issuer, &self.upstream);
        setup.session = format!("idle_timeout: {}m", self.changes + 10);
        self.reloadable.serve_by(&setup.yaml()).await;
    }

    /// The same about its client at the issuer.
    async fn change_client(&mut self) {
        let mut setup = Self::setup(&self.issuer, &self.upstream);
        setup.oidc += ", email]";
        setup.oidc = setup.oidc.replace("offline_access], email", "offline_access, email");
        self.reloadable.serve_by(&setup.yaml()).await;
    }
}

const LIMIT: &str = "rate_limits: [{requests: 2, per: 1h, by: client}]";

#[tokio::test]
async fn connections_counts_and_what_issuers_have_published_are_kept() {
    let mut scene = Scene::open().await;
    let admin = scene.reloadable.gateway.admin;
    let mut wire = Wire::connect(scene.reloadable.gateway.address).await;
    let mut limited = async || {
        wire.send(head("GET /limited", "")).await;
        wire.reply().await.status
    };
    assert_eq!(limited().await, 200);
    assert_eq!(scene.browser.fetch("/api").await.status, 200);
    let (hits, misses) =
        ("cloakroom_session_cache_total{result=\"hit\"}", "cloakroom_session_cache_total{result=\"miss\"}");
    let before = (scene.upstream.connections(), scene.issuer.received().len(), count(admin, misses).await);
    let (hits_before, logins) = (count(admin, hits).await, metric(admin, "cloakroom_logins_total", "").await);
    for _ in 0..5 {
        scene.change().await;
        assert_eq!(scene.browser.fetch("/api").await.status, 200);
    }
    let after = (scene.upstream.connections(), scene.issuer.received().len(), count(admin, misses).await);
    assert_eq!(after, before, "no new connection, no question to the issuer, no read of the store");
    assert_eq!(count(admin, hits).await, hits_before + 5);
    assert_eq!((metric(admin, "cloakroom_logins_total", "").await, logins), (1.0, 1.0));
    assert_eq!((limited().await, limited().await), (200, 429), "the first request counts still");
}

#[tokio::test]
async fn r28_a_refresh_that_is_under_way_is_joined_and_not_begun_again() {
    for changes_client in [false, true] {
        let mut scene = Scene::open().await;
        scene.issuer.hold_token_answers();
        scene.clock.advance(Duration::from_secs(300));
        let fetch = |mut window: Browser| tokio::spawn(async move { window.fetch("/api").await });
        let before = fetch(scene.browser.window());
        scene.issuer.until(|issuer| issuer.held() == 1).await;
        if changes_client {
            scene.change_client().await;
        } else {
            scene.change().await;
        }
        let hits = count(scene.reloadable.gateway.admin, "cloakroom_session_cache_total{result=\"hit\"}");
        let hits = hits.await;
        let after = fetch(scene.browser.window());
        let seen = "cloakroom_session_cache_total{result=\"hit\"}";
        until(async || count(scene.reloadable.gateway.admin, seen).await > hits).await;
        scene.issuer.release_token_answers();
        for fetched in [before, after] {
            assert_eq!(fetched.await.unwrap().status, 200);
        }
        assert_eq!(scene.issuer.token_requests("refresh_token"), 1);
        let tokens = scene.upstream.tokens();
        assert_eq!((tokens.len(), &tokens[0]), (2, &tokens[1]));
        assert!(scene.issuer.is_alive(&tokens[0]));
    }
}

#[tokio::test]
async fn tokens_that_the_store_did_not_take_are_used_and_written_after_a_reload() {
    let mut scene = Scene::open().await;
    scene.clock.advance(Duration::from_secs(300));
    scene.store.begin(Step::Replace, Trouble::Fails);
    assert_eq!(scene.browser.fetch("/api").await.status, 200);
    scene.change().await;
    assert_eq!(scene.browser.fetch("/api").await.status, 200);
    scene.store.end();
    let tokens = scene.upstream.tokens();
    assert_eq!((tokens.len(), &tokens[0]), (2, &tokens[1]), "held by the process alone");
    assert_eq!(scene.issuer.token_requests("refresh_token"), 1);
}

#[tokio::test]
async fn known_sessions_are_served_through_an_outage_that_a_reload_falls_into_and_for_no_longer_than_else() {
    let mut scene = Scene::open().await;
    assert_eq!(scene.browser.fetch("/api").await.status, 200);
    scene.store.begin(Step::Every, Trouble::Fails);
    scene.clock.advance(Duration::from_secs(21));
    assert_eq!(scene.browser.fetch("/api").await.status, 200, "the outage begins");
    for _ in 0..3 {
        scene.clock.advance(Duration::from_secs(5));
        scene.change().await;
        assert_eq!(scene.browser.fetch("/api").await.status, 200);
    }
    scene.clock.advance(Duration::from_secs(16));
    scene.change().await;
    assert_eq!(
        scene.browser.fetch("/api").await.problem(),
        "store-unavailable",
        "31 s, and no reload prolongs it"
    );
    scene.store.end();
    until(async || scene.browser.fetch("/api").await.status == 200).await;
}

#[tokio::test]
async fn a_session_that_ended_here_stays_ended_after_a_reload_though_the_store_has_lost_that() {
    let mut scene = Scene::open().await;
    let cookie = scene.browser.session_cookie().unwrap();
    scene.store.begin(Step::Take, Trouble::Fails);
    scene.browser.submit("/bff/logout").await;
    scene.change().await;
    let mut thief = Browser::new(scene.reloadable.gateway.address);
    thief.plant(crate::support::gateway::SESSION_COOKIE, &cookie);
    scene.store.end();
    assert_eq!(thief.fetch("/api").await.status, 401);
}

#[tokio::test]
async fn r51_revocations_of_an_app_that_is_gone_are_still_run() {
    let clock = clock();
    let issuer = Issuer::start_with(clock.clone()).await;
    let (store, upstream) = (Arc::new(TroubledStore::new(clock.clone())), Upstream::start().await);
    let mut both = Setup::new(&issuer.url())
        .for_users("/api", &upstream.url())
        .for_anybody("/", &upstream.url())
        .clock(clock.clone());
    both.stand_in = Some(store.clone() as Arc<dyn Store>);
    both.further_apps = further_app(&upstream);
    let reloadable = Reloadable::start(&both).await;
    let mut browser = Browser::new(reloadable.gateway.address);
    browser.log_in("/shop").await;
    issuer.fail(Endpoint::Revoke, Fault::status(503));
    browser.submit("/bff/logout").await;
    until(async || store.memory.count_errands().await.unwrap() == 2).await;
    let other = Setup { origin: OTHER.to_owned(), ..Setup::new(NO_ISSUER) }.for_anybody("/", &upstream.url());
    for _ in 0..2 {
        reloadable.serve_by(&other.yaml()).await;
    }
    issuer.heal(Endpoint::Revoke);
    clock.advance(Duration::from_secs(60));
    issuer.until(|issuer| issuer.revoked().len() == 2).await;
    until(async || store.memory.count_errands().await.unwrap() == 0).await;
}
