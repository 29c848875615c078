//! Session stores: the contract that each engine keeps, and what Redis may do to us.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock, Timestamp};
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::secret::Secret;
use cloakroom::session::cookie::SessionId;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::redis::RedisStore;
use cloakroom::session::store::{LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::support::redis::Redis;

const MINUTE: Duration = Duration::from_secs(60);

/// How long anything may take to come about, or an operation to answer, before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let clock = clock();
    keeps_the_contract(Arc::new(MemoryStore::new(clock.clone())), &clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_contract() {
    let (redis, clock) = (Redis::start().await, clock());
    keeps_the_contract(store_in(&redis.config(), &clock), &clock).await;
}

/// What every engine does. Takes the clock that the store was given.
async fn keeps_the_contract(store: Arc<dyn Store>, clock: &ManualClock) {
    store.ping().await.unwrap();
    a_record_is_read_as_it_was_written(&*store, clock).await;
    a_record_is_replaced_by_version_and_keeps_its_time(&*store, clock).await;
    a_touch_moves_the_time_alone_and_forward_and_once(&*store, clock).await;
    nothing_recreates_a_record(&*store, clock).await;
    a_record_past_its_time_is_absent_to_all_but_who_takes_it_out(&*store, clock).await;
    a_record_is_taken_out_by_its_version(&*store, clock).await;
    of_parallel_writers_one_wins_each_version(&store, clock).await;
    a_take_among_writers_gets_the_newest_and_ends_them_all(&store, clock).await;
    a_lease_is_its_owners_alone(&*store).await;
    a_lease_ends_by_itself_unless_it_is_renewed(&*store, clock).await;
    a_mark_is_claimed_once(&*store, clock).await;
}

async fn a_record_is_read_as_it_was_written(store: &dyn Store, clock: &ManualClock) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for sealed in [Vec::new(), every_byte.clone(), b"\r\n$-1\r\n\0".to_vec(), every_byte.repeat(500)] {
        let (key, record) = (key(), Record { sealed, ..record(clock) });
        assert_eq!(store.read(&key).await.unwrap(), None);
        store.create(&key, &record).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
        assert_eq!(store.take(&key).await.unwrap(), Some(record));
        assert_eq!(store.read(&key).await.unwrap(), None);
        assert_eq!(store.take(&key).await.unwrap(), None);
    }
}

async fn a_record_is_replaced_by_version_and_keeps_its_time(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    let conflict = store.replace(&key, Version(2), b"lost", Version(3)).await.unwrap();
    assert_eq!(conflict, Replaced::Conflict);
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));

    // These two are one number to whoever counts in floating point.
    let (even, odd) = (Version(1 << 53), Version((1 << 53) + 1));
    assert_eq!(store.replace(&key, Version(1), b"\0even", even).await.unwrap(), Replaced::Written);
    assert_eq!(store.replace(&key, odd, b"lost", Version(9)).await.unwrap(), Replaced::Conflict);
    assert_eq!(store.replace(&key, even, b"\0odd", odd).await.unwrap(), Replaced::Written);
    let expected = Record { sealed: b"\0odd".to_vec(), version: odd, ..record };
    assert_eq!(store.read(&key).await.unwrap(), Some(expected));
}

async fn a_touch_moves_the_time_alone_and_forward_and_once(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    let seen = record.expires_at;
    store.create(&key, &record).await.unwrap();
    store.touch(&key, seen, Timestamp::from_millis(seen.as_millis() - 1)).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
    store.touch(&key, seen, seen + MINUTE).await.unwrap();
    store.touch(&key, seen, seen + MINUTE * 2).await.unwrap();
    let touched = Record { expires_at: seen + MINUTE, ..record };
    assert_eq!(store.read(&key).await.unwrap(), Some(touched.clone()));
    clock.advance(seen.since(clock.now()));
    assert_eq!(store.read(&key).await.unwrap(), Some(touched));
}

async fn nothing_recreates_a_record(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    for _ in 0..2 {
        assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Absent);
        store.touch(&key, record.expires_at, record.expires_at + MINUTE).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap(), None);
        store.create(&key, &record).await.unwrap();
        store.take(&key).await.unwrap().expect("the record");
    }
}

async fn a_record_past_its_time_is_absent_to_all_but_who_takes_it_out(
    store: &dyn Store,
    clock: &ManualClock,
) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    clock.advance(MINUTE - Duration::from_millis(1));
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
    clock.advance(Duration::from_millis(1));
    assert_eq!(store.read(&key).await.unwrap(), None);
    store.touch(&key, record.expires_at, record.expires_at + MINUTE).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), None);
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Absent);
    assert_eq!(store.take_version(&key, Version(2)).await.unwrap(), None);
    assert_eq!(store.take(&key).await.unwrap(), Some(record), "its tokens are still to be revoked");
    assert_eq!(store.take(&key).await.unwrap(), None);
}

