//! What the primaries of a cluster tell of changes, and masters that take each other's place.

use std::sync::Arc;

use cloakroom::clock::ManualClock;
use cloakroom::session::store::{RecordKey, Store};

use super::tracking::{is_told, is_tracked, long_record, trackers};
use super::{eventually, key, store_in};
use crate::support::clock::clock;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::RedisSentinel;
use crate::support::wait::until;

#[tokio::test]
async fn each_primary_of_a_cluster_tells_and_the_loss_of_any_makes_every_mark_old() {
    let (cluster, clock) = (RedisCluster::start().await, clock());
    let (store, other) = (store_in(&cluster.config(), &clock), store_in(&cluster.config(), &clock));
    until(async || is_tracked(&*store)).await;
    for primary in 0..3 {
        is_told_of_a_write_on(primary, &cluster, &store, &other, &clock).await;
    }
    drop(other);
    for primary in 0..3 {
        let (losses, mark) = (store.changes().losses(), store.changes().mark(&key()));
        assert!(store.changes().is_current(&mark));
        until(async || trackers(cluster.node(primary)).await.len() == 1).await;
        let id = trackers(cluster.node(primary)).await.remove(0);
        cluster.node(primary).command::<u64>(&["CLIENT", "KILL", "ID", &id]).await;
        until(async || store.changes().losses() > losses).await;
        assert!(!store.changes().is_current(&mark));
        until(async || is_tracked(&*store)).await;
        assert!(!store.changes().is_current(&mark));
    }
}

#[tokio::test]
async fn a_replica_that_takes_over_tells_in_place_of_its_primary() {
    let (mut cluster, clock) = (RedisCluster::start().await, clock());
    let (store, other) = (store_in(&cluster.config(), &clock), store_in(&cluster.config(), &clock));
    until(async || is_tracked(&*store)).await;
    let mark = store.changes().mark(&key());
    // Not a seed: the seeds are asked for the primaries.
    cluster.kill(1);
    until(async || !is_tracked(&*store)).await;
    until(async || is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&mark));
    assert_eq!(cluster.owner_of_slot(5461, 0).await, 4);
    is_told_of_a_write_on(4, &cluster, &store, &other, &clock).await;
}

#[tokio::test]
async fn a_master_that_steps_in_by_order_tells_in_place_of_the_old_one() {
    let (redis, clock) = (RedisSentinel::start().await, clock());
    let (store, other) = (store_in(&redis.config(), &clock), store_in(&redis.config(), &clock));
    until(async || is_tracked(&*store)).await;
    let mark = store.changes().mark(&key());
    redis.order_failover().await;
    redis.until_master_is(1).await;
    until(async || store.changes().losses() > 0).await;
    until(async || trackers(redis.server(1)).await.len() == 2 && is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&mark));
    eventually(&clock, || async { other.ping().await.is_ok() }).await;
    let key = key();
    let mark = store.changes().mark(&key);
    assert!(store.changes().is_current(&mark));
    eventually(&clock, || async { other.create(&key, &long_record(&clock)).await.is_ok() }).await;
    is_told(&*store, &mark).await;
}

/// Another gateway writes a record that lies on this node, and ours is told of it.
async fn is_told_of_a_write_on(
    node: usize,
    cluster: &RedisCluster,
    store: &Arc<dyn Store>,
    other: &Arc<dyn Store>,
    clock: &Arc<ManualClock>,
) {
    loop {
        let key: RecordKey = key();
        let mark = store.changes().mark(&key);
        assert!(store.changes().is_current(&mark));
        eventually(clock, || async { other.create(&key, &long_record(clock)).await.is_ok() }).await;
        is_told(&**store, &mark).await;
        if cluster.has(node, &key).await {
            return;
        }
    }
}
