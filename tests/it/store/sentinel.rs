//! A master that sentinels look after, and what becomes of it.

use std::sync::Arc;

use cloakroom::clock::ManualClock;
use cloakroom::config::{self, RedisServers};
use cloakroom::secret::Secret;
use cloakroom::session::store::{Record, RecordKey, Store};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use super::redis::{everything_is_unavailable, unavailable};
use super::{eventually, keeps_the_contract, key, record, store_in};
use crate::support::clock::clock;
use crate::support::redis::{Redis, config_of};
use crate::support::redis_sentinel::{MASTER, RedisSentinel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_with_sentinels_keeps_the_contract() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    keeps_the_contract(store_in(&redis.config(), &clock), &clock).await;
}

#[tokio::test]
async fn sessions_of_a_master_that_was_killed_are_unavailable_and_then_all_there() {
    let (mut redis, clock) = (RedisSentinel::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = session(&redis, &*store, &clock).await;
    redis.hold_failovers(true).await;
    redis.kill(0);
    everything_is_unavailable(&*store, &clock).await;
    everything_is_unavailable(&*store_in(&redis.config(), &clock), &clock).await;
    redis.hold_failovers(false).await;
    until_read(&*store, &key, &record, &clock).await;
    redis.until_master_is(1).await;
    assert_eq!(store.take(&key).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_master_that_slept_is_not_believed_as_it_wakes() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    let (store, idle) = (store_in(&redis.config(), &clock), store_in(&redis.config(), &clock));
    let (key, record) = session(&redis, &*store, &clock).await;
    assert_eq!(idle.read(&key).await.unwrap(), Some(record.clone()));
    redis.hold_failovers(true).await;
    redis.server(0).freeze();
    everything_is_unavailable(&*store, &clock).await;
    redis.hold_failovers(false).await;
    until_read(&*store, &key, &record, &clock).await;
    redis.until_master_is(1).await;

    let (new, newer) = (self::key(), Record { sealed: b"newer".to_vec(), ..record.clone() });
    store.create(&new, &newer).await.unwrap();
    redis.server(0).thaw();
    // It still takes itself for the master, and the connection to it is open.
    assert_eq!(idle.read(&new).await.unwrap(), Some(newer.clone()));
    idle.take(&key).await.unwrap().expect("the record");
    assert_eq!(store.read(&key).await.unwrap(), None, "both write to the new master");
    redis.until_replica_is(0).await;
    assert_eq!(idle.read(&new).await.unwrap(), Some(newer.clone()));
    assert_eq!(store.read(&new).await.unwrap(), Some(newer));
}

#[tokio::test]
async fn a_failover_by_order_is_followed() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    let (store, idle) = (store_in(&redis.config(), &clock), store_in(&redis.config(), &clock));
    let (key, record) = session(&redis, &*store, &clock).await;
    assert_eq!(idle.read(&key).await.unwrap(), Some(record.clone()));
    redis.order_failover().await;
    redis.until_master_is(1).await;
    // What a moment ago was the master is trusted a little longer.
    let new = self::key();
    eventually(&clock, || async {
        until_read(&*store, &key, &record, &clock).await;
        let is_created = store.create(&new, &record).await.is_ok();
        let names = redis.server(1).try_command::<Vec<String>>(&["KEYS", "cloakroom:session:*"]).await;
        is_created && names.is_ok_and(|names| names.len() == 2)
    })
    .await;
    until_read(&*idle, &new, &record, &clock).await;
    redis.until_replica_is(0).await;
    until_read(&*store, &new, &record, &clock).await;
    until_read(&*idle, &key, &record, &clock).await;
}

#[tokio::test]
async fn one_sentinel_is_enough_to_find_the_master_and_none_to_keep_it() {
    let (mut redis, clock) = (RedisSentinel::start().await, clock());
    redis.kill_sentinel(0);
    redis.sentinel(1).freeze();
    let store = store_in(&redis.config(), &clock);
    let (key, record) = session(&redis, &*store, &clock).await;
    redis.kill_sentinel(2);
    for _ in 0..3 {
        assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
        // Past the time for which the master is trusted: what is waited for here is the clock of the world.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    everything_is_unavailable(&*store_in(&redis.config(), &clock), &clock).await;
}

#[tokio::test]
async fn a_sentinel_that_names_a_replica_is_asked_no_further() {
    let (master, replica, clock) = (Redis::start().await, Redis::start().await, clock());
    replica.command::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
    let (stale, stale_url) = sentinel_that_names(replica.port()).await;
    let (fresh, fresh_url) = sentinel_that_names(master.port()).await;
    let named_by = |urls: &[Url]| {
        let urls = urls.to_vec();
        store_in(&config_of(RedisServers::Sentinel { master: MASTER.to_owned(), urls }), &clock)
    };
    named_by(&[stale_url.clone(), fresh_url]).ping().await.unwrap();
    everything_is_unavailable(&*named_by(&[stale_url]), &clock).await;
    stale.abort();
    fresh.abort();
}

#[tokio::test]
async fn a_sentinel_gets_the_password_if_it_demands_one() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    let with = |password| config::Redis { password: Some(Secret::new(password)), ..redis.config() };
    redis.server(0).command::<()>(&["ACL", "SETUSER", "default", ">hunter2"]).await;
    store_in(&with("hunter2"), &clock).ping().await.expect("a sentinel without a password");
    unavailable(store_in(&redis.config(), &clock).ping()).await;
    for sentinel in 0..3 {
        redis.sentinel(sentinel).command::<()>(&["ACL", "SETUSER", "default", ">hunter2"]).await;
    }
    store_in(&with("hunter2"), &clock).ping().await.expect("the password of all");
    unavailable(store_in(&redis.config(), &clock).ping()).await;
    unavailable(store_in(&with("hunter22"), &clock).ping()).await;
}

/// A sentinel that says nothing but that this server of 127.0.0.1 is the master.
async fn sentinel_that_names(port: u16) -> (JoinHandle<()>, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap()).parse().unwrap();
    let port = port.to_string();
    let answer = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
    let sentinel = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut read = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut read).await {
                    let is_asked = String::from_utf8_lossy(&read[..length]).contains("SENTINEL");
                    // The library begins with two commands about itself.
                    let answer = if is_asked { answer.as_str() } else { "+OK\r\n+OK\r\n" };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (sentinel, url)
}

/// A session that the replica has as well.
async fn session(redis: &RedisSentinel, store: &dyn Store, clock: &Arc<ManualClock>) -> (RecordKey, Record) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    assert_eq!(redis.server(0).command::<u64>(&["WAIT", "1", "0"]).await, 1);
    (key, record)
}

/// Waits until the record is read, which must never be absent.
async fn until_read(store: &dyn Store, key: &RecordKey, record: &Record, clock: &ManualClock) {
    eventually(clock, || async {
        let read = store.read(key).await;
        read.inspect(|read| assert_eq!(read.as_ref(), Some(record), "never absent")).is_ok()
    })
    .await;
}
