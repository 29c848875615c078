//! The operators' listener: alive, ready, and never on the public one.

use std::sync::Arc;

use cloakroom::session::store::Store;
use cloakroom::session::store::memory::MemoryStore;
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::browser::{admin, metric};
use crate::support::gateway::{ORIGIN, Setup};
use crate::support::issuer::{CLIENT_ID, Issuer};
use crate::support::redis::Redis;
use crate::support::shop::{Shop, log_in_bare};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Reply, Wire, ask, head};

#[tokio::test]
async fn alive_and_ready_are_said_here_and_nowhere_else() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = Setup::new(&issuer.url()).for_anybody("/api", &upstream.url()).start().await;
    assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
    let (status, ready) = admin(gateway.admin, "/readyz").await;
    assert_eq!((status, ready["status"].as_str()), (StatusCode::OK, Some("ready")));
    for path in ["/nothing", "/livez/", "/api", "/bff/session"] {
        let reply = ask(gateway.admin, head(&format!("GET {path}"), "")).await;
        assert_eq!((reply.status, reply.problem()), (404, "not-found".to_owned()), "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(gateway.address, head(&format!("GET {path}"), "")).await.status, 404, "{path}");
        let reply = ask(gateway.admin, head(&format!("POST {path}"), "Content-Length: 0\r\n")).await;
        assert_eq!((reply.status, reply.field("allow")), (405, Some("GET, HEAD")));
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn without_its_store_it_is_alive_but_not_ready() {
    let (issuer, mut redis) = (Issuer::start().await, Redis::start().await);
    let setup = Setup::new(&issuer.url()).for_users("/", "http://127.0.0.1:9");
    let mut setup = setup.redis(&redis.url());
    let graceful = setup.start().await;
    setup.sessions = "store_outage_grace: 0s".to_owned();
    let strict = setup.start().await;
    for gateway in [&graceful, &strict] {
        assert_eq!(admin(gateway.admin, "/readyz").await.0, 200);
    }
    redis.stop();
    let never_had_it = setup.start().await;
    for (gateway, code) in [(&strict, 503), (&never_had_it, 503), (&graceful, 200)] {
        let (status, ready) = admin(gateway.admin, "/readyz").await;
        assert_eq!((status.as_u16(), ready["store"].as_str()), (code, Some("unavailable")), "{ready}");
        assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
    }
    redis.restart().await;
    for gateway in [strict, never_had_it, graceful] {
        until(async || admin(gateway.admin, "/readyz").await.0 == 200).await;
    }
}

#[tokio::test]
async fn what_is_counted_is_told_in_the_names_of_the_contract() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    for (fields, media_type) in [
        ("", "text/plain; version=0.0.4"),
        ("Accept: application/openmetrics-text\r\n", "application/openmetrics-text"),
    ] {
        let reply = ask(shop.gateway.admin, head("GET /metrics", fields)).await;
        assert!(reply.field("content-type").unwrap().starts_with(media_type), "{fields}");
    }
    let reply = ask(shop.gateway.admin, head("GET /metrics", "")).await;
    let counts = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(counts.contains("cloakroom_session_cache_total{result=\"hit\"} "), "{counts}");
    let created = "cloakroom_store_operation_seconds_count{operation=\"create\",result=\"ok\"} 1";
    assert!(counts.contains(created), "{counts}");
    assert!(counts.ends_with("# EOF\n"));
}

#[tokio::test]
async fn an_issuer_that_is_away_is_told_of_and_no_more() {
    let mut issuer = Issuer::start().await;
    let url = issuer.url();
    issuer.stop().await;
    let gateway = Setup::new(&url).for_users("/", "http://127.0.0.1:9").start().await;
    until(async || {
        let (status, ready) = admin(gateway.admin, "/readyz").await;
        assert_eq!(status, 200, "{ready}");
        ready["issuers"][&url] == "unavailable"
    })
    .await;
}

#[tokio::test]
async fn who_drains_is_not_ready_and_says_so_before_it_stops_listening() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::raw(|_| std::future::pending()).await);
    let mut setup = Setup::new(&issuer.url()).for_anybody("/", &upstream.url());
    setup.server = "shutdown_grace: 6s".to_owned();
    let mut gateway = setup.start().await;
    assert_eq!(admin(gateway.admin, "/readyz").await.0, 200, "somebody looks");
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    gateway.begin_stop();
    until(async || {
        let (status, ready) = admin(gateway.admin, "/readyz").await;
        status == 503 && ready["status"] == "draining"
    })
    .await;
    // A balancer that has not looked since still finds somebody here.
    assert_eq!(ask(gateway.address, head("GET /bff/nothing", "")).await.status, 404);
    assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
    until(async || TcpStream::connect(gateway.address).await.is_err()).await;
    assert_eq!(admin(gateway.admin, "/readyz").await.0, 503);
}

