//! One app as it is written.

use std::time::Duration;

use super::client_auth::{ClientAuth, OidcTls, RequestObject};
use super::issuers::Issuers;
use super::route::{RateLimit, Route};
use super::signals::SharedSignals;
use crate::config::authorization::{other_grant, password_grant};
use crate::config::decode::{List, Optional, Required};
use crate::config::keys::{Keys, Never, Record};
use crate::config::parameters::{EndSessionParameters, Parameters};
use crate::config::reading::Reported;
use crate::config::scalar::{CookieName, DurationOrZero, Scope, Text};
use crate::config::web::{Prefix, ResourceUri};
use crate::config::words::IdTokenAlgorithm;
use crate::config::{Claims, Issuer, Origin, PushedAuthorizationRequests, ResponseMode, SameSite};

pub(in crate::config) struct App {
    pub(in crate::config) origin: Required<Origin>,
    pub(in crate::config) base_path: Required<Prefix>,
    pub(in crate::config) pages: Optional<Text>,
    pub(in crate::config) oidc: Required<Issuers>,
    pub(in crate::config) session: Required<Session>,
    pub(in crate::config) shared_signals: Optional<SharedSignals>,
    pub(in crate::config) login_rate_limits: Optional<List<RateLimit, 1>>,
    pub(in crate::config) routes: Required<List<Route, 1>>,
}

pub(in crate::config) struct Oidc {
    pub(in crate::config) issuer: Required<Issuer>,
    pub(in crate::config) client_id: Required<Text>,
    pub(in crate::config) client_auth: Required<ClientAuth>,
    pub(in crate::config) tls: Optional<OidcTls>,
    pub(in crate::config) tls_client_certificate_bound_access_tokens: Required<bool>,
    pub(in crate::config) scopes: Required<List<Scope, 1>>,
    pub(in crate::config) authorization_parameters: Required<Parameters>,
    pub(in crate::config) pushed_authorization_requests: Required<PushedAuthorizationRequests>,
    pub(in crate::config) response_mode: Required<ResponseMode>,
    pub(in crate::config) request_object: Optional<RequestObject>,
    pub(in crate::config) resource: Required<List<ResourceUri>>,
    pub(in crate::config) claims: Required<Claims>,
    pub(in crate::config) end_session_parameters: Required<EndSessionParameters>,
    pub(in crate::config) trusted_audiences: Required<List<Text>>,
    pub(in crate::config) id_token_signed_response_alg: Optional<IdTokenAlgorithm>,
    pub(in crate::config) timeout: Required<Duration>,
    pub(in crate::config) userinfo: Required<bool>,
    pub(in crate::config) dpop_bound_access_tokens: Required<bool>,
    pub(in crate::config) introspection: Optional<Introspection>,
    pub(in crate::config) device_authorization: Required<bool>,
}

pub(in crate::config) struct Introspection {
    pub(in crate::config) interval: Required<Duration>,
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
            pages: keys.optional(
                "pages",
                "A folder with pages in place of ours: error.html, login-failed.html, logout.html and others, error.de.html for one language. Ours where left out.",
            ),
            oidc: keys.required(
                "oidc",
                "{issuer: …, client_id: …, client_auth: …}",
                "The OpenID provider; or a list of those that a user may choose from, each with a name.",
            ),
            session: keys.or("session", "{}", "The cookie, and what differs from `sessions`."),
            shared_signals: keys.optional(
                "shared_signals",
                "Whose security events end sessions, posted to {base_path}/security-events; nobody's where left out.",
            ),
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
    const NEVER: &[Never] = &[
        ("flow", other_grant),
        ("flows", other_grant),
        ("grant", other_grant),
        ("grant_type", other_grant),
        ("grant_types", other_grant),
        ("response_type", other_grant),
        ("response_types", other_grant),
        ("password", password_grant),
        ("username", password_grant),
    ];

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
                "How the client proves itself: one of the methods with what it needs, or none.",
            ),
            tls: keys.optional("tls", "What differs from the defaults of TLS towards the issuer."),
            tls_client_certificate_bound_access_tokens: keys.or(
                "tls_client_certificate_bound_access_tokens",
                "false",
                "Whether the issuer binds access tokens to the client's certificate (RFC 8705 §3); asks at mtls_endpoint_aliases.",
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
            pushed_authorization_requests: keys.or(
                "pushed_authorization_requests",
                "auto",
                "Whether authorization requests go to the issuer directly, not through the browser (RFC 9126): auto, where it takes them; required; off.",
            ),
            response_mode: keys.or(
                "response_mode",
                "query",
                "How the response comes back: query, form_post, or signed by the issuer (JARM): jwt, query.jwt, form_post.jwt.",
            ),
            request_object: keys.optional(
                "request_object",
                "The private key that signs each authorization request (RFC 9101), or a map with `key` and what is said of it. Unsigned where left out.",
            ),
            resource: keys.or(
                "resource",
                "[]",
                "Where the access token is to be used (RFC 8707): absolute URIs, letter by letter as the issuer knows them.",
            ),
            claims: keys.or(
                "claims",
                "{}",
                "Single claims that are asked for, in `userinfo` or `id_token` (OpenID Connect Core §5.5); an essential acr is held to.",
            ),
            end_session_parameters: keys.or(
                "end_session_parameters",
                "{}",
                "Sent along with each logout at the issuer.",
            ),
            trusted_audiences: keys.or(
                "trusted_audiences",
                "[]",
                "Whom an ID token may be for besides the client. One that is for anybody else is refused.",
            ),
            id_token_signed_response_alg: keys.optional(
                "id_token_signed_response_alg",
                "What ID tokens and logout tokens are signed with, as the client is registered. Whatever the issuer lists where left out.",
            ),
            timeout: keys.or("timeout", "30s", "For one call to the issuer."),
            userinfo: keys.or("userinfo", "false", "Whether userinfo is fetched at login."),
            dpop_bound_access_tokens: keys.or(
                "dpop_bound_access_tokens",
                "false",
                "Whether each login's tokens are bound to a key of its own (RFC 9449); with `dpop` on routes.",
            ),
            introspection: keys.optional(
                "introspection",
                "For issuers whose access tokens may die early: has them confirmed while they are used (RFC 7662). They are used until they expire where left out.",
            ),
            device_authorization: keys.or(
                "device_authorization",
                "false",
                "Whether users may log in by a code that they type into another device (RFC 8628), under /device.",
            ),
        })
    }
}

impl Record for Introspection {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        let about = "How old the issuer's word on an access token may be, 30s at least; a request past it waits for a new one.";
        Ok(Self { interval: keys.or("interval", "30s", about) })
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
