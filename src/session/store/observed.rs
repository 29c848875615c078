//! A store whose operations are timed and counted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::changes::Changes;
use super::outbox::{Errand, Outbox};
use super::{CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use crate::clock::Timestamp;
use crate::rate::{Rate, Standing};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Span;

/// A store, observed.
#[derive(Debug)]
pub struct ObservedStore {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl ObservedStore {
    /// Observes this store.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Unavailable>> + Send,
    ) -> Result<T, Unavailable> {
        let mut span = Span::step("session store", operation);
        let started = Instant::now();
        let outcome = work.await;
        let result = if outcome.is_ok() { "ok" } else { "unavailable" };
        self.metrics.observe_store(operation, result, started.elapsed());
        if let Some(span) = span.as_mut().filter(|_| outcome.is_err()) {
            span.failed(result);
        }
        outcome
    }
}

#[async_trait]
impl Store for ObservedStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.observe("read", self.store.read(key)).await
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        self.observe("create", self.store.create(key, record)).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        self.observe("replace", self.store.replace(key, expected, sealed, version)).await
    }

    async fn touch(
        &self,
        key: &RecordKey,
        seen: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Unavailable> {
        self.observe("touch", self.store.touch(key, seen, expires_at)).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.observe("take", self.store.take(key)).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.observe("take", self.store.take_version(key, version)).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        self.observe("list", self.store.list(index)).await
    }

    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        self.observe("lease", self.store.lease(key, owner, time_to_live)).await
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        self.observe("release", self.store.release(key, owner)).await
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        self.observe("claim_once", self.store.claim_once(mark, time_to_live)).await
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        self.observe("is_claimed", self.store.is_claimed(mark)).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        self.observe("count", self.store.count(key, rate)).await
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        self.observe("ping", self.store.ping()).await
    }

    fn changes(&self) -> &Changes {
        self.store.changes()
    }
}

#[async_trait]
impl Outbox for ObservedStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        self.observe("post", self.store.post(errand)).await
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        self.observe("fetch_due", self.store.fetch_due(now, until)).await
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        self.observe("postpone", self.store.postpone(id, due_at)).await
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        self.observe("strike", self.store.strike(id)).await
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        self.observe("count_errands", self.store.count_errands()).await
    }
}
