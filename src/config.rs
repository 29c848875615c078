//! The configuration: types that cannot be wrong, and the way from a YAML file to them.
//!
//! A file is read in three steps. `document` turns YAML into a tree that knows where each value stands;
//! `raw` says which keys there are, and takes the values one by one; `validate` looks at what only shows
//! where several meet. A fault stops nothing but its own value, so one run names all of them.
//!
//! Durations are `500ms`, `90s`, `30m`, `12h` or `7d`; sizes are bytes, or `64KiB`, `10MiB`, `1GiB`. Neither
//! may be nothing, but for `shutdown_grace`, `refresh_before_expiry` and `store_outage_grace`. Relative paths,
//! of secrets and of folders, start at the working directory.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::config::decode::Decode;
use crate::config::reading::{Place, Reading};
use crate::secret::Secret;

mod app;
mod authorities;
mod authorization;
mod decode;
mod diagnostic;
mod document;
mod identity;
mod jwk;
mod keys;
mod otlp;
mod parameters;
mod raw;
mod reading;
#[cfg(test)]
mod reference;
mod scalar;
mod schema;
mod secret_ref;
mod signing_key;
mod token;
mod upstream;
mod validate;
mod web;
mod words;

pub use app::{
    App, AssertionAudience, Auth, ClientAuth, Csrf, Issuer, Oidc, Origin, Route, SameSite, Session,
    SharedSignals, Target, Timeouts,
};
pub use authorities::CertificateAuthorities;
pub use authorization::{Authorization, Claims, PushedAuthorizationRequests, ResponseMode};
pub use diagnostic::{Diagnostic, Faults, InvalidValue, Position};
pub use identity::{Identity, IdentityFile, InvalidIdentity};
pub use otlp::{Otlp, OtlpProtocol};
pub use signing_key::{InvalidSigningKey, PrivateKey, SigningAlgorithm, SigningKey};
pub use token::{MOST_ROUTE_TOKENS, RequiredClaim, RouteGrant, RouteToken, Token, TokenTarget};
pub use upstream::{Address, Health, Protocol, RateLimit, RateLimitKey, Upstream, UpstreamTls};
pub use web::is_loopback;

/// More than any configuration has.
const LARGEST_FILE: u64 = 1024 * 1024;

/// A configuration without faults.
#[derive(Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What is allowed, but seldom meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a configuration file.
///
/// # Errors
/// Every fault in the file, or why it could not be read.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Faults> {
    let unreadable = |source| Faults::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(unreadable(std::io::Error::other(format!("it has more than {LARGEST_FILE} bytes"))));
    }
    let file_name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => parse(&file_name, &text, environment),
        Err(error) => {
            let mut reading = Reading::new(&file_name, environment);
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let text = format!("0x{:02x}", error.as_bytes()[valid]);
            let place = Place { position: document::position_of(&before, before.len()), text };
            let fault = reading.fault(&place, "a byte that is not UTF-8", "the file in UTF-8");
            reading.finish(Err(fault))
        }
    }
}

/// Reads a configuration from a text; faults name `file_name`.
///
/// # Errors
/// Every fault in the text.
pub fn parse(
    file_name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Faults> {
    let mut reading = Reading::new(file_name, environment);
    let config = document::parse(text, &mut reading)
        .and_then(|document| raw::File::decode(&document, &mut reading))
        .and_then(|file| validate::config(file, &mut reading));
    reading.finish(config)
}

/// The JSON Schema (2020-12) of the configuration file, for editors and for checks before a deployment.
///
/// It takes what [`load`] takes by structure; what only shows in a whole (an origin named twice, a secret
/// that cannot be read) is left to `cloakroom check`.
pub fn schema() -> Value {
    let mut schema = raw::File::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Cloakroom's configuration".into();
    schema
}

/// Everything the gateway is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The operators' listener, where one is wanted.
    pub admin: Option<Admin>,
    /// The key ring; the first key seals, every one opens.
    pub session_keys: Vec<SessionKey>,
    /// Where sessions are kept.
    pub store: Store,
    /// How long sessions known to this process are served while the store is away; nothing: not at all.
    pub store_outage_grace: Duration,
    /// The apps, told apart by the host of their origin. Never empty; no two share an origin.
    pub apps: Vec<App>,
    /// Logs.
    pub telemetry: Telemetry,
    /// All of it for people to read.
    pub settings: Vec<Setting>,
}

/// A key of the file, or what stands for one that it leaves out; in the order in which they are read, each before
/// what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// How many others it is in.
    pub depth: usize,
    /// The key; `[0]` and so on in a list.
    pub name: String,
    /// With the environment put in; absent where it consists of others. A secret is told by where it is, `file` or
    /// `env`, and by nothing else.
    pub value: Option<String>,
    /// Whether the file leaves it out.
    pub is_default: bool,
}

/// The public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS, with this certificate; plain HTTP where absent.
    pub tls: Option<Identity>,
    /// Whether a client may speak HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    pub h2c: bool,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections of these peers begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Threads that serve connections; one for each processor where absent.
    pub workers: Option<usize>,
    /// What a client may use up.
    pub limits: Limits,
    /// How long requests under way may take once a shutdown was asked for.
    pub shutdown_grace: Duration,
}

/// What a client may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections of one client address, trusted proxies aside.
    pub connections_per_client: usize,
    /// Requests that wait for an answer at a time; the last fifth is for those with a live session.
    pub requests: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Fields in a request's head.
    pub header_count: usize,
    /// How long a connection may be silent before its first request, and a head may take.
    pub header_timeout: Duration,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// How long no byte may move in either direction.
    pub idle_timeout: Duration,
    /// The same for tunnels (WebSockets).
    pub websocket_idle_timeout: Duration,
}

/// The operators' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
}

/// A 256-bit key: one that seals cookies, or the one that names users in the audit trail.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Zeroizing<[u8; 32]>);

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this process; they are gone when it stops.
    Memory,
    /// In a file on this machine's disk.
    File {
        /// The folder it lies in, which may be missing where its parent is there.
        path: PathBuf,
    },
    /// In Redis.
    Redis(Redis),
}

/// Redis, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Where it is.
    pub servers: RedisServers,
    /// Whom alone to believe where TLS is spoken; the system's authorities where absent.
    pub ca: Option<CertificateAuthorities>,
    /// ACL user; the server's default user where absent.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Put before each key.
    pub key_prefix: String,
    /// How many replicas a write waits for.
    pub wait_for_replicas: usize,
}

/// Redis servers: `redis` or `rediss` and one of the two alone, host and port, without user information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One server, and the number of its database.
    Single(Url),
    /// Some nodes of a cluster. Never empty.
    Cluster(Vec<Url>),
    /// A master that sentinels look after.
    Sentinel {
        /// Its name among them.
        master: String,
        /// The sentinels. Never empty.
        urls: Vec<Url>,
    },
}

/// Logs, metrics and traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// How a line looks.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Whether each answer is noted, in a line on standard output.
    pub access_log: bool,
    /// Where spans and metrics are handed over, where they are.
    pub otlp: Option<Otlp>,
    /// The audit trail, where one is wanted.
    pub audit: Option<Audit>,
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Names users and sessions in it; seals nothing.
    pub key: SessionKey,
    /// Where events are appended; standard output where absent.
    pub file: Option<PathBuf>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl SessionKey {
    /// Takes the key over.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself, for the key ring.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[redacted]")
    }
}
