//! Rate limits: whose requests are counted, what is said of them, and what a flood reaches.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method};

use crate::support::browser::{Answer, metric};
use crate::support::clock::clock;
use crate::support::gateway::{Gateway, ORIGIN, Setup};
use crate::support::issuer::Issuer;
use crate::support::redis::Redis;
use crate::support::shop::{Shop, arrive, bare};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::{Upstream, status};

const SCRIPT: (&str, &str) = ("x-csrf", "1");
const PAGE: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];

/// A shop behind a proxy, whose `/api` has these limits.
async fn shop(limits: &str) -> Shop {
    Shop::open_with(|_, setup| limit(setup, limits)).await
}

fn limit(setup: &mut Setup, limits: &str) {
    setup.server = "trusted_proxies: [127.0.0.1]".to_owned();
    setup.routes = setup.routes.replace("path: /api,", &format!("path: /api, rate_limits: [{limits}],"));
}

/// A request of a client at this address, without a session.
async fn from(gateway: &Gateway, address: &str) -> Answer {
    let fields = [SCRIPT, ("x-forwarded-for", address)];
    bare(gateway.address, ORIGIN, Method::GET, "/api", &fields).await
}

/// What a field says, over all its lines.
fn field(headers: &HeaderMap, name: &str) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
    lines.join(", ")
}

fn is_limited(answer: &Answer) -> bool {
    let is_limited = answer.status == 429;
    assert!(!is_limited || answer.problem() == "rate-limited");
    is_limited
}

#[tokio::test]
async fn each_session_has_a_count_of_its_own() {
    let shop = shop("{requests: 2, per: 1m, by: session}").await;
    let (mut one, mut other) = (shop.user().await, shop.user().await);
    for _ in 0..2 {
        assert_eq!(one.fetch("/api").await.status, 200);
    }
    let refused = one.fetch("/api").await;
    assert!(is_limited(&refused));
    assert_eq!(refused.headers[RETRY_AFTER], "30");
    assert_eq!(other.fetch("/api").await.status, 200);
    assert_eq!(shop.upstream.tokens().len(), 3, "what is refused never reaches the upstream");

    shop.clock.advance(Duration::from_secs(30));
    assert_eq!(one.fetch("/api").await.status, 200);
    assert!(is_limited(&one.fetch("/api").await));
}

#[tokio::test]
async fn each_client_has_a_count_of_its_own_behind_a_proxy_and_ipv6_has_networks() {
    let shop = shop("{requests: 1, per: 1m, by: client}").await;
    let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"];
    for address in addresses {
        assert_eq!(from(&shop.gateway, address).await.status, 401, "{address}");
    }
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1:abcd::7", "2001:db8:0:2::2"] {
        assert!(is_limited(&from(&shop.gateway, address).await), "{address}");
    }
}

#[tokio::test]
async fn a_stranger_cannot_take_another_address_by_saying_so() {
    let shop = Shop::open_with(|_, setup| {
        limit(setup, "{requests: 1, per: 1m, by: client}");
        setup.server = String::new();
    })
    .await;
    assert_eq!(from(&shop.gateway, "192.0.2.1").await.status, 401);
    assert!(is_limited(&from(&shop.gateway, "192.0.2.2").await));
}

#[tokio::test]
async fn whoever_has_no_session_where_none_is_needed_counts_by_address() {
    let shop = Shop::open_with(|_, setup| {
        limit(setup, "{requests: 1, per: 1m, by: session}");
        setup.routes = setup.routes.replace("path: /api,", "path: /api, auth: optional,");
    })
    .await;
    assert_eq!(from(&shop.gateway, "192.0.2.1").await.status, 200);
    assert!(is_limited(&from(&shop.gateway, "192.0.2.1").await));
    assert_eq!(from(&shop.gateway, "192.0.2.2").await.status, 200);
    let mut user = shop.user().await;
    assert_eq!(user.fetch("/api").await.status, 200, "a session is no address");
    assert!(is_limited(&user.fetch("/api").await));
}

