//! What becomes of a token that could not be revoked at once (R51).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock, Timestamp};
use cloakroom::session::store::Store;
use cloakroom::session::store::outbox::{Errand, Outbox};
use serde_json::Value;

use crate::support::browser::{Browser, metric};
use crate::support::clock::clock;
use crate::support::doomed::Doomed;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::log::Log;
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};

/// An issuer, an upstream, and a store that several gateways share.
struct Scene {
    clock: Arc<ManualClock>,
    issuer: Issuer,
    upstream: Upstream,
    store: Arc<TroubledStore>,
}

impl Scene {
    async fn open() -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        let store = Arc::new(TroubledStore::new(clock.clone()));
        Self { clock, issuer, upstream: Upstream::start().await, store }
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup::new(&self.issuer.url())
            .for_users("/api", &self.upstream.url())
            .for_anybody("/", &self.upstream.url())
            .clock(self.clock.clone());
        setup.oidc += "\ntimeout: 1s";
        setup.stand_in = Some(self.store.clone() as Arc<dyn Store>);
        setup
    }

    async fn gateway(&self) -> Gateway {
        self.setup().start().await
    }

    /// A user logs in, calls the API and logs out again; gives the refresh token and the access token.
    async fn come_and_go(&self, gateway: std::net::SocketAddr) -> [String; 2] {
        let mut browser = Browser::new(gateway);
        browser.log_in("/shop").await;
        let before: HashSet<_> = self.upstream.tokens().into_iter().collect();
        browser.fetch("/api/orders").await;
        let access = self.upstream.tokens().into_iter().find(|token| !before.contains(token)).unwrap();
        let refresh = self.issuer.living_refresh_tokens();
        let number = |token: &String| token.rsplit('-').next().unwrap().parse::<usize>().unwrap();
        let refresh = refresh.into_iter().max_by_key(number).unwrap();
        assert_eq!(in_time(browser.submit("/bff/logout")).await.status, 303);
        [refresh, access]
    }

    async fn waiting(&self) -> u64 {
        self.store.memory.count_errands().await.unwrap()
    }

    async fn until_empty(&self) {
        until(async || self.waiting().await == 0).await;
    }

    /// All errands, and when they are due; they stay as they are.
    async fn errands(&self) -> Vec<Errand> {
        let far = Timestamp::from_secs(u64::MAX / 4000);
        let mut all = Vec::new();
        while let Some(errand) = self.store.memory.fetch_due(far, far + Duration::from_secs(1)).await.unwrap()
        {
            all.push(errand);
        }
        for errand in &all {
            self.store.memory.postpone(&errand.id, errand.due_at).await.unwrap();
        }
        all
    }
}

#[tokio::test]
async fn r51_what_the_issuer_misses_is_revoked_once_it_is_back() {
    for fault in [Fault::status(503), Fault::status(500), Fault::busy(3), Fault::ResetBefore, Fault::Silence]
    {
        let scene = Scene::open().await;
        let gateway = scene.gateway().await;
        scene.issuer.fail(Endpoint::Revoke, fault.clone());
        let tokens = scene.come_and_go(gateway.address).await;
        until(async || metric(gateway.admin, "cloakroom_revocations_total", "postponed").await == 2.0).await;
        assert_eq!(scene.waiting().await, 2, "{fault:?}");
        until(async || metric(gateway.admin, "cloakroom_outbox_entries", "").await == 2.0).await;
        scene.issuer.heal(Endpoint::Revoke);
        scene.clock.advance(Duration::from_secs(10));
        scene.until_empty().await;
        assert_eq!(scene.issuer.revoked(), tokens, "the refresh token, then the access token: {fault:?}");
        until(async || metric(gateway.admin, "cloakroom_outbox_entries", "").await == 0.0).await;
        assert_eq!(metric(gateway.admin, "cloakroom_revocations_total", "\"revoked\"").await, 2.0);
    }
}

#[tokio::test]
async fn r51_a_token_is_in_the_outbox_before_the_issuer_is_asked_the_first_time() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail_once(Endpoint::Revoke, Fault::Silence);
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/shop").await;
    let leaving = tokio::spawn(async move { browser.submit("/bff/logout").await });
    scene.issuer.until(|issuer| issuer.received_at(Endpoint::Revoke).len() == 1).await;
    assert_eq!(scene.waiting().await, 2);
    assert_eq!(in_time(leaving).await.unwrap().status, 303);
}

#[tokio::test]
async fn r51_a_restart_forgets_no_revocation() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    let tokens = scene.come_and_go(gateway.address).await;
    gateway.stop().await;
    scene.issuer.heal(Endpoint::Revoke);
    scene.clock.advance(Duration::from_secs(10));
    assert!(scene.issuer.revoked().is_empty());
    let _next = scene.gateway().await;
    scene.until_empty().await;
    assert_eq!(scene.issuer.revoked(), tokens);
}

