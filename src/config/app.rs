//! One app: what the browser shows, whom it logs in with, and where its requests go.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Uri};
use jsonwebtoken::Algorithm;

use super::{
    Authorization, CertificateAuthorities, Identity, RateLimit, RequiredClaim, SigningKey, Token, Upstream,
};
use crate::pages::Pages;
use crate::secret::Secret;

/// What stands between the name of the session's cookie and that of one login.
const LOGIN_INFIX: &str = "-login-";

/// What stands behind the name of the session's cookie in that of a login on another device.
const DEVICE_SUFFIX: &str = "-device";

/// One app: an origin in the browser, its issuer, and its routes.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// What the browser shows.
    pub origin: Origin,
    /// Where the gateway's own endpoints are, such as `/bff`: a leading slash, none at the end.
    pub base_path: String,
    /// What its users see of the gateway itself.
    pub pages: Pages,
    /// The OpenID providers; a user logs in at one of them. Never empty; no two are the same issuer.
    pub oidc: Vec<Oidc>,
    /// The session's cookie and time limits.
    pub session: Session,
    /// Whose security events end sessions.
    pub shared_signals: Option<SharedSignals>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Oidc {
    /// Among several, which then differ by it; `None` where it was written as the only one.
    pub name: Option<String>,
    /// The issuer.
    pub issuer: Issuer,
    /// `client_id`
    pub client_id: String,
    /// How the client proves itself at the token endpoint.
    pub client_auth: ClientAuth,
    /// Whom alone to believe that it is the issuer; the system's authorities where absent.
    pub ca: Option<CertificateAuthorities>,
    /// What the client shows of itself in TLS, for its own proof or for other reasons.
    pub identity: Option<Identity>,
    /// Whether the issuer binds access tokens to that certificate (RFC 8705 §3).
    pub tls_client_certificate_bound_access_tokens: bool,
    /// Asked for at login; holds `openid`.
    pub scopes: Vec<String>,
    /// Sent along with each authorization request; none that the gateway sets itself.
    pub authorization_parameters: BTreeMap<String, String>,
    /// `max_age` of the authorization parameters, in seconds: the ID token is held to it.
    pub max_age: Option<u64>,
    /// How authorization requests are sent, and what else they ask for.
    pub authorization: Authorization,
    /// Sent along with each logout at the issuer; none that the gateway sets itself.
    pub end_session_parameters: BTreeMap<String, String>,
    /// Whom ID tokens may be for besides the client.
    pub trusted_audiences: Vec<String>,
    /// What ID tokens and logout tokens for this client are signed with; whatever the issuer lists where `None`.
    pub id_token_signed_response_alg: Option<Algorithm>,
    /// For one call to the issuer.
    pub timeout: Duration,
    /// Whether userinfo is fetched at login.
    pub userinfo: bool,
    /// Whether each login's tokens are bound to a key of its own (RFC 9449 §5.2).
    pub dpop_bound_access_tokens: bool,
    /// How old the issuer's word on an access token may be (RFC 7662); where absent it is good until it expires.
    pub introspection: Option<Duration>,
    /// Whether users may log in on another device (RFC 8628).
    pub device_authorization: bool,
}

/// `token_endpoint_auth_method`, by its registered name (RFC 7591 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// The secret in the `Authorization` header (RFC 6749 §2.3.1).
    ClientSecretBasic(Secret),
    /// The secret in the form.
    ClientSecretPost(Secret),
    /// A JWT that the client signs for each request (RFC 7523 §2.2, OpenID Connect Core §9).
    PrivateKeyJwt {
        /// What signs.
        key: SigningKey,
        /// Whom it is for.
        audience: AssertionAudience,
    },
    /// The certificate of the connection, which an authority has signed or the issuer itself knows
    /// (RFC 8705 §2): for the client the two are one.
    MutualTls,
    /// A public client.
    None,
}

/// A transmitter of security events (OpenID Shared Signals Framework 1.0), and what it knows the gateway by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSignals {
    /// `iss` of its events.
    pub transmitter: Issuer,
    /// `aud` of its events: one of these. Never empty.
    pub audience: Vec<String>,
    /// The `Authorization` that it sends along.
    pub authorization: Option<Secret>,
}

/// `aud` of the JWT that a client proves itself with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer, which means the same to everybody (FAPI 2.0 Security Profile §5.3.3.1).
    Issuer,
    /// The URL that is asked, as some issuers insist.
    Endpoint,
}

/// The session's cookie and time limits, for one app.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq)]
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
    /// Whether it goes with a proof that its holder sends it (RFC 9449 §7.1), where it is bound to a key.
    pub dpop: bool,
    /// How the use of a session is guarded against other sites.
    pub csrf: Csrf,
    /// Scopes that must have been granted: those of the token that is sent where it is one of the session's.
    pub required_scopes: Vec<String>,
    /// Claims about the user, each of which is to be met.
    pub required_claims: Vec<RequiredClaim>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Where its metadata are (OpenID Connect Discovery §4.1; of a transmitter, Shared Signals Framework §7.2).
    pub fn metadata_address(&self) -> &Uri {
        &self.metadata_address
    }

    /// Whether it is one on loopback that is spoken to without TLS.
    pub fn is_plain(&self) -> bool {
        self.metadata_address.scheme_str() == Some("http")
    }
}

impl Oidc {
    /// Where the issuer sends the browser back to, below `base_path`. Each of several has a path of its own: by it
    /// alone is an answer told from those of the others, where the issuer does not send `iss` (RFC 9700 §4.4.2.1).
    pub fn callback_path(&self) -> String {
        match &self.name {
            Some(name) => format!("/callback/{name}"),
            None => "/callback".to_owned(),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Oidc {
    /// Whether the certificate is there for the issuer to know the client by, so that the endpoints for that
    /// are asked (RFC 8705 §5).
    pub fn uses_mutual_tls(&self) -> bool {
        self.tls_client_certificate_bound_access_tokens || matches!(self.client_auth, ClientAuth::MutualTls)
    }
}

impl Session {
    /// What the names of the login cookies begin with.
    pub fn login_cookie_prefix(&self) -> String {
        [&self.cookie_name, LOGIN_INFIX].concat()
    }

    /// The name of the cookie of a login on another device.
    pub fn device_cookie_name(&self) -> String {
        [&self.cookie_name, DEVICE_SUFFIX].concat()
    }

    /// Whether a cookie of this name is the gateway's own, for a request or an upstream's answer.
    pub fn owns_cookie(&self, name: &str) -> bool {
        let Some((begin, rest)) = name.split_at_checked(self.cookie_name.len()) else { return false };
        begin.eq_ignore_ascii_case(&self.cookie_name)
            && (rest.is_empty()
                || rest.eq_ignore_ascii_case(DEVICE_SUFFIX)
                || rest.get(..LOGIN_INFIX.len()).is_some_and(|infix| infix.eq_ignore_ascii_case(LOGIN_INFIX)))
    }
}
