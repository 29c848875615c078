//! Session stores: the contract that each engine keeps.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::session::cookie::SessionId;
use cloakroom::session::store::file::FileStore;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::redis::RedisStore;
use cloakroom::session::store::{IndexKey, LeaseOwner, Record, RecordKey, Store, Version};
use tokio::time::sleep;

use crate::support::clock::clock;
use crate::support::redis::Redis;
use crate::support::wait::in_time;

use contract::keeps_the_contract;

mod cluster;
mod contract;
mod file;
mod indexes;
mod network;
mod outbox;
mod redis;
mod replicas;
mod sentinel;
mod tls;
mod tracking;
mod tracking_of_many;
mod valkey;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let clock = clock();
    keeps_the_contract(Arc::new(MemoryStore::new(clock.clone())), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_keeps_the_contract() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = FileStore::open(folder.path(), clock.clone()).unwrap();
    keeps_the_contract(Arc::new(store), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_contract() {
    let (redis, clock) = (Redis::start().await, clock());
    keeps_the_contract(store_in(&redis.config(), &clock), &clock).await;
}

/// Waits until it is so, while the store's clock and the world's go on together.
async fn eventually<F: Future<Output = bool>>(clock: &ManualClock, is_so: impl Fn() -> F) {
    let step = Duration::from_millis(20);
    in_time(async {
        while !is_so().await {
            clock.advance(step);
            sleep(step).await;
        }
    })
    .await;
}

fn store_in(config: &config::Redis, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
    Arc::new(RedisStore::new(config, clock.clone()).unwrap())
}

fn key() -> RecordKey {
    SessionId::generate(Random::SYSTEM).record_key()
}

fn index() -> IndexKey {
    IndexKey(owner().0)
}

fn owner() -> LeaseOwner {
    LeaseOwner(Random::SYSTEM.token::<16>())
}

/// A first record, with a minute to live.
fn record(clock: &ManualClock) -> Record {
    Record {
        sealed: b"sealed".to_vec(),
        version: Version(1),
        expires_at: clock.now() + MINUTE,
        indexes: Vec::new(),
    }
}
