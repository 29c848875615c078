//! One app as it is written.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::config::decode::{
    At, Choice, Decode, Keys, List, Optional, Record, Required, decode_at, wrong_type,
};
use crate::config::document::{Content, Node, REDACTED};
use crate::config::parameters::Parameters;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::scalar::{CookieName, DurationOrZero, Scope, Text};
use crate::config::secret_ref::SecretRef;
use crate::config::web::{Path, Prefix, UpstreamUrl};
use crate::config::{Auth, Csrf, Issuer, Origin, SameSite, Token};

pub(in crate::config) struct App {
    pub(in crate::config) origin: Required<Origin>,
    pub(in crate::config) base_path: Required<Prefix>,
    pub(in crate::config) oidc: Required<Oidc>,
    pub(in crate::config) session: Required<Session>,
    pub(in crate::config) routes: Required<List<Route, 1>>,
}

pub(in crate::config) struct Oidc {
    pub(in crate::config) issuer: Required<Issuer>,
    pub(in crate::config) client_id: Required<Text>,
    pub(in crate::config) client_auth: Required<ClientAuth>,
    pub(in crate::config) scopes: Required<List<Scope, 1>>,
    pub(in crate::config) authorization_parameters: Required<Parameters>,
    pub(in crate::config) timeout: Required<Duration>,
    pub(in crate::config) userinfo: Required<bool>,
}

pub(in crate::config) enum ClientAuth {
    Secret(ClientSecret),
    None,
}

pub(in crate::config) enum ClientSecret {
    Basic(SecretRef),
    Post(SecretRef),
}

pub(in crate::config) struct Session {
    pub(in crate::config) cookie: Required<Cookie>,
    pub(in crate::config) idle_timeout: Optional<Duration>,
    pub(in crate::config) lifetime: Optional<Duration>,
    pub(in crate::config) refresh_before_expiry: Optional<DurationOrZero>,
}

pub(in crate::config) struct Cookie {
    pub(in crate::config) name: Optional<CookieName>,
    pub(in crate::config) same_site: Required<SameSite>,
}

pub(in crate::config) struct Route {
    pub(in crate::config) path: Required<Path>,
    pub(in crate::config) target: Result<Target, Reported>,
    pub(in crate::config) methods: Optional<List<Method, 1>>,
    pub(in crate::config) auth: Optional<Auth>,
    pub(in crate::config) token: Required<Token>,
    pub(in crate::config) csrf: Optional<Csrf>,
    pub(in crate::config) required_scopes: Required<List<Scope>>,
    pub(in crate::config) timeouts: Required<Timeouts>,
    pub(in crate::config) websocket: Required<bool>,
    pub(in crate::config) allow_encoded_slash: Required<bool>,
}

pub(in crate::config) enum Target {
    Upstream(At<Upstream>),
    Files(At<Text>),
}

pub(in crate::config) struct Upstream {
    pub(in crate::config) url: Required<UpstreamUrl>,
    pub(in crate::config) strip_prefix: Optional<Prefix>,
}

pub(in crate::config) struct Timeouts {
    pub(in crate::config) connect: Required<Duration>,
    pub(in crate::config) response: Required<Duration>,
    pub(in crate::config) idle: Required<Duration>,
}

impl Record for App {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            origin: keys.required(
                "origin",
                "https://shop.example.com",
                "What the browser shows: scheme, host and port. http only for localhost, 127.0.0.0/8 and [::1].",
            ),
            base_path: keys.or("base_path", "/bff", "Where the gateway's own endpoints are."),
            oidc: keys.required("oidc", "{issuer: …, client_id: …, client_auth: …}", "The OpenID provider."),
            session: keys.or("session", "{}", "The cookie, and what differs from `sessions`."),
            routes: keys.required(
                "routes",
                "[{path: /, files: ./dist}]",
                "Where requests go; the longest path wins, whatever the order.",
            ),
        })
    }
}

impl Record for Oidc {
    const LATER: &[&str] = &["pushed_authorization_requests", "response_mode"];

    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            issuer: keys.required(
                "issuer",
                "https://id.example.com",
                "The issuer, letter by letter as it names itself. http only for loopback hosts.",
            ),
            client_id: keys.required("client_id", "shop", "The client's registered name."),
            client_auth: keys.required(
                "client_auth",
                "{client_secret_basic: {env: SHOP_CLIENT_SECRET}}",
                "How the client proves itself: client_secret_basic or client_secret_post with a secret, or none.",
            ),
            scopes: keys.or(
                "scopes",
                "[openid]",
                "What is asked for at login; with openid. Many issuers give a refresh token only for offline_access.",
            ),
            authorization_parameters: keys.or(
                "authorization_parameters",
                "{}",
                "Sent along with each authorization request.",
            ),
            timeout: keys.or("timeout", "30s", "For one call to the issuer."),
            userinfo: keys.or("userinfo", "false", "Whether userinfo is fetched at login."),
        })
    }
}