#[tokio::test]
async fn r51_what_a_killed_gateway_was_about_to_revoke_another_one_revokes() {
    let scene = Scene::open().await;
    let mut setup = scene.setup();
    setup.oidc = setup.oidc.replace("timeout: 1s", "timeout: 60s");
    let doomed = Doomed::start(Arc::new(setup)).await;
    let other = scene.gateway().await;
    scene.issuer.fail_once(Endpoint::Revoke, Fault::Silence);
    let tokens = scene.come_and_go(doomed.address).await;
    assert_eq!(scene.issuer.received_at(Endpoint::Revoke).len(), 1, "under way");
    drop(doomed);
    assert_eq!(scene.waiting().await, 2);
    for errand in scene.errands().await {
        let wait = errand.due_at.since(scene.clock.now());
        assert!(
            wait >= Duration::from_secs(60),
            "nobody else runs it while the first may be at it: {wait:?}"
        );
    }
    scene.clock.advance(Duration::from_secs(100));
    scene.until_empty().await;
    assert_eq!(scene.issuer.revoked(), tokens);
    drop(other);
}

#[tokio::test]
async fn r51_many_gateways_that_drain_one_outbox_revoke_each_token_once() {
    let scene = Scene::open().await;
    let gateways = [scene.gateway().await, scene.gateway().await, scene.gateway().await];
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    let mut tokens = HashSet::new();
    for number in 0..12 {
        tokens.extend(scene.come_and_go(gateways[number % 3].address).await);
    }
    assert_eq!((tokens.len(), scene.waiting().await), (24, 24));
    scene.issuer.heal(Endpoint::Revoke);
    scene.clock.advance(Duration::from_secs(10));
    scene.until_empty().await;
    let revoked = scene.issuer.revoked();
    assert_eq!(revoked.len(), 24, "each once");
    assert_eq!(revoked.into_iter().collect::<HashSet<_>>(), tokens);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_asked_for_one_thing_at_a_time() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    for _ in 0..5 {
        scene.come_and_go(gateway.address).await;
    }
    let postponed = async || metric(gateway.admin, "cloakroom_revocations_total", "postponed").await;
    until(async || postponed().await == 10.0).await;
    assert_eq!(scene.issuer.received_at(Endpoint::Revoke).len(), 10, "each logout tries");
    scene.clock.advance(Duration::from_secs(10));
    until(async || postponed().await == 20.0).await;
    assert_eq!(scene.issuer.received_at(Endpoint::Revoke).len(), 11, "and then one stands for all");
}

#[tokio::test]
async fn r51_what_the_issuer_refuses_for_good_is_not_tried_again() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    for fault in [Fault::invalid_client(), Fault::html(404), Fault::error(400, "unsupported_token_type")] {
        scene.issuer.fail(Endpoint::Revoke, fault);
        scene.come_and_go(gateway.address).await;
        scene.until_empty().await;
    }
    assert_eq!(metric(gateway.admin, "cloakroom_revocations_total", "\"refused\"").await, 4.0);
    assert_eq!(metric(gateway.admin, "cloakroom_revocations_total", "\"not_offered\"").await, 2.0);
    scene.issuer.fail(Endpoint::Revoke, Fault::error(400, "temporarily_unavailable"));
    scene.come_and_go(gateway.address).await;
    until(async || metric(gateway.admin, "cloakroom_revocations_total", "postponed").await == 2.0).await;
    assert_eq!(scene.waiting().await, 2, "that is no refusal");
}

#[tokio::test]
async fn where_the_issuer_is_known_to_revoke_nothing_nothing_is_posted() {
    let scene = Scene::open().await;
    scene.issuer.behave(|behaviour| {
        behaviour.metadata.insert("revocation_endpoint".to_owned(), Value::Null);
    });
    let gateway = scene.gateway().await;
    // Whoever posts comes to grief, and counts nothing.
    scene.store.begin(Step::Post, Trouble::Panics);
    scene.come_and_go(gateway.address).await;
    until(async || metric(gateway.admin, "cloakroom_revocations_total", "not_offered").await == 2.0).await;
}

#[tokio::test]
async fn r51_while_the_store_is_away_the_issuer_is_asked_all_the_same() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.store.begin(Step::Post, Trouble::Fails);
    let tokens = scene.come_and_go(gateway.address).await;
    assert_eq!(scene.issuer.revoked(), tokens);
    assert_eq!(scene.waiting().await, 0);
}

#[tokio::test]
async fn r51_while_both_are_away_a_revocation_waits_here_for_the_first_to_come_back() {
    for store_is_first in [true, false] {
        let scene = Scene::open().await;
        let gateway = scene.gateway().await;
        scene.store.begin(Step::Post, Trouble::Fails);
        scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
        let tokens = scene.come_and_go(gateway.address).await;
        assert_eq!(scene.waiting().await, 0);
        if store_is_first {
            scene.store.end();
            until(async || scene.waiting().await == 2).await;
            gateway.stop().await;
            scene.issuer.heal(Endpoint::Revoke);
            scene.clock.advance(Duration::from_secs(10));
            let _next = scene.gateway().await;
            scene.until_empty().await;
        } else {
            scene.issuer.heal(Endpoint::Revoke);
            scene.issuer.until(|issuer| issuer.revoked().len() == 2).await;
        }
        let revoked: HashSet<_> = scene.issuer.revoked().into_iter().collect();
        assert_eq!(revoked, tokens.into_iter().collect(), "{store_is_first}");
    }
}

