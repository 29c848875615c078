//! Redis frozen, stopped and started again: answers in time, the cookie kept, and nobody logged out.

use super::{World, assert_ended, assert_unavailable};
use crate::support::browser::{Browser, admin};
use crate::support::gateway::{Gateway, SESSION_COOKIE};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

impl World {
    async fn over(redis: &Redis) -> Self {
        Self::start_with(Upstream::start().await, |_, setup| {
            setup.store_in(redis);
            // No touch is due in these tests: one that is told of in the moment of the outage would be a
            // change that nobody can read.
            setup.sessions = "idle_timeout: 2h".to_owned();
        })
        .await
    }

    /// A second gateway over the same Redis, and the same browser's window to it.
    async fn neighbour(&self) -> (Gateway, Browser) {
        let gateway = self.setup.start().await;
        let mut window = self.browser.window();
        window.switch_to(gateway.address);
        (gateway, window)
    }

    /// Has the issuer's answer come while the store is out of reach, and gives the new token, which is
    /// served all the same.
    async fn refresh_during(&mut self, cut_off: impl FnOnce()) -> String {
        self.issuer.hold_token_answers();
        self.advance(300);
        let waiting = self.calls(1);
        self.issuer.until(|issuer| issuer.held() == 1).await;
        cut_off();
        self.issuer.release_token_answers();
        for answer in waiting.join_all().await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let token = self.token().await;
        assert_eq!(self.upstream.tokens().iter().filter(|seen| **seen == token).count(), 2);
        token
    }
}

/// The version of the only record.
async fn stored_version(redis: &Redis) -> Option<u64> {
    let keys: Vec<String> = redis.command(&["KEYS", "cloakroom:session:*}"]).await;
    let [record] = keys.as_slice() else { return None };
    redis.command(&["HGET", record, "version"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_redis_did_not_take_are_served_and_written_once_it_does() {
    let redis = Redis::start().await;
    let mut world = World::over(&redis).await;
    let (_gateway, mut elsewhere) = world.neighbour().await;
    let token = world.refresh_during(|| redis.freeze()).await;
    assert_unavailable(&elsewhere.fetch("/api").await, "store-unavailable");
    redis.thaw();
    until(async || stored_version(&redis).await == Some(2)).await;
    until(async || elsewhere.fetch("/api").await.status == 200).await;
    assert_eq!(world.upstream.tokens().last(), Some(&token));
    assert_eq!(world.token().await, token);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_write() {
    let redis = Redis::start().await;
    let mut world = World::over(&redis).await;
    let (_gateway, mut elsewhere) = world.neighbour().await;
    let token = world.refresh_during(|| redis.freeze()).await;
    let address = world.gateway.admin;
    let stopping = tokio::spawn(world.gateway.stop());
    until(async || admin(address, "/readyz").await.1["status"] == "draining").await;
    assert!(!stopping.is_finished());
    redis.thaw();
    stopping.await.unwrap();
    assert_eq!(stored_version(&redis).await, Some(2));
    until(async || elsewhere.fetch("/api").await.status == 200).await;
    assert_eq!(world.upstream.tokens().last(), Some(&token));
    assert_eq!(world.issuer.token_requests("refresh_token"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_everything_ends_sessions_and_nothing_brings_one_back() {
    let mut redis = Redis::start().await;
    let mut world = World::over(&redis).await;
    let (_gateway, mut elsewhere) = world.neighbour().await;
    let token = world.refresh_during(|| redis.stop()).await;
    let late = world.issuer.living_refresh_tokens();
    redis.restart().await;
    world.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    assert_eq!(world.issuer.revoked(), [late[0].clone(), token]);
    let cookie = world.browser.session_cookie().unwrap();
    assert_ended(&world.call().await, "unauthenticated");
    world.browser.plant(SESSION_COOKIE, &cookie);
    assert_ended(&elsewhere.fetch("/api").await, "unauthenticated");
    assert_eq!(stored_version(&redis).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_silent_who_is_known_is_served_for_the_time_of_grace_and_nobody_is_logged_out() {
    let redis = Redis::start().await;
    let mut world = World::over(&redis).await;
    let (elsewhere, mut window) = world.neighbour().await;
    world.token().await;
    for gateway in [&world.gateway, &elsewhere] {
        assert_eq!(admin(gateway.admin, "/readyz").await.0, 200);
    }
    redis.freeze();
    for answer in world.calls(10).join_all().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_unavailable(&window.fetch("/api/orders").await, "store-unavailable");
    assert_unavailable(&world.browser.fetch("/bff/session").await, "store-unavailable");
    world.advance(29);
    world.token().await;
    assert_eq!(admin(world.gateway.admin, "/readyz").await.0, 200);
    world.advance(1);
    assert_unavailable(&world.call().await, "store-unavailable");
    assert_eq!(admin(world.gateway.admin, "/readyz").await.0, 503);
    redis.thaw();
    until(async || world.call().await.status == 200).await;
    until(async || admin(world.gateway.admin, "/readyz").await.0 == 200).await;
    until(async || world.session().await["authenticated"] == true).await;
    assert_eq!(window.fetch("/api/orders").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_on_its_port_is_found_again_and_nobody_is_logged_out() {
    let mut redis = Redis::start().await;
    let mut world = World::over(&redis).await;
    world.token().await;
    let _: String = redis.command(&["SAVE"]).await;
    redis.stop();
    for _ in 0..3 {
        world.token().await;
    }
    world.advance(30);
    assert_unavailable(&world.call().await, "store-unavailable");
    assert_eq!(admin(world.gateway.admin, "/readyz").await.0, 503);
    redis.restart().await;
    until(async || world.call().await.status == 200).await;
    until(async || admin(world.gateway.admin, "/readyz").await.0 == 200).await;
    world.advance(300);
    // A request may come so soon after the last refused one that Redis is not tried again for it.
    until(async || world.call().await.status == 200).await;
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_time_of_grace_nobody_is_served_while_redis_is_silent() {
    let redis = Redis::start().await;
    let upstream = Upstream::start().await;
    let mut world = World::start_with(upstream, |_, setup| {
        setup.store_in(&redis);
        setup.sessions = "store_outage_grace: 0s".to_owned();
    })
    .await;
    world.token().await;
    redis.freeze();
    for answer in world.calls(10).join_all().await {
        assert_unavailable(&answer, "store-unavailable");
    }
    redis.thaw();
    until(async || world.call().await.status == 200).await;
}
