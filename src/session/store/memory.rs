//! The store in this process's memory: for the demo, for tests, and for a single gateway whose users may be
//! asked to log in again when it restarts.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::changes::Changes;
use super::outbox::{Errand, Outbox};
use super::{
    COLLECTION_MARGIN, CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable,
    Version,
};
use crate::clock::{Clock, Timestamp};
use crate::rate::{Rate, Standing};

/// How many records there may be, and how many leases, marks, counts and errands. At a few kilobytes a record this
/// stays within a few gigabytes (R65); a full store is [`Unavailable`] for what is new.
pub(super) const CAPACITY: usize = 1 << 20;

/// How often what has expired is thrown away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changes: Changes,
}

#[derive(Debug)]
struct State {
    records: Expiring<RecordKey, Stored>,
    indexes: HashMap<IndexKey, HashSet<RecordKey>>,
    leases: Expiring<RecordKey, LeaseOwner>,
    marks: Expiring<String, ()>,
    counts: Counts,
    errands: HashMap<String, Errand>,
    capacity: usize,
}

/// A record without its `expires_at`, which its entry has.
#[derive(Debug)]
struct Stored {
    sealed: Vec<u8>,
    version: Version,
    indexes: Vec<IndexKey>,
}

/// The arrival of each count.
pub(super) type Counts = Expiring<CountKey, u64>;

/// A bounded map whose entries are gone once their time has come, whether they were swept or not.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>>,
    capacity: usize,
    swept_at: Timestamp,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    expires_at: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_capacity(clock, CAPACITY)
    }

    fn with_capacity(clock: Arc<dyn Clock>, capacity: usize) -> Self {
        let now = clock.now();
        let state = State {
            records: Expiring::new(capacity, now),
            indexes: HashMap::new(),
            leases: Expiring::new(capacity, now),
            marks: Expiring::new(capacity, now),
            counts: Counts::new(capacity, now),
            errands: HashMap::new(),
            capacity,
        };
        Self { clock, state: Mutex::new(state), changes: Changes::told() }
    }

    fn take_if(&self, key: &RecordKey, wanted: impl FnOnce(&Stored) -> bool) -> Option<Record> {
        let (mut state, _) = self.lock();
        if !state.records.entries.get(key).is_some_and(|entry| wanted(&entry.value)) {
            return None;
        }
        let record = state.records.entries.remove(key).map(Record::from)?;
        state.strike_from_indexes(key, &record.indexes);
        self.changes.note(key);
        Some(record)
    }

    fn lock(&self) -> (MutexGuard<'_, State>, Timestamp) {
        (self.state.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let (mut state, now) = self.lock();
        Ok(state.records.get(key, now).map(|Entry { value, expires_at }| Record {
            sealed: value.sealed.clone(),
            version: value.version,
            expires_at: *expires_at,
            indexes: value.indexes.clone(),
        }))
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        let (mut state, now) = self.lock();
        let Record { sealed, version, expires_at, indexes } = record.clone();
        let listed_in = indexes.clone();
        let collected =
            state.records.insert(key.clone(), Stored { sealed, version, indexes }, expires_at, now)?;
        for (key, entry) in collected {
            state.strike_from_indexes(&key, &entry.value.indexes);
        }
        for index in listed_in {
            state.indexes.entry(index).or_default().insert(key.clone());
        }
        self.changes.note(key);
        Ok(())
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        let (mut state, now) = self.lock();
        Ok(match state.records.get(key, now) {
            None => Replaced::Absent,
            Some(entry) if entry.value.version != expected => Replaced::Conflict,
            Some(entry) => {
                entry.value.sealed = sealed.to_vec();
                entry.value.version = version;
                self.changes.note(key);
                Replaced::Written
            }
        })
    }

    async fn touch(
        &self,
        key: &RecordKey,
        seen: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Unavailable> {
        let (mut state, now) = self.lock();
        if let Some(entry) = state.records.get(key, now)
            && entry.expires_at == seen
        {
            entry.expires_at = expires_at.max(seen);
            self.changes.note(key);
        }
        Ok(())
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        Ok(self.take_if(key, |_| true))
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        Ok(self.take_if(key, |stored| stored.version == version))
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        let (state, _) = self.lock();
        Ok(state.indexes.get(index).into_iter().flatten().cloned().collect())
    }

    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        let (mut state, now) = self.lock();
        state.leases.lease(key, owner, time_to_live, now)
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        let (mut state, now) = self.lock();
        state.leases.release(key, owner, now);
        Ok(())
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let (mut state, now) = self.lock();
        if state.marks.get(mark, now).is_some() {
            return Ok(false);
        }
        drop(state.marks.insert(mark.to_owned(), (), now + time_to_live, now)?);
        Ok(true)
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        let (mut state, now) = self.lock();
        Ok(state.marks.get(mark, now).is_some())
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        let (mut state, now) = self.lock();
        state.counts.count(key, rate, now)
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        let (mut state, _) = self.lock();
        if state.errands.len() >= state.capacity {
            return Err(full());
        }
        state.errands.insert(errand.id.clone(), errand.clone());
        Ok(())
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        let (mut state, _) = self.lock();
        let due = state.errands.values_mut().filter(|errand| errand.due_at <= now);
        Ok(due.min_by(|one, other| (one.due_at, &one.id).cmp(&(other.due_at, &other.id))).map(|errand| {
            let fetched = errand.clone();
            errand.due_at = until;
            fetched
        }))
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        if let Some(errand) = self.lock().0.errands.get_mut(id) {
            errand.due_at = due_at;
        }
        Ok(())
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        self.lock().0.errands.remove(id);
        Ok(())
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        Ok(self.lock().0.errands.len() as u64)
    }
}

