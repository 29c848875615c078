//! The store in this process's memory: for the demo, for tests, and for a single gateway whose users may be
//! asked to log in again when it restarts.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{COLLECTION_MARGIN, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use crate::clock::{Clock, Timestamp};

/// How many records there may be, and how many leases and marks. At a few kilobytes a record this stays
/// within a few hundred megabytes (R65); a full store is [`Unavailable`] for what is new.
const CAPACITY: usize = 100_000;

/// How often what has expired is thrown away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    records: Expiring<RecordKey, Stored>,
    leases: Expiring<RecordKey, LeaseOwner>,
    marks: Expiring<String, ()>,
}

/// A record without its `expires_at`, which its entry has.
#[derive(Debug)]
struct Stored {
    sealed: Vec<u8>,
    version: Version,
}

/// A bounded map whose entries are gone once their time has come, whether they were swept or not.
#[derive(Debug)]
struct Expiring<K, V> {
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
            leases: Expiring::new(capacity, now),
            marks: Expiring::new(capacity, now),
        };
        Self { clock, state: Mutex::new(state) }
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
        }))
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        let (mut state, now) = self.lock();
        let value = Stored { sealed: record.sealed.clone(), version: record.version };
        state.records.insert(key.clone(), value, record.expires_at, now)
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
                entry.value = Stored { sealed: sealed.to_vec(), version };
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
        }
        Ok(())
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let (mut state, _) = self.lock();
        Ok(state.records.entries.remove(key).map(Record::from))
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        let (mut state, _) = self.lock();
        let entries = &mut state.records.entries;
        if entries.get(key).is_none_or(|entry| entry.value.version != version) {
            return Ok(None);
        }
        Ok(entries.remove(key).map(Record::from))
    }

    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        let (mut state, now) = self.lock();
        if state.leases.get(key, now).is_some_and(|lease| lease.value != *owner) {
            return Ok(false);
        }
        state.leases.insert(key.clone(), owner.clone(), now + time_to_live, now)?;
        Ok(true)
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        let (mut state, now) = self.lock();
        if state.leases.get(key, now).is_some_and(|lease| lease.value == *owner) {
            state.leases.entries.remove(key);
        }
        Ok(())
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let (mut state, now) = self.lock();
        if state.marks.get(mark, now).is_some() {
            return Ok(false);
        }
        state.marks.insert(mark.to_owned(), (), now + time_to_live, now)?;
        Ok(true)
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

impl<K: Eq + Hash, V> Expiring<K, V> {
    fn new(capacity: usize, now: Timestamp) -> Self {
        Self { entries: HashMap::new(), capacity, swept_at: now }
    }

    fn get<Q>(&mut self, key: &Q, now: Timestamp) -> Option<&mut Entry<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get_mut(key).filter(|entry| now < entry.expires_at)
    }

    fn insert(&mut self, key: K, value: V, expires_at: Timestamp, now: Timestamp) -> Result<(), Unavailable> {
        if now.since(self.swept_at) >= SWEEP_INTERVAL {
            self.entries.retain(|_, entry| now < entry.expires_at + COLLECTION_MARGIN);
            self.swept_at = now;
        }
        if self.entries.len() >= self.capacity {
            self.entries.retain(|_, entry| now < entry.expires_at);
        }
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            return Err(Unavailable("the memory is full".to_owned()));
        }
        self.entries.insert(key, Entry { value, expires_at });
        Ok(())
    }
}

impl From<Entry<Stored>> for Record {
    fn from(entry: Entry<Stored>) -> Self {
        let Entry { value: Stored { sealed, version }, expires_at } = entry;
        Self { sealed, version, expires_at }
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
