//! An OpenID issuer in this process that misbehaves on command, and tells what it saw.
//!
//! It rotates refresh tokens and, when a spent one comes back, kills all tokens of that login, as real
//! issuers with reuse detection do.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cloakroom::clock::{Clock, SystemClock};
use http::header::{CONNECTION, DATE};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use behaviour::Behaviour;
pub use dpop::Dpop;
pub use endpoints::TOKEN_EXCHANGE;
pub use faults::{Endpoint, Fault};
pub use keys::{Algorithm, Draft, Signature};

use super::wait::in_time;
use assertions::Assertions;
use faults::Faults;
use grants::Grants;
use keys::Keys;

mod assertions;
mod authorization;
mod behaviour;
mod device;
mod dpop;
mod endpoints;
mod faults;
mod grants;
mod keys;

/// The registered client's id; it needs form-encoding in `client_secret_basic`.
pub const CLIENT_ID: &str = "shop:1";
/// The registered client's secret, which needs it too.
pub const CLIENT_SECRET: &str = "p%ss:w+rd &=";

/// An issuer on a free loopback port; it stops when it is dropped.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub endpoint: Endpoint,
    pub headers: HeaderMap,
    pub query: Vec<(String, String)>,
    pub form: Vec<(String, String)>,
}

struct Shared {
    issuer: String,
    /// Where its endpoints are, without a slash at the end.
    path: String,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Whether token answers are held back.
    gate: watch::Sender<bool>,
    /// Ticks with each change that a test may wait for.
    changes: watch::Sender<u64>,
}

struct State {
    behaviour: Behaviour,
    keys: Keys,
    faults: Faults,
    grants: Grants,
    /// Authorization requests that were pushed, by their `request_uri`.
    pushed: HashMap<String, Vec<(String, String)>>,
    assertions: Assertions,
    devices: Vec<device::Waiting>,
    received: Vec<Received>,
    /// The ids of the proofs that came.
    proofs: HashSet<String>,
    held: usize,
}

impl Issuer {
    /// Starts with the machine's clock.
    pub async fn start() -> Self {
        Self::start_with(Arc::new(SystemClock)).await
    }

    /// Starts with a clock that the test moves.
    pub async fn start_with(clock: Arc<dyn Clock>) -> Self {
        Self::start_at(clock, "").await
    }

    /// The same, as an issuer with a path in its name, which may end in a slash.
    pub async fn start_at(clock: Arc<dyn Clock>, path: &str) -> Self {
        Self::start_named(clock, |address| format!("http://{address}{path}")).await
    }

