//! Waiting for replicas.

use cloakroom::config;
use cloakroom::session::store::{Replaced, Version};

use super::{MINUTE, key, owner, record, store_in};
use crate::support::clock::clock;
use crate::support::log::Log;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::RedisSentinel;

#[tokio::test]
async fn what_replicas_lack_stands_and_is_told_of_once_in_a_while() {
    let (redis, clock, log) = (RedisSentinel::start().await, clock(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = store_in(&config::Redis { wait_for_replicas: 1, ..redis.config() }, &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    store.lease(&key, &owner(), MINUTE).await.unwrap();
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    let on_replica: Vec<String> = redis.server(1).command(&["KEYS", "cloakroom:[ls]e*{*"]).await;
    assert_eq!((on_replica.len(), take_warnings(&log)), (2, 0));

    redis.server(1).freeze();
    assert_eq!(store.replace(&key, Version(2), b"newer", Version(3)).await.unwrap(), Replaced::Written);
    assert_eq!(store.take_version(&key, Version(3)).await.unwrap().unwrap().sealed, b"newer");
    assert_eq!(take_warnings(&log), 1);
    redis.server(1).thaw();
}

#[tokio::test]
async fn readers_do_not_wait_for_what_writers_wait_for() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    let store = store_in(&config::Redis { wait_for_replicas: 1, ..redis.config() }, &clock);
    let (read, written, record) = (key(), key(), record(&clock));
    store.create(&read, &record).await.unwrap();
    redis.server(1).freeze();
    let mut writing = std::pin::pin!(store.create(&written, &record));
    let reading = async {
        for _ in 0..50 {
            assert_eq!(store.read(&read).await.unwrap(), Some(record.clone()));
        }
    };
    tokio::select! {
        biased;
        written = &mut writing => panic!("{written:?} though the replica sleeps, before others could read"),
        () = reading => {}
    }
    writing.await.unwrap();
    redis.server(1).thaw();
}

#[tokio::test]
async fn each_primary_of_a_cluster_asks_its_own_replicas() {
    let (cluster, clock, log) = (RedisCluster::start().await, clock(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = store_in(&config::Redis { wait_for_replicas: 1, ..cluster.config() }, &clock);
    let mut on = [0, 0, 0];
    while on.contains(&0) {
        let (key, record) = (key(), record(&clock));
        store.create(&key, &record).await.unwrap();
        for (primary, number) in on.iter_mut().enumerate() {
            if cluster.has(primary, &key).await {
                assert!(cluster.has(primary + 3, &key).await, "the replica has it as well");
                *number += 1;
            }
        }
    }
    assert_eq!(take_warnings(&log), 0);
    let two = config::Redis { wait_for_replicas: 2, ..cluster.config() };
    store_in(&two, &clock).create(&key(), &record(&clock)).await.unwrap();
    assert_eq!(take_warnings(&log), 1, "each has one alone");
}

/// How often it was told that replicas lag behind, since the last time.
fn take_warnings(log: &Log) -> usize {
    log.take().lines().filter(|line| line.contains("store.replicas_behind")).count()
}
