//! npm oidc-provider as a child process, and what it tells of the tokens it gave.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use super::node;

/// A running OpenID provider; dropping it stops it.
pub struct RealIssuer {
    ready: Ready,
    _server: node::Server,
}

#[derive(Deserialize)]
struct Ready {
    issuer: String,
    admin: String,
}

/// What the provider has seen since it started, as far as these tests ask.
#[derive(Debug, Deserialize)]
pub struct State {
    /// Authorization requests that were pushed, and taken.
    pub pushed: usize,
    pub token_requests: Vec<TokenRequest>,
    pub revocations: Vec<Revocation>,
    /// RP-initiated logouts that were carried out.
    pub end_sessions: usize,
    /// What became of each back-channel logout: `done`, or what went wrong.
    pub backchannel: Vec<String>,
    /// What introspections said: whether the token is active.
    pub introspections: Vec<bool>,
    /// Access and refresh tokens, in the order they were issued.
    pub tokens: Vec<IssuedToken>,
}

/// One request to the token endpoint, and how it was answered.
#[derive(Debug, Deserialize)]
pub struct TokenRequest {
    pub grant_type: Option<String>,
    pub status: u16,
    /// The origin it was sent to.
    pub at: String,
}

/// One request to the revocation endpoint (RFC 7009), and how it was answered.
#[derive(Debug, Deserialize)]
pub struct Revocation {
    pub token_type_hint: Option<String>,
    pub status: u16,
    /// The origin it was sent to.
    pub at: String,
}

/// A token the provider has issued.
#[derive(Debug, Deserialize)]
pub struct IssuedToken {
    /// `access_token` or `refresh_token`.
    pub kind: String,
    pub value: String,
    /// Neither expired, revoked, nor rotated away.
    pub alive: bool,
    /// `x5t#S256` of the certificate that it is bound to (RFC 8705 §3.1).
    pub bound_to: Option<String>,
    /// Where it is to be used.
    pub audience: Option<String>,
}

impl RealIssuer {
    /// Starts a provider; `tests/real/issuer.mjs` has the options.
    pub async fn start(options: &Value) -> Self {
        let mut command = node::script("issuer.mjs");
        command.arg(options.to_string());
        let (server, ready) = node::Server::start(command).await;
        Self { ready, _server: server }
    }

    /// The issuer identifier.
    pub fn url(&self) -> &str {
        &self.ready.issuer
    }

    /// Where `GET /state` answers, for the browser's scenarios.
    pub fn admin(&self) -> &str {
        &self.ready.admin
    }

    /// What has happened so far.
    pub async fn state(&self) -> State {
        serde_json::from_slice(&self.ask("state").await).expect("the issuer's state")
    }

    /// Ends the life of all access tokens before their time.
    pub async fn kill_access_tokens(&self) {
        self.ask("kill").await;
    }

    async fn ask(&self, what: &str) -> Bytes {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let uri = format!("{}/{what}", self.admin()).parse().expect("a URI");
        let response = client.get(uri).await.expect("the issuer answers");
        response.into_body().collect().await.expect("the issuer's answer").to_bytes()
    }
}

impl State {
    /// How many refreshes were asked for, granted or not.
    pub fn refreshes(&self) -> usize {
        self.token_requests
            .iter()
            .filter(|request| request.grant_type.as_deref() == Some("refresh_token"))
            .count()
    }

    /// The tokens that still work, of one kind.
    pub fn alive(&self, kind: &str) -> Vec<&str> {
        let alive = self.tokens.iter().filter(|token| token.kind == kind && token.alive);
        alive.map(|token| token.value.as_str()).collect()
    }
}
