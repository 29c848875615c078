//! What an app is built from, and what is built of it first.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rate_limit::SharedCounts;
use crate::clock::Clock;
use crate::config;
use crate::endpoints::Signals;
use crate::oidc::{self, Clients, Grants};
use crate::proxy;
use crate::random::Random;
use crate::revocation::{Outbox, Revocations};
use crate::seal::KeyRing;
use crate::session::{Common, Sessions};

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
    pub(super) endless_stop: &'a CancellationToken,
}

/// What the gateway cannot be built from.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The client of an issuer.
    #[error("the issuer of {app} cannot be used")]
    Issuer {
        /// The app's origin.
        app: String,
        /// What is wrong.
        #[source]
        source: oidc::BuildError,
    },
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
    pub(super) signals: Option<Signals>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) revocations: Revocations,
}

impl Core {
    pub(super) fn new(
        app: &config::App,
        outbox: &Arc<Outbox>,
        shared: &Shared<'_>,
    ) -> Result<Self, BuildError> {
        let callers = || -> Result<_, oidc::BuildError> {
            let signals = app.shared_signals.as_ref().map(|signals| Signals::new(signals, shared.clock));
            Ok((Clients::new(app, shared.clock, shared.random)?, signals.transpose()?))
        };
        let name = || app.origin.as_str().to_owned();
        let (clients, signals) = callers().map_err(|source| BuildError::Issuer { app: name(), source })?;
        let sessions = Arc::new(Sessions::new(app, Arc::clone(shared.sessions)));
        let grants: Arc<dyn Grants> = Arc::new(clients.clone());
        let revocations = Revocations::with_outbox(app, &grants, Arc::clone(outbox));
        Ok(Self { clients, signals, sessions, revocations })
    }
}
