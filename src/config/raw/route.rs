//! One route as it is written, and the servers behind it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::token::{RequiredClaims, Token};
use crate::config::decode::{At, Decode, List, Optional, Required, decode_at};
use crate::config::document::{Content, Node};
use crate::config::keys::{Choice, Keys, Record};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::{Attempts, Count, Fields, Scope, Text};
use crate::config::web::{Path, Prefix, UpstreamUrl};
use crate::config::{Address, Auth, Csrf, Protocol, RateLimitKey};

pub(in crate::config) struct Route {
    pub(in crate::config) path: Required<Path>,
    pub(in crate::config) target: Result<Target, Reported>,
    pub(in crate::config) methods: Optional<List<Method, 1>>,
    pub(in crate::config) auth: Optional<Auth>,
    pub(in crate::config) token: Required<Token>,
    pub(in crate::config) dpop: Required<bool>,
    pub(in crate::config) csrf: Optional<Csrf>,
    pub(in crate::config) required_scopes: Required<List<Scope>>,
    pub(in crate::config) required_claims: Required<RequiredClaims>,
    pub(in crate::config) timeouts: Required<Timeouts>,
    pub(in crate::config) retry: Required<Retry>,
    pub(in crate::config) rate_limits: Optional<List<RateLimit, 1>>,
    pub(in crate::config) websocket: Required<bool>,
    pub(in crate::config) allow_encoded_slash: Required<bool>,
}

pub(in crate::config) enum Target {
    Upstream(Box<At<Upstream>>),
    Files(At<Text>),
}

pub(in crate::config) struct Upstream {
    pub(in crate::config) url: Required<UpstreamUrl>,
    pub(in crate::config) strip_prefix: Optional<Prefix>,
    pub(in crate::config) addresses: Optional<List<Address, 1>>,
    pub(in crate::config) protocol: Optional<Protocol>,
    pub(in crate::config) header_count: Optional<Fields>,
    pub(in crate::config) tls: Optional<UpstreamTls>,
    pub(in crate::config) health: Optional<Health>,
}

pub(in crate::config) struct UpstreamTls {
    pub(in crate::config) ca: Optional<Text>,
    pub(in crate::config) certificate: Optional<Text>,
    pub(in crate::config) private_key: Optional<Text>,
    pub(in crate::config) server_name: Optional<Text>,
}

pub(in crate::config) struct Health {
    pub(in crate::config) path: Required<Path>,
    pub(in crate::config) interval: Required<Duration>,
    pub(in crate::config) timeout: Required<Duration>,
    pub(in crate::config) unhealthy_after: Required<Count>,
    pub(in crate::config) healthy_after: Required<Count>,
}

pub(in crate::config) struct Retry {
    pub(in crate::config) attempts: Required<Attempts>,
}

pub(in crate::config) struct RateLimit {
    pub(in crate::config) requests: Required<Count>,
    pub(in crate::config) per: Required<Duration>,
    pub(in crate::config) by: Required<RateLimitKey>,
    pub(in crate::config) shared: Required<bool>,
}

pub(in crate::config) struct Timeouts {
    pub(in crate::config) connect: Required<Duration>,
    pub(in crate::config) response: Required<Duration>,
    pub(in crate::config) idle: Required<Duration>,
}

impl Record for Route {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            path: keys.required("path", "/api", "Matches itself and all below it, by segments."),
            target: keys.one_of(&[
                Choice::new("upstream", "The server behind the route, by its URL.", |upstream| Target::Upstream(Box::new(upstream))),
                Choice::new(
                    "files",
                    "A folder of static files, relative to the working directory; its index.html answers unknown paths that accept HTML.",
                    Target::Files,
                ),
            ]),
            methods: keys.optional("methods", "Methods that are let through; all where left out."),
            auth: keys.optional("auth", "Whether a session is needed; for upstreams required, for files none where left out."),
            token: keys.or("token", "access_token", "What is sent upstream as Authorization."),
            dpop: keys.or(
                "dpop",
                "false",
                "Whether the access token goes with a proof of possession (RFC 9449); needs oidc.dpop_bound_access_tokens.",
            ),
            csrf: keys.optional(
                "csrf",
                "How the use of a session is guarded: header (X-CSRF: 1), same_origin or off; for upstreams header, for files off where left out.",
            ),
            required_scopes: keys.or(
                "required_scopes",
                "[]",
                "Scopes the session must have been granted, or the token for this upstream where it has one.",
            ),
            required_claims: keys.or(
                "required_claims",
                "{}",
                "Claims about the user, each with the value it must have or hold, or several, one of which suffices.",
            ),
            timeouts: keys.or("timeouts", "{}", "How long the upstream may take."),
            retry: keys.or("retry", "{}", "Whether a request that was surely not processed is sent again."),
            rate_limits: keys.optional(
                "rate_limits",
                "How many requests may be made; each of them holds. As many as anybody likes where left out.",
            ),
            websocket: keys.or("websocket", "false", "Whether WebSockets are let through."),
            allow_encoded_slash: keys.or("allow_encoded_slash", "false", "Whether %2f may stand in a path."),
        })
    }
}

impl Decode for Upstream {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::Scalar { .. } => Ok(Self {
                url: decode_at(node, reading),
                strip_prefix: Ok(None),
                addresses: Ok(None),
                protocol: Ok(None),
                header_count: Ok(None),
                tls: Ok(None),
                health: Ok(None),
            }),
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
            addresses: keys.optional(
                "addresses",
                "Where the servers behind the URL are, `host:port` or `unix:/path`; what the URL's host resolves to where left out.",
            ),
            protocol: keys.optional(
                "protocol",
                "auto: what TLS negotiates, HTTP/1.1 without TLS; http1; http2, without TLS by prior knowledge. auto where left out.",
            ),
            header_count: keys.optional(
                "header_count",
                "Fields in an answer's head in HTTP/1.1; at least 20. 100 where left out, and more cost time on each answer.",
            ),
            tls: keys.optional("tls", "What differs from the defaults of TLS; for https alone."),
            health: keys.optional("health", "Asks each address whether it is well; only what requests meet tells where left out."),
        }))
    }
}

impl Record for UpstreamTls {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            ca: keys.optional(
                "ca",
                "A file of certificates in PEM, the only authorities that are believed; the system's where left out.",
            ),
            certificate: keys.optional("certificate", "The gateway's own certificate in PEM, with private_key."),
            private_key: keys.optional("private_key", "Its private key in PEM, which others must not be able to read."),
            server_name: keys.optional("server_name", "The name in the server's certificate; the URL's host where left out."),
        })
    }
}

impl Record for Health {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            path: keys.required("path", "/healthz", "Answered with 2xx by a server that is well."),
            interval: keys.or("interval", "10s", "Between two checks of one address."),
            timeout: keys.or("timeout", "2s", "Until the answer's head is there."),
            unhealthy_after: keys.or(
                "unhealthy_after",
                "3",
                "Failures in a row after which an address gets no requests.",
            ),
            healthy_after: keys.or(
                "healthy_after",
                "2",
                "Successes in a row after which it gets them again.",
            ),
        })
    }
}

impl Record for Retry {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self { attempts: keys.or("attempts", "2", "How often a request is sent at most; 1: once.") })
    }
}

impl Record for RateLimit {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            requests: keys.required("requests", "100", "So many requests, at once or spread out."),
            per: keys.required("per", "1m", "In so long."),
            by: keys.or(
                "by",
                "client",
                "Whose: session, or client for its address; of a request without a session, its address.",
            ),
            shared: keys.or("shared", "false", "Whether all gateways of one store count together."),
        })
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
