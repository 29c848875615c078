//! Listeners and connections: what a client may use up before, between and during its requests (R65), and
//! how the process stops.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::body::Body;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Limits};
use crate::error::{Code, Refusal};
use crate::gateway::{self, ClientConnection, Connection, Gateway};
use crate::random::Random;
use crate::respond::{self, Audience};
use crate::session::store::file::FileStore;
use crate::session::store::memory::MemoryStore;
use crate::session::store::redis::RedisStore;
use crate::session::store::{self, Store};
use crate::telemetry::chain;

mod admin;
mod timing;

use timing::{TimedStream, Timing};

/// How much of a connection is read ahead, in bytes, unless a head may be larger.
const BUFFER: usize = 64 * 1024;

/// How many connections are told at a time that they are too many; beyond these they are closed without a word.
const MOST_TURNED_AWAY: usize = 64;

/// How long a client that is turned away has to take the word, in each direction.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// After a connection could not be accepted. Out of file descriptors, mostly: a pause lets connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a balancer has, at most, to see that this gateway drains, before nobody can connect any more.
const LONGEST_NOTICE: Duration = Duration::from_secs(5);

/// The gateway, bound to its addresses.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    admin: Option<TcpListener>,
    limits: Limits,
    shutdown_grace: Duration,
    gateway: Arc<Gateway>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error("the session store cannot be used")]
    Store(#[source] StoreError),
    /// The gateway cannot be built.
    #[error(transparent)]
    Gateway(#[from] gateway::BuildError),
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not the one in a file.
    #[error(transparent)]
    File(#[from] store::file::OpenError),
    /// Not the one in Redis.
    #[error(transparent)]
    Redis(#[from] store::redis::InvalidUrl),
}

impl Server {
    /// Binds the addresses of a configuration. Neither the issuers nor the store need to be there.
    ///
    /// # Errors
    /// Where an address cannot be listened on, or the gateway cannot be built.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        Self::bind_with_clock(config, Arc::new(SystemClock)).await
    }

    /// The same, with a clock that can be moved.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, BindError> {
        let store = store(&config.store, &clock).map_err(BindError::Store)?;
        Self::bind_with_store(config, store, clock).await
    }

    /// The same, with a store other than the configured one.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_with_store(
        config: Config,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BindError> {
        let listener = listen(config.server.listen).await?;
        let admin = match &config.admin {
            Some(admin) => Some(listen(admin.listen).await?),
            None => None,
        };
        let limits = config.server.limits.clone();
        let shutdown_grace = config.server.shutdown_grace;
        let gateway = Arc::new(Gateway::new(config, store, &clock, Random::SYSTEM)?);
        Ok(Self { listener, admin, limits, shutdown_grace, gateway })
    }

    /// Where the apps are served.
    ///
    /// # Errors
    /// Where the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators look, where that is wanted.
    pub fn admin_address(&self) -> Option<io::Result<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr)
    }

    /// Serves until `shutdown` is done. Then `/readyz` fails; once those who look at it have had the time to
    /// notice, no connection is accepted any more, requests under way have the grace time to end, and what
    /// goes on behind answered requests is waited for.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, admin, limits, shutdown_grace, gateway } = self;
        let readiness = Arc::new(Readiness::default());
        let admin = admin
            .map(|listener| tokio::spawn(admin::run(listener, Arc::clone(&gateway), Arc::clone(&readiness))));
        gateway.look_for_issuers();

        let connections = Connections { open: TaskTracker::new(), stopping: CancellationToken::new() };
        let draining = async {
            shutdown.await;
            tracing::info!(event = "server.draining", connections = connections.open.len());
            readiness.draining.store(true, Ordering::Relaxed);
            tokio::time::sleep(readiness.notice(shutdown_grace)).await;
        };
        tokio::select! {
            () = draining => {}
            () = accept(listener, &limits, &gateway, &connections) => {}
        }
        let settled = async {
            connections.stopping.cancel();
            connections.open.close();
            connections.open.wait().await;
            gateway.settle().await;
        };
        let left = shutdown_grace.saturating_sub(readiness.notice(shutdown_grace));
        if tokio::time::timeout(left, settled).await.is_err() {
            tracing::warn!(event = "server.cut_off", "the grace time is over; what was under way is cut off");
        }
        if let Some(admin) = admin {
            admin.abort();
        }
    }
}

