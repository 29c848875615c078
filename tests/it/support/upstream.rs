//! A server behind the gateway: it remembers what came, and answers as the test says.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What came with one request, its body read to the end.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub struct Upstream {
    pub address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    connections: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Upstream {
    /// Answers every request with 200 and `{"path": …}`.
    pub async fn start() -> Self {
        Self::answering(|arrived| full(format!("{{\"path\":\"{}\"}}", arrived.target))).await
    }

    /// The same, at this address.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::answering_at(address, |_| full("{}")).await
    }

    /// Answers each request as `answer` says.
    pub async fn answering(answer: impl Fn(&Arrived) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::answering_at(ANY, answer).await
    }

    async fn answering_at(
        address: SocketAddr,
        answer: impl Fn(&Arrived) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), Arc::clone(&arrived));
        Self::serving(address, arrived, move |request| {
            let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
                let arrived = Arrived {
                    method: head.method,
                    target: head.uri.to_string(),
                    headers: head.headers,
                    body,
                };
                let response = answer(&arrived);
                noted.lock().unwrap().push(arrived);
                response
            }
        })
        .await
    }

    /// Hands each request over as it comes in, its body unread; nothing is remembered.
    pub async fn raw<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serving(ANY, Arc::default(), answer).await
    }

    async fn serving<F>(
        address: SocketAddr,
        arrived: Arc<Mutex<Vec<Arrived>>>,
        answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, connections) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let accepted = Arc::clone(&connections);
        let running = tokio::spawn(async move {
            // They end with the server.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let connection = http1::Builder::new()
                    // The gateway has a limit; here it would be in the way.
                    .max_headers(1000)
                    .serve_connection(TokioIo::new(stream), service);
                serving.spawn(connection.with_upgrades());
            }
        });
        Self { address, arrived, connections, running }
    }

    /// Ends, with all its connections: nothing listens at its address from here on.
    pub async fn stop(mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// How many connections have been made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What has come last.
    pub fn last(&self) -> Arrived {
        self.arrived().pop().expect("something has come")
    }

    /// The bearer tokens that came, in order.
    pub fn tokens(&self) -> Vec<String> {
        let token = |arrived: &Arrived| {
            arrived.headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
        };
        self.arrived().iter().filter_map(token).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A whole answer with status 200.
pub fn full(content: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(content.into()).map_err(|never| match never {}).boxed_unsync())
}

/// An empty answer with this status and these fields.
pub fn status(status: u16, fields: &[(&'static str, &str)]) -> Response<Body> {
    let mut response = full("");
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}
