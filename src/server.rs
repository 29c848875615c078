//! Listeners and connections: what a client may use up before, between and during its requests (R65), and
//! how the process stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::gateway::{self, Gateway};
use crate::random::Random;
use crate::session::store::file::FileStore;
use crate::session::store::memory::MemoryStore;
use crate::session::store::redis::RedisStore;
use crate::session::store::{self, Store};

mod accept;
mod admin;
mod answer;
mod client;
mod connection;
mod http1;
mod http2;
mod prefixed;
pub mod proxy_protocol;
mod timing;
mod tls;
pub mod workers;

use accept::Connections;
use client::Places;
use connection::Listener;
use tls::Tls;
use workers::Workers;

pub use tls::InvalidTls;

/// How many connections may wait to be accepted, as far as the operating system allows.
const BACKLOG: u32 = 4096;

/// How many connections are told at a time that they are too many; beyond these they are closed without a word.
const MOST_TURNED_AWAY: usize = 64;

/// How long a client that is turned away has to take the word, in each direction.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is said that there are too many connections, while there are.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How often the files of certificates and keys are read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// How long a balancer has, at most, to see that this gateway drains, before nobody can connect any more.
const LONGEST_NOTICE: Duration = Duration::from_secs(5);

/// The gateway, bound to its addresses.
#[derive(Debug)]
pub struct Server {
    socket: TcpListener,
    admin: Option<TcpListener>,
    listener: Arc<Listener>,
    reload_interval: Duration,
    shutdown_grace: Duration,
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
    /// TLS cannot be spoken.
    #[error("TLS cannot be set up")]
    Tls(#[from] InvalidTls),
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
        let socket = listen(config.server.listen)?;
        let admin = config.admin.as_ref().map(|admin| listen(admin.listen)).transpose()?;
        let server = &config.server;
        let (limits, shutdown_grace) = (server.limits.clone(), server.shutdown_grace);
        let tls = server.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
        let (trusted_proxies, proxy_protocol) = (server.trusted_proxies.clone(), server.proxy_protocol);
        let h2c = server.h2c;
        let listener = Listener {
            gateway: Arc::new(Gateway::new(config, store, &clock, Random::SYSTEM)?),
            trusted_proxies,
            proxy_protocol,
            h2c,
            tls,
            places: Places::new(limits.connections, limits.connections_per_client),
            turned_away: Semaphore::new(MOST_TURNED_AWAY),
            limits,
        };
        let (listener, reload_interval) = (Arc::new(listener), RELOAD_INTERVAL);
        Ok(Self { socket, admin, listener, reload_interval, shutdown_grace })
    }

    /// How often the files of certificates and keys are read again; every five seconds where this is not said.
    #[must_use]
    pub fn reload_interval(mut self, interval: Duration) -> Self {
        self.reload_interval = interval;
        self
    }

    /// Where the apps are served.
    ///
    /// # Errors
    /// Where the operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Where operators look, where that is wanted.
    pub fn admin_address(&self) -> Option<io::Result<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr)
    }

    /// Serves until `shutdown` is done. Then `/readyz` fails; once those who look at it have had the time to
    /// notice, no connection is accepted any more, requests under way have the grace time to end, and what
    /// goes on behind answered requests is waited for.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        self.run_on(&Workers::none(), shutdown).await;
    }

    /// The same, with connections served by threads of their own. They must not be stopped before this is done.
    pub async fn run_on(self, workers: &Workers, shutdown: impl Future<Output = ()>) {
        let Self { socket, admin, listener, reload_interval, shutdown_grace } = self;
        let gateway = &listener.gateway;
        let readiness = Arc::new(Readiness::default());
        let admin =
            admin.map(|socket| spawn(admin::run(socket, Arc::clone(gateway), Arc::clone(&readiness))));
        let reloading = spawn(reload(Arc::clone(&listener), reload_interval));
        let watches: Vec<_> = workers
            .runtimes()
            .map(|runtime| {
                let gateway = Arc::clone(gateway);
                AbortOnDropHandle::new(runtime.spawn(async move { gateway.watch_load().await }))
            })
            .collect();
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
            () = accept::accept(socket, &listener, workers, &connections) => {}
        }
        let settled = async {
            connections.stopping.cancel();
            gateway.end_endless();
            connections.open.close();
            // First, for requests under way begin such work.
            connections.open.wait().await;
            gateway.settle().await;
        };
        let left = shutdown_grace.saturating_sub(readiness.notice(shutdown_grace));
        if tokio::time::timeout(left, settled).await.is_err() {
            tracing::warn!(event = "server.cut_off", "the grace time is over; what was under way is cut off");
        }
        drop((admin, reloading, watches));
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

fn store(config: &config::Store, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    let clock = Arc::clone(clock);
    Ok(match config {
        config::Store::Memory => Arc::new(MemoryStore::new(clock)),
        config::Store::File { path } => Arc::new(FileStore::open(path, clock)?),
        config::Store::Redis(redis) => Arc::new(RedisStore::new(redis, clock)?),
    })
}

fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for connections of the one before it to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| BindError::Listen { address, source })
}

/// Reads all certificates and keys again and again, for as long as it is awaited.
async fn reload(listener: Arc<Listener>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if let Some(tls) = &listener.tls {
            tls.reload();
        }
        listener.gateway.reload();
    }
}

/// Runs for as long as what this gives is kept.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
