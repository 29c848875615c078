//! What the sessions of all apps of one process share: the key ring, the store, and what is known of both.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::cache::{Ended, Opened, Tickets};
use super::outage::Outage;
use super::store::{RecordKey, Store, Unavailable};
use crate::clock::{Clock, Timestamp};
use crate::random::Random;
use crate::seal::KeyRing;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::{Metrics, Readings};

/// What the sessions of all apps of this process have in common.
#[derive(Debug)]
pub struct Common {
    pub(super) ring: Arc<KeyRing>,
    pub(super) store: Arc<dyn Store>,
    pub(super) opened: Arc<Opened>,
    pub(super) tickets: Arc<Tickets>,
    pub(super) ended: Arc<Ended>,
    pub(super) outage: Outage,
    /// Those that are being touched.
    pub(super) touched: Arc<Mutex<HashSet<RecordKey>>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Random,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: Metrics,
    pub(super) audit: Audit,
    foreign_keys: ForeignKeys,
}

/// Cookies whose key is in no ring here, since they were last told of.
#[derive(Debug, Default)]
struct ForeignKeys {
    cookies: AtomicU64,
    /// The second in which they were, at the earliest, to be told of again.
    silent_until: AtomicU64,
}

/// How often cookies of keys that are not here are told of.
const FOREIGN_KEYS_TOLD_EVERY: u64 = 60;

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
            opened: Arc::new(Opened::new()),
            tickets: Arc::new(Tickets::new()),
            ended: Arc::new(Ended::new()),
            outage: Outage::new(grace),
            touched: Arc::default(),
            clock,
            random,
            tasks,
            metrics,
            audit: Audit::default(),
            foreign_keys: ForeignKeys::default(),
        }
    }

    /// The same, with an audit trail.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// The same store and all that is known of it, under other keys and with another time of grace. Cookies that
    /// were opened under these keys are not taken for opened under others: one of them may be gone.
    #[must_use]
    pub fn under(&self, ring: Arc<KeyRing>, grace: Duration, audit: Audit) -> Self {
        Self {
            tickets: if *ring == *self.ring { Arc::clone(&self.tickets) } else { Arc::new(Tickets::new()) },
            ring,
            store: Arc::clone(&self.store),
            opened: Arc::clone(&self.opened),
            ended: Arc::clone(&self.ended),
            outage: self.outage.with_grace(grace),
            touched: Arc::clone(&self.touched),
            clock: Arc::clone(&self.clock),
            random: self.random,
            tasks: self.tasks.clone(),
            metrics: self.metrics.clone(),
            audit,
            foreign_keys: ForeignKeys::default(),
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

    /// What is counted, with what the store alone knows, and what was read off besides.
    pub fn encode_metrics(&self, readings: &Readings) -> String {
        self.metrics.set_lost_notifications(self.store.changes().losses());
        readings.sessions(self.opened.len());
        self.metrics.encode(readings)
    }

    /// A cookie was sealed under a key that is not in the ring, or was made to look so. Once in a while the log hears
    /// of it: in the middle of a change of keys somebody has been taken for a stranger.
    pub(super) fn note_foreign_key(&self, key: &str) {
        self.metrics.count_session_lookup("foreign_key");
        let ForeignKeys { cookies, silent_until } = &self.foreign_keys;
        cookies.fetch_add(1, Ordering::Relaxed);
        let (until, now) = (silent_until.load(Ordering::Relaxed), self.clock.now().as_secs());
        let next = now + FOREIGN_KEYS_TOLD_EVERY;
        if now >= until
            && silent_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let cookies = cookies.swap(0, Ordering::Relaxed);
            tracing::warn!(
                event = "session.foreign_key",
                key,
                cookies,
                "sealed under a key that this gateway lacks, or made up: compare sessions.keys of all gateways"
            );
        }
    }

    /// What moment it is.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What tells it.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Where the sessions are kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
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

    /// What is written down for auditors.
    pub fn audit(&self) -> &Audit {
        &self.audit
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