#[tokio::test]
async fn r51_a_shutdown_waits_for_a_revocation_that_is_nowhere_else() {
    let scene = Scene::open().await;
    let mut gateway = scene.gateway().await;
    scene.store.begin(Step::Post, Trouble::Fails);
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    scene.come_and_go(gateway.address).await;
    gateway.begin_stop();
    until(async || tokio::net::TcpStream::connect(gateway.address).await.is_err()).await;
    scene.issuer.heal(Endpoint::Revoke);
    in_time(gateway.stop()).await;
    assert_eq!(scene.issuer.revoked().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_not_revoked_in_time_is_given_up_and_counted() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    scene.come_and_go(gateway.address).await;
    until(async || metric(gateway.admin, "cloakroom_revocations_total", "postponed").await == 2.0).await;
    let given_up = async || metric(gateway.admin, "cloakroom_revocations_total", "given_up").await;
    assert_eq!(given_up().await, 0.0);
    // The access token lives for five minutes.
    scene.clock.advance(Duration::from_secs(301));
    until(async || given_up().await == 1.0).await;
    assert_eq!(scene.waiting().await, 1, "the refresh token may live for ever");
    scene.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    until(async || given_up().await == 2.0).await;
    scene.until_empty().await;
}

#[tokio::test]
async fn r51_an_errand_of_an_app_that_is_not_here_is_left_to_others() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    let tokens = scene.come_and_go(gateway.address).await;
    gateway.stop().await;
    scene.issuer.heal(Endpoint::Revoke);

    let elsewhere = Issuer::start_with(scene.clock.clone()).await;
    let mut setup = scene.setup();
    setup.issuer = elsewhere.url();
    let other = setup.start().await;
    scene.store.begin(Step::Postpone, Trouble::LosesItsAnswer);
    scene.clock.advance(Duration::from_secs(10));
    scene.store.until_reached().await;
    scene.store.end();
    until(async || scene.errands().await.iter().all(|errand| errand.due_at > scene.clock.now())).await;
    assert_eq!(scene.waiting().await, 2);
    assert!(scene.issuer.revoked().is_empty() && elsewhere.revoked().is_empty());

    let _next = scene.gateway().await;
    scene.clock.advance(Duration::from_secs(100));
    scene.until_empty().await;
    assert_eq!(scene.issuer.revoked(), tokens);
    drop(other);
}

#[tokio::test]
async fn r22_r62_an_errand_shows_nothing_and_one_that_was_altered_or_moved_is_not_run_and_is_told_of() {
    let scene = Scene::open().await;
    let log = Log::default();
    let logging = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    let tokens = scene.come_and_go(gateway.address).await;
    gateway.stop().await;
    let [one, other] = scene.errands().await.try_into().unwrap();
    for (errand, token) in
        [&one, &other].into_iter().flat_map(|errand| tokens.each_ref().map(|token| (errand, token)))
    {
        let text = String::from_utf8_lossy(&errand.sealed).into_owned();
        assert!(!text.contains(token.as_str()) && !errand.id.contains(token.as_str()));
        assert!(!text.contains("shop") && !text.contains("token"));
    }
    let mut altered = other.clone();
    *altered.sealed.last_mut().unwrap() ^= 1;
    let moved = Errand { sealed: other.sealed.clone(), ..one.clone() };
    for errand in [&moved, &altered] {
        scene.store.memory.post(errand).await.unwrap();
    }
    scene.issuer.heal(Endpoint::Revoke);
    let asked = scene.issuer.received_at(Endpoint::Revoke).len();
    scene.clock.advance(Duration::from_secs(10));
    let _logging = tracing::subscriber::set_default(logging);
    let next = scene.gateway().await;
    scene.until_empty().await;
    assert_eq!(scene.issuer.received_at(Endpoint::Revoke).len(), asked, "neither is run");
    assert_eq!(metric(next.admin, "cloakroom_revocations_total{app=\"\"", "given_up").await, 2.0);
    assert_eq!(log.take().matches("outbox.errand_unreadable").count(), 2);
}

#[tokio::test]
async fn r22_an_errand_under_a_key_that_is_not_here_is_left_to_those_who_have_it() {
    let scene = Scene::open().await;
    let gateway = scene.gateway().await;
    scene.issuer.fail(Endpoint::Revoke, Fault::status(503));
    scene.come_and_go(gateway.address).await;
    gateway.stop().await;
    for mut errand in scene.errands().await {
        // The id of the key comes after the version.
        errand.sealed[1] ^= 1;
        scene.store.memory.post(&errand).await.unwrap();
    }
    scene.issuer.heal(Endpoint::Revoke);
    scene.clock.advance(Duration::from_secs(10));
    let _next = scene.gateway().await;
    until(async || scene.errands().await.iter().all(|errand| errand.due_at > scene.clock.now())).await;
    assert_eq!(scene.waiting().await, 2);
}
