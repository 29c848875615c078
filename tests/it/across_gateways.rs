//! Two gateway processes over one Redis: what happens to a session at one of them, or in Redis itself, counts at
//! the other at once.

use http::Method;

use crate::support::browser::Browser;
use crate::support::damage::records;
use crate::support::echo::{Echo, open_tunnel};
use crate::support::gateway::{GatewayProcess, SESSION_COOKIE, Setup};
use crate::support::issuer::{CLIENT_SECRET, Issuer};
use crate::support::metrics::count;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};
use crate::support::wire::Wire;

const LOST: &str = "cloakroom_store_notifications_lost_total";
const HIT: &str = "cloakroom_session_cache_total{result=\"hit\"}";
const MISS: &str = "cloakroom_session_cache_total{result=\"miss\"}";

/// Two processes, and a user with a window to each.
struct Pair {
    redis: Redis,
    here: GatewayProcess,
    there: GatewayProcess,
    browser: Browser,
    elsewhere: Browser,
    issuer: Issuer,
    _upstream: Upstream,
    _echo: Echo,
}

impl Pair {
    async fn start() -> Self {
        Self::start_over(Redis::start().await, |_| {}).await
    }

    async fn start_over(redis: Redis, change: impl FnOnce(&mut Setup)) -> Self {
        let (issuer, upstream, echo) = (Issuer::start().await, Upstream::start().await, Echo::start().await);
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .route(&format!("path: /ws, upstream: \"{}\", websocket: true", echo.url))
            .for_anybody("/", &upstream.url());
        setup.store_in(&redis);
        change(&mut setup);
        let (here, there) = (setup.start_process().await, setup.start_process().await);
        let mut browser = Browser::new(here.address);
        browser.log_in("/shop").await;
        let mut elsewhere = browser.window();
        elsewhere.switch_to(there.address);
        Self { redis, here, there, browser, elsewhere, issuer, _upstream: upstream, _echo: echo }
    }

    /// Waits until the other gateway serves the session without asking Redis.
    async fn until_warm_there(&mut self) {
        until(async || {
            let before = count(self.there.admin, HIT).await;
            assert_eq!(self.elsewhere.fetch("/api").await.status, 200);
            count(self.there.admin, HIT).await > before
        })
        .await;
    }

    async fn tunnel_there(&self) -> Wire {
        let cookie = self.browser.session_cookie().expect("a session");
        let mut tunnel = open_tunnel(self.there.address, "/ws", &cookie).await;
        tunnel.send("x").await;
        assert_eq!(tunnel.exactly(1).await.unwrap(), b"x");
        tunnel
    }

    async fn log_out_here(&mut self) {
        let fields = [("x-csrf", "1"), ("accept", "application/json")];
        let answer = self.browser.script(Method::POST, "/bff/logout", &fields, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The other gateway refuses the cookie that the browser still has, and keeps refusing it.
    async fn is_refused_there(&mut self, cookie: &str) {
        until(async || {
            self.elsewhere.plant(SESSION_COOKIE, cookie);
            self.elsewhere.fetch("/api").await.status == 401
        })
        .await;
        for _ in 0..10 {
            self.elsewhere.plant(SESSION_COOKIE, cookie);
            let answer = self.elsewhere.fetch("/api").await;
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unauthenticated"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_at_one_gateway_is_honoured_by_the_other_and_closes_its_tunnels() {
    let mut pair = Pair::start().await;
    pair.until_warm_there().await;
    let mut tunnel = pair.tunnel_there().await;
    let cookie = pair.browser.session_cookie().unwrap();
    pair.log_out_here().await;
    pair.is_refused_there(&cookie).await;
    assert!(in_time(tunnel.rest()).await.is_empty(), "closed");
    assert_eq!(pair.issuer.token_requests("refresh_token"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_deleted_by_hand_is_noticed_by_both_gateways() {
    let mut pair = Pair::start().await;
    pair.until_warm_there().await;
    let mut tunnel = pair.tunnel_there().await;
    let cookie = pair.browser.session_cookie().unwrap();
    let record = records(&pair.redis).await.pop_first().unwrap();
    assert_eq!(pair.redis.command::<u64>(&["DEL", &record]).await, 1);
    pair.is_refused_there(&cookie).await;
    assert!(in_time(tunnel.rest()).await.is_empty(), "closed");
    until(async || pair.browser.fetch("/api").await.status == 401).await;
    assert_eq!(count(pair.here.admin, LOST).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_notification_connection_is_counted_and_nothing_read_before_is_trusted() {
    let mut pair = Pair::start().await;
    pair.until_warm_there().await;
    let misses = count(pair.there.admin, MISS).await;
    let mut tunnel = pair.tunnel_there().await;
    let trackers = trackers(&pair.redis).await;
    assert!(trackers.len() >= 2, "one of each gateway: {trackers:?}");
    for id in trackers {
        pair.redis.command::<u64>(&["CLIENT", "KILL", "ID", &id]).await;
    }
    for gateway in [&pair.here, &pair.there] {
        until(async || count(gateway.admin, LOST).await == 1).await;
    }
    let hits = count(pair.there.admin, HIT).await;
    until(async || {
        assert_eq!(pair.elsewhere.fetch("/api").await.status, 200);
        let hits_now = count(pair.there.admin, HIT).await;
        // It may be served as in an outage, but not as if it were vouched for before Redis was asked again.
        let is_asked = count(pair.there.admin, MISS).await > misses;
        assert!(is_asked || hits_now == hits, "served by what was read before the break");
        is_asked
    })
    .await;
    pair.until_warm_there().await;
    tunnel.send("y").await;
    assert_eq!(tunnel.exactly(1).await.unwrap(), b"y", "a break closes no tunnel");

    let cookie = pair.browser.session_cookie().unwrap();
    pair.log_out_here().await;
    pair.is_refused_there(&cookie).await;
    assert!(in_time(tunnel.rest()).await.is_empty(), "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_not_tell_is_asked_each_time_and_all_works() {
    let redis = Redis::start().await;
    let password = format!(">{CLIENT_SECRET}");
    let user = ["ACL", "SETUSER", "deaf", "on", &password, "+@all", "-client|tracking", "&*", "~*"];
    redis.command::<()>(&user).await;
    let url = redis.url();
    let mut pair = Pair::start_over(redis, |setup| {
        setup.store = format!("redis: {{url: \"{url}\", username: deaf, password: {{env: CLIENT_SECRET}}}}");
    })
    .await;
    until(async || pair.there.has_logged("store.tracking_refused")).await;
    for _ in 0..5 {
        assert_eq!(pair.elsewhere.fetch("/api").await.status, 200);
    }
    assert_eq!(count(pair.there.admin, HIT).await, 0, "nothing is served that nobody vouches for");
    let cookie = pair.browser.session_cookie().unwrap();
    pair.log_out_here().await;
    pair.elsewhere.plant(SESSION_COOKIE, &cookie);
    assert_eq!(pair.elsewhere.fetch("/api").await.status, 401, "the very next one");
}

/// The connections over which Redis tells of changes.
async fn trackers(redis: &Redis) -> Vec<String> {
    let clients: String = redis.command(&["CLIENT", "LIST"]).await;
    let field = |client: &str, name: &str| {
        client.split(' ').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let tracking = clients.lines().filter(|client| field(client, "flags=").contains('t'));
    tracking.map(|client| field(client, "id=")).collect()
}
