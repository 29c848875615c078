//! Indexes in Redis, where an index and its records lie in different slots and no step covers both.

use std::sync::Arc;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config;
use cloakroom::secret::Secret;
use cloakroom::session::store::{COLLECTION_MARGIN, IndexKey, Record, RecordKey, Store, Unavailable};

use super::network::Network;
use super::{MINUTE, index, key, record, store_in};
use crate::support::clock::clock;
use crate::support::redis::Redis;

#[tokio::test]
async fn no_record_lies_there_before_each_of_its_indexes_lists_it() {
    let (redis, clock) = (Redis::start().await, clock());
    let network = Network::before(&redis).await;
    let store = store_in(&network.config(), &clock);
    let (index, key) = (index(), key());
    network.hold("index:");
    let creating = async {
        // Held back for too long on a busy machine, it fails; what was held back is done all the same.
        if create(&*store, &key, &[&index], &clock).await.is_err() {
            create(&*store, &key, &[&index], &clock).await.unwrap();
        }
    };
    let meanwhile = async {
        network.until_held().await;
        assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]).await, [""; 0]);
        network.release();
    };
    tokio::join!(creating, meanwhile);
    assert_eq!(store.list(&index).await.unwrap(), [key]);
}

#[tokio::test]
async fn a_record_that_cannot_be_listed_is_not_written() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&without_indexes(&redis).await, &clock);
    let key = key();
    assert!(create(&*store, &key, &[&index()], &clock).await.is_err());
    assert_eq!(store.read(&key).await.unwrap(), None);
    create(&*store, &key, &[], &clock).await.unwrap();
}

#[tokio::test]
async fn a_record_is_taken_where_its_index_cannot_be_reached_and_its_entry_dies_in_time() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, key) = (index(), key());
    create(&*store, &key, &[&index], &clock).await.unwrap();
    let cut_off = store_in(&without_indexes(&redis).await, &clock);
    let taken = cut_off.take(&key).await.unwrap().expect("the record");
    assert_eq!(taken.indexes, std::slice::from_ref(&index));
    clock.advance(MINUTE);
    assert_eq!(store.list(&index).await.unwrap(), [key], "an entry that names nothing");
    clock.advance(COLLECTION_MARGIN);
    assert_eq!(store.list(&index).await.unwrap(), []);
}

#[tokio::test]
async fn a_touch_lists_again_what_an_index_has_lost() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, other, key) = (index(), index(), key());
    create(&*store, &key, &[&index, &other], &clock).await.unwrap();
    let seen = clock.now() + MINUTE;
    redis.command::<()>(&["DEL", &name(&index)]).await;
    redis.command::<()>(&["SET", &name(&other), "no index"]).await;
    assert_eq!(store.list(&index).await.unwrap(), []);
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    assert_eq!(store.list(&index).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(store.list(&other).await.unwrap(), [key]);
}

#[tokio::test]
async fn a_touch_that_a_take_overtakes_lists_nothing() {
    let (redis, clock) = (Redis::start().await, clock());
    let network = Network::before(&redis).await;
    let (toucher, taker) = (store_in(&network.config(), &clock), store_in(&redis.config(), &clock));
    loop {
        let (index, key) = (index(), key());
        create(&*taker, &key, &[&index], &clock).await.unwrap();
        let seen = clock.now() + MINUTE;
        network.hold("index:");
        let meanwhile = async {
            network.until_held().await;
            taker.take(&key).await.unwrap().expect("the record");
            network.release();
        };
        // On a busy machine it may have been held back for too long, and is tried with another record then.
        let (touched, ()) = tokio::join!(toucher.touch(&key, seen, seen + MINUTE), meanwhile);
        if touched.is_ok() {
            assert_eq!(taker.list(&index).await.unwrap(), []);
            break;
        }
    }
}

#[tokio::test]
async fn a_touch_without_its_indexes_is_unavailable_and_the_record_lives_on() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let key = key();
    create(&*store, &key, &[&index()], &clock).await.unwrap();
    let cut_off = store_in(&without_indexes(&redis).await, &clock);
    let seen = clock.now() + MINUTE;
    assert!(cut_off.touch(&key, seen, seen + MINUTE).await.is_err());
    assert_eq!(store.read(&key).await.unwrap().expect("the record").expires_at, seen + MINUTE);
}

