//! Two gateways over one Redis: a session's tokens are had once, and a refresh token is never sent twice.

use serde_json::json;
use tokio::task::JoinSet;

use super::{World, bearer};
use crate::support::browser::{Answer, Browser};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::wait::until;

struct Pair {
    _redis: Redis,
    world: World,
    there: Gateway,
    elsewhere: Browser,
}

impl Pair {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let world = World::start_with(|_, setup| setup.store_in(&redis)).await;
        let there = world.shop.setup.start().await;
        let mut elsewhere = world.browser.window();
        elsewhere.switch_to(there.address);
        Self { _redis: redis, world, there, elsewhere }
    }

    /// Calls these paths at both gateways, that many times each.
    async fn all_go_well(&self, paths: &[&'static str], count: usize) {
        for (path, answer) in self.calls(paths, count).join_all().await {
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
    }

    fn calls(&self, paths: &[&'static str], count: usize) -> JoinSet<(&'static str, Answer)> {
        let mut calls = JoinSet::new();
        for path in paths.iter().copied().cycle().take(count * paths.len()) {
            for gateway in [self.world.shop.gateway.address, self.there.address] {
                let mut window = self.world.browser.window();
                window.switch_to(gateway);
                calls.spawn(async move { (path, window.fetch(path).await) });
            }
        }
        calls
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gateway_has_exchanged_the_other_uses() {
    let mut pair = Pair::start().await;
    let first = pair.world.token("/exchanged").await;
    until(async || {
        assert_eq!(pair.elsewhere.fetch("/exchanged").await.status, 200);
        bearer(&pair.world.shop.upstream.last()).unwrap() == first
    })
    .await;
    assert!(pair.world.issuer().token_requests(super::exchange::GRANT) <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_exchange_at_once_one_is_used_by_both_and_the_other_revoked() {
    let pair = Pair::start().await;
    pair.world.issuer().hold_token_answers();
    let calls = pair.calls(&["/exchanged"], 10);
    pair.world.issuer().until(|issuer| issuer.held() == 2).await;
    pair.world.issuer().release_token_answers();
    assert!(calls.join_all().await.iter().all(|(_, answer)| answer.status == 200));
    let issuer = pair.world.issuer();
    issuer.until(|issuer| issuer.revoked().len() == 1).await;
    assert_eq!(issuer.token_requests(super::exchange::GRANT), 2);
    let tokens = pair.world.shop.upstream.tokens();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert!(issuer.is_alive(&tokens[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_at_once_at_both_lose_no_refresh_token() {
    let mut pair = Pair::start().await;
    pair.world.issuer().behave(|behaviour| behaviour.route_expires_in = Some(json!(120)));
    let paths = ["/api", "/exchanged", "/exchanged/too", "/resource", "/resource/too"];
    for _ in 0..6 {
        pair.all_go_well(&paths, 3).await;
        // No token is ever stale, so that the clock is not put forward while one is had in the background.
        pair.world.advance(150);
    }
    pair.world.advance(300);
    let own = pair.world.token("/api").await;
    assert!(pair.world.issuer().is_alive(&own), "no spent refresh token has come back");
    let revoked = pair.world.issuer().revoked();
    assert!(revoked.iter().all(|token| token.starts_with("exchanged-")), "{revoked:?}");
    let refreshes = pair.world.issuer().token_requests("refresh_token");
    // Of the access token three, and of each resource six.
    assert!(refreshes <= 3 + 2 * 6, "{refreshes}");
}
