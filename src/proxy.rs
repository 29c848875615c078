//! Forwards one request to an upstream: streamed both ways, with the token added and nothing of ours
//! or of anybody else's identity let through (RFC 9110 §7.6, RFC 9112).

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tower::BoxError;

use crate::body::Body;
use crate::clock::Timestamp;
use crate::config::{self, Health, Protocol, Timeouts};
use crate::connector;
use crate::dpop::{Key, Nonce, Proven};
use crate::random::Random;
use crate::reloaded::Reload;
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::telemetry::trace::Span;

pub mod activity;
pub mod body;
pub mod challenge;
pub mod headers;
mod servers;
mod transport;
pub mod tunnel;

use activity::Activity;
use headers::Facts;
use servers::resolve::{Resolve, SystemResolver};
use servers::{ServerAddress, Servers};
use transport::{Failed, Transport};
use tunnel::End;

pub use servers::{KnownServer, Standing};

/// The servers behind a route.
#[derive(Debug)]
pub struct Upstream {
    servers: Arc<Servers>,
    transport: Arc<Transport>,
    base_path: String,
    timeouts: Timeouts,
    attempts: usize,
    health: Option<(Uri, Health)>,
    /// Whether a WebSocket begins with an extended CONNECT (RFC 8441 §4).
    speaks_http2_alone: bool,
    /// What it wants to see in proofs.
    nonce: Nonce,
    /// Ends with the upstream.
    watches: Vec<AbortOnDropHandle<()>>,
}

/// The token that goes out with a request.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a Secret,
    /// What shows, at this moment, that its holder sends it (RFC 9449 §7.1); where absent, it is sent as a bearer
    /// token.
    pub key: Option<(&'a Key, Timestamp)>,
}

/// What an upstream answered.
pub struct Answer {
    /// The response, its body streaming.
    pub response: Response<Body>,
    /// The upstream's end of the tunnel, where a handshake was asked for and granted.
    pub tunnel: Option<End>,
}

/// Put among a request's extensions, hears the `Link` fields of each 103 that comes before the answer
/// (RFC 8297).
#[derive(Clone)]
pub struct EarlyHints(pub Arc<dyn Fn(HeaderMap) + Send + Sync>);

