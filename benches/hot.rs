//! What each step of a warm request costs by itself: `cargo bench --bench hot`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(missing_docs, reason = "criterion's macros write functions without")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::config::{self, Origin, SessionKey};
use cloakroom::dpop::{Key, Proven};
use cloakroom::gateway::route::check_canonical;
use cloakroom::proxy::headers::{self, Facts, ToldOrigin};
use cloakroom::random::Random;
use cloakroom::seal::{Context, DataKey, KeyRing, Purpose};
use cloakroom::secret::Secret;
use cloakroom::session::cookie::{self, Ticket};
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::{Common, Sessions};
use cloakroom::telemetry::RequestId;
use cloakroom::telemetry::metrics::Metrics;
use cloakroom::tokens::{Identity, Tokens};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;

const COOKIE: &str = "__Host-cloakroom";
const APP: &str = "https://shop.example.com";

/// Lengths in bytes, as of real issuers.
const TOKEN: usize = 1_500;
const RECORD: usize = 4_500;

const YAML: &str = r#"
server: {listen: "127.0.0.1:0"}
sessions:
  keys: [{env: KEY}]
  store: {memory: {}}
apps:
  - origin: https://shop.example.com
    oidc: {issuer: "https://id.example.com", client_id: shop, client_auth: none}
    routes: []
"#;

criterion_group!(hot, paths, cookies, boxes, heads, proofs, sessions);
criterion_main!(hot);

fn paths(criterion: &mut Criterion) {
    criterion.bench_function("path: plain", |bencher| {
        bencher.iter(|| check_canonical(black_box("/api/orders/4711/items"), false).is_ok());
    });
    criterion.bench_function("path: with escapes", |bencher| {
        bencher.iter(|| check_canonical(black_box("/api/orders/%C3%A9t%C3%A9/items"), false).is_ok());
    });
}

fn cookies(criterion: &mut Criterion) {
    let (ring, context) = (ring(), context(Purpose::SessionCookie));
    let value = Ticket::generate(Random::SYSTEM).to_cookie(&ring, Random::SYSTEM, &context);
    let headers = request(&format!("theme=dark; {COOKIE}={value}; consent=all"));
    criterion.bench_function("cookie: found among others", |bencher| {
        bencher.iter(|| cookie::find(black_box(&headers), COOKIE));
    });
    criterion.bench_function("cookie: its ticket opened", |bencher| {
        bencher.iter(|| Ticket::from_cookie(black_box(&value), &ring, &context).expect("ours"));
    });
    criterion.bench_function("cookie: taken out", |bencher| {
        let take_out = |mut headers: HeaderMap| {
            cookie::remove(&mut headers, |name| name == COOKIE);
            headers
        };
        bencher.iter_batched(|| headers.clone(), take_out, BatchSize::SmallInput);
    });
}

fn boxes(criterion: &mut Criterion) {
    let (key, context) = (DataKey::generate(Random::SYSTEM), context(Purpose::SessionRecord));
    let record = vec![b'x'; RECORD];
    let sealed = key.seal(Random::SYSTEM, &context, &record);
    criterion.bench_function("record: sealed", |bencher| {
        bencher.iter(|| key.seal(Random::SYSTEM, &context, black_box(&record)));
    });
    criterion.bench_function("record: opened", |bencher| {
        bencher.iter(|| key.open(&context, black_box(&sealed)).expect("ours"));
    });
}

fn heads(criterion: &mut Criterion) {
    let origin = ToldOrigin::new(&Origin::parse(APP).unwrap());
    let token = Secret::new("x".repeat(TOKEN));
    let facts = Facts {
        origin: &origin,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer_is_trusted: false,
        request_id: RequestId::generate(Random::SYSTEM),
        is_handshake: false,
    };
    let head = request("theme=dark");
    criterion.bench_function("head of a request: made ready", |bencher| {
        let prepare = |mut headers: HeaderMap| {
            headers::prepare_request(&mut headers, &facts, Some(&token), None, Random::SYSTEM).unwrap();
            headers
        };
        bencher.iter_batched(|| head.clone(), prepare, BatchSize::SmallInput);
    });
    let fields = [("content-type", "application/json"), ("content-length", "1024"), ("server", "upstream")];
    let head = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let head: HeaderMap = head.into_iter().collect();
    criterion.bench_function("head of an answer: made ready", |bencher| {
        let prepare = |mut headers: HeaderMap| {
            headers::prepare_response(&mut headers, |name| name == COOKIE, Some(&token), true);
            headers
        };
        bencher.iter_batched(|| head.clone(), prepare, BatchSize::SmallInput);
    });
}

fn proofs(criterion: &mut Criterion) {
    criterion.bench_function("proof of possession: its key made", |bencher| {
        bencher.iter(|| Key::generate(Random::SYSTEM));
    });
    let key = Key::generate(Random::SYSTEM);
    criterion.bench_function("proof of possession: its key read", |bencher| {
        bencher.iter(|| Key::read(black_box(key.expose())).expect("ours"));
    });
    let token = Secret::new("x".repeat(TOKEN));
    let uri = "https://orders.internal/api/orders/4711/items?page=2".parse().unwrap();
    let request = Proven { method: &Method::GET, uri: &uri, token: Some(&token), nonce: Some("n-4711") };
    let now = SystemClock.now();
    criterion.bench_function("proof of possession: made", |bencher| {
        bencher.iter(|| key.prove(black_box(&request), now, Random::SYSTEM));
    });
}

fn sessions(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let config =
        config::parse("hot.yaml", YAML, &|_| Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()));
    let app = config.unwrap_or_else(|faults| panic!("{faults}")).config.apps.remove(0);
    let clock = Arc::new(SystemClock);
    let common = Common::new(
        Arc::new(ring()),
        Arc::new(MemoryStore::new(clock.clone())),
        Duration::from_secs(30),
        clock.clone(),
        Random::SYSTEM,
        TaskTracker::new(),
        Metrics::new(),
    );
    let sessions = Arc::new(Sessions::new(&app, Arc::new(common)));
    let now = clock.now();
    let tokens = Tokens {
        access_token: Secret::new("x".repeat(TOKEN)),
        issued_at: now,
        expires_at: now + Duration::from_hours(1),
        refresh_token: Some(Secret::new("refresh")),
        id_token: None,
        scopes: Vec::new(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    };
    let identity = Identity {
        issuer: "https://id.example.com".to_owned(),
        subject: "alice".to_owned(),
        sid: None,
        claims: serde_json::Map::new(),
    };
    let (ticket, _) = runtime.block_on(sessions.create(tokens, identity)).unwrap();
    criterion.bench_function("session: known already", |bencher| {
        bencher.iter(|| runtime.block_on(sessions.load(black_box(&ticket))).unwrap().expect("a session"));
    });
}

fn ring() -> KeyRing {
    KeyRing::new(&[SessionKey::new([7; 32])])
}

fn context(purpose: Purpose) -> Context<'static> {
    Context { purpose, name: COOKIE, app: APP }
}

/// A browser's, with these cookies.
fn request(cookies: &str) -> HeaderMap {
    let fields = [
        ("host", "shop.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("accept", "application/json"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("sec-fetch-site", "same-origin"),
        ("x-csrf", "1"),
        ("cookie", cookies),
    ];
    fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect()
}