impl ClientAuth {
    const LATER: [&str; 3] = ["private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"];
}

impl Decode for ClientAuth {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let place = Place { position: node.position, text: Self::shown(node) };
        match &node.content {
            Content::Scalar { text, .. } if text == "none" => Ok(Self::None),
            Content::Scalar { text, .. } if Self::LATER.contains(&text.as_str()) => {
                let remedy = "`client_secret_basic`, `client_secret_post` or `none`";
                Err(reading.fault(&place, "not supported by this version yet", remedy))
            }
            Content::Scalar { .. } | Content::List(_) => {
                let wanted =
                    "`none`, or `{client_secret_basic: {env: NAME}}`, or the same with `client_secret_post`";
                Err(wrong_type(node, wanted, &place.text, reading))
            }
            Content::Map(_) => ClientSecret::decode(node, reading).map(Self::Secret),
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"const": "none"}, ClientSecret::schema()]})
    }

    /// Shown only where it is the name of a method, for what else stands here may be the secret.
    fn shown(node: &Node) -> String {
        let shown = node.shown();
        let is_method = shown.starts_with("client_secret_") || Self::LATER.contains(&shown.as_str());
        if is_method { shown } else { REDACTED.to_owned() }
    }
}

impl Record for ClientSecret {
    const LATER: &[&str] = &ClientAuth::LATER;

    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        keys.one_of(&[
            Choice::new(
                "client_secret_basic",
                "The secret in the Authorization header.",
                |secret: At<SecretRef>| Self::Basic(secret.value),
            ),
            Choice::new("client_secret_post", "The secret in the form.", |secret: At<SecretRef>| {
                Self::Post(secret.value)
            }),
        ])
    }
}

impl Record for Session {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            cookie: keys.or("cookie", "{}", "The session's cookie."),
            idle_timeout: keys.optional("idle_timeout", "How long a session lives without a request; as in `sessions` where left out."),
            lifetime: keys.optional("lifetime", "How long a session lives at most; as in `sessions` where left out."),
            refresh_before_expiry: keys.optional(
                "refresh_before_expiry",
                "An access token with less than this left is refreshed in the background; as in `sessions` where left out.",
            ),
        })
    }
}

impl Record for Cookie {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            name: keys.optional(
                "name",
                "Its name: __Host-cloakroom where left out, and it must start with __Host-; on an http origin cloakroom, and it must not.",
            ),
            same_site: keys.or("same_site", "strict", "Its SameSite."),
        })
    }
}

impl Record for Route {
    const LATER: &[&str] = &["retry"];

    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            path: keys.required("path", "/api", "Matches itself and all below it, by segments."),
            target: keys.one_of(&[
                Choice::new("upstream", "The server behind the route, by its URL.", Target::Upstream),
                Choice::new(
                    "files",
                    "A folder of static files, relative to the working directory; its index.html answers unknown paths that accept HTML.",
                    Target::Files,
                ),
            ]),
            methods: keys.optional("methods", "Methods that are let through; all where left out."),
            auth: keys.optional("auth", "Whether a session is needed; for upstreams required, for files none where left out."),
            token: keys.or("token", "access_token", "What is sent upstream as Authorization."),
            csrf: keys.optional(
                "csrf",
                "How the use of a session is guarded: header (X-CSRF: 1), same_origin or off; for upstreams header, for files off where left out.",
            ),
            required_scopes: keys.or("required_scopes", "[]", "Scopes the session must have been granted."),
            timeouts: keys.or("timeouts", "{}", "How long the upstream may take."),
            websocket: keys.or("websocket", "false", "Whether WebSockets are let through."),
            allow_encoded_slash: keys.or("allow_encoded_slash", "false", "Whether %2f may stand in a path."),
        })
    }
}

impl Decode for Upstream {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::Scalar { .. } => Ok(Self { url: decode_at(node, reading), strip_prefix: Ok(None) }),
            Content::Map(_) | Content::List(_) => {
                UpstreamKeys::decode(node, reading).map(|UpstreamKeys(upstream)| upstream)
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [UpstreamUrl::schema(), UpstreamKeys::schema()]})
    }

    fn shown(node: &Node) -> String {
        UpstreamUrl::shown(node)
    }
}

/// The long form of an upstream.
struct UpstreamKeys(Upstream);

impl Record for UpstreamKeys {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self(Upstream {
            url: keys.required(
                "url",
                "http://orders.internal:9000",
                "http or https; a path in it is put before the request's.",
            ),
            strip_prefix: keys.optional(
                "strip_prefix",
                "Taken off the request's path: the route's path or the start of it, by segments.",
            ),
        }))
    }
}

impl Record for Timeouts {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            connect: keys.or("connect", "5s", "Until a connection stands."),
            response: keys.or("response", "60s", "Until the head of the response is there."),
            idle: keys.or("idle", "75s", "Between two parts of a body."),
        })
    }
}
