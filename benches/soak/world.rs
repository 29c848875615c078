//! A gateway process in TLS over a real Redis, before two servers that come and go and a third that is never there.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{AbortHandle, JoinSet};

use crate::journal::Journal;
use crate::support::certificates::{Authority, Certificate};
use crate::support::echo::Echo;
use crate::support::gateway::{GatewayProcess, Setup};
use crate::support::https::Https;
use crate::support::issuer::Issuer;
use crate::support::port::Reserved;
use crate::support::redis::Redis;
use crate::support::upstream::Body;

/// How long an access token lives, in seconds.
const TOKEN_LIFE: u64 = 20;

/// How many events a stream has.
pub const EVENTS: usize = 10;

pub struct World {
    pub gateway: GatewayProcess,
    pub journal: Journal,
    pub http1: Https,
    pub http2: Https,
    /// The servers that come and go.
    pub servers: [SocketAddr; 2],
    pub certificates: [Certificate; 2],
    issuer: Issuer,
    folder: TempDir,
    _kept: (Redis, Echo, Reserved, Authority),
}

/// A server that is there until it is dropped, with all its connections.
pub struct Server(AbortHandle);

impl World {
    pub async fn start() -> Self {
        let (redis, issuer, echo) = (Redis::start().await, Issuer::start().await, Echo::start().await);
        issuer.behave(|behaviour| behaviour.expires_in = Some(json!(TOKEN_LIFE)));
        let authority = Authority::new();
        let certificates = ["one", "other"].map(|name| authority.issue(name, "DNS:localhost", 30));
        let (folder, dead) = (TempDir::new().unwrap(), Reserved::new());
        let servers = [Reserved::new(), Reserved::new()].map(|port| port.address());
        let addresses = servers.map(|address| format!("\"{address}\"")).join(", ");
        let mut setup = Setup::new(&issuer.url())
            .route(&format!(
                "path: /api, upstream: {{url: \"http://orders.internal\", addresses: [{addresses}, \"{}\"]}}",
                dead.address()
            ))
            .route(&format!("path: /ws, upstream: \"{}\", websocket: true", echo.url))
            .route(&format!(
                "path: /, upstream: \"http://{}\", auth: none, retry: {{attempts: 2}}",
                servers[0]
            ));
        setup.store_in(&redis);
        let file = |name: &str| folder.path().join(name).display().to_string();
        setup.server =
            format!("tls: {{certificate: \"{}\", private_key: \"{}\"}}", file("tls.crt"), file("tls.key"));
        let journal = Journal::default();
        put(folder.path(), &certificates[0]);
        let gateway = setup.start_process().await;
        Self {
            gateway,
            journal,
            http1: Https::new(&authority, &["http/1.1"]),
            http2: Https::new(&authority, &["h2"]),
            servers,
            certificates,
            issuer,
            folder,
            _kept: (redis, echo, dead, authority),
        }
    }

    pub fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token")
    }

    /// The folder of the certificate that is served.
    pub fn served(&self) -> &Path {
        self.folder.path()
    }
}

/// Puts a certificate where the gateway looks for it, each file whole at any moment.
pub fn put(folder: &Path, certificate: &Certificate) {
    for (from, name) in [(&certificate.key, "tls.key"), (&certificate.certificate, "tls.crt")] {
        let new = folder.join(format!("{name}.new"));
        fs::copy(from, &new).unwrap();
        fs::rename(new, folder.join(name)).unwrap();
    }
}

impl Server {
    pub async fn start(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        Self(tokio::spawn(serve(listener)).abort_handle())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

/// Sends back what was posted; elsewhere events, one after the other, or a short text.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_stream = request.uri().path() == "/api/events";
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    if is_stream {
        let events = unfold(0, |number| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let event = Bytes::from(format!("data: {number}\n\n"));
            (number < EVENTS).then_some((Ok::<_, std::io::Error>(Frame::data(event)), number + 1))
        });
        return Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(events))));
    }
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    Ok(Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync()))
}
