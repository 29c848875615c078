//! Counts: so many in so long, those of all who share the store together.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::ManualClock;
use cloakroom::random::Random;
use cloakroom::rate::Rate;
use cloakroom::session::store::{CountKey, Store};
use tokio::task::JoinSet;

use crate::store::{MINUTE, eventually};

pub async fn keep_the_contract(store: &Arc<dyn Store>, clock: &ManualClock) {
    so_many_are_within_the_rate_and_then_none(&**store).await;
    a_count_goes_down_with_time(&**store, clock).await;
    those_who_count_at_once_share_what_there_is(store).await;
}

async fn so_many_are_within_the_rate_and_then_none(store: &dyn Store) {
    let (mine, other, rate) = (key(), key(), Rate::new(3, MINUTE));
    for remaining in [2, 1, 0] {
        let standing = store.count(&mine, rate).await.unwrap();
        assert_eq!((standing.is_within, standing.remaining), (true, remaining));
        assert!(standing.one_more_in <= MINUTE / 3, "{standing:?}");
    }
    for _ in 0..3 {
        let standing = store.count(&mine, rate).await.unwrap();
        assert_eq!((standing.is_within, standing.remaining), (false, 0));
        assert!(standing.one_more_in > Duration::from_secs(1), "{standing:?}");
        assert!(standing.one_more_in <= MINUTE / 3, "{standing:?}");
    }
    assert!(store.count(&other, rate).await.unwrap().is_within, "each key has a count of its own");
}

async fn a_count_goes_down_with_time(store: &dyn Store, clock: &ManualClock) {
    let (key, rate) = (key(), Rate::new(2, Duration::from_millis(400)));
    while store.count(&key, rate).await.unwrap().is_within {}
    eventually(clock, || async { store.count(&key, rate).await.unwrap().is_within }).await;
}

async fn those_who_count_at_once_share_what_there_is(store: &Arc<dyn Store>) {
    let key = key();
    let mut counting = JoinSet::new();
    for _ in 0..50 {
        let (store, key) = (Arc::clone(store), key.clone());
        counting.spawn(async move { store.count(&key, Rate::new(20, MINUTE * 60)).await.unwrap().is_within });
    }
    let within = counting.join_all().await.into_iter().filter(|is_within| *is_within).count();
    assert_eq!(within, 20);
}

fn key() -> CountKey {
    CountKey(Random::SYSTEM.token::<16>())
}
