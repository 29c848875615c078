//! Two processes of the gateway, one Redis, and an issuer that kills a login whose spent refresh token
//! comes back.

use std::net::SocketAddr;
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::browser::Browser;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

/// How often the lease is seen renewed before the issuer answers. A lease lives for 3 s, and is renewed each
/// second.
const RENEWALS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r28_of_200_requests_over_two_processes_one_asks_an_issuer_slower_than_the_lease() {
    let (issuer, upstream, redis) = (Issuer::start().await, Upstream::start().await, Redis::start().await);
    issuer.behave(|behaviour| behaviour.expires_in = Some(json!(1)));
    let setup = Setup::new(&issuer.url())
        .for_users("/api", &upstream.url())
        .for_anybody("/", &upstream.url())
        .redis(&redis.url());
    let (one, other) = (setup.start_process().await, setup.start_process().await);
    let mut browser = Browser::new(one.address);
    browser.log_in("/shop").await;
    let expiry = SystemClock.now() + Duration::from_secs(1);
    issuer.behave(|behaviour| behaviour.expires_in = Some(json!(300)));
    until(async || SystemClock.now() >= expiry).await;

    issuer.hold_token_answers();
    let calls = calls(&browser, &[one.address, other.address], 200);
    issuer.until(|issuer| issuer.held() == 1).await;
    until_renewed(&redis).await;
    issuer.release_token_answers();
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");

    let tokens = upstream.tokens();
    assert_eq!((tokens.len(), issuer.token_requests("refresh_token")), (200, 1));
    assert!(tokens.iter().all(|token| *token == tokens[0]), "all have the new token");
    for process in [&one, &other] {
        browser.switch_to(process.address);
        assert_eq!(browser.fetch("/api").await.status, 200);
        assert_eq!(upstream.tokens().last(), Some(&tokens[0]));
    }
    assert!(issuer.is_alive(&tokens[0]), "no spent token came back");
    assert_eq!(issuer.token_requests("refresh_token"), 1);
}

fn calls(browser: &Browser, gateways: &[SocketAddr], count: usize) -> JoinSet<u16> {
    let mut calls = JoinSet::new();
    for gateway in gateways.iter().cycle().take(count) {
        let mut window = browser.window();
        window.switch_to(*gateway);
        calls.spawn(async move { window.fetch("/api/orders").await.status.as_u16() });
    }
    calls
}

/// Waits until what is left of the lease's life has risen so often.
async fn until_renewed(redis: &Redis) {
    let [lease]: [String; 1] =
        redis.command::<Vec<String>>(&["KEYS", "cloakroom:lease:*"]).await.try_into().unwrap();
    let owner: String = redis.command(&["GET", &lease]).await;
    let (mut before, mut renewals) = (i64::MAX, 0);
    until(async || {
        let left: i64 = redis.command(&["PTTL", &lease]).await;
        renewals += usize::from(left > before);
        before = left;
        renewals == RENEWALS
    })
    .await;
    assert_eq!(redis.command::<String>(&["GET", &lease]).await, owner, "the lease never passed on");
}