async fn a_record_is_taken_out_by_its_version(store: &dyn Store, clock: &ManualClock) {
    let (key, record) = (key(), record(clock));
    store.create(&key, &record).await.unwrap();
    assert_eq!(store.take_version(&key, Version(2)).await.unwrap(), None);
    assert_eq!(store.take_version(&key, Version(1)).await.unwrap(), Some(record));
    assert_eq!(store.read(&key).await.unwrap(), None);
}

async fn of_parallel_writers_one_wins_each_version(store: &Arc<dyn Store>, clock: &ManualClock) {
    let key = key();
    store.create(&key, &record(clock)).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..100_u8 {
        let (store, key) = (Arc::clone(store), key.clone());
        writers.spawn(async move {
            let mut won = Vec::new();
            for version in 1..=5 {
                let next = Version(version + 1);
                match store.replace(&key, Version(version), &[writer], next).await.unwrap() {
                    Replaced::Written => won.push((next, writer)),
                    Replaced::Conflict => {}
                    Replaced::Absent => panic!("the record is there"),
                }
            }
            won
        });
    }
    let mut won: Vec<(Version, u8)> = writers.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    let versions: Vec<u64> = won.iter().map(|(version, _)| version.0).collect();
    assert_eq!(versions, (2..=6).collect::<Vec<u64>>(), "each version is written by one writer");
    let last = store.read(&key).await.unwrap().expect("the record");
    assert_eq!((last.version, last.sealed), (won[4].0, vec![won[4].1]));
}

async fn a_take_among_writers_gets_the_newest_and_ends_them_all(store: &Arc<dyn Store>, clock: &ManualClock) {
    let key = key();
    store.create(&key, &record(clock)).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(store), key.clone());
        writers.spawn(async move {
            let mut newest = Version(1);
            while let Some(current) = store.read(&key).await.unwrap() {
                let next = Version(current.version.0 + 1);
                let sealed = next.0.to_string().into_bytes();
                if store.replace(&key, current.version, &sealed, next).await.unwrap() == Replaced::Written {
                    newest = next;
                }
                // A store that never waits would keep the runtime from the one who takes.
                yield_now().await;
            }
            newest
        });
    }
    eventually(clock, || async { store.read(&key).await.unwrap().unwrap().version > Version(20) }).await;
    let taken = store.take(&key).await.unwrap().expect("the record");
    let newest = writers.join_all().await.into_iter().max().expect("writers");
    assert_eq!((taken.version, taken.sealed), (newest, newest.0.to_string().into_bytes()));
    assert_eq!(store.read(&key).await.unwrap(), None);
}

async fn a_lease_is_its_owners_alone(store: &dyn Store) {
    let (ours, others) = (owner(), owner());
    let (key, other_key) = (key(), key());
    assert!(store.lease(&key, &ours, MINUTE).await.unwrap());
    assert!(!store.lease(&key, &others, MINUTE).await.unwrap());
    assert!(store.lease(&other_key, &others, MINUTE).await.unwrap(), "each record has a lease of its own");
    store.release(&key, &others).await.unwrap();
    assert!(!store.lease(&key, &others, MINUTE).await.unwrap(), "a stranger's release does nothing");
    assert!(store.lease(&key, &ours, MINUTE).await.unwrap(), "its owner renews it");
    store.release(&key, &ours).await.unwrap();
    assert!(store.lease(&key, &others, MINUTE).await.unwrap());
    store.release(&key, &ours).await.unwrap();
    assert!(!store.lease(&key, &ours, MINUTE).await.unwrap(), "the owner before is a stranger now");
}

async fn a_lease_ends_by_itself_unless_it_is_renewed(store: &dyn Store, clock: &ManualClock) {
    let (ours, others) = (owner(), owner());
    let (renewed, left_alone) = (key(), key());
    let short = Duration::from_millis(100);
    assert!(store.lease(&renewed, &ours, short).await.unwrap());
    assert!(store.lease(&renewed, &ours, MINUTE).await.unwrap());
    assert!(store.lease(&left_alone, &ours, short).await.unwrap());
    eventually(clock, || async { store.lease(&left_alone, &others, MINUTE).await.unwrap() }).await;
    assert!(!store.lease(&renewed, &others, MINUTE).await.unwrap());
}

async fn a_mark_is_claimed_once(store: &dyn Store, clock: &ManualClock) {
    let (mark, other) = (Random.token::<16>(), Random.token::<16>());
    assert!(store.claim_once(&mark, MINUTE).await.unwrap());
    assert!(!store.claim_once(&mark, MINUTE).await.unwrap());
    assert!(store.claim_once(&other, Duration::from_millis(100)).await.unwrap());
    eventually(clock, || async { store.claim_once(&other, MINUTE).await.unwrap() }).await;
    assert!(!store.claim_once(&mark, MINUTE).await.unwrap());
}

