//! What every engine does.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock, Timestamp};
use cloakroom::random::Random;
use cloakroom::session::store::{Record, Replaced, Store, Version};
use tokio::task::{JoinSet, yield_now};

use super::{MINUTE, eventually, key, owner, record};

mod changes;
mod counts;
mod indexes;
mod outbox;

/// Holds a store to the contract. Takes the clock that the store was given.
pub async fn keeps_the_contract(store: Arc<dyn Store>, clock: &ManualClock) {
    store.ping().await.unwrap();
    a_record_is_read_as_it_was_written(&*store, clock).await;
    a_record_is_replaced_by_version_and_keeps_its_time(&*store, clock).await;
    a_touch_moves_the_time_alone_and_forward_and_once(&*store, clock).await;
    nothing_recreates_a_record(&*store, clock).await;
    a_record_past_its_time_is_absent_to_all_but_who_takes_it_out(&*store, clock).await;
    a_record_is_taken_out_by_its_version(&*store, clock).await;
    of_parallel_writers_one_wins_each_version(&store, clock).await;
    a_take_among_writers_gets_the_newest_and_ends_them_all(&store, clock).await;
    a_lease_is_its_owners_alone(&*store).await;
    a_lease_ends_by_itself_unless_it_is_renewed(&*store, clock).await;
    a_mark_is_claimed_once(&*store, clock).await;
    counts::keep_the_contract(&store, clock).await;
    indexes::keep_the_contract(&store, clock).await;
    outbox::keeps_the_contract(&store, clock).await;
    changes::keep_the_contract(&*store, clock).await;
}

async fn a_record_is_read_as_it_was_written(store: &dyn Store, clock: &ManualClock) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for sealed in [Vec::new(), every_byte.clone(), b"\r\n$-1\r\n\0".to_vec(), every_byte.repeat(500)] {
        let (key, record) = (key(), Record { sealed, ..record(clock) });
        assert_eq!(store.read(&key).await.unwrap(), None);
        store.create(&key, &record).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
        assert_eq!(store.take(&key).await.unwrap(), Some(record));
        assert_eq!(store.read(&key).await.unwrap(), None);
        assert_eq!(store.take(&key).await.unwrap(), None);
    }
}

async fn a_record_is_replaced_by_version_and_keeps_its_time(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    let conflict = store.replace(&key, Version(2), b"lost", Version(3)).await.unwrap();
    assert_eq!(conflict, Replaced::Conflict);
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));

    // These two are one number to whoever counts in floating point.
    let (even, odd) = (Version(1 << 53), Version((1 << 53) + 1));
    assert_eq!(store.replace(&key, Version(1), b"\0even", even).await.unwrap(), Replaced::Written);
    assert_eq!(store.replace(&key, odd, b"lost", Version(9)).await.unwrap(), Replaced::Conflict);
    assert_eq!(store.replace(&key, even, b"\0odd", odd).await.unwrap(), Replaced::Written);
    let expected = Record { sealed: b"\0odd".to_vec(), version: odd, ..record };
    assert_eq!(store.read(&key).await.unwrap(), Some(expected));
}

async fn a_touch_moves_the_time_alone_and_forward_and_once(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    let seen = record.expires_at;
    store.create(&key, &record).await.unwrap();
    store.touch(&key, seen, Timestamp::from_millis(seen.as_millis() - 1)).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    store.touch(&key, seen, seen + MINUTE * 2).await.unwrap();
    let touched = Record { expires_at: seen + MINUTE, ..record };
    assert_eq!(store.read(&key).await.unwrap(), Some(touched.clone()));
    clock.advance(seen.since(clock.now()));
    assert_eq!(store.read(&key).await.unwrap(), Some(touched));
}

async fn nothing_recreates_a_record(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    for _ in 0..2 {
        assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Absent);
        store.touch(&key, record.expires_at, record.expires_at + MINUTE).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap(), None);
        store.create(&key, &record).await.unwrap();
        store.take(&key).await.unwrap().expect("the record");
    }
}

async fn a_record_past_its_time_is_absent_to_all_but_who_takes_it_out(
    store: &dyn Store,
    clock: &ManualClock,
) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    clock.advance(MINUTE - Duration::from_millis(1));
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
    clock.advance(Duration::from_millis(1));
    assert_eq!(store.read(&key).await.unwrap(), None);
    store.touch(&key, record.expires_at, record.expires_at + MINUTE).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), None);
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Absent);
    assert_eq!(store.take_version(&key, Version(2)).await.unwrap(), None);
    assert_eq!(store.take(&key).await.unwrap(), Some(record), "its tokens are still to be revoked");
    assert_eq!(store.take(&key).await.unwrap(), None);
}

