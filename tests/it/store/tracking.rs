//! What Redis tells of changes, and what counts for nothing once it may have told less than all.

use std::sync::Arc;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config;
use cloakroom::secret::Secret;
use cloakroom::session::store::changes::Mark;
use cloakroom::session::store::{Record, RecordKey, Replaced, Store, Version};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};

use super::network::Network;
use super::{MINUTE, eventually, key, owner, record, store_in};
use crate::support::clock::clock;
use crate::support::log::Log;
use crate::support::redis::Redis;
use crate::support::wait::{in_time, until};

#[tokio::test]
async fn a_gateway_is_told_of_what_another_writes() {
    let (redis, clock) = (Redis::start().await, clock());
    let (ours, other) = (told_store(&redis, &clock).await, store_in(&redis.config(), &clock));
    let (key, record) = (key(), long_record(&clock));
    let seen = record.expires_at;

    let (mark, absent) = read(&*ours, &key).await;
    assert_eq!(absent, None);
    other.create(&key, &record).await.unwrap();
    is_told(&*ours, &mark).await;

    let (mark, _) = settled_read(&*ours, &key, &clock).await;
    other.replace(&key, Version(1), b"new", Version(2)).await.unwrap();
    is_told(&*ours, &mark).await;

    let (mark, _) = settled_read(&*ours, &key, &clock).await;
    other.touch(&key, seen, seen + MINUTE).await.unwrap();
    is_told(&*ours, &mark).await;

    let (mark, _) = settled_read(&*ours, &key, &clock).await;
    other.take(&key).await.unwrap().expect("the record");
    is_told(&*ours, &mark).await;
}

#[tokio::test]
async fn a_gateway_is_told_of_what_redis_throws_away() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = told_store(&redis, &clock).await;
    for commands in [
        vec![vec!["DEL", ""]],
        vec![vec!["PEXPIRE", "", "300"]],
        vec![vec!["RENAME", "", "elsewhere"]],
        vec![vec!["FLUSHALL"]],
        vec![vec!["FLUSHDB"]],
        vec![vec!["FLUSHALL", "ASYNC"]],
        vec![
            vec!["CONFIG", "SET", "maxmemory-policy", "allkeys-random"],
            vec!["CONFIG", "SET", "maxmemory", "1"],
            vec!["PING"],
        ],
    ] {
        let (key, record) = (key(), long_record(&clock));
        store.create(&key, &record).await.unwrap();
        let name = name(&key);
        let (mut mark, found) = settled_read(&*store, &key, &clock).await;
        assert_eq!(found, Some(record), "{commands:?}");
        for words in &commands {
            let words: Vec<&str> =
                words.iter().map(|word| if word.is_empty() { &name } else { *word }).collect();
            redis.command::<redis::Value>(&words).await;
            if words[0] == "PEXPIRE" {
                // Told of the command itself, it is to be told of its effect as well.
                is_told(&*store, &mark).await;
                mark = store.changes().mark(&key);
            }
        }
        is_told(&*store, &mark).await;
        assert_eq!(redis.command::<u64>(&["EXISTS", &name]).await, 0, "{commands:?}");
        assert!(is_tracked(&*store), "{commands:?}");
    }
    assert_eq!(store.changes().losses(), 0);
}

#[tokio::test]
async fn leases_age_no_mark_nor_does_what_is_no_record() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = told_store(&redis, &clock).await;
    let (key, owner) = (key(), owner());
    store.create(&key, &long_record(&clock)).await.unwrap();
    let (mark, _) = settled_read(&*store, &key, &clock).await;
    for _ in 0..3 {
        assert!(store.lease(&key, &owner, MINUTE).await.unwrap());
    }
    store.release(&key, &owner).await.unwrap();
    store.claim_once("mark", MINUTE).await.unwrap();
    store.ping().await.unwrap();
    for name in [format!("{}:lease", name(&key)), format!("else:{}", name(&key))] {
        redis.command::<()>(&["SET", &name, "of an older gateway, and of a stranger"]).await;
    }
    settle(&*store, &clock).await;
    assert!(store.changes().is_current(&mark));
}

#[tokio::test]
async fn changes_count_as_told_only_once_the_server_says_that_it_tells_of_them() {
    let (redis, clock) = (Redis::start().await, clock());
    let network = Network::before(&redis).await;
    network.hold("TRACKING");
    let store = store_in(&network.config(), &clock);
    let (key, record) = (key(), long_record(&clock));
    let (early, _) = read(&*store, &key).await;
    network.until_held().await;
    store.create(&key, &record).await.unwrap();
    assert!(!is_tracked(&*store) && !store.changes().is_current(&early));
    assert!(!store.changes().is_current(&store.changes().mark(&key)), "nothing is current untold");
    network.release();
    until(async || is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&early));
    let (mark, found) = settled_read(&*store, &key, &clock).await;
    assert!(store.changes().is_current(&mark) && found.is_some());
}

