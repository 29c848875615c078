//! The configuration: types that cannot be wrong, and the way from a YAML file to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use url::Url;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Everything the gateway is told.
#[derive(Debug)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The operators' listener, where one is wanted.
    pub admin: Option<Admin>,
    /// The key ring; the first key seals, every one opens.
    pub session_keys: Vec<SessionKey>,
    /// Where sessions are kept.
    pub store: Store,
    /// The apps, told apart by the host of their origin. Never empty; no two share an origin.
    pub apps: Vec<App>,
    /// Logs.
    pub telemetry: Telemetry,
}

/// The public listener.
#[derive(Debug)]
pub struct Server {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What a client may use up.
    pub limits: Limits,
    /// How long requests under way may take once a shutdown was asked for.
    pub shutdown_grace: Duration,
}

/// What a client may use up.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
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
#[derive(Debug)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
}

/// A 256-bit key that seals cookies.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(Zeroizing<[u8; 32]>);

/// Where sessions are kept.
#[derive(Debug)]
pub enum Store {
    /// In this process; they are gone when it stops.
    Memory,
    /// In one Redis server.
    Redis(Redis),
}

/// One Redis server.
#[derive(Debug)]
pub struct Redis {
    /// `redis://host:port/database`, without user information.
    pub url: Url,
    /// ACL user; the server's default user where absent.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Put before each key.
    pub key_prefix: String,
}

/// One app: an origin in the browser, its issuer, and its routes.
#[derive(Debug)]
pub struct App {
    /// What the browser shows.
    pub origin: Origin,
    /// Where the gateway's own endpoints are, such as `/bff`: a leading slash, none at the end.
    pub base_path: String,
    /// The OpenID provider.
    pub oidc: Oidc,
    /// The session's cookie and time limits.
    pub session: Session,
    /// Where requests go.
    pub routes: Vec<Route>,
}

/// Scheme, host and port of an app as the browser sees them (RFC 6454 §4). `http` only on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// The client's registration at an OpenID provider.
#[derive(Debug)]
pub struct Oidc {
    /// The issuer, compared as text. `https`, or `http` on loopback.
    pub issuer: String,
    /// `client_id`
    pub client_id: String,
    /// How the client proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// Asked for at login; holds `openid`.
    pub scopes: Vec<String>,
    /// Sent along with each authorization request.
    pub authorization_parameters: BTreeMap<String, String>,
    /// For one call to the issuer.
    pub timeout: Duration,
    /// Whether userinfo is fetched at login.
    pub userinfo: bool,
}

/// `token_endpoint_auth_method`, by its registered name (RFC 7591 §2).
#[derive(Debug)]
pub enum ClientAuth {
    /// The secret in the `Authorization` header (RFC 6749 §2.3.1).
    ClientSecretBasic(Secret),
    /// The secret in the form.
    ClientSecretPost(Secret),
    /// A public client.
    None,
}

/// The session's cookie and time limits, for one app.
#[derive(Clone, Debug)]
pub struct Session {
    /// The cookie's name.
    pub cookie_name: String,
    /// The cookie's `SameSite`.
    pub same_site: SameSite,
    /// How long a session lives without a request.
    pub idle_timeout: Duration,
    /// How long a session lives at most.
    pub lifetime: Duration,
    /// A token with less than this left is refreshed in the background.
    pub refresh_before_expiry: Duration,
}

/// The cookie's `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never sent on a cross-site request.
    Strict,
    /// Sent on top-level navigations too.
    Lax,
}

/// Where the requests under one path go.
#[derive(Debug)]
pub struct Route {
    /// The path, which matches itself and all below it: a leading slash, none at the end but for `/`.
    pub path: String,
    /// What answers.
    pub target: Target,
    /// Methods that are let through; any where absent.
    pub methods: Option<Vec<Method>>,
    /// Whether a session is needed.
    pub auth: Auth,
    /// What is sent upstream as `Authorization`.
    pub token: Token,
    /// How the use of a session is guarded against other sites.
    pub csrf: Csrf,
    /// Scopes the session must have been granted.
    pub required_scopes: Vec<String>,
    /// For the upstream.
    pub timeouts: Timeouts,
    /// Whether WebSocket handshakes are let through.
    pub websocket: bool,
    /// Whether `%2f` may stand in a path.
    pub allow_encoded_slash: bool,
}

/// What answers a route.
#[derive(Debug)]
pub enum Target {
    /// Another server.
    Upstream {
        /// `http` or `https`, with an optional path that is put before the request's.
        url: Url,
        /// Taken off the request's path: a leading slash, none at the end.
        strip_prefix: Option<String>,
    },
    /// A folder of static files.
    Files(PathBuf),
}

/// Whether a route needs a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Without a session: 401, or login for a navigation.
    Required,
    /// The token where there is a session, none where there is not.
    Optional,
    /// The session is not looked at.
    None,
}

/// What is sent upstream as `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The session's access token.
    AccessToken,
    /// Nothing.
    None,
}

/// How the use of a session is guarded against other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csrf {
    /// `X-CSRF: 1` on every request.
    Header,
    /// Fetch Metadata or `Origin` must say that the request is the app's own.
    SameOrigin,
    /// Not at all.
    Off,
}

/// How long an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the response's head is there.
    pub response: Duration,
    /// Between two parts of a body.
    pub idle: Duration,
}

/// Logs.
#[derive(Debug)]
pub struct Telemetry {
    /// How a line looks.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
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

impl Origin {
    /// As text, such as `https://shop.example.com`: lower case, no default port, no slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port as a `Host` field carries them, such as `shop.example.com` or `localhost:8080`.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Whether cookies are `Secure`, with the `__Host-` prefix.
    pub fn is_secure(&self) -> bool {
        self.scheme() == "https"
    }
}
