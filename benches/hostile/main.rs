//! What a thousand hostile clients cost the others: `cargo bench --bench hostile`, a minute. Writes its table into
//! docs/hostile-clients.md. Clients and gateway share the machine, so the cost of being hostile is measured, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and has an environment")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use support::browser::Browser;
use support::certificates::Authority;
use support::echo::Echo;
use support::gateway::{GatewayProcess, SESSION_COOKIE, Setup};
use support::hostile::{KINDS, Kind, Victim};
use support::https::Https;
use support::issuer::Issuer;
use support::upstream::{Upstream, full};
use support::wire::head;
use tables::{Table, quantile};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

#[path = "../support/tables.rs"]
#[allow(dead_code, reason = "the others use the rest")]
mod tables;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

const DOCUMENT: &str = "docs/hostile-clients.md";

/// Hostile clients of each kind: 1,008 in all.
const EACH: usize = 63;

/// How many others there are, and how often each asks.
const NORMAL: usize = 16;
const INTERVAL: Duration = Duration::from_millis(50);

/// How long is measured, and how long before that the hostile ones are already there.
const MEASURED: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(5);

/// Who was cut off comes back after this.
const RETURN: Duration = Duration::from_secs(1);

const LIMITS: &str = "header_timeout: 5s\nidle_timeout: 5s\nwebsocket_idle_timeout: 5s\nbody_bytes: 1MiB";

/// What the normal clients saw.
struct Measured {
    waits: Vec<Duration>,
    memory: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
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
    let certificate = authority.issue("gateway", "DNS:localhost", 1);
    let mut setup = Setup::new(&issuer.url())
        .for_users("/small", &upstream.url())
        .route(&format!("path: /ws, upstream: \"{}\", websocket: true, auth: none", echo.url))
        .for_anybody("/", &upstream.url());
    let (file, key) = (certificate.certificate.display(), certificate.key.display());
    setup.server = format!("tls: {{certificate: \"{file}\", private_key: \"{key}\"}}");
    LIMITS.clone_into(&mut setup.limits);
    let gateway = setup.start_process().await;
    let victim = Victim {
        address: gateway.address,
        http1: Https::new(&authority, &["http/1.1"]),
        http2: Https::new(&authority, &["h2"]),
    };
    let mut browser = Browser::new(victim.http1.door(gateway.address).await);
    browser.log_in("/").await;
    let cookie = browser.session_cookie().unwrap();
    let alone = measure(&gateway, &victim, &cookie).await;
    let mut attacks = JoinSet::new();
    for kind in KINDS.iter().flat_map(|kind| std::iter::repeat_n(*kind, EACH)) {
        attacks.spawn(attack(kind, victim.clone()));
    }
    let attacked = measure(&gateway, &victim, &cookie).await;
    report(&alone, &attacked);
}

/// Comes back whenever it was cut off. Those who cannot see that they were come anew after some time.
async fn attack(kind: Kind, victim: Victim) {
    loop {
        let _ = tokio::time::timeout(2 * WARM_UP, kind.attack(&victim)).await;
        sleep(RETURN).await;
    }
}

async fn measure(gateway: &GatewayProcess, victim: &Victim, cookie: &str) -> Measured {
    sleep(WARM_UP).await;
    let waits = Arc::new(Mutex::new(Vec::new()));
    let mut normal = JoinSet::new();
    for _ in 0..NORMAL {
        normal.spawn(behave(victim.clone(), cookie.to_owned(), Arc::clone(&waits)));
    }
    sleep(MEASURED).await;
    let memory = gateway.memory();
    assert!(normal.try_join_next().is_none(), "a normal client was not answered");
    normal.shutdown().await;
    let mut waits = std::mem::take(&mut *waits.lock().unwrap());
    waits.sort();
    Measured { waits, memory }
}

/// Asks on one connection, as browsers do.
async fn behave(victim: Victim, cookie: String, waits: Arc<Mutex<Vec<Duration>>>) {
    let mut wire = victim.http1.connect(victim.address).await.unwrap();
    let fields = format!("X-CSRF: 1\r\nCookie: {SESSION_COOKIE}={cookie}\r\n");
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        wire.send(head("GET /small", &fields)).await;
        assert_eq!(wire.reply().await.status, 200);
        waits.lock().unwrap().push(begun.elapsed());
    }
}

fn report(alone: &Measured, attacked: &Measured) {
    let mut table = Table::new(&["", "requests", "p50", "p99", "memory"]);
    for (name, measured) in [("alone", alone), ("among 1,008 hostile clients", attacked)] {
        let wait = |share| format!("{:.2} ms", quantile(&measured.waits, share).as_secs_f64() * 1000.0);
        let memory = format!("{} MiB", measured.memory / 1024 / 1024);
        table.row(vec![name.to_owned(), measured.waits.len().to_string(), wait(0.5), wait(0.99), memory]);
    }
    let p99 = |measured: &Measured| quantile(&measured.waits, 0.99).as_secs_f64();
    let ratio = p99(attacked) / p99(alone);
    let text = format!("{}\nThe p99 among them is {ratio:.1} times that without them.", table.markdown());
    println!("{text}");
    tables::put_into(DOCUMENT, "hostile", &text);
}
