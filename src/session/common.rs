//! What the sessions of all apps of one process share: the key ring, the store, and what is known of both.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::cache::{Ended, Opened, Tickets};
use super::outage::Outage;
use super::store::{RecordKey, Store, Unavailable};
use crate::clock::{Clock, Timestamp};
use crate::random::Random;
use crate::seal::KeyRing;
use crate::telemetry::metrics::Metrics;

/// What the sessions of all apps of this process have in common.
#[derive(Debug)]
pub struct Common {
    pub(super) ring: Arc<KeyRing>,
    pub(super) store: Arc<dyn Store>,
    pub(super) opened: Opened,
    pub(super) tickets: Tickets,
    pub(super) ended: Ended,
    pub(super) outage: Outage,
    /// Those that are being touched.
    pub(super) touched: Mutex<HashSet<RecordKey>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Random,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: Metrics,
}

impl Common {
    /// What all apps share: `grace` is how long known sessions are used while the store is away, and what
    /// goes on behind answered requests runs on `tasks`.
    pub fn new(
        ring: Arc<KeyRing>,
        store: Arc<dyn Store>,
        grace: Duration,
        clock: Arc<dyn Clock>,
        random: Random,
        tasks: TaskTracker,
        metrics: Metrics,
    ) -> Self {
        Self {
            ring,
            store,
            opened: Opened::new(),
            tickets: Tickets::new(),
            ended: Ended::new(),
            outage: Outage::new(grace),
            touched: Mutex::default(),
            clock,
            random,
            tasks,
            metrics,
        }
    }

    /// Whether the store answers.
    pub async fn store_answers(&self) -> bool {
        self.heard(self.store.ping().await).is_ok()
    }

    /// Whether sessions that are known here are served, if need be without the store.
    pub fn is_within_grace(&self) -> bool {
        self.outage.is_within_grace(self.clock.now())
    }

    /// What is counted, with what the store alone knows.
    pub fn encode_metrics(&self) -> String {
        self.metrics.set_lost_notifications(self.store.changes().losses());
        self.metrics.encode()
    }

    /// What moment it is.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where randomness comes from.
    pub fn random(&self) -> Random {
        self.random
    }

    /// What goes on behind answered requests.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn touched(&self) -> MutexGuard<'_, HashSet<RecordKey>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the store has answered.
    pub(super) fn heard<T>(&self, answer: Result<T, Unavailable>) -> Result<T, Unavailable> {
        match &answer {
            Ok(_) => self.outage.note_answer(),
            Err(_) => self.outage.note_failure(self.clock.now()),
        }
        answer
    }
}
