//! What an endpoint does instead of its work.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http_body_util::Full;
use serde_json::{Value, json};

/// One of the issuer's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Discovery,
    Jwks,
    Authorize,
    Push,
    Token,
    Userinfo,
    Revoke,
    Introspect,
    AuthorizeDevice,
    EndSession,
    SsfConfiguration,
}

/// One misbehaviour.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another answer; nothing is processed.
    Answer(Answer),
    /// The connection breaks; nothing was processed.
    ResetBefore,
    /// The connection breaks after the request was processed.
    ResetAfter,
    /// No answer ever comes; nothing was processed.
    Silence,
}

/// A canned answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub retry_after: Option<u32>,
    pub body: String,
}

/// The faults that wait for their requests.
#[derive(Default)]
pub struct Faults {
    queued: HashMap<Endpoint, VecDeque<Fault>>,
    kept: HashMap<Endpoint, Fault>,
}

impl Endpoint {
    pub const ALL: [Self; 11] = [
        Self::Discovery,
        Self::Jwks,
        Self::Authorize,
        Self::Push,
        Self::Token,
        Self::Userinfo,
        Self::Revoke,
        Self::Introspect,
        Self::AuthorizeDevice,
        Self::EndSession,
        Self::SsfConfiguration,
    ];

    pub const fn path(self) -> &'static str {
        match self {
            Self::Discovery => "/.well-known/openid-configuration",
            Self::Jwks => "/jwks",
            Self::Authorize => "/authorize",
            Self::Push => "/push",
            Self::Token => "/token",
            Self::Userinfo => "/userinfo",
            Self::Revoke => "/revoke",
            Self::Introspect => "/introspect",
            Self::AuthorizeDevice => "/device_authorization",
            Self::EndSession => "/end-session",
            Self::SsfConfiguration => "/.well-known/ssf-configuration",
        }
    }

    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

impl Fault {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer { status, content_type: "text/plain", retry_after: None, body: String::new() })
    }

    /// 503 with `Retry-After`.
    pub fn busy(seconds: u32) -> Self {
        let body = String::new();
        Self::Answer(Answer { status: 503, content_type: "text/plain", retry_after: Some(seconds), body })
    }

    /// A JSON answer.
    #[expect(clippy::needless_pass_by_value, reason = "reads well with json!")]
    pub fn json(status: u16, body: Value) -> Self {
        Self::text(status, "application/json", &body.to_string())
    }

    /// An error answer of RFC 6749 §5.2.
    pub fn error(status: u16, error: &str) -> Self {
        Self::json(status, json!({"error": error, "error_description": "the issuer's own words"}))
    }

    /// 400 `invalid_grant`.
    pub fn invalid_grant() -> Self {
        Self::error(400, "invalid_grant")
    }

    /// 401 `invalid_client`.
    pub fn invalid_client() -> Self {
        Self::error(401, "invalid_client")
    }

    /// An HTML page, such as those of maintenance and firewalls.
    pub fn html(status: u16) -> Self {
        Self::text(status, "text/html", "<html><h1>Sorry</h1></html>")
    }

    /// Two megabytes of JSON.
    pub fn huge() -> Self {
        Self::json(200, json!({"padding": "x".repeat(2 * 1024 * 1024)}))
    }

    /// Anything.
    pub fn text(status: u16, content_type: &'static str, body: &str) -> Self {
        Self::Answer(Answer { status, content_type, retry_after: None, body: body.to_owned() })
    }
}

impl Faults {
    pub fn queue(&mut self, endpoint: Endpoint, fault: Fault) {
        self.queued.entry(endpoint).or_default().push_back(fault);
    }

    pub fn keep(&mut self, endpoint: Endpoint, fault: Fault) {
        self.kept.insert(endpoint, fault);
    }

    pub fn clear(&mut self, endpoint: Endpoint) {
        self.queued.remove(&endpoint);
        self.kept.remove(&endpoint);
    }

    pub fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let queued = self.queued.get_mut(&endpoint).and_then(VecDeque::pop_front);
        queued.or_else(|| self.kept.get(&endpoint).cloned())
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    fn from(canned: Answer) -> Self {
        let mut response = answer(canned.status, canned.content_type, canned.body);
        response.headers_mut().extend(canned.retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
        response
    }
}

/// An answer with a body.
pub fn answer(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(CONTENT_TYPE, content_type);
    response.body(Full::new(body.into())).unwrap()
}
