//! Indexes: whoever is in the store is found, and whoever was taken out is not.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::session::store::{COLLECTION_MARGIN, IndexKey, Record, RecordKey, Replaced, Store, Version};
use tokio::task::JoinSet;

use crate::store::{MINUTE, index, key, record};

pub async fn keep_the_contract(store: &Arc<dyn Store>, clock: &ManualClock) {
    an_index_lists_its_records_alone(&**store, clock).await;
    a_record_that_is_taken_out_is_listed_no_more(&**store, clock).await;
    a_replaced_record_keeps_its_indexes(&**store, clock).await;
    a_touched_record_is_listed_for_as_long_as_it_lives(&**store, clock).await;
    of_parallel_records_an_index_loses_none(store, clock).await;
}

async fn an_index_lists_its_records_alone(store: &dyn Store, clock: &ManualClock) {
    let (shared, own, other, unknown) = (index(), index(), index(), index());
    let in_both = create(store, clock, &[&shared, &own]).await;
    let in_one = create(store, clock, &[&shared]).await;
    let elsewhere = create(store, clock, &[&other]).await;
    create(store, clock, &[]).await;
    lists(store, &shared, &[&in_both, &in_one]).await;
    lists(store, &own, &[&in_both]).await;
    lists(store, &other, &[&elsewhere]).await;
    lists(store, &unknown, &[]).await;

    let read = store.read(&in_both).await.unwrap().expect("the record");
    assert_eq!(read.indexes, [shared, own], "as they were written");
}

async fn a_record_that_is_taken_out_is_listed_no_more(store: &dyn Store, clock: &ManualClock) {
    let (first, second) = (index(), index());
    let both = [&first, &second];
    let stays = create(store, clock, &both).await;

    let key = create(store, clock, &both).await;
    assert_eq!(store.take_version(&key, Version(2)).await.unwrap(), None);
    lists(store, &second, &[&stays, &key]).await;
    let taken = store.take_version(&key, Version(1)).await.unwrap().expect("the record");
    assert_eq!(taken.indexes, [first.clone(), second.clone()]);
    lists(store, &first, &[&stays]).await;
    lists(store, &second, &[&stays]).await;

    let key = create(store, clock, &both).await;
    assert_eq!(store.take(&key).await.unwrap(), Some(taken));
    lists(store, &first, &[&stays]).await;
    lists(store, &second, &[&stays]).await;

    clock.advance(MINUTE);
    store.take(&stays).await.unwrap().expect("what has expired a moment ago");
    lists(store, &first, &[]).await;
    lists(store, &second, &[]).await;
}

async fn a_replaced_record_keeps_its_indexes(store: &dyn Store, clock: &ManualClock) {
    let (first, second) = (index(), index());
    let key = create(store, clock, &[&first, &second]).await;
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    assert_eq!(store.replace(&key, Version(1), b"late", Version(2)).await.unwrap(), Replaced::Conflict);
    lists(store, &first, &[&key]).await;
    lists(store, &second, &[&key]).await;
    let read = store.read(&key).await.unwrap().expect("the record");
    assert_eq!(read.indexes, [first, second]);
}

async fn a_touched_record_is_listed_for_as_long_as_it_lives(store: &dyn Store, clock: &ManualClock) {
    let index = index();
    let idle = create(store, clock, &[&index]).await;
    let used = create(store, clock, &[&index]).await;
    let seen = clock.now() + MINUTE;
    let expires_at = seen + COLLECTION_MARGIN * 2;
    store.touch(&used, seen, expires_at).await.unwrap();
    lists(store, &index, &[&idle, &used]).await;
    clock.advance(expires_at.since(clock.now()) - Duration::from_millis(1));
    // What comes new may have what has died collected.
    let new = create(store, clock, &[&index]).await;
    let listed = store.list(&index).await.unwrap();
    assert!(listed.contains(&used) && listed.contains(&new));
    assert_eq!(store.read(&used).await.unwrap().expect("the record").indexes, [index]);
}

async fn of_parallel_records_an_index_loses_none(store: &Arc<dyn Store>, clock: &ManualClock) {
    let (shared, record) = (index(), record(clock));
    let mut writers = JoinSet::new();
    for _ in 0..64 {
        let store = Arc::clone(store);
        let record = Record { indexes: vec![index(), shared.clone(), index()], ..record.clone() };
        writers.spawn(async move {
            let (stays, goes) = (key(), key());
            store.create(&goes, &record).await.unwrap();
            store.create(&stays, &record).await.unwrap();
            store.take(&goes).await.unwrap().expect("the record");
            stays
        });
    }
    let written = writers.join_all().await;
    lists(&**store, &shared, &written.iter().collect::<Vec<_>>()).await;
}

async fn create(store: &dyn Store, clock: &ManualClock, indexes: &[&IndexKey]) -> RecordKey {
    let key = key();
    let indexes = indexes.iter().copied().cloned().collect();
    store.create(&key, &Record { indexes, ..record(clock) }).await.unwrap();
    key
}

async fn lists(store: &dyn Store, index: &IndexKey, expected: &[&RecordKey]) {
    let mut listed = store.list(index).await.unwrap();
    listed.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
}
