//! The demo's session store: the one in memory, and a switch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::clock::{Clock, Timestamp};
use cloakroom::rate::{Rate, Standing};
use cloakroom::session::store::changes::Changes;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::outbox::{Errand, Outbox};
use cloakroom::session::store::{
    CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version,
};

/// A store that a visitor can stop. It forgets nothing by that, as a Redis that cannot be reached does not.
#[derive(Debug)]
pub struct SwitchedStore {
    memory: MemoryStore,
    runs: Mutex<bool>,
}

impl SwitchedStore {
    /// An empty store, which runs.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { memory: MemoryStore::new(clock), runs: Mutex::new(true) }
    }

    /// Whether it answers.
    pub fn runs(&self) -> bool {
        *self.lock()
    }

    /// Starts or stops it. A store that is away tells of no changes either, so that the gateway
    /// has to ask again about all it knows.
    pub fn switch(&self, to: bool) {
        let mut runs = self.lock();
        *runs = to;
        match to {
            true => self.memory.changes().connected(),
            false => drop(self.memory.changes().disconnected()),
        }
    }

    async fn while_it_runs<T>(
        &self,
        work: impl Future<Output = Result<T, Unavailable>> + Send,
    ) -> Result<T, Unavailable> {
        match self.runs() {
            true => work.await,
            false => Err(Unavailable("a visitor has stopped it".to_owned())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for SwitchedStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.while_it_runs(self.memory.read(key)).await
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.create(key, record)).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        self.while_it_runs(self.memory.replace(key, expected, sealed, version)).await
    }

    async fn touch(&self, key: &RecordKey, seen: Timestamp, until: Timestamp) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.touch(key, seen, until)).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.while_it_runs(self.memory.take(key)).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.while_it_runs(self.memory.take_version(key, version)).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        self.while_it_runs(self.memory.list(index)).await
    }

    async fn lease(&self, key: &RecordKey, owner: &LeaseOwner, life: Duration) -> Result<bool, Unavailable> {
        self.while_it_runs(self.memory.lease(key, owner, life)).await
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.release(key, owner)).await
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        self.while_it_runs(self.memory.claim_once(mark, time_to_live)).await
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        self.while_it_runs(self.memory.is_claimed(mark)).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        self.while_it_runs(self.memory.count(key, rate)).await
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.ping()).await
    }

    fn changes(&self) -> &Changes {
        self.memory.changes()
    }
}

#[async_trait]
impl Outbox for SwitchedStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.post(errand)).await
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        self.while_it_runs(self.memory.fetch_due(now, until)).await
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.postpone(id, due_at)).await
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        self.while_it_runs(self.memory.strike(id)).await
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        self.while_it_runs(self.memory.count_errands()).await
    }
}
