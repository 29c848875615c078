//! One app as it is written.

use std::time::Duration;

use serde_json::{Value, json};

use super::route::{RateLimit, Route};
use crate::config::decode::{At, Choice, Decode, Keys, List, Optional, Record, Required, wrong_type};
use crate::config::document::{Content, Node, REDACTED};
use crate::config::parameters::Parameters;
use crate::config::reading::{Place, Reading, Reported};
use crate::config::scalar::{CookieName, DurationOrZero, Scope, Text};
use crate::config::secret_ref::SecretRef;
use crate::config::web::Prefix;
use crate::config::{Issuer, Origin, SameSite};

pub(in crate::config) struct App {
    pub(in crate::config) origin: Required<Origin>,
    pub(in crate::config) base_path: Required<Prefix>,
    pub(in crate::config) oidc: Required<Oidc>,
    pub(in crate::config) session: Required<Session>,
    pub(in crate::config) login_rate_limits: Optional<List<RateLimit, 1>>,
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
            login_rate_limits: keys.optional(
                "login_rate_limits",
                "How many logins a client address may begin; each of them holds. As many as it likes where left out.",
            ),
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
