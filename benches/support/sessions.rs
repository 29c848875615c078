//! Sessions in Redis, as gateways of a configuration would have begun them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::seal::KeyRing;
use cloakroom::secret::Secret;
use cloakroom::session::store::redis::RedisStore;
use cloakroom::session::{Common, Sessions};
use cloakroom::telemetry::metrics::Metrics;
use cloakroom::tokens::{Identity, Tokens};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::support::gateway::environment;
use crate::support::redis::Redis;
use crate::support::wait::in_time;

/// How many sessions begin at a time.
const AT_A_TIME: usize = 32;

/// Lengths of tokens in bytes, as of real issuers.
pub const ACCESS_TOKEN: usize = 1_500;
pub const OTHER_TOKENS: usize = 1_000;

/// Begins sessions with the first app of a configuration, whose tokens live for so long, and gives the cookies' values.
pub async fn begin(yaml: &str, redis: &Redis, count: usize, lifetime: Duration) -> Vec<String> {
    let loaded = config::parse("bench.yaml", yaml, &environment);
    let config = loaded.unwrap_or_else(|faults| panic!("{faults}")).config;
    let (clock, tasks) = (Arc::new(SystemClock), TaskTracker::new());
    let common = Common::new(
        Arc::new(KeyRing::new(&config.session_keys)),
        Arc::new(RedisStore::new(&redis.config(), clock.clone()).unwrap()),
        Duration::ZERO,
        clock,
        Random::SYSTEM,
        tasks.clone(),
        Metrics::new(),
    );
    let sessions = Arc::new(Sessions::new(&config.apps[0], Arc::new(common)));
    let mut workers = JoinSet::new();
    for worker in 0..AT_A_TIME {
        let sessions = Arc::clone(&sessions);
        workers.spawn(async move {
            let mut values = Vec::new();
            for number in (worker..count).step_by(AT_A_TIME) {
                values.push((number, begin_one(&sessions, number, lifetime).await));
            }
            values
        });
    }
    let mut values: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    values.sort_unstable();
    tasks.close();
    tasks.wait().await;
    values.into_iter().map(|(_, value)| value).collect()
}

/// A session's cookie. Redis may take longer than a gateway would wait, while so many begin.
async fn begin_one(sessions: &Arc<Sessions>, number: usize, lifetime: Duration) -> String {
    in_time(async {
        loop {
            if let Ok((_, value)) = sessions.create(tokens(number, lifetime), identity(number)).await {
                return value;
            }
        }
    })
    .await
}

fn tokens(number: usize, lifetime: Duration) -> Tokens {
    let now = SystemClock.now();
    let other = |name: &str| Secret::new(padded(name, number, OTHER_TOKENS));
    Tokens {
        access_token: Secret::new(access_token(number)),
        issued_at: now,
        expires_at: now + lifetime,
        refresh_token: Some(other("refresh")),
        id_token: Some(other("id")),
        scopes: ["openid", "profile", "offline_access"].map(str::to_owned).to_vec(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    }
}

/// The access token of such a session.
pub fn access_token(number: usize) -> String {
    padded("access", number, ACCESS_TOKEN)
}

fn padded(name: &str, number: usize, length: usize) -> String {
    format!("{name}-{number}-{}", "x".repeat(length)).chars().take(length).collect()
}

fn identity(number: usize) -> Identity {
    let claims = json!({
        "name": "Alice Example", "given_name": "Alice", "family_name": "Example", "locale": "en-GB",
        "email": format!("user-{number}@example.com"), "email_verified": true,
    });
    Identity {
        issuer: "https://id.example.com/realms/shop".to_owned(),
        subject: format!("user-{number}"),
        sid: Some(format!("session-{number}")),
        claims: claims.as_object().expect("an object").clone(),
    }
}