#[tokio::test]
async fn r63_a_frozen_redis_is_unavailable_within_bounds_and_has_everything_once_it_thaws() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();

    redis.freeze();
    everything_is_unavailable(&*store, &clock).await;
    everything_is_unavailable(&*store_in(&redis.config(), &clock), &clock).await;

    redis.thaw();
    eventually(&clock, || async { store.ping().await.is_ok() }).await;
    assert_eq!(store.read(&key).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_redis_that_is_down_at_the_start_or_restarted_is_used_once_it_is_up() {
    let (mut redis, clock) = (Redis::start().await, clock());
    redis.stop();
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    everything_is_unavailable(&*store, &clock).await;
    for _ in 0..2 {
        redis.restart().await;
        eventually(&clock, || async { store.create(&key, &record).await.is_ok() }).await;
        assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
        redis.stop();
        everything_is_unavailable(&*store, &clock).await;
    }
}

#[tokio::test]
async fn a_replica_is_unavailable_and_never_says_absent() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    store.ping().await.unwrap();
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    everything_is_unavailable(&*store, &clock).await;
    redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(store.read(&key()).await.unwrap(), None);
}

#[tokio::test]
async fn a_redis_without_memory_takes_no_new_session_and_keeps_renews_and_ends_those_it_has() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    unavailable(store.ping()).await;
    unavailable(store.create(&self::key(), &record)).await;
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    let renewed = Record { sealed: b"new".to_vec(), version: Version(2), ..record };
    assert_eq!(store.take(&key).await.unwrap(), Some(renewed));
}

#[tokio::test]
async fn a_refused_password_is_unavailable_untold_and_tried_again() {
    let (redis, clock) = (Redis::start().await, clock());
    let with_password = config::Redis { password: Some(Secret::new("hunter2")), ..redis.config() };
    let store = store_in(&with_password, &clock);
    redis.command::<()>(&["CONFIG", "SET", "requirepass", "another"]).await;
    for store in [&store, &store_in(&redis.config(), &clock)] {
        everything_is_unavailable(&**store, &clock).await;
        assert!(!format!("{store:?}").contains("hunter2"));
    }
    let administrator = redis::Client::open(format!("redis://:another@127.0.0.1:{}", redis.port())).unwrap();
    let mut administrator = administrator.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("CONFIG");
    command.arg(&["SET", "requirepass", "hunter2"]);
    command.exec_async(&mut administrator).await.unwrap();
    eventually(&clock, || async { store.ping().await.is_ok() }).await;
}

#[tokio::test]
async fn a_record_that_is_no_record_is_unavailable_and_not_absent() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    for damage in [
        &["SET", "", "text"][..],
        &["HDEL", "", "version"],
        &["HDEL", "", "expires_at"],
        &["HDEL", "", "sealed"],
        &["HSET", "", "version", "one"],
        &["HSET", "", "expires_at", "soon"],
    ] {
        store.create(&key, &record).await.unwrap();
        let name = only_key(&redis).await;
        let words: Vec<&str> =
            damage.iter().map(|word| if word.is_empty() { &name } else { *word }).collect();
        redis.command::<redis::Value>(&words).await;
        unavailable(store.read(&key)).await;
        unavailable(store.replace(&key, Version(1), b"new", Version(2))).await;
        unavailable(store.take(&key)).await;
        unavailable(store.take_version(&key, Version(1))).await;
        redis.command::<()>(&["DEL", &name]).await;
    }
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_for_a_new_one() {
    let (redis, clock) = (Redis::start().await, clock());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, redis_port) = (listener.local_addr().unwrap(), redis.port());
    let is_cut = Arc::new(Notify::new());
    let cut = Arc::clone(&is_cut);
    // A network that loses the first connection without a word to either end.
    let network = tokio::spawn(async move {
        let mut lost = Vec::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", redis_port)).await.unwrap();
            if lost.is_empty() {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => panic!("the connection was closed"),
                    () = cut.notified() => lost.extend([near, far]),
                }
            } else {
                tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
            }
        }
    });
    let through_network =
        config::Redis { url: format!("redis://{address}").parse().unwrap(), ..redis.config() };
    let store = store_in(&through_network, &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    is_cut.notify_one();
    unavailable(store.read(&key)).await;
    assert_eq!(store.read(&key).await.unwrap(), Some(record));
    network.abort();
}

