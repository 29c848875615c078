//! Listeners and connections: what a client may use up before, between and during its requests (R65), and
//! how the process stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, Faults, Loaded};
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
mod readiness;
mod reload;
mod sockets;
mod timing;
mod tls;
pub mod workers;

use accept::Connections;
use client::Places;
use connection::{InForce, Listener};
use readiness::Readiness;
use reload::{Reloading, Source};
use sockets::{ADMIN, PUBLIC};
use workers::Workers;

pub use sockets::{HandedOver, ListenError};
pub use tls::InvalidTls;

/// How many connections are told at a time that they are too many; beyond these they are closed without a word.
const MOST_TURNED_AWAY: usize = 64;

/// How long a client that is turned away has to take the word, in each direction.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is said that there are too many connections, while there are.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How long a client of a gateway that stops has to send its first request, and in HTTP/2 to show that it has heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often a collector is told what is counted, as OpenTelemetry has it.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a collector has at the end to take what is left.
const LAST_REPORT: Duration = Duration::from_secs(5);

/// How often all files are read again: the configuration, and what it names.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The gateway, bound to its addresses.
#[derive(Debug)]
pub struct Server {
    socket: TcpListener,
    admin: Option<TcpListener>,
    listener: Arc<Listener>,
    clock: Arc<dyn Clock>,
    reloading: Reloading,
    reload_interval: Duration,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address is not listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
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

    /// The same, on sockets that were handed over, as far as there are any.
    ///
    /// # Errors
    /// As [`Server::bind`], and where those sockets are not what the configuration says.
    pub async fn bind_to(sockets: HandedOver, config: Config) -> Result<Self, BindError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = store(&config.store, &clock).map_err(BindError::Store)?;
        Self::build(sockets, config, store, &clock)
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
        Self::build(HandedOver::default(), config, store, &clock)
    }

    fn build(
        mut sockets: HandedOver,
        config: Config,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, BindError> {
        let readiness = Readiness::new(!sockets.is_empty());
        let socket = sockets.listen(PUBLIC, config.server.listen)?;
        let admin = config.admin.as_ref().map(|admin| sockets.listen(ADMIN, admin.listen)).transpose()?;
        sockets.finish()?;
        let gateway = Gateway::new(config.clone(), store, clock, Random::SYSTEM)?;
        let places = Places::new(gateway.metrics().clone());
        let listener = Arc::new(Listener {
            in_force: ArcSwap::from_pointee(InForce::new(&config.server, gateway, None)?),
            places,
            turned_away: Semaphore::new(MOST_TURNED_AWAY),
            readiness,
        });
        let reloading = Reloading::new(Arc::clone(&listener), config);
        let (clock, reload_interval) = (Arc::clone(clock), RELOAD_INTERVAL);
        Ok(Self { socket, admin, listener, clock, reloading, reload_interval })
    }

    /// Reads the configuration again as well, and serves by it where it is good and has changed; at once when somebody
    /// has `asked`.
    #[must_use]
    pub fn reload_from(
        mut self,
        source: impl Fn() -> Result<Loaded, Faults> + Send + Sync + 'static,
        asked: Arc<Notify>,
    ) -> Self {
        self.reloading.read_from(Source::new(source), asked);
        self
    }

    /// How often files are read again; every five seconds where this is not said.
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

    /// How long requests under way may take once a shutdown was asked for, by the configuration in force.
    pub fn shutdown_grace(&self) -> impl Fn() -> Duration + use<> {
        let listener = Arc::clone(&self.listener);
        move || listener.in_force.load().shutdown_grace
    }

    /// Serves until `shutdown` is done. Then `/readyz` fails; once those who look at it have had the time to
    /// notice, no connection is accepted any more, requests under way have the grace time to end, and what
    /// goes on behind answered requests is waited for.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        self.run_on(&Workers::none(), shutdown).await;
    }

    /// The same, with connections served by threads of their own. They must not be stopped before this is done.
    pub async fn run_on(self, workers: &Workers, shutdown: impl Future<Output = ()>) {
        let Self { socket, admin, listener, clock, reloading, reload_interval } = self;
        let (in_force, readiness) = (|| listener.in_force.load_full(), &listener.readiness);
        let status = admin::Status::new(clock, workers.runtimes().count());
        let admin = admin.map(|socket| spawn(admin::run(socket, Arc::clone(&listener), status)));
        let reporting = spawn(report_metrics(Arc::clone(&listener)));
        let reloading = spawn(reloading.run(reload_interval));
        let watches: Vec<_> = workers
            .runtimes()
            .map(|runtime| AbortOnDropHandle::new(runtime.spawn(in_force().gateway.watch_load())))
            .collect();
        in_force().gateway.look_for_new_issuers();

        let connections = Connections { open: TaskTracker::new(), stopping: CancellationToken::new() };
        let draining = async {
            shutdown.await;
            tracing::info!(event = "server.draining", connections = connections.open.len());
            readiness.begin_to_drain();
            let shutdown_grace = in_force().shutdown_grace;
            tokio::time::sleep(readiness.notice(shutdown_grace)).await;
        };
        tokio::select! {
            () = draining => {}
            () = accept::accept(socket, &listener, workers, &connections) => {}
        }
        let shutdown_grace = in_force().shutdown_grace;
        let left = shutdown_grace.saturating_sub(readiness.notice(shutdown_grace));
        let settled = async {
            connections.stopping.cancel();
            in_force().gateway.end_endless(readiness.tunnels_end_over(left));
            connections.open.close();
            // First, for requests under way begin such work.
            connections.open.wait().await;
            in_force().gateway.settle().await;
        };
        if tokio::time::timeout(left, settled).await.is_err() {
            tracing::warn!(event = "server.cut_off", "the grace time is over; what was under way is cut off");
        }
        in_force().gateway.flush_telemetry(LAST_REPORT.min(shutdown_grace / 6)).await;
        drop((admin, reporting, reloading, watches));
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

/// Tells the collector again and again, where there is one, what is counted.
async fn report_metrics(listener: Arc<Listener>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        listener.in_force.load_full().gateway.report_metrics();
    }
}

/// Runs for as long as what this gives is kept.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
