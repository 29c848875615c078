//! What stands around all contestants: the upstream, Redis, the issuer, certificates, and sessions that the
//! gateway has begun.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::contestants::{Auth, Store};
use crate::request::WEBSOCKET;
use crate::sessions;
use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{SESSION_KEY, Setup};
use crate::support::issuer::{CLIENT_SECRET, Issuer};
use crate::support::redis::Redis;
use crate::upstream::Upstream;

/// Neither tokens nor sessions end while anything is measured, and none is written anew.
const LIFETIME: Duration = Duration::from_hours(12);

/// How long before a token's end the gateway renews it.
pub const RENEWED_BEFORE: Duration = Duration::from_secs(5);

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
            upstream: Upstream::beside().await,
            redis: Redis::start().await,
            issuer,
            certificate: authority.issue("shop", "DNS:shop.test", 7),
            authority,
            folder: TempDir::new().expect("a temporary folder"),
            program,
            sessions: Vec::new(),
        };
        let yaml = world.setup(Auth::Required, true, Store::WhereNeeded, None).yaml();
        world.sessions = sessions::begin(&yaml, &world.redis, sessions, LIFETIME).await;
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
        sessions::access_token(0)
    }
}