#[tokio::test]
async fn a_server_that_is_no_redis_is_unavailable_and_its_echo_tells_nothing() {
    let hello = "%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n+OK\r\n";
    let echo = "-ERR unknown command 'X', with args beginning with: 'default' 'hunter2'\r\n";
    let mut servers = JoinSet::new();
    for (first, then) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", ""),
        ("-NOAUTH HELLO must be called with the client already authenticated\r\n", ""),
        ("-ERR max number of clients reached\r\n", ""),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        ("\u{fffd}\0\0", ""),
        ("", ""),
        (echo, echo),
        (hello, echo),
        (hello, "-LOADING Redis is loading the dataset in memory\r\n"),
        (hello, "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n"),
        (hello, "%1\r\n+no\r\n+answer\r\n"),
        (hello, "HTTP/1.1 400 Bad Request\r\n\r\n"),
    ] {
        servers.spawn(a_server_that_answers_is_unavailable(first, then));
    }
    servers.join_all().await;
}

async fn a_server_that_answers_is_unavailable(first: &'static str, then: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut answer = first;
                while stream.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(answer.as_bytes()).await;
                    answer = then;
                }
            });
        }
    });
    let password = Some(Secret::new("hunter2"));
    let config = config::Redis { url, username: None, password, key_prefix: String::new() };
    let clock = clock();
    everything_is_unavailable(&*store_in(&config, &clock), &clock).await;
    server.abort();
}

#[tokio::test]
async fn redis_collects_what_nobody_asks_for_again_and_keeps_a_session_in_one_slot() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    let time_to_live = |name: String| async { redis.command::<i64>(&["PTTL", &{ name }]).await };
    let name = only_key(&redis).await;
    let before = time_to_live(name.clone()).await;
    assert!(before > 60_000, "Redis keeps a record for longer than it lives");
    store.touch(&key, record.expires_at, record.expires_at + MINUTE * 10).await.unwrap();
    assert!(time_to_live(name.clone()).await > before);

    store.lease(&key, &owner(), MINUTE).await.unwrap();
    store.claim_once("mark", MINUTE).await.unwrap();
    store.ping().await.unwrap();
    for name in redis.command::<Vec<String>>(&["KEYS", "*"]).await {
        assert!(time_to_live(name.clone()).await > 0, "{name} is collected");
    }
    let tag = name.split_once('{').unwrap().1;
    for name in redis.command::<Vec<String>>(&["KEYS", "cloakroom:session:*"]).await {
        assert!(name.contains(&format!("{{{tag}")), "{name} has the session's hash tag");
    }
}

/// Every operation answers `Unavailable`, and none takes for ever to say so. What is asked may still be done
/// once the server wakes up, so that it is asked of records that nobody has.
async fn everything_is_unavailable(store: &dyn Store, clock: &ManualClock) {
    let (key, record, owner) = (key(), record(clock), owner());
    let later = record.expires_at + MINUTE;
    tokio::join!(
        unavailable(store.read(&key)),
        unavailable(store.create(&key, &record)),
        unavailable(store.replace(&key, Version(1), b"new", Version(2))),
        unavailable(store.touch(&key, record.expires_at, later)),
        unavailable(store.take(&key)),
        unavailable(store.take_version(&key, Version(1))),
        unavailable(store.lease(&key, &owner, MINUTE)),
        unavailable(store.claim_once("mark", MINUTE)),
        unavailable(store.ping()),
    );
}

async fn unavailable<T: std::fmt::Debug>(answer: impl Future<Output = Result<T, Unavailable>>) {
    let Unavailable(reason) = timeout(PATIENCE, answer).await.expect("an answer in time").unwrap_err();
    assert!(!reason.contains("hunter2"), "the reason tells the password: {reason}");
}

/// Waits until it is so, while the store's clock and the world's go on together.
async fn eventually<F: Future<Output = bool>>(clock: &ManualClock, is_so: impl Fn() -> F) {
    let step = Duration::from_millis(20);
    timeout(PATIENCE, async {
        while !is_so().await {
            clock.advance(step);
            sleep(step).await;
        }
    })
    .await
    .expect("it comes about");
}

async fn only_key(redis: &Redis) -> String {
    let mut names: Vec<String> = redis.command(&["KEYS", "*"]).await;
    assert_eq!(names.len(), 1);
    names.remove(0)
}

fn store_in(config: &config::Redis, clock: &Arc<ManualClock>) -> Arc<dyn Store> {
    Arc::new(RedisStore::new(config, clock.clone()).unwrap())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_800_000_000)))
}

fn key() -> RecordKey {
    SessionId::generate(Random).record_key()
}

fn owner() -> LeaseOwner {
    LeaseOwner(Random.token::<16>())
}

/// A first record, with a minute to live.
fn record(clock: &ManualClock) -> Record {
    Record { sealed: b"sealed".to_vec(), version: Version(1), expires_at: clock.now() + MINUTE }
}