async fn sessions(admin: std::net::SocketAddr, method: &str, query: &str) -> Reply {
    let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
    ask(admin, head(&format!("{method} /sessions{query}"), length)).await
}

#[tokio::test]
async fn an_operator_lists_and_ends_the_sessions_of_a_user_on_all_apps_and_gateways() {
    const DESK: &str = "https://desk.test";
    let mut store = None;
    let shop = Shop::open_with(|issuer, setup| {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&setup.clock)));
        setup.stand_in = Some(store.insert(memory).clone());
        setup.further_apps = format!(
            "  - origin: {DESK}\n    oidc: {{issuer: \"{}\", client_id: \"{CLIENT_ID}\", client_auth: {{client_secret_basic: {{env: CLIENT_SECRET}}}}}}\n    routes: [{{path: /, upstream: \"http://127.0.0.1:9\"}}]\n",
            issuer.url()
        );
    })
    .await;
    let other = shop.setup.start().await;
    let mut alice = shop.user().await;
    let sid = shop.issuer.last_sid();
    log_in_bare(shop.gateway.address, DESK, "/bff", &shop.issuer).await;
    shop.issuer.behave(|behaviour| behaviour.user = json!({"sub": "bob"}));
    let mut bob = shop.user().await;

    let listed = sessions(other.admin, "GET", "?sub=alice").await;
    let idle_expires_at = shop.clock_now() + 30 * 60;
    let session =
        |app: &str| json!({"app": app, "issuer": shop.issuer.url(), "idle_expires_at": idle_expires_at});
    let body: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!((listed.status, body), (200, json!({"sessions": [session(DESK), session(ORIGIN)]})));
    assert_eq!(listed.field("cache-control"), Some("no-store"));
    let body: serde_json::Value =
        serde_json::from_slice(&sessions(shop.gateway.admin, "GET", &format!("?sid={sid}")).await.body)
            .unwrap();
    assert_eq!(body, json!({"sessions": [session(ORIGIN)]}));

    let ended = sessions(shop.gateway.admin, "DELETE", "?sub=alice").await;
    let body: serde_json::Value = serde_json::from_slice(&ended.body).unwrap();
    assert_eq!(
        (ended.status, body),
        (200, json!({"ended": 2, "sessions": [session(DESK), session(ORIGIN)]}))
    );
    alice.switch_to(other.address);
    assert_eq!(alice.fetch("/api/orders").await.problem(), "unauthenticated");
    assert_eq!(bob.fetch("/api/orders").await.status, 200);
    shop.issuer.until(|issuer| issuer.revoked().len() == 4).await;
    assert_eq!(metric(shop.gateway.admin, "cloakroom_logouts_total", "\"admin\"").await, 2.0);
    let again = sessions(shop.gateway.admin, "DELETE", "?sub=alice").await;
    let body: serde_json::Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!((again.status, body), (200, json!({"ended": 0, "sessions": []})));
}

#[tokio::test]
async fn an_operator_names_exactly_one_user_or_login() {
    let shop = Shop::open().await;
    let mut browser = shop.user().await;
    for query in [
        "",
        "?",
        "?sub=",
        "?sid=",
        "?sub=alice&sid=x",
        "?sub=alice&sub=alice",
        "?sub=alice&app=x",
        "?user=alice",
        "?sub=alice&sub=",
    ] {
        for method in ["GET", "DELETE"] {
            let reply = sessions(shop.gateway.admin, method, query).await;
            assert_eq!((reply.status, reply.problem()), (400, "bad-request".to_owned()), "{method} {query}");
        }
    }
    for method in ["POST", "PUT", "PATCH", "OPTIONS"] {
        let reply = sessions(shop.gateway.admin, method, "?sub=alice").await;
        assert_eq!((reply.status, reply.field("allow")), (405, Some("GET, HEAD, DELETE")), "{method}");
    }
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
}

#[tokio::test]
async fn r63_while_the_store_is_away_an_operator_is_told_so() {
    let mut store = None;
    let shop = Shop::open_with(|_, setup| {
        let troubled = store.insert(Arc::new(TroubledStore::new(Arc::clone(&setup.clock))));
        setup.stand_in = Some(troubled.clone());
    })
    .await;
    let store = store.unwrap();
    shop.user().await;
    for (method, step) in
        [("GET", Step::List), ("GET", Step::Read), ("DELETE", Step::List), ("DELETE", Step::Take)]
    {
        store.begin(step, Trouble::Fails);
        let reply = sessions(shop.gateway.admin, method, "?sub=alice").await;
        assert_eq!(
            (reply.status, reply.problem()),
            (503, "store-unavailable".to_owned()),
            "{method} {step:?}"
        );
        assert!(reply.field("retry-after").is_some());
    }
    store.end();
}
