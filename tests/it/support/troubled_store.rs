//! A store in memory that fails, waits or crashes at one step.

use std::sync::Arc;
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
use tokio::sync::watch;

use crate::support::wait::in_time;

/// What the store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Each of the others.
    Any,
    Lease,
    Read,
    Replace,
    Touch,
    Take,
    TakeVersion,
    Release,
    List,
    Claim,
    IsClaimed,
    Count,
    Post,
    Postpone,
    /// What a gateway asks for by itself, now and then.
    Fetch,
    /// Each of all.
    Every,
}

/// What a step does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is done, and no answer comes.
    Fails,
    /// It is done, but the answer is lost.
    LosesItsAnswer,
    /// It waits until the trouble is over.
    Waits,
    /// A fault of ours.
    Panics,
}

impl Step {
    fn covers(self, step: Self) -> bool {
        self == step || self == Self::Every || (self == Self::Any && step != Self::Fetch)
    }
}

/// A store in memory with one kind of trouble at a time.
#[derive(Debug)]
pub struct TroubledStore {
    pub memory: MemoryStore,
    trouble: watch::Sender<Option<(Step, Trouble)>>,
    /// How many have come to the troubled step.
    arrived: watch::Sender<usize>,
}

impl TroubledStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            memory: MemoryStore::new(clock),
            trouble: watch::Sender::new(None),
            arrived: watch::Sender::new(0),
        }
    }

    pub fn begin(&self, step: Step, trouble: Trouble) {
        self.arrived.send_replace(0);
        self.trouble.send_replace(Some((step, trouble)));
    }

    /// What goes wrong from now on, for the while of some work; gives what went wrong before.
    pub fn swap(&self, trouble: Option<(Step, Trouble)>) -> Option<(Step, Trouble)> {
        self.trouble.send_replace(trouble)
    }

    pub fn end(&self) {
        self.trouble.send_replace(None);
    }

    /// How many have come to the troubled step since the trouble began.
    pub fn arrived(&self) -> usize {
        *self.arrived.borrow()
    }

    /// Waits until somebody has come to the troubled step.
    pub async fn until_reached(&self) {
        let mut arrived = self.arrived.subscribe();
        let reached = arrived.wait_for(|arrived| *arrived > 0);
        in_time(reached).await.unwrap();
    }

    async fn pass<T: Send>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, Unavailable>> + Send,
    ) -> Result<T, Unavailable> {
        let trouble = self.trouble.borrow().filter(|(troubled, _)| troubled.covers(step));
        let Some((_, trouble)) = trouble else { return work.await };
        self.arrived.send_modify(|arrived| *arrived += 1);
        let away = || Unavailable(format!("{step:?} {trouble:?}"));
        match trouble {
            Trouble::Fails => Err(away()),
            Trouble::LosesItsAnswer => work.await.and_then(|_| Err(away())),
            Trouble::Waits => {
                let over =
                    |now: &Option<(Step, Trouble)>| now.is_none_or(|(troubled, _)| !troubled.covers(step));
                self.trouble.subscribe().wait_for(over).await.unwrap();
                work.await
            }
            Trouble::Panics => panic!("on command"),
        }
    }
}

#[async_trait]
impl Store for TroubledStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.pass(Step::Read, self.memory.read(key)).await
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        self.memory.create(key, record).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        self.pass(Step::Replace, self.memory.replace(key, expected, sealed, version)).await
    }

    async fn touch(&self, key: &RecordKey, seen: Timestamp, until: Timestamp) -> Result<(), Unavailable> {
        self.pass(Step::Touch, self.memory.touch(key, seen, until)).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.pass(Step::Take, self.memory.take(key)).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.pass(Step::TakeVersion, self.memory.take_version(key, version)).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        self.pass(Step::List, self.memory.list(index)).await
    }

    async fn lease(&self, key: &RecordKey, owner: &LeaseOwner, life: Duration) -> Result<bool, Unavailable> {
        self.pass(Step::Lease, self.memory.lease(key, owner, life)).await
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        self.pass(Step::Release, self.memory.release(key, owner)).await
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        self.pass(Step::Claim, self.memory.claim_once(mark, time_to_live)).await
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        self.pass(Step::IsClaimed, self.memory.is_claimed(mark)).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        self.pass(Step::Count, self.memory.count(key, rate)).await
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        self.memory.ping().await
    }

    fn changes(&self) -> &Changes {
        self.memory.changes()
    }
}

#[async_trait]
impl Outbox for TroubledStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        self.pass(Step::Post, self.memory.post(errand)).await
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        self.pass(Step::Fetch, self.memory.fetch_due(now, until)).await
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        self.pass(Step::Postpone, self.memory.postpone(id, due_at)).await
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        self.memory.strike(id).await
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        self.memory.count_errands().await
    }
}
