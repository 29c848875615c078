//! The operators' listener: alive, ready, and never on the public one.

use http::StatusCode;
use tokio::net::TcpStream;

use crate::support::browser::admin;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Wire, ask, head};

#[tokio::test]
async fn alive_and_ready_are_said_here_and_nowhere_else() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let gateway = Setup::new(&issuer.url()).for_anybody("/api", &upstream.url()).start().await;
    assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
    let (status, ready) = admin(gateway.admin, "/readyz").await;
    assert_eq!((status, ready["status"].as_str()), (StatusCode::OK, Some("ready")));
    for path in ["/", "/nothing", "/livez/", "/api", "/bff/session"] {
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
    let gateway = setup.redis(&redis.url()).start().await;
    assert_eq!(admin(gateway.admin, "/readyz").await.0, 200);
    redis.stop();
    let (status, ready) = admin(gateway.admin, "/readyz").await;
    assert_eq!((status.as_u16(), ready["store"].as_str()), (503, Some("unavailable")), "{ready}");
    assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
    redis.restart().await;
    until(async || admin(gateway.admin, "/readyz").await.0 == 200).await;
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