#[tokio::test]
async fn every_answer_says_what_the_limits_are_and_what_is_left() {
    let shop = shop("{requests: 3, per: 1m, by: client}, {requests: 2, per: 10s, by: session}").await;
    let policy = "\"client\";q=3;w=60, \"session\";q=2;w=10";
    let mut user = shop.user().await;
    let answers = [
        (200, "\"session\";r=1;t=5, \"client\";r=2;t=20"),
        (200, "\"session\";r=0;t=5, \"client\";r=1;t=20"),
        (429, "\"session\";r=0;t=5, \"client\";r=0;t=20"),
        (429, "\"client\";r=0;t=20"),
    ];
    for (status, state) in answers {
        let answer = user.fetch("/api").await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(field(&answer.headers, "ratelimit-policy"), policy);
        assert_eq!(field(&answer.headers, "ratelimit"), state);
    }
    let unauthenticated = from(&shop.gateway, "192.0.2.9").await;
    assert_eq!(unauthenticated.status, 401);
    assert_eq!(field(&unauthenticated.headers, "ratelimit-policy"), policy);
    assert_eq!(field(&unauthenticated.headers, "ratelimit"), "\"client\";r=2;t=20");
    let unlimited = user.fetch("/shop").await;
    assert_eq!(field(&unlimited.headers, "ratelimit-policy") + &field(&unlimited.headers, "ratelimit"), "");
}

#[tokio::test]
async fn what_an_upstream_says_of_its_own_limits_stays() {
    let upstream = Upstream::answering(|_| {
        status(200, &[("ratelimit-policy", "\"orders\";q=9;w=1"), ("ratelimit", "\"orders\";r=8;t=1")])
    })
    .await;
    let clock = clock();
    let issuer = Issuer::start_with(clock.clone()).await;
    let limits = "{requests: 3, per: 1m, by: session}";
    let shop = Shop::open_among(clock, issuer, upstream, |_, setup| limit(setup, limits)).await;
    let answer = shop.user().await.fetch("/api").await;
    assert_eq!(field(&answer.headers, "ratelimit-policy"), "\"orders\";q=9;w=1, \"session\";q=3;w=60");
    assert_eq!(field(&answer.headers, "ratelimit"), "\"orders\";r=8;t=1, \"session\";r=2;t=20");
}

#[tokio::test]
async fn people_are_told_on_a_page() {
    let shop = shop("{requests: 1, per: 1m, by: client}").await;
    from(&shop.gateway, "127.0.0.1").await;
    let page = shop.bare(Method::GET, "/api", &PAGE).await;
    assert_eq!(page.status, 429);
    assert!(page.text().contains("<h1>Too many attempts in a short time</h1>"), "{}", page.text());
    assert_eq!(page.headers[RETRY_AFTER], "60");
    assert_eq!(field(&page.headers, "ratelimit"), "\"client\";r=0;t=60");
}

#[tokio::test]
async fn a_login_too_many_does_not_reach_the_issuer_and_ends_none_that_is_under_way() {
    let shop = Shop::open_with(|_, setup| {
        // The list of routes ends the app, so that what follows is the app's as well.
        setup.further_apps = "    login_rate_limits: [{requests: 2, per: 1m, by: client}]\n".to_owned();
    })
    .await;
    let mut browser = shop.browser();
    let asked = || shop.issuer.received().len();
    let before = asked();
    let callback = shop.begin(&mut browser, "return_to=/shop").await;
    assert!(asked() > before, "else this test shows nothing");
    let third_party = format!("/bff/login?iss={}&target_link_uri={ORIGIN}/shop", shop.issuer.url());
    assert_eq!(shop.bare(Method::GET, &third_party, &PAGE).await.status, 303);
    let before = asked();
    for target in ["/bff/login", &third_party] {
        let refused = shop.bare(Method::GET, target, &PAGE).await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.headers[RETRY_AFTER], "30");
        assert_eq!(field(&refused.headers, "ratelimit-policy"), "\"client\";q=2;w=60");
    }
    assert_eq!(asked(), before);
    assert_eq!(arrive(&mut browser, &callback).await.status, 200);
    assert!(browser.session_cookie().is_some(), "the callback is not limited");
}

#[tokio::test]
async fn what_starts_no_login_uses_none_up() {
    let shop = Shop::open_with(|_, setup| {
        setup.further_apps = "    login_rate_limits: [{requests: 1, per: 1m, by: client}]\n".to_owned();
    })
    .await;
    let image =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
    for _ in 0..3 {
        assert_eq!(shop.bare(Method::GET, "/bff/login", &image).await.status, 400);
    }
    assert_eq!(shop.bare(Method::GET, "/bff/login", &PAGE).await.status, 303);
}