#[tokio::test]
async fn a_killed_connection_makes_every_mark_old_at_once_and_another_takes_its_place() {
    let (redis, clock, log) = (Redis::start().await, clock(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = told_store(&redis, &clock).await;
    for losses in 1..=3 {
        let mark = store.changes().mark(&key());
        assert!(store.changes().is_current(&mark));
        for id in trackers(&redis).await {
            redis.command::<u64>(&["CLIENT", "KILL", "ID", &id]).await;
        }
        until(async || store.changes().losses() == losses).await;
        assert!(!store.changes().is_current(&mark));
        until(async || is_tracked(&*store)).await;
        let logged = log.take();
        assert_eq!(logged.matches("WARN").count(), 1, "{logged}");
        assert!(logged.contains("the connection was closed"), "not found out by the watchdog: {logged}");
        assert!(!store.changes().is_current(&mark), "what was missed is not known");
        is_told_of_writes(&redis, &*store, &clock).await;
    }
}

#[tokio::test]
async fn a_frozen_server_tells_of_nothing_and_is_noticed() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = told_store(&redis, &clock).await;
    let mark = store.changes().mark(&key());
    redis.freeze();
    until(async || !is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&mark));
    redis.thaw();
    until(async || is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&mark));
    assert_eq!(store.changes().losses(), 1);
    is_told_of_writes(&redis, &*store, &clock).await;
}

#[tokio::test]
async fn a_server_that_is_restarted_is_tracked_again() {
    let (mut redis, clock) = (Redis::start().await, clock());
    redis.stop();
    let store = store_in(&redis.config(), &clock);
    let early = store.changes().mark(&key());
    for losses in 0..2 {
        redis.restart().await;
        until(async || is_tracked(&*store)).await;
        assert_eq!(store.changes().losses(), losses);
        assert!(!store.changes().is_current(&early));
        is_told_of_writes(&redis, &*store, &clock).await;
        let mark = store.changes().mark(&key());
        redis.stop();
        until(async || !is_tracked(&*store)).await;
        assert!(!store.changes().is_current(&mark));
    }
}

#[tokio::test]
async fn a_server_that_is_made_a_replica_counts_for_nothing() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = told_store(&redis, &clock).await;
    let mark = store.changes().mark(&key());
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    until(async || !is_tracked(&*store)).await;
    redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    until(async || is_tracked(&*store)).await;
    assert!(!store.changes().is_current(&mark));
}

#[tokio::test]
async fn a_server_that_refuses_to_tell_is_reported_once_and_everything_else_works() {
    let (redis, clock, log) = (Redis::start().await, clock(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let user = ["ACL", "SETUSER", "deaf", "on", ">hunter2", "+@all", "-client|tracking", "&*", "~*"];
    redis.command::<()>(&user).await;
    let (username, password) = (Some("deaf".to_owned()), Some(Secret::new("hunter2")));
    let store = store_in(&config::Redis { username, password, ..redis.config() }, &clock);
    let mut logged = String::new();
    until(async || {
        logged += &log.take();
        logged.contains("store.tracking_refused")
    })
    .await;
    let (key, record) = (key(), long_record(&clock));
    store.create(&key, &record).await.unwrap();
    let (mark, found) = read(&*store, &key).await;
    assert_eq!(found, Some(record));
    assert!(!store.changes().is_current(&mark) && !is_tracked(&*store));
    logged += &log.take();
    assert_eq!(logged.matches("ERROR").count(), 1, "{logged}");
    assert!(!logged.contains("hunter2") && logged.contains("NOPERM"), "{logged}");
}

#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_connection_behind() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = told_store(&redis, &clock).await;
    assert_eq!(trackers(&redis).await.len(), 1);
    drop(store);
    until(async || trackers(&redis).await.is_empty()).await;
}

/// Each round one gateway writes a record a few times, while readers of another read it all the time and
/// keep what they read under the mark that they took before. Then the writer writes another record, and
/// the readers' gateway waits to be told of that, which Redis does after it has told of all that the writer
/// wrote before. From then on nothing that was kept, but for what was written last, may be current.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_current_that_was_overwritten_once_the_write_was_told() {
    const ROUNDS: u64 = 2000;
    const WRITES: u64 = 3;
    let (redis, clock) = (Redis::start().await, clock());
    let (readers_store, writer) = (told_store(&redis, &clock).await, store_in(&redis.config(), &clock));
    let (key, barrier) = (key(), key());
    for key in [&key, &barrier] {
        writer.create(key, &long_record(&clock)).await.unwrap();
    }
    let round = watch::Sender::new(0);
    let mut readers = JoinSet::new();
    let (send, mut kept) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let (store, key, round, send) =
            (Arc::clone(&readers_store), key.clone(), round.subscribe(), send.clone());
        readers.spawn(async move {
            while *round.borrow() < ROUNDS {
                let (mark, found) = read(&*store, &key).await;
                send.send((mark, found.expect("the record").version)).unwrap();
                yield_now().await;
            }
        });
    }
    drop(send);
    let mut version = 1;
    let (mut overwritten, mut current) = (0_u64, 0_u64);
    for barrier_version in 1..=ROUNDS {
        for _ in 0..WRITES {
            replace(&*writer, &key, version).await;
            version += 1;
        }
        let mark = readers_store.changes().mark(&barrier);
        replace(&*writer, &barrier, barrier_version).await;
        is_told_soon(&*readers_store, &mark).await;
        while let Ok((mark, read)) = kept.try_recv() {
            let is_current = readers_store.changes().is_current(&mark);
            assert!(!is_current || read == Version(version), "{read:?} is current, {version} is there");
            overwritten += u64::from(read != Version(version));
            current += u64::from(is_current);
        }
        round.send_replace(barrier_version);
    }
    readers.join_all().await;
    assert!(overwritten > ROUNDS && current > 0, "{overwritten} overwritten, {current} current");
    assert_eq!(readers_store.changes().losses(), 0);
}