    /// The same, under the name of what stands in front of it.
    pub async fn start_named(clock: Arc<dyn Clock>, name: impl FnOnce(SocketAddr) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = name(address);
        let path = url::Url::parse(&issuer).unwrap().path().trim_end_matches('/').to_owned();
        let state = State {
            behaviour: Behaviour::default(),
            keys: Keys::new(),
            faults: Faults::default(),
            grants: Grants::new(address.port()),
            pushed: HashMap::new(),
            assertions: Assertions::default(),
            devices: Vec::new(),
            received: Vec::new(),
            proofs: HashSet::new(),
            held: 0,
        };
        let shared = Arc::new(Shared {
            issuer,
            path,
            clock,
            state: Mutex::new(state),
            gate: watch::Sender::new(false),
            changes: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, server: Some(server) }
    }

    /// Closes the port and every connection. What was issued stays known. A client with a connection in its
    /// pool may learn of the end only when it has already sent something; where a test must know that
    /// nothing was sent, [`Behaviour::keeps_connections`] is to be `false` from the start.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _aborted = server.await;
        }
    }

    /// Listens on the same port again.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The issuer identifier.
    pub fn url(&self) -> String {
        self.shared.issuer.clone()
    }

    /// Changes the behaviour from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.state().behaviour);
    }

    /// Changes each ID token before it is signed.
    pub fn tamper(&self, change: impl Fn(&mut Draft) + Send + 'static) {
        self.behave(|behaviour| behaviour.tamper = Some(Box::new(change)));
    }

    /// The next request to this endpoint fails so; later ones get the next queued fault, or a good answer.
    pub fn fail_once(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.state().faults.queue(endpoint, fault);
    }

    /// Each request to this endpoint fails so, until [`Issuer::heal`].
    pub fn fail(&self, endpoint: Endpoint, fault: Fault) {
        self.shared.state().faults.keep(endpoint, fault);
    }

    /// Takes all faults of this endpoint back.
    pub fn heal(&self, endpoint: Endpoint) {
        self.shared.state().faults.clear(endpoint);
    }

    /// New signing keys under new ids; the old ones are no longer published.
    pub fn rotate_keys(&self) {
        self.shared.state().keys.rotate();
    }

    /// The JWK Set.
    pub fn published_keys(&self) -> Value {
        self.shared.state().keys.published()
    }

    /// From now on token requests are processed, but their answers wait for [`Issuer::release_token_answers`].
    pub fn hold_token_answers(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Sends what was held back, and holds no more.
    pub fn release_token_answers(&self) {
        self.shared.gate.send_replace(false);
    }

    /// How many token answers are held back now.
    pub fn held(&self) -> usize {
        self.shared.state().held
    }

    /// Waits until the condition holds; it is looked at after each request.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while !condition(self) {
                changes.changed().await.unwrap();
            }
        };
        in_time(wait).await;
    }

    /// All requests so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }

    /// The requests to one endpoint so far, in order.
    pub fn received_at(&self, endpoint: Endpoint) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.endpoint == endpoint).collect()
    }

    /// How many token requests of this `grant_type` came.
    pub fn token_requests(&self, grant_type: &str) -> usize {
        let requests = self.received_at(Endpoint::Token);
        requests.iter().filter(|request| request.field("grant_type") == Some(grant_type)).count()
    }

    /// The refresh tokens that were sent to the token endpoint, in order.
    pub fn refresh_tokens_seen(&self) -> Vec<String> {
        let requests = self.received_at(Endpoint::Token);
        requests.iter().filter_map(|request| request.field("refresh_token")).map(str::to_owned).collect()
    }

    /// The session at the issuer (`sid`) that the last login began.
    pub fn last_sid(&self) -> String {
        self.shared.state().grants.last_sid()
    }

    /// A good logout token about alice, whose `jti` is new each time, after it was changed.
    pub fn logout_token(&self, change: impl FnOnce(&mut Draft)) -> String {
        let now = self.shared.clock.now().as_secs();
        let mut state = self.shared.state();
        let algorithm = state.behaviour.algorithm;
        let id = state.grants.name("jti");
        let mut draft = Draft {
            header: json!({"alg": algorithm.name(), "kid": state.keys.key_id(algorithm), "typ": "logout+jwt"}),
            claims: json!({
                "iss": self.shared.issuer,
                "aud": CLIENT_ID,
                "iat": now,
                "exp": now + 120,
                "jti": id,
                "sub": "alice",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            }),
            raw_header: None,
            raw_claims: None,
            signature: Signature::Good,
        };
        change(&mut draft);
        state.keys.sign(algorithm, &draft)
    }

    /// A good security event token for `audience`, whose `jti` is new each time, after it was changed: alice's
    /// sessions are revoked.
    pub fn security_event(&self, audience: &str, change: impl FnOnce(&mut Draft)) -> String {
        let now = self.shared.clock.now().as_secs();
        let mut state = self.shared.state();
        let algorithm = state.behaviour.algorithm;
        let id = state.grants.name("jti");
        let mut draft = Draft {
            header: json!({"alg": algorithm.name(), "kid": state.keys.key_id(algorithm), "typ": "secevent+jwt"}),
            claims: json!({
                "iss": self.shared.issuer,
                "aud": audience,
                "iat": now,
                "jti": id,
                "txn": "8675309",
                "sub_id": {"format": "iss_sub", "iss": self.shared.issuer, "sub": "alice"},
                "events": {
                    "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {
                        "event_timestamp": now, "initiating_entity": "admin", "reason_admin": {"en": "It was time."},
                    },
                },
            }),
            raw_header: None,
            raw_claims: None,
            signature: Signature::Good,
        };
        change(&mut draft);
        state.keys.sign(algorithm, &draft)
    }

    /// Good userinfo about alice as a JWT, after it was changed.
    pub fn userinfo_token(&self, change: impl FnOnce(&mut Draft)) -> String {
        let state = self.shared.state();
        let algorithm = state.behaviour.algorithm;
        let mut draft = Draft {
            header: json!({"alg": algorithm.name(), "kid": state.keys.key_id(algorithm)}),
            claims: state.behaviour.user.clone(),
            raw_header: None,
            raw_claims: None,
            signature: Signature::Good,
        };
        (draft.claims["iss"], draft.claims["aud"]) = (json!(self.shared.issuer), json!(CLIENT_ID));
        change(&mut draft);
        state.keys.sign(algorithm, &draft)
    }

    /// Whether the issuer still honours this access or refresh token.
    pub fn is_alive(&self, token: &str) -> bool {
        self.shared.state().grants.is_alive(token, self.shared.clock.now())
    }

    /// The refresh tokens that can still be redeemed.
    pub fn living_refresh_tokens(&self) -> Vec<String> {
        self.shared.state().grants.living_refresh_tokens(self.shared.clock.now())
    }

    /// The tokens that were revoked, in order.
    pub fn revoked(&self) -> Vec<String> {
        self.shared.state().grants.revoked.clone()
    }

    /// Ends the life of a token before its time, and of nothing else.
    pub fn kill(&self, token: &str) {
        self.shared.state().grants.kill(token);
    }

    /// Ends a login at the issuer: none of its tokens is good any more.
    pub fn end_login_of(&self, token: &str) {
        self.shared.state().grants.end_login_of(token);
    }

    /// Changes each signed authorization response before it is signed.
    pub fn tamper_response(&self, change: impl Fn(&mut Draft) + Send + 'static) {
        self.behave(|behaviour| behaviour.tamper_response = Some(Box::new(change)));
    }

    /// Logs in as a browser would: follows an authorization URL, and gives the parameters that come back to
    /// the `redirect_uri`, in its query or in a form.
    pub fn authorize(&self, authorization_url: &url::Url) -> Vec<(String, String)> {
        let query: Vec<_> = authorization_url.query_pairs().into_owned().collect();
        self.shared.authorize(&query).expect("a well-formed authorization request").parameters
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Received {
    /// A field of the form.
    pub fn field(&self, name: &str) -> Option<&str> {
        value(&self.form, name)
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        value(&self.query, name)
    }

    async fn read(endpoint: Endpoint, request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let pairs = |bytes: &[u8]| form_urlencoded::parse(bytes).into_owned().collect();
        let query = pairs(head.uri.query().unwrap_or_default().as_bytes());
        Self { endpoint, headers: head.headers, query, form: pairs(&body) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Answers one request, or breaks the connection.
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Reset> {
        let path = request.uri().path().strip_prefix(&self.path);
        let Some(endpoint) = path.and_then(Endpoint::at) else {
            return Ok(faults::answer(404, "text/plain", "no such page"));
        };
        let received = Received::read(endpoint, request).await;
        let fault = {
            let mut state = self.state();
            state.received.push(received.clone());
            state.faults.next(endpoint)
        };
        self.changed();
        let response = match fault {
            None if endpoint == Endpoint::Token => {
                let answer = self.answer(&received);
                self.hold().await;
                Ok(answer)
            }
            None => Ok(self.answer(&received)),
            Some(Fault::ResetBefore) => Err(Reset),
            Some(Fault::ResetAfter) => {
                self.answer(&received);
                Err(Reset)
            }
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Answer(answer)) => Ok(answer.into()),
        };
        self.changed();
        response
    }

    async fn hold(&self) {
        let delay = self.state().behaviour.token_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut gate = self.gate.subscribe();
        self.state().held += 1;
        self.changed();
        let _open = gate.wait_for(|held| !held).await;
        self.state().held -= 1;
        self.changed();
    }
}

/// The server closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("reset on command")]
struct Reset;

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| async {
                let mut response = shared.handle(request).await?;
                if !shared.state().behaviour.keeps_connections {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let date = shared.state().behaviour.date.map(HeaderValue::from_static);
                response.headers_mut().extend(date.map(|date| (DATE, date)));
                Ok::<_, Reset>(response)
            });
            let _closed = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
