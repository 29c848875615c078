//! Changes: whoever keeps what was read is told of each write, and of nothing else.

use std::time::Duration;

use cloakroom::clock::ManualClock;
use cloakroom::session::store::changes::Mark;
use cloakroom::session::store::{Record, RecordKey, Replaced, Store, Version};

use crate::store::{MINUTE, eventually, index, key, owner, record};
use crate::support::wait::in_time;

/// Two records share a slot by chance, one pair in 65536: one of so many is forgiven, and no more.
const BYSTANDERS: usize = 16;

pub async fn keep_the_contract(store: &dyn Store, clock: &ManualClock) {
    eventually(clock, || async {
        store.read(&key()).await.unwrap();
        *store.changes().are_told().borrow()
    })
    .await;
    every_write_is_told_and_of_its_record_alone(store, clock).await;
    what_writes_nothing_tells_nothing(store, clock).await;
    whoever_waits_for_a_change_is_woken(store, clock).await;
}

async fn every_write_is_told_and_of_its_record_alone(store: &dyn Store, clock: &ManualClock) {
    let bystanders = create_bystanders(store, clock).await;
    let (key, taken, record) = (key(), key(), record_in_index(clock));
    let seen = record.expires_at;
    store.create(&taken, &record).await.unwrap();

    let unread = told_of_all_so_far_and_then(store, clock, &bystanders).await;
    let mark = mark(store, &key).await;
    store.create(&key, &record).await.unwrap();
    is_told(store, clock, &mark).await;

    let mark = self::mark(store, &key).await;
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    is_told(store, clock, &mark).await;

    told_of_all_so_far(store, clock).await;
    let mark = self::mark(store, &key).await;
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    is_told(store, clock, &mark).await;

    told_of_all_so_far(store, clock).await;
    let mark = self::mark(store, &key).await;
    store.take_version(&key, Version(2)).await.unwrap().expect("the record");
    is_told(store, clock, &mark).await;

    told_of_all_so_far(store, clock).await;
    let mark = self::mark(store, &taken).await;
    store.take(&taken).await.unwrap().expect("the record");
    is_told(store, clock, &mark).await;

    told_of_all_so_far(store, clock).await;
    assert_all_but_one_current(store, &unread);
}

async fn what_writes_nothing_tells_nothing(store: &dyn Store, clock: &ManualClock) {
    let records = create_bystanders(store, clock).await;
    let marks = told_of_all_so_far_and_then(store, clock, &records).await;
    for key in &records {
        let record = store.read(key).await.unwrap().expect("the record");
        assert_eq!(store.list(&record.indexes[0]).await.unwrap().as_slice(), std::slice::from_ref(key));
        let owner = owner();
        assert!(store.lease(key, &owner, MINUTE).await.unwrap());
        assert!(!store.lease(key, &self::owner(), MINUTE).await.unwrap());
        store.release(key, &owner).await.unwrap();
        assert!(store.claim_once(&owner.0, MINUTE).await.unwrap());
        let conflict = store.replace(key, Version(2), b"late", Version(3)).await.unwrap();
        assert_eq!(conflict, Replaced::Conflict);
        store.touch(key, record.expires_at + MINUTE, record.expires_at + MINUTE * 2).await.unwrap();
        assert_eq!(store.take_version(key, Version(2)).await.unwrap(), None);
    }
    store.ping().await.unwrap();
    told_of_all_so_far(store, clock).await;
    assert_all_but_one_current(store, &marks);
}

async fn whoever_waits_for_a_change_is_woken(store: &dyn Store, clock: &ManualClock) {
    let key = key();
    store.create(&key, &record(clock)).await.unwrap();
    told_of_all_so_far(store, clock).await;
    let change = store.changes().await_change(&key);
    let mut changed = std::pin::pin!(change.notified());
    changed.as_mut().enable();
    mark(store, &key).await;
    store.take(&key).await.unwrap().expect("the record");
    in_time(changed).await;
}

/// A mark as it is used: taken first, and then the record is read.
async fn mark(store: &dyn Store, key: &RecordKey) -> Mark {
    let mark = store.changes().mark(key);
    store.read(key).await.unwrap();
    mark
}

async fn is_told(store: &dyn Store, clock: &ManualClock, mark: &Mark) {
    eventually(clock, || async { !store.changes().is_current(mark) }).await;
}

/// Waits until the store has told of every write that is done: changes are told in the order of writes.
async fn told_of_all_so_far(store: &dyn Store, clock: &ManualClock) {
    let key = key();
    let mark = mark(store, &key).await;
    store.create(&key, &record(clock)).await.unwrap();
    is_told(store, clock, &mark).await;
}

/// The same, and then marks all of these.
async fn told_of_all_so_far_and_then(
    store: &dyn Store,
    clock: &ManualClock,
    keys: &[RecordKey],
) -> Vec<Mark> {
    told_of_all_so_far(store, clock).await;
    let mut marks = Vec::new();
    for key in keys {
        marks.push(mark(store, key).await);
    }
    marks
}

fn assert_all_but_one_current(store: &dyn Store, marks: &[Mark]) {
    let current = marks.iter().filter(|mark| store.changes().is_current(mark)).count();
    assert!(current + 1 >= marks.len(), "{current} of {} marks are current", marks.len());
}

async fn create_bystanders(store: &dyn Store, clock: &ManualClock) -> Vec<RecordKey> {
    let mut keys = Vec::new();
    for _ in 0..BYSTANDERS {
        let key = key();
        store.create(&key, &record_in_index(clock)).await.unwrap();
        keys.push(key);
    }
    keys
}

/// A record that the test's own clock does not outrun.
fn record_in_index(clock: &ManualClock) -> Record {
    let record = record(clock);
    Record { indexes: vec![index()], expires_at: record.expires_at + Duration::from_secs(3600), ..record }
}
