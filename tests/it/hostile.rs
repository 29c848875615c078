//! A thousand hostile clients of every kind at once: the users are served, and the gateway stays as it is (R65).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::support::browser::Browser;
use crate::support::certificates::{Authority, Certificate};
use crate::support::echo::Echo;
use crate::support::gateway::{GatewayProcess, SESSION_COOKIE, Setup};
use crate::support::hostile::{KINDS, Kind, Victim};
use crate::support::https::Https;
use crate::support::issuer::Issuer;
use crate::support::upstream::{Upstream, full};
use crate::support::wait::{in_time, until};
use crate::support::wire::head;

/// Clients of each kind: 1,008 in all.
const EACH: usize = 63;

/// How many well-behaved clients there are meanwhile.
const NORMAL: usize = 8;

/// Beyond what it took before, for each hostile client, in bytes. A connection in TLS with the largest head
/// that is allowed takes less.
const MOST_FOR_EACH: u64 = 256 * 1024;

/// Short, so that all this has an end; a busy machine must still serve the others within them.
const LIMITS: &str = "header_timeout: 10s\nidle_timeout: 10s\nwebsocket_idle_timeout: 10s\nbody_bytes: 1MiB";

async fn start(
    issuer: &Issuer,
    upstream: &Upstream,
    echo: &Echo,
    certificate: &Certificate,
) -> GatewayProcess {
    let mut setup = Setup::new(&issuer.url())
        .for_users("/small", &upstream.url())
        .route(&format!("path: /ws, upstream: \"{}\", websocket: true, auth: none", echo.url))
        .for_anybody("/", &upstream.url());
    setup.server = format!(
        "tls: {{certificate: \"{}\", private_key: \"{}\"}}",
        certificate.certificate.display(),
        certificate.key.display()
    );
    LIMITS.clone_into(&mut setup.limits);
    setup.start_process().await
}

/// A user who asks one request after another, each on a connection of its own, and counts the answers. Resets in
/// masses may leave strangers the 503 of a gateway that has too much to do, and no user.
async fn behave(victim: Victim, cookie: String, answered: Arc<AtomicUsize>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        let mut wire = victim.http1.connect(victim.address).await.unwrap();
        let fields = format!("Connection: close\r\nX-CSRF: 1\r\nCookie: {SESSION_COOKIE}={cookie}\r\n");
        wire.send(head("GET /small", &fields)).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "small"));
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r65_a_thousand_hostile_clients_are_cut_off_while_the_others_are_served() {
    let large = bytes::Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
    let upstream = Upstream::raw(move |request| {
        let content = if request.uri().path() == "/large" { large.clone() } else { "small".into() };
        let mut body = request.into_body();
        async move {
            while let Some(Ok(_)) = body.frame().await {}
            full(content)
        }
    })
    .await;
    let (issuer, echo, authority) = (Issuer::start().await, Echo::start().await, Authority::new());
    let gateway = start(&issuer, &upstream, &echo, &authority.issue("gateway", "DNS:localhost", 1)).await;
    let victim = Victim {
        address: gateway.address,
        http1: Https::new(&authority, &["http/1.1"]),
        http2: Https::new(&authority, &["h2"]),
    };
    let mut browser = Browser::new(victim.http1.door(gateway.address).await);
    browser.log_in("/").await;
    let cookie = browser.session_cookie().unwrap();
    let (answered, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut normal = JoinSet::new();
    for _ in 0..NORMAL {
        normal.spawn(behave(victim.clone(), cookie.clone(), Arc::clone(&answered), Arc::clone(&is_over)));
    }
    until(async || answered.load(Ordering::Relaxed) > NORMAL).await;
    let (answered_before, memory, descriptors) =
        (answered.load(Ordering::Relaxed), gateway.memory(), gateway.descriptors());

    let cut_off = Arc::new(Mutex::new(Vec::new()));
    let mut attacks = JoinSet::new();
    for kind in KINDS.iter().flat_map(|kind| std::iter::repeat_n(*kind, EACH)) {
        let (victim, cut_off) = (victim.clone(), Arc::clone(&cut_off));
        attacks.spawn(async move {
            // A connection that is refused or reset is cut off, too.
            let _ = kind.attack(&victim).await;
            cut_off.lock().unwrap().push(kind);
        });
    }
    let mut most = memory;
    until(async || gateway.descriptors() > descriptors + KINDS.len() * EACH / 3).await;
    // Those that stay have a connection each, and another to the upstream.
    let stay = 2 * EACH * KINDS.iter().filter(|kind| !kind.is_cut_off()).count();
    until(async || {
        most = most.max(gateway.memory());
        gateway.descriptors() < descriptors + stay + EACH / 2
    })
    .await;
    for kind in KINDS {
        let is_seen = kind.is_cut_off() && kind != Kind::Reader;
        let count = || cut_off.lock().unwrap().iter().filter(|other| **other == kind).count();
        until(async || count() == if is_seen { EACH } else { 0 }).await;
    }

    let meanwhile = answered.load(Ordering::Relaxed) - answered_before;
    assert!(meanwhile > NORMAL, "{meanwhile} requests were answered");
    is_over.store(true, Ordering::Relaxed);
    while let Some(behaved) = in_time(normal.join_next()).await {
        behaved.unwrap();
    }
    let grown = most - memory;
    assert!(grown < MOST_FOR_EACH * (KINDS.len() * EACH) as u64, "by {grown} bytes");
    assert!(!gateway.has_logged("panicked"));
    attacks.abort_all();
}
