//! Forwards one request to an upstream: streamed both ways, with the token added and nothing of ours
//! or of anybody else's identity let through (RFC 9110 §7.6, RFC 9112).

use std::error::Error;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use http_body_util::LengthLimitError;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_http::timeout::TimeoutBody;
use url::Url;

use crate::body::Body;
use crate::config::Timeouts;
use crate::connector::{self, Connector};
use crate::random::Random;
use crate::secret::Secret;

pub mod activity;
pub mod body;
pub mod headers;
pub mod tunnel;

use activity::Activity;
use headers::Facts;

/// One server behind the gateway.
#[derive(Debug)]
pub struct Upstream {
    client: Client<Connector, Body>,
    scheme: Scheme,
    authority: Authority,
    base_path: String,
    timeouts: Timeouts,
}

/// No connection to an upstream can ever be made with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No connection can be made.
    #[error(transparent)]
    Connector(#[from] connector::BuildError),
    /// The URL names no server.
    #[error("the upstream's URL names no server")]
    Url(#[from] http::uri::InvalidUri),
}

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection could be made; the upstream saw nothing.
    #[error("no connection to the upstream")]
    Connect(#[source] hyper_util::client::legacy::Error),
    /// The exchange broke off; the upstream may have acted.
    #[error("the exchange with the upstream broke off")]
    Exchange(#[source] hyper_util::client::legacy::Error),
    /// It is not certain where the answer ends (RFC 9112 §6.3).
    #[error("the framing of the upstream's answer is ambiguous")]
    Framing,
    /// The answer to an upgrade is no switch of protocols.
    #[error("the upstream switched to a protocol that was not asked for")]
    Upgrade,
    /// No response within the route's time, counted from the last byte of the request's body that moved.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The client's body is larger than the limit.
    #[error("the request's body is larger than the limit")]
    BodyTooLarge,
    /// The client's body broke off.
    #[error("the request's body broke off")]
    RequestBody(#[source] hyper_util::client::legacy::Error),
    /// The address or a field could not be put together.
    #[error("no request can be made of this")]
    Address(#[source] http::Error),
}

impl Upstream {
    /// The server at `url`, whose path is put before each request's.
    pub fn new(url: &Url, timeouts: Timeouts) -> Result<Self, BuildError> {
        let connector = connector::connector(timeouts.connect, url.scheme() == "https")?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(connector::POOL_IDLE_TIMEOUT)
            .build(connector);
        Ok(Self {
            client,
            scheme: if url.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP },
            authority: url.authority().parse()?,
            base_path: url.path().trim_end_matches('/').to_owned(),
            timeouts,
        })
    }

    /// Sends a request to `path` (canonical, still escaped, with its query) and gives back the response
    /// with its body streaming. The request's head must still be as the client sent it, but for our
    /// cookies; `token` goes out as its `Authorization`.
    pub async fn forward(
        &self,
        mut request: Request<Body>,
        path: &str,
        token: Option<&Secret>,
        facts: &Facts<'_>,
        random: Random,
    ) -> Result<Response<Body>, ForwardError> {
        let is_handshake = tunnel::is_handshake(&request);
        *request.uri_mut() = self.address(path).map_err(ForwardError::Address)?;
        *request.version_mut() = Version::HTTP_11;
        headers::prepare_request(request.headers_mut(), facts, token, random)
            .map_err(|error| ForwardError::Address(error.into()))?;
        if is_handshake {
            tunnel::write_handshake(request.headers_mut());
        }
        let activity = Arc::new(Activity::default());
        if !request.body().is_end_stream() {
            // The client library gives a GET no body unless its head says that there is one.
            if !request.headers().contains_key(header::CONTENT_LENGTH) {
                let chunked = HeaderValue::from_static("chunked");
                request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
            }
            request = request.map(|body| body::noting(body, Arc::clone(&activity)));
        }
        let connection = capture_connection(&mut request);
        let response = tokio::select! {
            response = self.client.request(request) => response.map_err(classify)?,
            () = activity.ceases(self.timeouts.response) => return Err(ForwardError::Timeout),
        };
        if headers::has_ambiguous_framing(response.headers()) {
            // What is left on it may pass for the answer to somebody else's request (R39).
            if let Some(connection) = &*connection.connection_metadata() {
                connection.poison();
            }
            return Err(ForwardError::Framing);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !is_handshake {
            return Err(ForwardError::Upgrade);
        }
        let idle = self.timeouts.idle;
        Ok(response.map(|body| body::filter_trailers(TimeoutBody::new(idle, body))))
    }

    fn address(&self, path: &str) -> Result<Uri, http::Error> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(format!("{}{path}", self.base_path))?)
            .build()
    }
}

/// Whether a response says that the token was refused (RFC 6750 §3.1), so that a fresh one may help.
pub fn refuses_token(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED
        && headers.get_all(header::WWW_AUTHENTICATE).iter().any(|challenge| {
            // One field may hold several challenges (RFC 9110 §11.6.1).
            let challenge = challenge.to_str().unwrap_or_default().to_ascii_lowercase();
            challenge
                .split([',', ' '])
                .skip_while(|part| *part != "bearer")
                .any(|part| matches!(part, "error=\"invalid_token\"" | "error=invalid_token"))
        })
}

fn classify(error: hyper_util::client::legacy::Error) -> ForwardError {
    if error.is_connect() {
        return ForwardError::Connect(error);
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<LengthLimitError>() {
            return ForwardError::BodyTooLarge;
        }
        if cause.is::<body::BrokenOff>() {
            return ForwardError::RequestBody(error);
        }
        source = cause.source();
    }
    ForwardError::Exchange(error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_bearer_challenge_with_invalid_token_asks_for_a_fresh_token() {
        let refused = |challenge: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            refuses_token(StatusCode::UNAUTHORIZED, &headers)
        };
        assert!(refused("Bearer error=\"invalid_token\""));
        assert!(refused("bearer realm=\"api\", error=\"invalid_token\", error_description=\"expired\""));
        assert!(refused("Basic realm=\"api\", Bearer error=\"invalid_token\""));
        assert!(!refused("Bearer error=\"insufficient_scope\""));
        assert!(!refused("Bearer"));
        assert!(!refused("Basic realm=\"invalid_token\""));
        assert!(!refuses_token(StatusCode::UNAUTHORIZED, &HeaderMap::new()));
    }

    #[test]
    fn the_upstreams_own_path_is_put_before_the_requests() {
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(1),
            idle: Duration::from_secs(1),
        };
        let at = |url: &str, path: &str| {
            let upstream = Upstream::new(&Url::parse(url).unwrap(), timeouts).unwrap();
            upstream.address(path).unwrap().to_string()
        };
        assert_eq!(at("http://orders.internal:9000", "/a?b=c"), "http://orders.internal:9000/a?b=c");
        assert_eq!(at("http://orders.internal/v1/", "/a"), "http://orders.internal/v1/a");
        assert_eq!(at("http://orders.internal/v1", ""), "http://orders.internal/v1/");
        assert_eq!(at("http://orders.internal", "?q=1"), "http://orders.internal/?q=1");
    }
}
