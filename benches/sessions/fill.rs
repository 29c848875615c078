//! A store with many sessions, each of a user of its own, and lookups among them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::config::{self, SessionKey};
use cloakroom::random::Random;
use cloakroom::seal::{Context, KeyRing, Purpose};
use cloakroom::secret::Secret;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::Store;
use cloakroom::session::{Common, Sessions};
use cloakroom::telemetry::metrics::Metrics;
use cloakroom::tokens::{Identity, Tokens};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::stores::{Kind, resident};
use crate::support::gateway::{NO_ISSUER, Setup, environment};
use crate::tables::quantile;
use crate::{Measured, Opened};

/// How many sessions begin at a time, and in one process that forgets them then.
const AT_A_TIME: usize = 128;
const BATCH: usize = 500;

/// How many sessions are looked up, and how often that is done.
const LOOKUPS: usize = 1_000;
const RUNS: usize = 5;

/// How many sessions are opened to see what many of them take.
pub const OPENED: usize = 100_000;

pub struct Filled {
    kind: Kind,
    store: Arc<dyn Store>,
    app: config::App,
    ring: Arc<KeyRing>,
    tickets: Vec<Ticket>,
    empty: Sizes,
    filling: Duration,
}

/// Bytes in this process, and outside of it.
#[derive(Clone, Copy)]
struct Sizes {
    process: u64,
    store: u64,
}

impl Filled {
    pub async fn start(name: &str) -> Self {
        let (kind, store) = Kind::start(name).await;
        let yaml = Setup::new(NO_ISSUER).for_users("/", NO_ISSUER).yaml();
        let config = config::parse("bench.yaml", &yaml, &environment)
            .unwrap_or_else(|faults| panic!("{faults}"))
            .config;
        let app = config.apps.into_iter().next().expect("an app");
        let ring = Arc::new(KeyRing::new(&[SessionKey::new([7; 32])]));
        let empty = Sizes { process: 0, store: 0 };
        let mut filled = Self { kind, store, app, ring, tickets: Vec::new(), empty, filling: Duration::ZERO };
        // Once through all of it, so that what every process takes is not counted.
        filled.grow_by(BATCH).await;
        for ticket in std::mem::take(&mut filled.tickets) {
            filled.sessions().0.end(&ticket).await.unwrap().expect("a session");
        }
        filled.empty = filled.sizes().await;
        filled.filling = Duration::ZERO;
        filled
    }

    /// Adds sessions until there are so many; `false` where filling has taken longer than this in all.
    pub async fn grow_to(&mut self, count: usize, patience: Duration) -> bool {
        self.tickets.reserve_exact(count - self.tickets.len());
        while self.tickets.len() < count {
            if self.filling > patience {
                return false;
            }
            self.grow_by(BATCH.min(count - self.tickets.len())).await;
        }
        true
    }

    async fn grow_by(&mut self, count: usize) {
        let started = Instant::now();
        let (sessions, tasks) = self.sessions();
        let mut workers = JoinSet::new();
        for worker in 0..AT_A_TIME {
            let (sessions, first) = (Arc::clone(&sessions), self.tickets.len());
            workers.spawn(async move {
                let mut tickets = Vec::new();
                for number in (first + worker..first + count).step_by(AT_A_TIME) {
                    tickets.push(sessions.create(tokens(), identity(number)).await.unwrap().0);
                }
                tickets
            });
        }
        self.tickets.extend(workers.join_all().await.into_iter().flatten());
        tasks.close();
        tasks.wait().await;
        self.filling += started.elapsed();
    }

    pub async fn measured(&self) -> Measured {
        let count = self.tickets.len();
        let sizes = self.sizes().await;
        let each = |now: u64, before: u64| now.saturating_sub(before) / count as u64;
        // Evenly among all, and others in each run.
        let (mut medians, mut slow, mut warm) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..RUNS {
            let (sessions, _) = self.sessions();
            let step = count / LOOKUPS;
            let chosen: Vec<&Ticket> = self.tickets[run * step / RUNS..].iter().step_by(step).collect();
            let mut cold = Vec::new();
            for ticket in &chosen {
                let started = Instant::now();
                sessions.load(ticket).await.unwrap().expect("a session");
                cold.push(nanoseconds(started.elapsed()));
            }
            let started = Instant::now();
            for ticket in &chosen {
                sessions.load(ticket).await.unwrap().expect("a session");
            }
            warm.push(nanoseconds(started.elapsed()) / chosen.len() as u64);
            cold.sort_unstable();
            medians.push(quantile(&cold, 0.5));
            slow.push(quantile(&cold, 0.99));
        }
        let median = |mut runs: Vec<u64>| {
            runs.sort_unstable();
            quantile(&runs, 0.5)
        };
        Measured {
            count,
            cold: [median(medians), median(slow)],
            warm: median(warm),
            in_process: each(sizes.process, self.empty.process),
            in_store: each(sizes.store, self.empty.store),
        }
    }

