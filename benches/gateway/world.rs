//! What stands around all contestants: the upstream, Redis, the issuer, certificates, and sessions that the
//! gateway has begun.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::contestants::{Auth, Store};
use crate::request::WEBSOCKET;
use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{SESSION_KEY, Setup, environment};
use crate::support::issuer::{CLIENT_SECRET, Issuer};
use crate::support::redis::Redis;
use crate::support::wait::in_time;
use crate::upstream::Upstream;

/// Neither tokens nor sessions end while anything is measured, and none is written anew.
const LIFETIME: Duration = Duration::from_hours(12);

/// How long before a token's end the gateway renews it.
pub const RENEWED_BEFORE: Duration = Duration::from_secs(5);

/// How many sessions begin at a time.
const AT_A_TIME: usize = 32;

pub struct World {
    pub upstream: Upstream,
    pub redis: Redis,
    pub issuer: Issuer,
    pub authority: Authority,
    pub certificate: Certificate,
    pub folder: TempDir,
    /// The gateway.
    pub program: PathBuf,
    /// Values of cookies.
    pub sessions: Vec<String>,
}

impl World {
    /// All of it; the issuer runs elsewhere.
    pub async fn start(program: PathBuf, elsewhere: &Handle, sessions: usize) -> Self {
        let authority = Authority::new();
        let issuer = elsewhere.spawn(Issuer::start()).await.unwrap();
        issuer.behave(|behaviour| behaviour.expires_in = Some(json!(LIFETIME.as_secs())));
        let mut world = Self {
            upstream: Upstream::start().await,
            redis: Redis::start().await,
            issuer,
            certificate: authority.issue("shop", "DNS:shop.test", 7),
            authority,
            folder: TempDir::new().expect("a temporary folder"),
            program,
            sessions: Vec::new(),
        };
        world.sessions = world.begin_sessions(sessions).await;
        world
    }

    /// A gateway's configuration.
    pub fn setup(&self, auth: Auth, access_log: bool, store: Store, tls: Option<&Certificate>) -> Setup {
        let upstream = self.upstream.url();
        let mut setup = Setup::new(&self.issuer.url());
        match auth {
            Auth::None => setup.add_route(&format!("path: /, upstream: \"{upstream}\", auth: none")),
            Auth::Required => setup.add_route(&format!("path: /, upstream: \"{upstream}\"")),
        }
        setup.add_route(&format!("path: {WEBSOCKET}, upstream: \"{upstream}\", websocket: true"));
        setup.store_in(&self.redis);
        setup.limits = "idle_timeout: 1h".to_owned();
        setup.sessions = format!(
            "idle_timeout: {0}s\nlifetime: {0}s\nrefresh_before_expiry: {1}s",
            LIFETIME.as_secs(),
            RENEWED_BEFORE.as_secs()
        );
        if store == Store::OnEachRequest {
            setup.sessions += "\nstore_outage_grace: 0s";
        }
        if let Some(Certificate { certificate, key }) = tls {
            let (certificate, key) = (certificate.display(), key.display());
            setup.server = format!("tls: {{certificate: \"{certificate}\", private_key: \"{key}\"}}");
        }
        if !access_log {
            setup.telemetry = "telemetry: {access_log: false}\n".to_owned();
        }
        setup
    }

    /// What the configuration takes from the environment.
    pub fn secrets(&self) -> [(&'static str, &'static str); 2] {
        [("SESSION_KEY", SESSION_KEY), ("CLIENT_SECRET", CLIENT_SECRET)]
    }

    /// The access token of the first session.
    pub fn first_token(&self) -> String {
        access_token(0)
    }

    /// Begins sessions as a gateway of this configuration would, and gives the cookies' values.
    async fn begin_sessions(&self, count: usize) -> Vec<String> {
        let yaml = self.setup(Auth::Required, true, Store::WhereNeeded, None).yaml();
        let loaded = config::parse("bench.yaml", &yaml, &environment);
        let config = loaded.unwrap_or_else(|faults| panic!("{faults}")).config;
        let (clock, tasks) = (Arc::new(SystemClock), TaskTracker::new());
        let common = Common::new(
            Arc::new(KeyRing::new(&config.session_keys)),
            Arc::new(RedisStore::new(&self.redis.config(), clock.clone()).unwrap()),
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
                    values.push((number, begin(&sessions, number).await));
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
}

/// A session's cookie. Redis may take longer than a gateway would wait, while so many begin.
async fn begin(sessions: &Arc<Sessions>, number: usize) -> String {
    in_time(async {
        loop {
            if let Ok((_, value)) = sessions.create(tokens(number), identity(number)).await {
                return value;
            }
        }
    })
    .await
}

/// Lengths of tokens in bytes, as of real issuers.
pub const ACCESS_TOKEN: usize = 1_500;
pub const OTHER_TOKENS: usize = 1_000;

fn tokens(number: usize) -> Tokens {
    let now = SystemClock.now();
    let other = |name: &str| Secret::new(padded(name, number, OTHER_TOKENS));
    Tokens {
        access_token: Secret::new(access_token(number)),
        issued_at: now,
        expires_at: now + LIFETIME,
        refresh_token: Some(other("refresh")),
        id_token: Some(other("id")),
        scopes: ["openid", "profile", "offline_access"].map(str::to_owned).to_vec(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    }
}

fn access_token(number: usize) -> String {
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