async fn a_record_is_taken_out_by_its_version(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    assert_eq!(store.take_version(&key, Version(2)).await.unwrap(), None);
    assert_eq!(store.take_version(&key, Version(1)).await.unwrap(), Some(record));
    assert_eq!(store.read(&key).await.unwrap(), None);
}

async fn of_parallel_writers_one_wins_each_version(store: &Arc<dyn Store>, clock: &ManualClock) {
    let key = key();
    store.create(&key, &record(clock)).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..100_u8 {
        let (store, key) = (Arc::clone(store), key.clone());
        writers.spawn(async move {
            let mut won = Vec::new();
            for version in 1..=5 {
                let next = Version(version + 1);
                match store.replace(&key, Version(version), &[writer], next).await.unwrap() {
                    Replaced::Written => won.push((next, writer)),
                    Replaced::Conflict => {}
                    Replaced::Absent => panic!("the record is there"),
                }
            }
            won
        });
    }
    let mut won: Vec<(Version, u8)> = writers.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    let versions: Vec<u64> = won.iter().map(|(version, _)| version.0).collect();
    assert_eq!(versions, (2..=6).collect::<Vec<u64>>(), "each version is written by one writer");
    let last = store.read(&key).await.unwrap().expect("the record");
    assert_eq!((last.version, last.sealed), (won[4].0, vec![won[4].1]));
}

async fn a_take_among_writers_gets_the_newest_and_ends_them_all(store: &Arc<dyn Store>, clock: &ManualClock) {
    let key = key();
    store.create(&key, &record(clock)).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(store), key.clone());
        writers.spawn(async move {
            let mut newest = Version(1);
            while let Some(current) = store.read(&key).await.unwrap() {
                let next = Version(current.version.0 + 1);
                let sealed = next.0.to_string().into_bytes();
                if store.replace(&key, current.version, &sealed, next).await.unwrap() == Replaced::Written {
                    newest = next;
                }
                // A store that never waits would keep the runtime from the one who takes.
                yield_now().await;
            }
            newest
        });
    }
    eventually(clock, || async { store.read(&key).await.unwrap().unwrap().version > Version(20) }).await;
    let taken = store.take(&key).await.unwrap().expect("the record");
    let newest = writers.join_all().await.into_iter().max().expect("writers");
    assert_eq!((taken.version, taken.sealed), (newest, newest.0.to_string().into_bytes()));
    assert_eq!(store.read(&key).await.unwrap(), None);
}

async fn a_lease_is_its_owners_alone(store: &dyn Store) {
    let (ours, others) = (owner(), owner());
    let (key, other_key) = (key(), key());
    assert!(store.lease(&key, &ours, MINUTE).await.unwrap());
    assert!(!store.lease(&key, &others, MINUTE).await.unwrap());
    assert!(store.lease(&other_key, &others, MINUTE).await.unwrap(), "each record has a lease of its own");
    store.release(&key, &others).await.unwrap();
    assert!(!store.lease(&key, &others, MINUTE).await.unwrap(), "a stranger's release does nothing");
    assert!(store.lease(&key, &ours, MINUTE).await.unwrap(), "its owner renews it");
    store.release(&key, &ours).await.unwrap();
    assert!(store.lease(&key, &others, MINUTE).await.unwrap());
    store.release(&key, &ours).await.unwrap();
    assert!(!store.lease(&key, &ours, MINUTE).await.unwrap(), "the owner before is a stranger now");
}

async fn a_lease_ends_by_itself_unless_it_is_renewed(store: &dyn Store, clock: &ManualClock) {
    let (ours, others) = (owner(), owner());
    let (renewed, left_alone) = (key(), key());
    let short = Duration::from_millis(100);
    assert!(store.lease(&renewed, &ours, short).await.unwrap());
    assert!(store.lease(&renewed, &ours, MINUTE).await.unwrap());
    assert!(store.lease(&left_alone, &ours, short).await.unwrap());
    eventually(clock, || async { store.lease(&left_alone, &others, MINUTE).await.unwrap() }).await;
    assert!(!store.lease(&renewed, &others, MINUTE).await.unwrap());
}

async fn a_mark_is_claimed_once(store: &dyn Store, clock: &ManualClock) {
    let (mark, other) = (Random::SYSTEM.token::<16>(), Random::SYSTEM.token::<16>());
    assert!(store.claim_once(&mark, MINUTE).await.unwrap());
    assert!(!store.claim_once(&mark, MINUTE).await.unwrap());
    assert!(store.claim_once(&other, Duration::from_millis(100)).await.unwrap());
    eventually(clock, || async { store.claim_once(&other, MINUTE).await.unwrap() }).await;
    assert!(!store.claim_once(&mark, MINUTE).await.unwrap());
}
