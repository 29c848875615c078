//! What Redis, and the network in front of it, may do to us.

use std::future::{Future, pending};

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config::{self, RedisServers};
use cloakroom::rate::Rate;
use cloakroom::secret::Secret;
use cloakroom::session::store::outbox::Errand;
use cloakroom::session::store::{CountKey, Record, Replaced, Store, Unavailable, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{MINUTE, eventually, index, key, owner, record, store_in};
use crate::support::clock::clock;
use crate::support::log::Log;
use crate::support::redis::{Redis, config_of};
use crate::support::wait::in_time;

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
async fn a_damaged_count_shuts_nobody_out() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, rate) = (CountKey("one".to_owned()), Rate::new(1, MINUTE));
    for damage in ["", "x", "nan", "-inf", "0x10"] {
        redis.command::<()>(&["SET", "cloakroom:count:one", damage]).await;
        assert!(store.count(&key, rate).await.unwrap().is_within, "{damage}");
        assert!(!store.count(&key, rate).await.unwrap().is_within, "{damage}");
    }
    redis.command::<()>(&["DEL", "cloakroom:count:one"]).await;
    redis.command::<()>(&["LPUSH", "cloakroom:count:one", "x"]).await;
    assert!(store.count(&key, rate).await.unwrap().is_within, "of another type");
    // As if the server's clock had been set back.
    redis.command::<()>(&["SET", "cloakroom:count:one", "inf"]).await;
    assert!(!store.count(&key, rate).await.unwrap().is_within);
    let time_to_live: i64 = redis.command(&["PTTL", "cloakroom:count:one"]).await;
    assert!((1..=60_000).contains(&time_to_live), "{time_to_live}");
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
    assert!(store.lease(&key, &owner(), MINUTE).await.unwrap(), "or nothing is renewed");
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    let renewed = Record { sealed: b"new".to_vec(), version: Version(2), ..record };
    assert_eq!(store.take(&key).await.unwrap(), Some(renewed));
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_for_a_while_is_asked_over_the_same_connection() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    store.ping().await.unwrap();
    let connections = pinging_connections(&redis).await;
    assert_eq!(connections.len(), 1);
    for (setting, at_fault, healthy) in [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")] {
        redis.command::<()>(&["CONFIG", "SET", setting, at_fault]).await;
        for _ in 0..3 {
            unavailable(store.ping()).await;
            unavailable(store.create(&key(), &record(&clock))).await;
        }
        redis.command::<()>(&["CONFIG", "SET", setting, healthy]).await;
        store.ping().await.unwrap();
        assert_eq!(pinging_connections(&redis).await, connections, "{setting}");
    }

    redis.command::<()>(&["CONFIG", "SET", "lua-time-limit", "1"]).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script = tokio::spawn(async move {
        let mut command = redis::cmd("EVAL");
        command.arg("while true do end").arg(0).exec_async(&mut connection).await
    });
    eventually(&clock, || async {
        matches!(store.ping().await, Err(Unavailable(reason)) if reason == "BUSY")
    })
    .await;
    redis.command::<()>(&["SCRIPT", "KILL"]).await;
    in_time(script).await.unwrap().unwrap_err();
    store.ping().await.unwrap();
    assert_eq!(pinging_connections(&redis).await, connections);
}

#[tokio::test]
async fn what_is_found_where_no_changes_are_told_is_believed_only_of_a_master_that_may_write() {
    let (redis, clock) = (Redis::start().await, clock());
    let user = ["ACL", "SETUSER", "deaf", "on", ">hunter2", "+@all", "-client|tracking", "&*", "~*"];
    redis.command::<()>(&user).await;
    let (username, password) = (Some("deaf".to_owned()), Some(Secret::new("hunter2")));
    let deaf = store_in(&config::Redis { username, password, ..redis.config() }, &clock);
    let told = store_in(&redis.config(), &clock);
    eventually(&clock, || async { *told.changes().are_told().borrow() }).await;
    let (key, record) = (key(), record(&clock));
    deaf.create(&key, &record).await.unwrap();
    assert_eq!(deaf.read(&key).await.unwrap(), Some(record.clone()));
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    unavailable(deaf.read(&key)).await;
    assert_eq!(told.read(&key).await.unwrap(), Some(record.clone()), "told, it costs no second question");
    redis.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(deaf.read(&key).await.unwrap(), Some(record));
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
async fn a_damaged_record_counts_as_absent_loudly_and_is_taken_away() {
    let (redis, clock, log) = (Redis::start().await, clock(), Log::default());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    let later = record.expires_at + MINUTE;
    let mut damages = vec![vec!["SET", "", "text"], vec!["RPUSH", "", "a", "b", "c"]];
    damages.extend(["sealed", "version", "expires_at"].map(|field| vec!["HDEL", "", field]));
    for field in ["version", "expires_at"] {
        for value in [" ", "one", "0x10", "nan", "+1", "01", "-1", "1e3", "99999999999999999999"] {
            damages.push(vec!["HSET", "", field, value]);
        }
        damages.push(vec!["HSET", "", field, "\0"]);
    }
    for damage in damages {
        let context = format!("{damage:?}");
        store.create(&key, &record).await.unwrap();
        let name = only_key(&redis).await;
        let is_another_type = damage[0] != "HDEL" && damage[0] != "HSET";
        if is_another_type {
            redis.command::<()>(&["DEL", &name]).await;
        }
        let words: Vec<&str> = damage
            .into_iter()
            .map(|word| match word {
                "" => name.as_str(),
                " " => "",
                word => word,
            })
            .collect();
        redis.command::<redis::Value>(&words).await;
        let before: Vec<u8> = redis.command(&["DUMP", &name]).await;
        assert_eq!(take_errors(&log), 0, "{context}");
        assert_eq!(store.read(&key).await.unwrap(), None, "{context}");
        assert_eq!(take_errors(&log), 1, "{context}");
        let replaced = store.replace(&key, Version(1), b"new", Version(2)).await.unwrap();
        assert_eq!((replaced, take_errors(&log)), (Replaced::Absent, 1), "{context}");
        store.touch(&key, record.expires_at, later).await.unwrap();
        assert_eq!(take_errors(&log), 1, "{context}");
        assert_eq!(store.take_version(&key, Version(1)).await.unwrap(), None, "{context}");
        assert_eq!(take_errors(&log), 1, "{context}");
        assert_eq!(redis.command::<Vec<u8>>(&["DUMP", &name]).await, before, "{context}: left as it lay");
        assert_eq!(store.take(&key).await.unwrap(), None, "{context}");
        assert_eq!(take_errors(&log), 1, "{context}");
        assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]).await, [""; 0], "{context}");
    }
}

