//! The outbox: each errand is run by one at a time, when it is due, until it is struck.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock, Timestamp};
use cloakroom::random::Random;
use cloakroom::session::store::Store;
use cloakroom::session::store::outbox::Errand;
use tokio::task::JoinSet;

use crate::store::MINUTE;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Each part leaves the outbox empty.
pub async fn keeps_the_contract(store: &Arc<dyn Store>, clock: &ManualClock) {
    an_errand_is_fetched_as_it_was_posted(&**store, clock).await;
    the_longest_due_comes_first_and_none_before_its_time(&**store, clock).await;
    a_fetched_errand_is_the_fetchers_alone_for_a_time(&**store, clock).await;
    a_postponed_errand_is_due_then(&**store, clock).await;
    what_is_no_errand_any_more_is_no_error_and_comes_not_back(&**store, clock).await;
    an_errand_posted_twice_is_one(&**store, clock).await;
    no_two_fetch_the_same(store, clock).await;
}

async fn an_errand_is_fetched_as_it_was_posted(store: &dyn Store, clock: &ManualClock) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for sealed in [Vec::new(), every_byte.clone(), b"\r\n$-1\r\n\0".to_vec(), every_byte.repeat(500)] {
        let errand = Errand { sealed, ..errand(clock.now()) };
        store.post(&errand).await.unwrap();
        let fetched = store.fetch_due(clock.now(), clock.now() + MINUTE).await.unwrap();
        assert_eq!(fetched, Some(errand.clone()));
        store.strike(&errand.id).await.unwrap();
    }
    assert_eq!(store.count_errands().await.unwrap(), 0);
}

async fn the_longest_due_comes_first_and_none_before_its_time(store: &dyn Store, clock: &ManualClock) {
    let now = clock.now();
    let [early, late, future] = [now + MILLISECOND, now + MINUTE, now + MINUTE * 2].map(errand);
    for errand in [&late, &future, &early] {
        store.post(errand).await.unwrap();
    }
    assert_eq!(fetch(store, now).await, None);
    assert_eq!(fetch(store, early.due_at).await, Some(early.id.clone()));
    assert_eq!(fetch(store, early.due_at).await, None);
    store.postpone(&early.id, early.due_at).await.unwrap();
    assert_eq!(fetch(store, late.due_at).await, Some(early.id.clone()));
    assert_eq!(fetch(store, late.due_at).await, Some(late.id.clone()));
    assert_eq!(fetch(store, late.due_at).await, None);
    assert_eq!(store.count_errands().await.unwrap(), 3, "the fetched and those to come are there still");
    strike(store, &[&early, &late, &future]).await;
}

async fn a_fetched_errand_is_the_fetchers_alone_for_a_time(store: &dyn Store, clock: &ManualClock) {
    let (now, until) = (clock.now(), clock.now() + MINUTE);
    let errand = errand(now);
    store.post(&errand).await.unwrap();
    assert_eq!(store.fetch_due(now, until).await.unwrap(), Some(errand.clone()));
    let just_before = Timestamp::from_millis(until.as_millis() - 1);
    assert_eq!(fetch(store, just_before).await, None);
    let again = store.fetch_due(until, until + MINUTE).await.unwrap().expect("it is due again");
    assert_eq!((&again.id, &again.sealed), (&errand.id, &errand.sealed));
    assert_eq!(fetch(store, until).await, None);
    strike(store, &[&errand]).await;
}

async fn a_postponed_errand_is_due_then(store: &dyn Store, clock: &ManualClock) {
    let now = clock.now();
    let errand = errand(now);
    store.post(&errand).await.unwrap();
    store.fetch_due(now, now + MINUTE).await.unwrap().expect("it is due");
    store.postpone(&errand.id, now + MINUTE * 2).await.unwrap();
    assert_eq!(fetch(store, now + MINUTE).await, None, "later than the fetcher had it for");
    let again = store.fetch_due(now + MINUTE * 2, now + MINUTE * 9).await.unwrap().expect("it is due");
    assert_eq!(again, Errand { due_at: now + MINUTE * 2, ..errand.clone() });
    store.postpone(&errand.id, now + MINUTE * 3).await.unwrap();
    assert_eq!(fetch(store, now + MINUTE * 3).await, Some(errand.id.clone()), "and earlier than that");
    strike(store, &[&errand]).await;
}

async fn what_is_no_errand_any_more_is_no_error_and_comes_not_back(store: &dyn Store, clock: &ManualClock) {
    let (gone, stays) = (errand(clock.now()), errand(clock.now()));
    store.post(&gone).await.unwrap();
    store.post(&stays).await.unwrap();
    for _ in 0..2 {
        store.strike(&gone.id).await.unwrap();
        store.postpone(&gone.id, clock.now()).await.unwrap();
        assert_eq!(store.count_errands().await.unwrap(), 1);
    }
    assert_eq!(fetch(store, clock.now()).await, Some(stays.id.clone()));
    assert_eq!(fetch(store, clock.now()).await, None);
    strike(store, &[&stays]).await;
}

/// Who got no answer posts again.
async fn an_errand_posted_twice_is_one(store: &dyn Store, clock: &ManualClock) {
    let errand = errand(clock.now());
    store.post(&errand).await.unwrap();
    store.post(&Errand { due_at: clock.now() + MILLISECOND, ..errand.clone() }).await.unwrap();
    assert_eq!(store.count_errands().await.unwrap(), 1);
    assert_eq!(fetch(store, clock.now()).await, None);
    assert_eq!(fetch(store, clock.now() + MILLISECOND).await, Some(errand.id.clone()));
    assert_eq!(fetch(store, clock.now() + MILLISECOND).await, None);
    strike(store, &[&errand]).await;
}

async fn no_two_fetch_the_same(store: &Arc<dyn Store>, clock: &ManualClock) {
    let now = clock.now();
    let mut posts = JoinSet::new();
    for _ in 0..100 {
        let (store, errand) = (Arc::clone(store), errand(now));
        posts.spawn(async move {
            store.post(&errand).await.unwrap();
            errand
        });
    }
    let mut posted = posts.join_all().await;
    let mut fetchers = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        fetchers.spawn(async move {
            let mut fetched = Vec::new();
            while let Some(errand) = store.fetch_due(now, now + MINUTE).await.unwrap() {
                fetched.push(errand);
            }
            fetched
        });
    }
    let mut fetched: Vec<Errand> = fetchers.join_all().await.into_iter().flatten().collect();
    for errands in [&mut posted, &mut fetched] {
        errands.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    }
    assert_eq!(fetched, posted);
    strike(&**store, &posted.iter().collect::<Vec<_>>()).await;
}

fn errand(due_at: Timestamp) -> Errand {
    let id = Random::SYSTEM.token::<16>();
    Errand { sealed: id.clone().into_bytes(), id, due_at }
}

/// The id of what is due, which is ours for an hour.
async fn fetch(store: &dyn Store, now: Timestamp) -> Option<String> {
    store.fetch_due(now, now + MINUTE * 60).await.unwrap().map(|errand| errand.id)
}

async fn strike(store: &dyn Store, errands: &[&Errand]) {
    for errand in errands {
        store.strike(&errand.id).await.unwrap();
    }
    assert_eq!(store.count_errands().await.unwrap(), 0);
}
