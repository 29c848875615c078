//! The configuration changes while the gateway runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::support::browser::{self, Browser, metric};
use crate::support::echo::{Echo, open_tunnel};
use crate::support::gateway::{GatewayProcess, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::metrics::count;
use crate::support::reloadable::Reloadable;
use crate::support::upstream::{Upstream, full};
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, ask, head};

mod kept;
mod keys;
mod refused;

const SUCCEEDED: &str = "cloakroom_config_reloads_total{result=\"succeeded\"}";

/// What another app has to say.
const OTHER: &str = "https://other.test";

/// An upstream that says its name.
async fn named(name: &'static str) -> Upstream {
    Upstream::answering(move |_| full(name)).await
}

async fn says(wire: &mut Wire, path: &str) -> (u16, String) {
    wire.send(head(&format!("GET {path}"), "")).await;
    let reply = wire.reply().await;
    (reply.status, reply.text())
}

fn further_app(upstream: &Upstream) -> String {
    format!(
        "  - origin: {OTHER}
    oidc: {{issuer: \"{NO_ISSUER}\", client_id: other, client_auth: none, scopes: [openid]}}
    routes: [{{path: /, upstream: \"{}\", auth: none}}]
",
        upstream.url()
    )
}

#[tokio::test]
async fn each_request_is_served_by_what_is_in_force_then_on_a_connection_that_was_open_before() {
    let (one, other) = (named("one").await, named("other").await);
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &one.url());
    let reloadable = Reloadable::start(&setup).await;
    let mut wire = Wire::connect(reloadable.gateway.address).await;
    assert_eq!(says(&mut wire, "/").await, (200, "one".to_owned()));
    let both = Setup::new(NO_ISSUER).for_anybody("/", &other.url()).for_anybody("/new", &one.url());
    reloadable.serve_by(&both.yaml()).await;
    assert_eq!(says(&mut wire, "/").await, (200, "other".to_owned()), "changed");
    assert_eq!(says(&mut wire, "/new").await, (200, "one".to_owned()), "added");
    reloadable.serve_by(&Setup::new(NO_ISSUER).for_anybody("/new", &one.url()).yaml()).await;
    assert_eq!(says(&mut wire, "/").await.0, 404, "removed");
    assert_eq!(says(&mut wire, "/new").await.0, 200);
}

#[tokio::test]
async fn an_app_comes_and_one_that_is_gone_is_misdirected() {
    let upstream = Upstream::start().await;
    let alone = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    let mut both = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    both.further_apps = further_app(&upstream);
    let reloadable = Reloadable::start(&alone).await;
    let request = "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let status = async || ask(reloadable.gateway.address, request).await.status;
    assert_eq!(status().await, 421);
    reloadable.serve_by(&both.yaml()).await;
    assert_eq!(status().await, 200);
    reloadable.serve_by(&alone.yaml()).await;
    assert_eq!(status().await, 421);
}

#[tokio::test]
async fn limits_and_what_is_trusted_follow() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    let reloadable = Reloadable::start(&setup).await;
    let address = reloadable.gateway.address;
    let mut wire = Wire::connect(address).await;
    let forwarded = head("GET /", "X-Forwarded-For: 203.0.113.7\r\n");
    wire.send(&forwarded).await;
    assert_eq!(wire.reply().await.status, 200);
    setup.limits = "connections: 1\nbody_bytes: 1KiB".to_owned();
    setup.server = "trusted_proxies: [127.0.0.1/32]".to_owned();
    reloadable.serve_by(&setup.yaml()).await;
    wire.send(&forwarded).await;
    assert_eq!(wire.reply().await.status, 200, "it stays, though it is one of as many as there may be");
    let told: Vec<_> =
        upstream.arrived().iter().map(|came| came.headers["x-forwarded-for"].clone()).collect();
    assert_eq!(told, ["127.0.0.1", "203.0.113.7, 127.0.0.1"]);
    assert_eq!(ask(address, head("GET /", "")).await.status, 503, "one too many");
    wire.send(head("POST /", "Content-Length: 1025\r\n")).await;
    assert_eq!(wire.reply().await.status, 413);
}

#[tokio::test]
async fn tunnels_go_on_even_where_their_route_is_gone() {
    let (issuer, echo, upstream) = (Issuer::start().await, Echo::start().await, Upstream::start().await);
    let setup = Setup::new(&issuer.url()).for_anybody("/", &upstream.url());
    let with_tunnels = Setup::new(&issuer.url())
        .for_anybody("/", &upstream.url())
        .route(&format!("path: /ws, upstream: \"{}\", websocket: true", echo.url));
    let reloadable = Reloadable::start(&with_tunnels).await;
    let mut browser = Browser::new(reloadable.gateway.address);
    browser.log_in("/shop").await;
    let cookie = browser.session_cookie().unwrap();
    let mut tunnel = open_tunnel(reloadable.gateway.address, "/ws", &cookie).await;
    reloadable.serve_by(&setup.yaml()).await;
    tunnel.send("still").await;
    assert_eq!(tunnel.exactly(5).await.unwrap(), b"still");
    assert_eq!(count(reloadable.gateway.admin, "cloakroom_open_tunnels").await, 1);
    browser.submit("/bff/logout").await;
    assert!(tunnel.rest().await.is_empty(), "it ends with its session all the same");
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_what_it_held_is_given_up_then() {
    let (came, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let slow = Upstream::raw(move |_| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let _ = came.send(answer);
        async move { answered.await.unwrap_or_else(|_| full("")) }
    })
    .await;
    let upstream = Upstream::start().await;
    let reloadable = Reloadable::start(&Setup::new(NO_ISSUER).for_anybody("/", &slow.url())).await;
    let mut wire = Wire::connect(reloadable.gateway.address).await;
    wire.send(head("GET /", "")).await;
    let answer = in_time(requests.recv()).await.unwrap();
    for _ in 0..3 {
        reloadable.serve_by(&Setup::new(NO_ISSUER).for_anybody("/else", &upstream.url()).yaml()).await;
        reloadable.serve_by(&Setup::new(NO_ISSUER).for_anybody("/", &upstream.url()).yaml()).await;
    }
    answer.send(full("from before")).unwrap();
    assert_eq!(wire.reply().await.text(), "from before");
    assert_eq!(says(&mut wire, "/now").await, (200, "{\"path\":\"/now\"}".to_owned()));
    in_time(reloadable.gateway.stop()).await;
}

/// Which of two configurations a gateway is to be served by next, and that it is.
async fn reload(gateway: &GatewayProcess, yaml: &str) {
    let before = count(gateway.admin, SUCCEEDED).await;
    gateway.reload(yaml);
    until(async || count(gateway.admin, SUCCEEDED).await > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_constant_load_no_request_fails_while_configurations_come_and_go() {
    const RELOADS: usize = 20;
    let (issuer, one, other) = (Issuer::start().await, named("one").await, named("other").await);
    let setup = |upstream: &Upstream, telemetry: &str| {
        let mut setup =
            Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
        setup.session = format!("idle_timeout: {}m", upstream.address.port() % 60 + 1);
        setup.telemetry = telemetry.to_owned();
        setup
    };
    let (before, after) = (setup(&one, ""), setup(&other, ""));
    let gateway = before.start_process().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/shop").await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), gateway.address);
        let mut window = browser.window();
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            let mut failed = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let (status, text) = if client % 2 == 0 {
                    says(&mut wire, "/").await
                } else {
                    let answer = window.fetch("/api").await;
                    (answer.status.as_u16(), answer.text())
                };
                if status != 200 || !matches!(text.as_str(), "one" | "other") {
                    failed.push((status, text));
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
            failed
        });
    }
    for round in 0..RELOADS {
        let seen = answered.load(Ordering::SeqCst);
        reload(&gateway, &if round % 2 == 0 { &after } else { &before }.yaml()).await;
        until(async || answered.load(Ordering::SeqCst) > seen + 16).await;
    }
    stop.store(true, Ordering::SeqCst);
    let failed: Vec<_> = in_time(clients.join_all()).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), answered.load(Ordering::SeqCst));
    assert!(one.connections() > 0 && other.connections() > 0, "both have served");
    assert_eq!(count(gateway.admin, SUCCEEDED).await, RELOADS as u64);
}

#[tokio::test]
async fn the_level_of_the_log_changes_too() {
    let upstream = Upstream::start().await;
    let setup = |level: &str| {
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
        setup.telemetry = format!("telemetry: {{log: {{level: {level}}}}}\n");
        setup.yaml()
    };
    let mut first = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    first.telemetry = "telemetry: {log: {level: info}}\n".to_owned();
    let gateway = first.start_process().await;
    let refused = async || {
        // One that says nothing: what came of it is a line for debugging.
        let mut wire = Wire::connect(gateway.address).await;
        wire.send("nonsense\r\n\r\n").await;
        wire.rest().await;
        gateway.has_logged("connection.ended")
    };
    assert!(!refused().await);
    reload(&gateway, &setup("debug")).await;
    until(refused).await;
    reload(&gateway, &setup("error")).await;
    assert_eq!(gateway.logged("config.reloaded").len(), 1, "the second one says nothing any more");
}

#[tokio::test]
async fn what_became_of_the_last_reload_and_since_when_the_configuration_is_good_can_be_seen() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    let reloadable = Reloadable::start(&setup).await;
    let admin = reloadable.gateway.admin;
    let since = async || metric(admin, "cloakroom_config_last_reload_success_timestamp_seconds", "").await;
    let is_good = async || count(admin, "cloakroom_config_last_reload_successful").await == 1;
    let started = since().await;
    assert!(started > 1_600_000_000.0 && is_good().await, "from the start on");
    reloadable.serve_by(&setup.yaml()).await;
    let reloaded = since().await;
    assert!(reloaded > started && is_good().await);
    reloadable.refuse("server: {}").await;
    assert!((since().await - reloaded).abs() < f64::EPSILON && !is_good().await);
    assert_eq!(browser::admin(admin, "/readyz").await.0, 200, "what serves is good");
    reloadable.serve_by(&setup.yaml()).await;
    assert!(is_good().await);
}