#[tokio::test]
async fn a_flood_does_not_reach_the_store_even_with_a_cookie_that_opens() {
    let clock = clock();
    let store = Arc::new(TroubledStore::new(clock.clone()));
    let issuer = Issuer::start_with(clock.clone()).await;
    let stand_in = store.clone();
    let limits = "{requests: 2, per: 1m, by: client}";
    let shop = Shop::open_among(clock, issuer, Upstream::start().await, |_, setup| {
        limit(setup, limits);
        setup.stand_in = Some(stand_in);
    })
    .await;
    let user = shop.user().await;
    // It has never seen the session.
    let elsewhere = shop.setup.start().await;
    let cookie = format!("__Host-cloakroom={}", user.session_cookie().unwrap());
    let fields = [SCRIPT, ("cookie", cookie.as_str())];
    let ask = || bare(elsewhere.address, ORIGIN, Method::GET, "/api", &fields);
    store.begin(Step::Any, Trouble::Fails);
    for _ in 0..2 {
        assert_eq!(ask().await.problem(), "store-unavailable");
    }
    let reached = store.arrived();
    assert!(reached > 0);
    for _ in 0..20 {
        assert!(is_limited(&ask().await));
    }
    assert_eq!(store.arrived(), reached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_limit_is_one_for_all_gateways_over_redis() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| {
        limit(setup, "{requests: 3, per: 1h, by: client, shared: true}");
        setup.store_in(&redis);
    })
    .await;
    let elsewhere = shop.setup.start().await;
    let mut limited = Vec::new();
    for gateway in [&shop.gateway, &elsewhere, &shop.gateway, &elsewhere, &shop.gateway, &elsewhere] {
        limited.push(is_limited(&from(gateway, "192.0.2.1").await));
    }
    assert_eq!(limited, [false, false, false, true, true, true]);
    assert_eq!(from(&elsewhere, "192.0.2.2").await.status, 401);

    let keys: Vec<String> = redis.command(&["KEYS", "cloakroom:count:*"]).await;
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert!(!key.contains("192.0.2."), "{key}");
        let time_to_live: i64 = redis.command(&["PTTL", &key]).await;
        assert!((1..=3_600_000).contains(&time_to_live), "{time_to_live}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_shared_limit_that_is_used_up_the_store_is_not_asked_again() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| {
        limit(setup, "{requests: 3, per: 1h, by: client, shared: true}");
        setup.store_in(&redis);
    })
    .await;
    let elsewhere = shop.setup.start().await;
    for _ in 0..3 {
        assert_eq!(from(&shop.gateway, "192.0.2.1").await.status, 401);
    }
    for gateway in [&shop.gateway, &elsewhere] {
        for _ in 0..20 {
            assert!(is_limited(&from(gateway, "192.0.2.1").await));
        }
    }
    let asked = |gateway: &Gateway| {
        metric(gateway.admin, "cloakroom_store_operation_seconds_count", "operation=\"count\"")
    };
    assert_eq!((asked(&shop.gateway).await, asked(&elsewhere).await), (3.0, 1.0));
}

#[tokio::test]
async fn while_the_store_is_away_a_shared_limit_holds_for_each_gateway() {
    for trouble in [Trouble::Fails, Trouble::Waits] {
        let clock = clock();
        let store = Arc::new(TroubledStore::new(clock.clone()));
        let issuer = Issuer::start_with(clock.clone()).await;
        let stand_in = store.clone();
        let limits = "{requests: 2, per: 1m, by: session, shared: true}";
        let shop = Shop::open_among(clock, issuer, Upstream::start().await, |_, setup| {
            limit(setup, limits);
            setup.stand_in = Some(stand_in);
        })
        .await;
        let (mut user, mut other) = (shop.user().await, shop.user().await);
        store.begin(Step::Count, trouble);
        for _ in 0..2 {
            assert_eq!(user.fetch("/api").await.status, 200);
        }
        assert!(is_limited(&user.fetch("/api").await));
        assert_eq!(store.arrived(), 1, "a store that is away is left alone for a moment");

        shop.clock.advance(Duration::from_secs(1));
        assert_eq!(other.fetch("/api").await.status, 200);
        assert_eq!(store.arrived(), 2);
        store.end();
        shop.clock.advance(Duration::from_secs(60));
        assert_eq!(field(&user.fetch("/api").await.headers, "ratelimit"), "\"session\";r=1;t=30");
    }
}