async fn replace(store: &dyn Store, key: &RecordKey, version: u64) {
    let next = Version(version + 1);
    assert_eq!(store.replace(key, Version(version), b"new", next).await.unwrap(), Replaced::Written);
}

/// A store that is told of changes.
async fn told_store(redis: &Redis, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
    let store = store_in(&redis.config(), clock);
    until(async || is_tracked(&*store)).await;
    store
}

pub(super) fn is_tracked(store: &dyn Store) -> bool {
    *store.changes().are_told().borrow()
}

/// As a session is read: the mark first.
async fn read(store: &dyn Store, key: &RecordKey) -> (Mark, Option<Record>) {
    let mark = store.changes().mark(key);
    (mark, store.read(key).await.unwrap())
}

/// The same, once everything written so far was told of.
async fn settled_read(store: &dyn Store, key: &RecordKey, clock: &ManualClock) -> (Mark, Option<Record>) {
    settle(store, clock).await;
    read(store, key).await
}

/// Waits until the store was told of everything that is written by now: Redis tells of it in this order.
async fn settle(store: &dyn Store, clock: &ManualClock) {
    let key = key();
    let mark = store.changes().mark(&key);
    store.create(&key, &long_record(clock)).await.unwrap();
    is_told(store, &mark).await;
    let mark = store.changes().mark(&key);
    store.take(&key).await.unwrap().expect("the record");
    is_told(store, &mark).await;
}

pub(super) async fn is_told(store: &dyn Store, mark: &Mark) {
    until(async || !store.changes().is_current(mark)).await;
}

/// That is, within less than a test's usual step.
async fn is_told_soon(store: &dyn Store, mark: &Mark) {
    in_time(async {
        while store.changes().is_current(mark) {
            yield_now().await;
        }
    })
    .await;
}

async fn is_told_of_writes(redis: &Redis, store: &dyn Store, clock: &Arc<ManualClock>) {
    let (key, other) = (key(), store_in(&redis.config(), clock));
    let mark = store.changes().mark(&key);
    assert!(store.changes().is_current(&mark));
    eventually(clock, || async { other.create(&key, &long_record(clock)).await.is_ok() }).await;
    is_told(store, &mark).await;
}

/// The ids of the connections over which Redis tells of changes.
pub(super) async fn trackers(redis: &Redis) -> Vec<String> {
    let clients: String = redis.command(&["CLIENT", "LIST"]).await;
    let word = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let tracking = clients.lines().filter(|line| word(line, "flags=").contains('t'));
    tracking.map(|line| word(line, "id=")).collect()
}

/// What a record is called in Redis.
fn name(key: &RecordKey) -> String {
    let text = format!("{key:?}");
    format!("cloakroom:session:{{{}}}", text.split('"').nth(1).expect("the key"))
}

pub(super) fn long_record(clock: &ManualClock) -> Record {
    Record { expires_at: clock.now() + MINUTE * 60, ..record(clock) }
}