#[tokio::test]
async fn a_damaged_record_on_a_replica_is_unavailable() {
    let (redis, clock) = (Redis::start().await, clock());
    let store = store_in(&redis.config(), &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    let name = only_key(&redis).await;
    redis.command::<()>(&["SET", &name, "text"]).await;
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    unavailable(store.read(&key)).await;
    unavailable(store.replace(&key, Version(1), b"new", Version(2))).await;
    unavailable(store.touch(&key, record.expires_at, record.expires_at + MINUTE)).await;
    unavailable(store.take_version(&key, Version(1))).await;
    unavailable(store.take(&key)).await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_given_up_for_a_new_one() {
    let (redis, clock) = (Redis::start().await, clock());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, redis_port) = (listener.local_addr().unwrap(), redis.port());
    let (cut, _) = watch::channel(false);
    let is_cut = cut.clone();
    // A network that loses the connections of this moment without a word to either end.
    let network = tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", redis_port)).await.unwrap();
            let mut cut = is_cut.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => pending().await,
                }
            });
        }
    });
    let through_network = config_of(RedisServers::Single(format!("redis://{address}").parse().unwrap()));
    let store = store_in(&through_network, &clock);
    let (key, record) = (key(), record(&clock));
    store.create(&key, &record).await.unwrap();
    cut.send_replace(true);
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
    let config = config::Redis { password, ..config_of(RedisServers::Single(url)) };
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
    let tag = only_key(&redis).await.split_once('{').unwrap().1.to_owned();
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
    let tagged = redis.command::<Vec<String>>(&["KEYS", "cloakroom:*{*"]).await;
    assert_eq!(tagged.len(), 2, "a record and its lease");
    for name in tagged {
        assert!(name.contains(&format!("{{{tag}")), "{name} has the session's hash tag");
    }
}

/// The ids of the connections over which a store was pinged last.
async fn pinging_connections(redis: &Redis) -> Vec<String> {
    let clients: String = redis.command(&["CLIENT", "LIST"]).await;
    let pinging = clients.lines().filter(|line| line.contains(" cmd=set "));
    pinging.map(|line| line.split(' ').next().expect("the id").to_owned()).collect()
}

/// How often an unreadable record was told of since the last time.
fn take_errors(log: &Log) -> usize {
    log.take().lines().filter(|line| line.contains("ERROR") && line.contains("record_unreadable")).count()
}

/// Every operation answers `Unavailable`, and none takes for ever to say so. What is asked may still be done
/// once the server wakes up, so that it is asked of records that nobody has.
pub(super) async fn everything_is_unavailable(store: &dyn Store, clock: &ManualClock) {
    let (key, record, owner) = (key(), record(clock), owner());
    let later = record.expires_at + MINUTE;
    let listed = Record { indexes: vec![index()], ..record.clone() };
    let errand = Errand { id: owner.0.clone(), sealed: Vec::new(), due_at: later };
    let counted = CountKey("count".to_owned());
    tokio::join!(
        unavailable(store.create(&key, &listed)),
        unavailable(store.list(&listed.indexes[0])),
        unavailable(store.post(&errand)),
        unavailable(store.fetch_due(clock.now(), later)),
        unavailable(store.postpone(&errand.id, later)),
        unavailable(store.strike(&errand.id)),
        unavailable(store.count_errands()),
        unavailable(store.read(&key)),
        unavailable(store.create(&key, &record)),
        unavailable(store.replace(&key, Version(1), b"new", Version(2))),
        unavailable(store.touch(&key, record.expires_at, later)),
        unavailable(store.take(&key)),
        unavailable(store.take_version(&key, Version(1))),
        unavailable(store.lease(&key, &owner, MINUTE)),
        unavailable(store.claim_once("mark", MINUTE)),
        unavailable(store.count(&counted, Rate::new(1, MINUTE))),
        unavailable(store.ping()),
    );
}

pub(super) async fn unavailable<T: std::fmt::Debug>(answer: impl Future<Output = Result<T, Unavailable>>) {
    let Unavailable(reason) = in_time(answer).await.unwrap_err();
    assert!(!reason.contains("hunter2"), "the reason tells the password: {reason}");
}

async fn only_key(redis: &Redis) -> String {
    let mut names: Vec<String> = redis.command(&["KEYS", "*"]).await;
    assert_eq!(names.len(), 1);
    names.remove(0)
}