/// No connection to an upstream can ever be made with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No connection can be made.
    #[error(transparent)]
    Connector(#[from] connector::BuildError),
    /// The URL names no server.
    #[error("the upstream's URL names no server")]
    Url(#[from] http::uri::InvalidUri),
    /// The path of the health checks makes no address.
    #[error("the path of the health checks cannot be asked for")]
    Health(#[source] http::uri::InvalidUri),
    /// The URL's host is no value of a field.
    #[error("the upstream's URL names a host that cannot be sent")]
    Host(#[from] header::InvalidHeaderValue),
    /// No certificate can have this name.
    #[error("the upstream's name can be in no certificate")]
    ServerName(#[from] rustls::pki_types::InvalidDnsNameError),
}

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection could be made; the upstream saw nothing.
    #[error("no connection to the upstream")]
    Connect(#[source] BoxError),
    /// The exchange broke off; the upstream may have acted.
    #[error("the exchange with the upstream broke off")]
    Exchange(#[source] BoxError),
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
    RequestBody(#[source] BoxError),
    /// The address or a field could not be put together.
    #[error("no request can be made of this")]
    Address(#[source] http::Error),
}

impl ForwardError {
    /// Its name in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Exchange(_) => "exchange",
            Self::Framing => "framing",
            Self::Upgrade => "upgrade",
            Self::Timeout => "timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestBody(_) => "request_body",
            Self::Address(_) => "address",
        }
    }
}

impl fmt::Debug for EarlyHints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EarlyHints")
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Answer({})", self.response.status())
    }
}

impl Upstream {
    /// The servers of a route.
    ///
    /// # Errors
    /// Where no connection to them can ever be made.
    pub fn new(
        upstream: &config::Upstream,
        timeouts: Timeouts,
        attempts: usize,
        random: Random,
    ) -> Result<Self, BuildError> {
        let transport = Transport::new(upstream, timeouts)?;
        let health = upstream.health.as_ref().map(|health| Ok((health.path.parse()?, health.clone())));
        Ok(Self {
            servers: Arc::new(Servers::new(upstream, timeouts.connect.min(timeouts.response), random)),
            health: health.transpose().map_err(BuildError::Health)?,
            transport: Arc::new(transport),
            base_path: upstream.url.path().trim_end_matches('/').to_owned(),
            timeouts,
            attempts,
            speaks_http2_alone: upstream.protocol == Protocol::Http2,
            nonce: Nonce::default(),
            watches: Vec::new(),
        })
    }

    /// Begins to follow where the servers' names lead, and to ask the servers whether they are well. Until
    /// then no name is resolved. To be called within a runtime; what it begins ends with the upstream.
    pub fn watch(&mut self) {
        self.watch_with(Arc::new(SystemResolver));
    }

    /// The servers that are known at this moment; or why a name leads to none.
    ///
    /// # Errors
    /// What the resolver says.
    pub fn known_servers(&self) -> Result<Vec<KnownServer>, String> {
        self.servers.known()
    }

    /// Reads our certificate again, where there is one that the servers are shown.
    pub fn reload(&self) -> Option<Reload> {
        self.transport.reload()
    }

    fn watch_with(&mut self, resolver: Arc<dyn Resolve>) {
        if self.servers.has_names() {
            self.watches.push(spawn(servers::resolve::follow(Arc::clone(&self.servers), resolver)));
        }
        if let Some((uri, health)) = self.health.clone() {
            let (servers, transport) = (Arc::clone(&self.servers), Arc::clone(&self.transport));
            self.watches.push(spawn(servers::check::watch(servers, transport, uri, health)));
        }
    }

    /// The span of an exchange, where its request is recorded.
    pub fn span<B>(&self, request: &Request<B>, path: &PathAndQuery) -> Option<Span> {
        Span::call(request.method(), || self.transport.absolute(&self.target(path).ok()?).ok())
    }

    /// Sends a request to `path` (canonical, still escaped) and gives back the answer with
    /// its body streaming. The request's head must still be as the client sent it, but for our cookies;
    /// what is presented goes out as its `Authorization`. From when it `began`, the answer has the route's time.
    ///
    /// # Errors
    /// Where no response came, or none that can be passed on.
    pub async fn forward(
        &self,
        mut request: Box<Request<Body>>,
        path: &PathAndQuery,
        presented: Option<Presented<'_>>,
        facts: &Facts<'_>,
        random: Random,
        began: Instant,
    ) -> Result<Answer, ForwardError> {
        let is_handshake = facts.is_handshake;
        let takes_trailers = takes_trailers(request.headers());
        *request.uri_mut() = self.target(path).map_err(ForwardError::Address)?;
        *request.version_mut() = Version::HTTP_11;
        let proof = match presented.and_then(|presented| Some((presented.token, presented.key?))) {
            Some((token, key)) => Some(self.prove(&request, token, key, random)?),
            None => None,
        };
        let (token, is_proven) = (presented.map(|presented| presented.token), proof.is_some());
        headers::prepare_request(request.headers_mut(), facts, token, proof, random)
            .map_err(|error| ForwardError::Address(error.into()))?;
        if is_handshake {
            tunnel::write_handshake(request.headers_mut());
        }
        if takes_trailers {
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let mut upload = None;
        if request.body().is_end_stream() {
            // A length that no body follows would be filled by the next request on the connection.
            if request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0") {
                request.headers_mut().remove(header::CONTENT_LENGTH);
            }
        } else {
            // The client library gives a GET no body unless its head says that there is one.
            if !request.headers().contains_key(header::CONTENT_LENGTH) {
                let chunked = HeaderValue::from_static("chunked");
                request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
            }
            let activity = Arc::new(Activity::default());
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body::noting(body, Arc::clone(&activity));
            upload = Some(activity);
        }
        let answer = self.send(request, upload, began).await?;
        if is_proven {
            self.nonce.take_over(answer.response.headers());
        }
        if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS && !is_handshake {
            return Err(ForwardError::Upgrade);
        }
        let idle = self.timeouts.idle;
        let response = answer.response.map(|body| body::answered(body, idle));
        Ok(Answer { response, ..answer })
    }

    /// The proof that goes with a request, if its token is bound to a key. It names the request as the upstream
    /// sees it: a handshake that becomes an extended CONNECT, too.
    fn prove<B>(
        &self,
        request: &Request<B>,
        token: &Secret,
        (key, now): (&Key, Timestamp),
        random: Random,
    ) -> Result<HeaderValue, ForwardError> {
        let is_connect = self.speaks_http2_alone && tunnel::is_handshake(request);
        let nonce = self.nonce.get();
        let proven = Proven {
            method: if is_connect { &Method::CONNECT } else { request.method() },
            uri: &self.transport.absolute(request.uri()).map_err(ForwardError::Address)?,
            token: Some(token),
            nonce: nonce.as_deref(),
        };
        Ok(key.prove(&proven, now, random))
    }

    /// Tries one server after another while the request was surely not processed.
    async fn send(
        &self,
        mut request: Box<Request<Body>>,
        upload: Option<Arc<Activity>>,
        began: Instant,
    ) -> Result<Answer, ForwardError> {
        let mut server = self.servers.pick().await?;
        let mut tried = Vec::new();
        loop {
            let sent = match &upload {
                Some(activity) => {
                    let sent = Box::pin(self.send_while_it_moves(server.address(), request, activity)).await;
                    // It may be the client who stalls: nobody is to take servers out in that way.
                    sent.ok_or(ForwardError::Timeout)?
                }
                None => {
                    let due = began + self.timeouts.response;
                    self.transport.send(server.address(), request, Some(due)).await
                }
            };
            let Failed { error, unprocessed } = match sent {
                Ok(answer) => {
                    self.servers.note_answer(&server);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            self.servers.note_failure(&server, &error, unprocessed.is_some());
            tried.push(server.address().clone());
            let Some(again) = unprocessed.filter(|_| tried.len() < self.attempts) else { return Err(error) };
            let another = Box::pin(self.servers.pick_another(&tried, &error)).await;
            let Some(another) = another else { return Err(error) };
            tracing::debug!(event = "upstream.tried_again", address = %another.address(), error = %chain(&error));
            (request, server) = (again, another);
        }
    }

    /// Sends a request with its body, until nothing has moved for too long; `None` where the client's body was still
    /// under way then, which shares the activity until it was sent.
    async fn send_while_it_moves(
        &self,
        server: &ServerAddress,
        request: Box<Request<Body>>,
        activity: &Arc<Activity>,
    ) -> Option<Result<Answer, Failed>> {
        let stalls = async {
            activity.ceases(self.timeouts.response).await;
            Arc::strong_count(activity) > 1
        };
        tokio::select! {
            biased;
            sent = self.transport.send(server, request, None) => Some(sent),
            is_uploading = stalls => (!is_uploading).then(|| Err(Failed::too_late())),
        }
    }

    /// What is asked for, in origin form (RFC 9112 §3.2.1).
    fn target(&self, path: &PathAndQuery) -> Result<Uri, http::Error> {
        if self.base_path.is_empty() {
            return Ok(path.clone().into());
        }
        Ok(PathAndQuery::try_from(format!("{}{path}", self.base_path))?.into())
    }
}

/// Runs for as long as what this gives is kept.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Whether the client wants trailers, and nothing else by the same field: alone this much of it may be sent
/// in HTTP/2, where gRPC asks for it (RFC 9113 §8.2.2).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(header::TE).iter();
    fields.next().is_some_and(|field| field == "trailers") && fields.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn plain(url: &str) -> config::Upstream {
        config::Upstream {
            url: url::Url::parse(url).unwrap(),
            strip_prefix: None,
            addresses: Vec::new(),
            protocol: Protocol::Auto,
            tls: config::UpstreamTls::default(),
            header_count: 100,
            health: None,
        }
    }

    #[test]
    fn rfc9449_a_proof_names_the_method_by_which_a_handshake_is_sent() {
        let (key, token) = (Key::generate(Random::SYSTEM), Secret::new("token"));
        let timeout = Duration::from_secs(1);
        let timeouts = Timeouts { connect: timeout, response: timeout, idle: timeout };
        for (protocol, method) in
            [(Protocol::Auto, "GET"), (Protocol::Http1, "GET"), (Protocol::Http2, "CONNECT")]
        {
            let upstream = config::Upstream { protocol, ..plain("http://orders.internal") };
            let upstream = Upstream::new(&upstream, timeouts, 1, Random::SYSTEM).unwrap();
            let mut handshake = Request::builder().uri("/ws").body(()).unwrap();
            tunnel::write_handshake(handshake.headers_mut());
            let key = (&key, Timestamp::from_secs(1));
            let proof = upstream.prove(&handshake, &token, key, Random::SYSTEM).unwrap();
            let claims = proof.to_str().unwrap().split('.').nth(1).unwrap();
            let claims: serde_json::Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            assert_eq!(claims["htm"], method, "{protocol:?}");
        }
    }

    #[test]
    fn the_upstreams_own_path_is_put_before_the_requests() {
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(1),
            idle: Duration::from_secs(1),
        };
        let at = |url: &str, path: &str| {
            let upstream = Upstream::new(&plain(url), timeouts, 1, Random::SYSTEM).unwrap();
            let target = upstream.target(&path.parse().unwrap()).unwrap();
            assert_eq!(target.authority(), None);
            upstream.transport.absolute(&target).unwrap().to_string()
        };
        assert_eq!(at("http://orders.internal:9000", "/a?b=c"), "http://orders.internal:9000/a?b=c");
        assert_eq!(at("http://orders.internal/v1/", "/a"), "http://orders.internal/v1/a");
        assert_eq!(at("http://orders.internal/v1", "/"), "http://orders.internal/v1/");
        assert_eq!(at("http://orders.internal", "/?q=1"), "http://orders.internal/?q=1");
    }
}