impl State {
    fn strike_from_indexes(&mut self, key: &RecordKey, indexes: &[IndexKey]) {
        for index in indexes {
            if let Some(keys) = self.indexes.get_mut(index) {
                keys.remove(key);
                if keys.is_empty() {
                    self.indexes.remove(index);
                }
            }
        }
    }
}

impl<K: Eq + Hash, V> Expiring<K, V> {
    pub(super) fn new(capacity: usize, now: Timestamp) -> Self {
        Self { entries: HashMap::new(), capacity, swept_at: now }
    }

    fn get<Q>(&mut self, key: &Q, now: Timestamp) -> Option<&mut Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get_mut(key).filter(|entry| now < entry.expires_at)
    }

    /// Gives what was thrown away to make room.
    fn insert(
        &mut self,
        key: K,
        value: V,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<(K, Entry<V>)>, Unavailable> {
        let mut collected = Vec::new();
        if now.since(self.swept_at) >= SWEEP_INTERVAL {
            collected.extend(self.entries.extract_if(|_, entry| now >= entry.expires_at + COLLECTION_MARGIN));
            self.swept_at = now;
        }
        if self.entries.len() >= self.capacity {
            collected.extend(self.entries.extract_if(|_, entry| now >= entry.expires_at));
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            return Err(full());
        }
        self.entries.insert(key, Entry { value, expires_at });
        Ok(collected)
    }
}

impl Expiring<RecordKey, LeaseOwner> {
    pub(super) fn lease(
        &mut self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
        now: Timestamp,
    ) -> Result<bool, Unavailable> {
        if self.get(key, now).is_some_and(|lease| lease.value != *owner) {
            return Ok(false);
        }
        drop(self.insert(key.clone(), owner.clone(), now + time_to_live, now)?);
        Ok(true)
    }

    pub(super) fn release(&mut self, key: &RecordKey, owner: &LeaseOwner, now: Timestamp) {
        if self.get(key, now).is_some_and(|lease| lease.value == *owner) {
            self.entries.remove(key);
        }
    }
}

impl Counts {
    pub(super) fn count(
        &mut self,
        key: &CountKey,
        rate: Rate,
        now: Timestamp,
    ) -> Result<Standing, Unavailable> {
        let kept = self.get(key, now).map_or(0, |entry| entry.value);
        let (standing, arrival) = rate.step(kept, now);
        if arrival != kept {
            let expires_at = now + Duration::from_micros(standing.ahead) + Duration::from_millis(1);
            drop(self.insert(key.clone(), arrival, expires_at, now)?);
        }
        Ok(standing)
    }
}

fn full() -> Unavailable {
    Unavailable("the memory is full".to_owned())
}

impl From<Entry<Stored>> for Record {
    fn from(entry: Entry<Stored>) -> Self {
        let Entry { value: Stored { sealed, version, indexes }, expires_at } = entry;
        Self { sealed, version, expires_at, indexes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn r65_a_full_store_takes_nothing_new_until_something_has_expired() {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1000)));
        let store = MemoryStore::with_capacity(clock.clone(), 2);
        let record = |seconds| Record {
            sealed: vec![1],
            version: Version(1),
            expires_at: Timestamp::from_secs(seconds),
            indexes: Vec::new(),
        };
        let key = |name: &str| RecordKey(name.to_owned());
        store.create(&key("a"), &record(1020)).await.unwrap();
        store.create(&key("b"), &record(1020)).await.unwrap();
        store.create(&key("c"), &record(1020)).await.unwrap_err();
        store.replace(&key("a"), Version(1), &[2], Version(2)).await.unwrap();
        store.create(&key("a"), &record(1010)).await.unwrap();
        clock.advance(SWEEP_INTERVAL);
        store.create(&key("c"), &record(1020)).await.unwrap();
        assert_eq!(store.read(&key("b")).await.unwrap(), Some(record(1020)));
    }
}
