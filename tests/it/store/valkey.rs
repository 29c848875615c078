//! Valkey, which is Redis' other branch.

use super::{keeps_the_contract, store_in};
use crate::support::clock::clock;
use crate::support::redis::{Redis, valkey};
use crate::support::redis_cluster::RedisCluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey_keeps_the_contract() {
    let (valkey, clock) = (Redis::start_program(&valkey(), Vec::new).await, clock());
    keeps_the_contract(store_in(&valkey.config(), &clock), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_cluster_keeps_the_contract() {
    let (cluster, clock) = (RedisCluster::start_program(&valkey(), Vec::new).await, clock());
    keeps_the_contract(store_in(&cluster.config(), &clock), &clock).await;
}