    pub async fn record_length(&self) -> usize {
        let key = self.sessions().0.record_key(&self.tickets[0]);
        self.store.read(&key).await.unwrap().expect("a record").sealed.len()
    }

    /// What sessions that are open in the process take, as many as there may be.
    pub async fn opened(&self) -> Opened {
        let (sessions, _) = self.sessions();
        let context = Context {
            purpose: Purpose::SessionCookie,
            name: &self.app.session.cookie_name,
            app: self.app.origin.as_str(),
        };
        let opened = self.tickets.iter().take(OPENED);
        let cookies: Vec<_> =
            opened.map(|ticket| ticket.to_cookie(&self.ring, Random::SYSTEM, &context)).collect();
        let before = resident();
        for cookie in &cookies {
            asked(&sessions, cookie).await;
        }
        let bytes = resident().saturating_sub(before) / cookies.len() as u64;
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..RUNS {
            // A step that has no factor in common with their number comes to each of them, in no order that is noticed.
            for (step, times) in [0, 61_803].into_iter().zip(&mut times) {
                let started = Instant::now();
                for number in 0..cookies.len() {
                    asked(&sessions, &cookies[(run + number * step) % cookies.len()]).await;
                }
                times.push(nanoseconds(started.elapsed()) / cookies.len() as u64);
            }
        }
        let [one, at_random] = times.map(|times| times.into_iter().min().unwrap());
        Opened { count: cookies.len(), bytes, one, at_random }
    }

    /// As another process has them, that has none open yet.
    fn sessions(&self) -> (Arc<Sessions>, TaskTracker) {
        let tasks = TaskTracker::new();
        let common = Common::new(
            Arc::clone(&self.ring),
            Arc::clone(&self.store),
            Duration::from_secs(30),
            Arc::new(SystemClock),
            Random::SYSTEM,
            tasks.clone(),
            Metrics::new(),
        );
        (Arc::new(Sessions::new(&self.app, Arc::new(common))), tasks)
    }

    async fn sizes(&self) -> Sizes {
        Sizes { process: resident(), store: self.kind.size().await }
    }
}

/// As long as those of real issuers.
fn tokens() -> Tokens {
    let now = SystemClock.now();
    Tokens {
        access_token: token(1_500),
        issued_at: now,
        expires_at: now + Duration::from_secs(3_600),
        refresh_token: Some(token(1_000)),
        id_token: Some(token(1_000)),
        scopes: ["openid", "profile", "email", "offline_access"].map(str::to_owned).to_vec(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    }
}

fn token(length: usize) -> Secret {
    // 32 bytes are 43 letters.
    let text: String = (0..=length / 43).map(|_| Random::SYSTEM.token::<32>()).collect();
    Secret::new(&text[..length])
}

fn identity(number: usize) -> Identity {
    let claims = json!({
        "name": "Alice Example", "given_name": "Alice", "family_name": "Example", "locale": "en-GB",
        "email": format!("user-{number}@example.com"), "email_verified": true,
        "roles": ["customer", "reviewer", "beta"], "picture": "https://images.example.com/avatars/alice.png",
    });
    Identity {
        issuer: "https://id.example.com/realms/shop".to_owned(),
        subject: format!("user-{number}"),
        sid: Some(format!("session-{number}")),
        claims: claims.as_object().expect("an object").clone(),
    }
}

/// What a request does with its session: finds it by its cookie, and copies the token.
async fn asked(sessions: &Arc<Sessions>, cookie: &str) {
    let ticket = sessions.ticket(cookie).expect("ours");
    let session = sessions.load(&ticket).await.unwrap().expect("a session");
    let mut field = String::with_capacity(2_000);
    field.push_str("Bearer ");
    field.push_str(session.tokens.access_token.expose());
    black_box(&field);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
