//! One app: what the browser shows, whom it logs in with, and where its requests go.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Uri};

use super::{RateLimit, Upstream};
use crate::secret::Secret;

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
    /// How many logins a client address may begin; each limit holds.
    pub login_rate_limits: Vec<RateLimit>,
    /// Where requests go.
    pub routes: Vec<Route>,
}

/// Scheme, host and port of an app as the browser sees them (RFC 6454 §4). `http` only on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(pub(super) String);

/// An issuer, compared as text (OpenID Connect Discovery §4.3). `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    pub(super) text: String,
    pub(super) metadata_address: Uri,
}

/// The client's registration at an OpenID provider.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// The issuer.
    pub issuer: Issuer,
    /// `client_id`
    pub client_id: String,
    /// How the client proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// Asked for at login; holds `openid`.
    pub scopes: Vec<String>,
    /// Sent along with each authorization request; none that the gateway sets itself.
    pub authorization_parameters: BTreeMap<String, String>,
    /// `max_age` of the authorization parameters, in seconds: the ID token is held to it.
    pub max_age: Option<u64>,
    /// For one call to the issuer.
    pub timeout: Duration,
    /// Whether userinfo is fetched at login.
    pub userinfo: bool,
}

/// `token_endpoint_auth_method`, by its registered name (RFC 7591 §2).
#[derive(Clone, Debug)]
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
    /// How often a request is sent at most: again only where it was surely not processed.
    pub attempts: usize,
    /// How many requests may be made; each limit holds.
    pub rate_limits: Vec<RateLimit>,
    /// Whether WebSocket handshakes are let through.
    pub websocket: bool,
    /// Whether `%2f` may stand in a path.
    pub allow_encoded_slash: bool,
}

/// What answers a route.
#[derive(Debug)]
pub enum Target {
    /// Other servers.
    Upstream(Box<Upstream>),
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

impl Issuer {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where its metadata are (OpenID Connect Discovery §4.1).
    pub fn metadata_address(&self) -> &Uri {
        &self.metadata_address
    }

    /// Whether it is one on loopback that is spoken to without TLS.
    pub fn is_plain(&self) -> bool {
        self.metadata_address.scheme_str() == Some("http")
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Session {
    /// What the names of the login cookies begin with.
    pub fn login_cookie_prefix(&self) -> String {
        format!("{}-login-", self.cookie_name)
    }

    /// Whether a cookie of this name is the gateway's own, for a request or an upstream's answer.
    pub fn owns_cookie(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.cookie_name)
            || name
                .get(..self.cookie_name.len() + "-login-".len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(&self.login_cookie_prefix()))
    }
}
