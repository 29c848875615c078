//! Where the names of an upstream lead, followed while it is in use.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::BoxError;

use super::health::Server;
use super::{ServerAddress, Servers};
use crate::config::Address;

/// Between two times that names are resolved. The system's resolver does not say for how long its answers hold.
const INTERVAL: Duration = Duration::from_secs(10);

/// For this long an answer is not asked for again, however many requests fail.
const FRESH: Duration = Duration::from_millis(200);

/// Resolves names.
#[async_trait]
pub(in crate::proxy) trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses that a name has now.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver.
#[derive(Debug)]
pub(in crate::proxy) struct SystemResolver;

/// One of an upstream's addresses.
#[derive(Debug)]
pub(super) enum Place {
    Fixed(ServerAddress),
    Name(Name),
}

/// A name that stands for any number of addresses.
#[derive(Clone, Debug)]
pub(super) struct Name {
    host: String,
    port: u16,
}

/// What is known of the servers.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) servers: Vec<Arc<Server>>,
    /// How many times all names were resolved, whatever came of it.
    pub(super) round: u64,
    /// When that was last.
    resolved: Option<Instant>,
    /// Why a name could not be resolved.
    error: Option<Arc<io::Error>>,
}

/// What a name was last known to stand for.
#[derive(Default)]
struct Answer {
    addresses: Vec<SocketAddr>,
    is_stale: bool,
}

impl Place {
    pub(super) fn new(address: &Address) -> Self {
        match address {
            Address::Unix(path) => Self::Fixed(ServerAddress::Unix(path.as_path().into())),
            Address::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => Self::Fixed(ServerAddress::Tcp((ip, *port).into())),
                Err(_) => Self::Name(Name { host: host.clone(), port: *port }),
            },
        }
    }

    pub(super) fn fixed(&self) -> Option<ServerAddress> {
        match self {
            Self::Fixed(address) => Some(address.clone()),
            Self::Name(_) => None,
        }
    }

    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            Self::Fixed(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

impl Known {
    /// The servers at these addresses; those that were known keep what is known of them.
    pub(super) fn with(mut self, addresses: impl Iterator<Item = ServerAddress>) -> Self {
        self.set(addresses);
        self
    }

    fn set(&mut self, addresses: impl Iterator<Item = ServerAddress>) {
        let before = std::mem::take(&mut self.servers);
        for address in addresses {
            // Two names may stand for the same server.
            if self.servers.iter().any(|server| server.address == address) {
                continue;
            }
            let known = before.iter().find(|server| server.address == address);
            self.servers.push(known.map_or_else(|| Arc::new(Server::new(address)), Arc::clone));
        }
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.resolved.is_some_and(|resolved| resolved.elapsed() < FRESH)
    }

    pub(super) fn error(&self) -> Option<&io::Error> {
        self.error.as_deref()
    }

    pub(super) fn why_none(&self) -> BoxError {
        match &self.error {
            Some(error) => Arc::clone(error).into(),
            None => "the name was not resolved in time".into(),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Resolves the names of these servers when they are first used, regularly while they are, and whenever
/// somebody waits for that. Never done.
pub(in crate::proxy) async fn follow(servers: Arc<Servers>, resolver: Arc<dyn Resolve>) {
    let mut answers: Vec<_> = servers.places.iter().map(|_| Answer::default()).collect();
    servers.wanted.notified().await;
    loop {
        servers.is_used.store(false, Ordering::Relaxed);
        resolve_all(&servers, &mut answers, &resolver).await;
        let regularly = async {
            tokio::time::sleep(INTERVAL).await;
            servers.used.notified().await;
        };
        tokio::select! {
            () = servers.wanted.notified() => {}
            () = regularly => {}
        }
    }
}

/// All names at the same time; what one says counts at once, without waiting for the others.
async fn resolve_all(servers: &Servers, answers: &mut [Answer], resolver: &Arc<dyn Resolve>) {
    let mut lookups = JoinSet::new();
    for (index, place) in servers.places.iter().enumerate() {
        let Some(Name { host, port }) = place.name().cloned() else { continue };
        let resolver = Arc::clone(resolver);
        lookups.spawn(async move {
            let found = tokio::time::timeout(INTERVAL, resolver.resolve(&host, port)).await;
            (index, found.unwrap_or_else(|elapsed| Err(elapsed.into())))
        });
    }
    while let Some(Ok((index, found))) = lookups.join_next().await {
        let (Some(answer), Some(name)) = (answers.get_mut(index), servers.places[index].name()) else {
            continue;
        };
        let error = answer.take(found, name).err();
        servers.known.send_modify(|known| {
            known.error = error.map(Arc::new).or(known.error.take());
            known.set(servers.places.iter().zip(&*answers).flat_map(addresses));
        });
    }
    servers.known.send_modify(|known| {
        known.round += 1;
        known.resolved = Some(Instant::now());
    });
}

fn addresses<'a>((place, answer): (&Place, &'a Answer)) -> impl Iterator<Item = ServerAddress> + use<'a> {
    place.fixed().into_iter().chain(answer.addresses.iter().copied().map(ServerAddress::Tcp))
}

impl Answer {
    /// Takes a new answer; where there is none, the last one stands. Logs what changes.
    fn take(&mut self, found: io::Result<Vec<SocketAddr>>, name: &Name) -> io::Result<()> {
        let host = &name.host;
        let found = found.and_then(|found| match found.as_slice() {
            [] => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            [..] => Ok(found),
        });
        match found {
            Ok(mut found) => {
                // Resolvers turn their answers round and round.
                found.sort_unstable();
                if found != self.addresses || self.is_stale {
                    tracing::info!(event = "upstream.resolved", host, addresses = ?found);
                }
                *self = Self { addresses: found, is_stale: false };
                Ok(())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_stale, true) {
                    tracing::warn!(event = "upstream.unresolved", host, error = %error);
                }
                Err(error)
            }
        }
    }
}