#[tokio::test]
async fn an_index_is_kept_for_its_longest_record_and_rid_of_the_dead_at_each_entry() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, long, short) = (index(), key(), key());
    let hour = MINUTE * 60;
    let long_lived =
        Record { expires_at: clock.now() + hour, indexes: vec![index.clone()], ..record(&clock) };
    store.create(&long, &long_lived).await.unwrap();
    create(&*store, &short, &[&index], &clock).await.unwrap();
    let time_to_live = || async { redis.command::<u128>(&["PTTL", &name(&index)]).await };
    let whole = (hour + COLLECTION_MARGIN).as_millis();
    // How long the test has taken is off it by now.
    assert!((whole - MINUTE.as_millis()..=whole).contains(&time_to_live().await));
    store.touch(&long, long_lived.expires_at, long_lived.expires_at + hour).await.unwrap();
    assert!((whole..=whole + hour.as_millis()).contains(&time_to_live().await));

    let entries = || async { redis.command::<usize>(&["ZCARD", &name(&index)]).await };
    assert_eq!(entries().await, 2);
    clock.advance(MINUTE + COLLECTION_MARGIN);
    create(&*store, &key(), &[&index], &clock).await.unwrap();
    assert_eq!(entries().await, 2, "the short-lived one has made room for the new one");
    clock.advance(MINUTE + COLLECTION_MARGIN);
    assert_eq!(store.list(&index).await.unwrap(), [long]);
    assert_eq!(entries().await, 1, "a listing rids it of the dead, too");
}

#[tokio::test]
async fn a_touch_that_comes_late_makes_no_entry_shorter() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, key) = (index(), key());
    create(&*store, &key, &[&index], &clock).await.unwrap();
    let seen = clock.now() + MINUTE;
    // What another gateway, which has touched the record since, has entered.
    let later = (seen + MINUTE * 9 + COLLECTION_MARGIN).as_millis().to_string();
    let member = redis.command::<Vec<String>>(&["ZRANGE", &name(&index), "0", "-1"]).await.remove(0);
    redis.command::<()>(&["ZADD", &name(&index), &later, &member]).await;
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    assert_eq!(redis.command::<String>(&["ZSCORE", &name(&index), &member]).await, later);
}

#[tokio::test]
async fn a_record_of_an_older_gateway_is_in_no_index() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    let name = redis.command::<Vec<String>>(&["KEYS", "*"]).await.remove(0);
    redis.command::<()>(&["HDEL", &name, "indexes"]).await;
    store.touch(&key, record.expires_at, record.expires_at + MINUTE).await.unwrap();
    let touched = Record { expires_at: record.expires_at + MINUTE, ..record };
    assert_eq!(store.read(&key).await.unwrap().as_ref(), Some(&touched));
    assert_eq!(store.take(&key).await.unwrap(), Some(touched));
}

#[tokio::test]
async fn a_damaged_record_leaves_its_indexes_when_it_is_taken() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, key) = (index(), key());
    create(&*store, &key, &[&index], &clock).await.unwrap();
    let name = redis.command::<Vec<String>>(&["KEYS", "*:session:*"]).await.remove(0);
    redis.command::<()>(&["HDEL", &name, "sealed"]).await;
    assert_eq!(store.take(&key).await.unwrap(), None);
    assert_eq!(store.list(&index).await.unwrap(), []);
}

#[tokio::test]
async fn a_redis_without_memory_lists_no_new_session_and_keeps_those_it_has_listed() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (index, other, key) = (index(), index(), key());
    create(&*store, &key, &[&index], &clock).await.unwrap();
    let seen = clock.now() + MINUTE;
    redis.command::<()>(&["DEL", &name(&index)]).await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(create(&*store, &self::key(), &[&other], &clock).await.is_err());
    assert_eq!(store.list(&other).await.unwrap(), []);
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    assert_eq!(store.list(&index).await.unwrap(), [key]);
}

async fn create(
    store: &dyn Store,
    key: &RecordKey,
    indexes: &[&IndexKey],
    clock: &Arc<ManualClock>,
) -> Result<(), Unavailable> {
    let indexes = indexes.iter().copied().cloned().collect();
    store.create(key, &Record { indexes, ..record(clock) }).await
}

/// The configuration of a user to whom Redis refuses the indexes.
async fn without_indexes(redis: &Redis) -> config::Redis {
    let user = ["ACL", "SETUSER", "half", "on", ">hunter2", "+@all", "&*", "~cloakroom:session:*"];
    redis.command::<()>(&user).await;
    let (username, password) = (Some("half".to_owned()), Some(Secret::new("hunter2")));
    config::Redis { username, password, ..redis.config() }
}

fn name(index: &IndexKey) -> String {
    format!("cloakroom:index:{{{}}}", index.0)
}
