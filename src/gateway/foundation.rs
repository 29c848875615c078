//! What an app is built from, and what is built of it first.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::app::App;
use super::departure::Departure;
use super::load::Load;
use super::rate_limit::SharedCounts;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::endpoints::Signals;
use crate::oidc::{self, Clients, Grants};
use crate::proxy;
use crate::random::Random;
use crate::revocation::{Outbox, Revocations};
use crate::seal::KeyRing;
use crate::session::store::Store;
use crate::session::store::observed::ObservedStore;
use crate::session::{Common, Sessions};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp;
use crate::telemetry::trace::Tracer;

/// What lasts while one gateway takes the place of another in a process.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) ring: Arc<KeyRing>,
    pub(super) load: Load,
    pub(super) sessions: Arc<Common>,
    pub(super) outbox: Arc<Outbox>,
    /// Of what has no end of its own.
    pub(super) departure: Departure,
    pub(super) watches: Watches,
    /// Records requests, where that is wanted.
    pub(super) tracer: Option<Tracer>,
}

/// What goes on beside requests. It breaks off with the last gateway of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches(Arc<Mutex<JoinSet<()>>>);

/// What all apps are built from.
pub(super) struct Shared<'a> {
    pub(super) server: &'a config::Server,
    pub(super) ring: &'a Arc<KeyRing>,
    pub(super) sessions: &'a Arc<Common>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) cookies: &'a Arc<[config::Session]>,
    pub(super) counts: &'a Arc<SharedCounts>,
    pub(super) random: Random,
    pub(super) tasks: &'a TaskTracker,
    pub(super) departure: &'a Departure,
    /// The gateway whose place this one takes.
    pub(super) before: Option<&'a Gateway>,
}

/// What the gateway cannot be built from.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The audit trail.
    #[error("the audit trail cannot be written")]
    Audit(#[source] std::io::Error),
    /// The client of an issuer.
    #[error("the issuer of {app} cannot be used")]
    Issuer {
        /// The app's origin.
        app: String,
        /// What is wrong.
        #[source]
        source: oidc::BuildError,
    },
    /// The way to the collector.
    #[error("nothing can be handed to the collector")]
    Otlp(#[from] otlp::StartError),
    /// An upstream.
    #[error("an upstream of {app} cannot be used")]
    Upstream {
        /// The app's origin.
        app: String,
        /// What is wrong.
        #[source]
        source: proxy::BuildError,
    },
}

/// What is built of each app first: its sessions, and those who renew and revoke what they hold.
pub(super) struct Core {
    pub(super) clients: Clients,
    pub(super) signals: Option<Arc<Signals>>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) revocations: Revocations,
}

impl Lasting {
    pub(super) fn new(
        config: &Config,
        store: Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        random: Random,
    ) -> Result<Self, BuildError> {
        let tracer = config.telemetry.otlp.as_ref().map(|otlp| otlp::start(otlp, random)).transpose()?;
        let (ring, metrics) = (ring(config), Metrics::new());
        metrics.set_start(clock.now());
        metrics.note_configured(clock.now());
        let sessions = Common::new(
            Arc::clone(&ring),
            Arc::new(ObservedStore::new(store, metrics.clone())),
            config.store_outage_grace,
            Arc::clone(clock),
            random,
            TaskTracker::new(),
            metrics,
        );
        let sessions = Arc::new(sessions.with_audit(audit(config, clock)?));
        Ok(Self {
            ring,
            load: Load::new(&config.server, Arc::clone(clock)),
            outbox: Arc::new(Outbox::new(Arc::clone(&sessions))),
            sessions,
            departure: Departure::new(random),
            watches: Watches::default(),
            tracer,
        })
    }

    /// The same under another configuration.
    pub(super) fn under(&self, config: &Config) -> Result<Self, BuildError> {
        let (ring, audit) = (ring(config), audit(config, self.sessions.clock())?);
        let sessions = self.sessions.under(Arc::clone(&ring), config.store_outage_grace, audit);
        let sessions = Arc::new(sessions);
        Ok(Self {
            ring,
            load: self.load.under(&config.server),
            outbox: Arc::new(self.outbox.under(Arc::clone(&sessions))),
            sessions,
            departure: self.departure.clone(),
            watches: self.watches.clone(),
            tracer: self.tracer.clone(),
        })
    }
}

/// The key ring, of whose keys the log is told the names.
fn ring(config: &Config) -> Arc<KeyRing> {
    let ring = KeyRing::new(&config.session_keys);
    let keys = ring.key_names().collect::<Vec<_>>().join(" ");
    tracing::info!(event = "session.keys", keys, "the first seals, each of them opens");
    Arc::new(ring)
}

/// The audit trail, whose file is opened anew.
fn audit(config: &Config, clock: &Arc<dyn Clock>) -> Result<Audit, BuildError> {
    Audit::open(config.telemetry.audit.as_ref(), Arc::clone(clock)).map_err(BuildError::Audit)
}

impl Watches {
    pub(super) fn spawn(&self, watch: impl Future<Output = ()> + Send + 'static) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of gateways that are gone have ended.
        while watches.try_join_next().is_some() {}
        watches.spawn(watch);
    }
}

impl Shared<'_> {
    /// The app of this origin as it was before.
    pub(super) fn app_before(&self, origin: &config::Origin) -> Option<&App> {
        self.before.and_then(|before| before.hosts.of(origin))
    }
}

impl Core {
    pub(super) fn new(
        app: &config::App,
        outbox: &Arc<Outbox>,
        shared: &Shared<'_>,
    ) -> Result<Self, BuildError> {
        let before = shared.app_before(&app.origin);
        let callers = || -> Result<_, oidc::BuildError> {
            let signals = app.shared_signals.as_ref().map(|signals| {
                Signals::new(signals, shared.clock, before.and_then(|before| before.signals.as_ref()))
            });
            let clients = before.map(|before| &before.clients);
            Ok((Clients::new(app, shared.clock, shared.random, clients)?, signals.transpose()?))
        };
        let name = || app.origin.as_str().to_owned();
        let (clients, signals) = callers().map_err(|source| BuildError::Issuer { app: name(), source })?;
        let sessions = Arc::new(Sessions::new(app, Arc::clone(shared.sessions)));
        let grants: Arc<dyn Grants> = Arc::new(clients.clone());
        let revocations = Revocations::with_outbox(app, &grants, Arc::clone(outbox));
        Ok(Self { clients, signals, sessions, revocations })
    }
}