/// What `/readyz` needs to know, and has been asked.
#[derive(Debug, Default)]
struct Readiness {
    draining: AtomicBool,
    is_watched: AtomicBool,
}

impl Readiness {
    /// How long the listener stays open once draining has begun: a balancer sends new connections until it
    /// has looked again. Where nobody ever looked, there is nobody to wait for.
    fn notice(&self, grace: Duration) -> Duration {
        if self.is_watched.load(Ordering::Relaxed) { LONGEST_NOTICE.min(grace / 6) } else { Duration::ZERO }
    }
}

/// A connection of the public listener: its time limits, and its place among those that are open.
#[derive(Debug)]
struct PublicConnection {
    timing: Arc<Timing>,
    _place: OwnedSemaphorePermit,
}

impl ClientConnection for PublicConnection {
    fn request_received(&self) {
        self.timing.request_received();
    }

    fn becomes_tunnel(&self) {
        self.timing.becomes_tunnel();
    }
}

/// The connections there are, and the word that no further request is taken on them.
struct Connections {
    open: TaskTracker,
    stopping: CancellationToken,
}

fn store(config: &config::Store, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    let clock = Arc::clone(clock);
    Ok(match config {
        config::Store::Memory => Arc::new(MemoryStore::new(clock)),
        config::Store::File { path } => Arc::new(FileStore::open(path, clock)?),
        config::Store::Redis(redis) => Arc::new(RedisStore::new(redis, clock)?),
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Listen { address, source })
}

async fn accept(listener: TcpListener, limits: &Limits, gateway: &Arc<Gateway>, connections: &Connections) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let turned_away = Arc::new(Semaphore::new(MOST_TURNED_AWAY));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(event = "server.accept_failed", error = %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(event = "server.overloaded", "a connection is one too many");
            if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
                tokio::spawn(turn_away(stream, place));
            }
            continue;
        };
        let stopping = connections.stopping.clone();
        let served = serve(stream, peer, limits.clone(), Arc::clone(gateway), stopping, place);
        connections.open.spawn(served);
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    gateway: Arc<Gateway>,
    stopping: CancellationToken,
    place: OwnedSemaphorePermit,
) {
    // Small answers must not wait for each other; a socket that refuses this works all the same.
    let _ = stream.set_nodelay(true);
    let timing = Arc::new(Timing::new(limits.header_timeout, limits.idle_timeout));
    let stream = TimedStream::new(stream, Arc::clone(&timing));
    let public = Arc::new(PublicConnection { timing, _place: place });
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (gateway, public) = (Arc::clone(&gateway), Arc::clone(&public));
        async move {
            let request_under_way = public.timing.begin_request();
            if request.body().is_end_stream() {
                public.timing.request_received();
            }
            let connection = Connection { peer, client: public };
            let response = gateway.handle(request, connection).await;
            Ok::<_, Infallible>(response.map(|body| request_under_way.until_sent(body).boxed_unsync()))
        }
    });
    let service = ServiceBuilder::new().layer(CatchPanicLayer::custom(panicked)).service(service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The stream keeps this time itself: hyper's would cut idle connections off as well.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(BUFFER))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = "connection.ended", error = %chain(&error));
    }
}

/// A panic is a fault of ours; it ends one request and nothing more.
fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!(event = "request.panicked");
    respond::refusal(
        &Refusal::new(Code::Internal, "The gateway failed. This is not your fault."),
        Audience::Script,
    )
}

/// Answers whatever a connection too many may ask, without waiting for it.
async fn turn_away(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let refusal = Refusal::new(Code::Overloaded, "There are too many connections. Try again shortly.");
    let (head, body) = respond::refusal(&refusal, Audience::Script).into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes) else { return };
    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes());
    answer.extend(body);
    let timing = Timing::new(TURN_AWAY_TIMEOUT, TURN_AWAY_TIMEOUT);
    let mut stream = TimedStream::new(stream, Arc::new(timing));
    let said = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, said).await;
}
