//! A Redis Cluster, and what becomes of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::clock::ManualClock;
use cloakroom::config::{self, RedisServers};
use cloakroom::secret::Secret;
use cloakroom::session::store::{Record, RecordKey, Replaced, Store, Version};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::redis::{everything_is_unavailable, unavailable};
use super::{MINUTE, eventually, keeps_the_contract, key, owner, record, store_in};
use crate::support::clock::clock;
use crate::support::redis::config_of;
use crate::support::redis_cluster::RedisCluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_keeps_the_contract() {
    let (cluster, clock) = (RedisCluster::start().await, clock());
    keeps_the_contract(store_in(&cluster.config(), &clock), &clock).await;
}

#[tokio::test]
async fn sessions_on_a_primary_that_was_killed_are_unavailable_and_then_all_there() {
    let (mut cluster, clock) = (RedisCluster::start().await, clock());
    let store = store_in(&cluster.config(), &clock);
    let sessions = sessions(&cluster, &*store, &clock).await;
    cluster.hold_failover(3, true).await;
    let mut on_it = Vec::new();
    for (key, _) in &sessions {
        if cluster.has(0, key).await {
            on_it.push(key);
        }
    }
    cluster.kill(0);
    for key in on_it {
        unavailable(store.read(key)).await;
        unavailable(store.take(key)).await;
        unavailable(store.replace(key, Version(1), b"new", Version(2))).await;
    }
    cluster.hold_failover(3, false).await;
    for (key, record) in &sessions {
        eventually(&clock, || async {
            let read = store.read(key).await;
            let read = read.inspect(|read| assert_eq!(read.as_ref(), Some(record), "never absent"));
            read.is_ok()
        })
        .await;
    }
    for (key, record) in &sessions {
        assert_eq!(store.take(key).await.unwrap().as_ref(), Some(record));
        store.create(key, record).await.unwrap();
    }
    assert_eq!(cluster.owner_of_slot(0, 1).await, 3);
}

#[tokio::test]
async fn a_primary_that_sleeps_holds_up_nobody_else_and_is_not_believed_as_it_wakes() {
    let partial = || ["--cluster-require-full-coverage", "no"].map(str::to_owned).to_vec();
    let (cluster, clock) = (RedisCluster::start_with(partial).await, clock());
    let (store, idle) = (store_in(&cluster.config(), &clock), store_in(&cluster.config(), &clock));
    let sessions = sessions(&cluster, &*store, &clock).await;
    for (key, _) in &sessions {
        idle.read(key).await.unwrap();
    }
    let mut on_it = Vec::new();
    for (key, record) in &sessions {
        if cluster.has(0, key).await {
            on_it.push((key, record));
        }
    }
    cluster.node(0).freeze();
    for (key, record) in &sessions {
        let read = store.read(key).await;
        match read {
            Ok(read) => assert_eq!(read.as_ref(), Some(record), "never absent"),
            Err(_) => {
                assert!(on_it.iter().any(|(sleeping, _)| *sleeping == key), "held up by another's sleep");
            }
        }
    }
    for (key, record) in &on_it {
        eventually(&clock, || async {
            let taken = store.take_version(key, record.version).await;
            let taken = taken.inspect(|taken| assert_eq!(taken.as_ref(), Some(*record), "never absent"));
            taken.is_ok()
        })
        .await;
        let renewed = Record { sealed: b"renewed".to_vec(), ..(*record).clone() };
        store.create(key, &renewed).await.unwrap();
        assert_eq!(store.read(key).await.unwrap(), Some(renewed));
    }
    // Nobody has told this one of the failover, and its connection to the sleeper stands.
    for (key, _) in &on_it {
        assert_eq!(idle.read(key).await.unwrap().unwrap().sealed, b"renewed");
    }
    cluster.node(0).thaw();
    for (key, _) in &on_it {
        assert_eq!(idle.read(key).await.unwrap().unwrap().sealed, b"renewed");
    }
}

#[tokio::test]
async fn a_slot_that_moves_loses_nothing_on_its_way() {
    let (cluster, clock) = (RedisCluster::start().await, clock());
    let store = store_in(&cluster.config(), &clock);
    let (key, record, ours) = (key(), record(&clock), owner());
    store.create(&key, &record).await.unwrap();
    let (from, name) = cluster.only_record().await;
    let to = (from + 1) % 3;
    let slot: u16 = cluster.node(from).command(&["CLUSTER", "KEYSLOT", &name]).await;
    let (slot, from_name, to_name) = (slot.to_string(), cluster.name(from).await, cluster.name(to).await);
    let set_slot = async |node: usize, words: &[&str]| {
        cluster.node(node).command::<()>(&[&["CLUSTER", "SETSLOT", &slot], words].concat()).await;
    };
    set_slot(to, &["IMPORTING", &from_name]).await;
    set_slot(from, &["MIGRATING", &to_name]).await;

    // What is new goes to the one, what is old is still with the other.
    assert!(store.lease(&key, &ours, MINUTE).await.unwrap());
    let leases: Vec<String> = cluster.node(to).command(&["KEYS", "*:lease:*"]).await;
    assert_eq!(leases.len(), 1, "the lease was taken where the slot goes");
    assert!(!store.lease(&key, &owner(), MINUTE).await.unwrap());
    assert_eq!(store.read(&key).await.unwrap(), Some(record.clone()));
    assert_eq!(store.replace(&key, Version(1), b"old", Version(2)).await.unwrap(), Replaced::Written);

    let port = cluster.node(to).port().to_string();
    let moved = ["MIGRATE", "127.0.0.1", &port, &name, "0", "1000"];
    assert_eq!(cluster.node(from).command::<String>(&moved).await, "OK");
    let old = Record { sealed: b"old".to_vec(), version: Version(2), ..record.clone() };
    assert_eq!(store.read(&key).await.unwrap(), Some(old));
    assert_eq!(store.replace(&key, Version(2), b"new", Version(3)).await.unwrap(), Replaced::Written);
    let new = Record { sealed: b"new".to_vec(), version: Version(3), ..record };
    assert_eq!(store.read(&key).await.unwrap(), Some(new.clone()));

    for node in [to, from] {
        set_slot(node, &["NODE", &to_name]).await;
    }
    assert_eq!(store.read(&key).await.unwrap(), Some(new.clone()));
    assert!(!store.lease(&key, &owner(), MINUTE).await.unwrap());
    assert_eq!(store.take(&key).await.unwrap(), Some(new));
    assert_eq!(store.read(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_cluster_that_lacks_slots_is_unavailable() {
    let (mut cluster, clock) = (RedisCluster::start().await, clock());
    let store = store_in(&cluster.config(), &clock);
    store.ping().await.unwrap();
    cluster.kill(3);
    cluster.kill(0);
    for node in [1, 2] {
        cluster.until_down(node).await;
    }
    everything_is_unavailable(&*store, &clock).await;
    everything_is_unavailable(&*store_in(&cluster.config(), &clock), &clock).await;
}

#[tokio::test]
async fn a_cluster_s_password_is_every_node_s() {
    let (cluster, clock) = (RedisCluster::start().await, clock());
    for node in 0..6 {
        cluster.node(node).command::<()>(&["CONFIG", "SET", "masterauth", "hunter2"]).await;
        cluster.node(node).command::<()>(&["ACL", "SETUSER", "default", ">hunter2"]).await;
    }
    let password = Some(Secret::new("hunter2"));
    let store = store_in(&config::Redis { password, ..cluster.config() }, &clock);
    for _ in 0..10 {
        let (key, record) = (key(), record(&clock));
        store.create(&key, &record).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap(), Some(record));
    }
    unavailable(store_in(&cluster.config(), &clock).ping()).await;
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    // A node that has all slots, and dies as soon as it is asked to run a script.
    let node = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut read = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut read).await {
                    let request = String::from_utf8_lossy(&read[..length]).into_owned();
                    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
                    let mut answer = "%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n+OK\r\n".to_owned();
                    if request.contains("EVALSHA") {
                        counter.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    if request.contains("SLOTS") {
                        answer = slots;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let url = format!("redis://127.0.0.1:{port}").parse().unwrap();
    let store = store_in(&config_of(RedisServers::Cluster(vec![url])), &clock());
    for times in 1..=3 {
        unavailable(store.take(&key())).await;
        assert_eq!(taken.load(Ordering::SeqCst), times);
    }
    node.abort();
}

/// Sessions on each of the primaries, which their replicas have as well.
async fn sessions(
    cluster: &RedisCluster,
    store: &dyn Store,
    clock: &Arc<ManualClock>,
) -> Vec<(RecordKey, Record)> {
    let mut sessions = Vec::new();
    let mut primaries = BTreeSet::new();
    while primaries.len() < 3 || sessions.len() < 12 {
        let (key, record) = (key(), record(clock));
        store.create(&key, &record).await.unwrap();
        for primary in 0..3 {
            if cluster.has(primary, &key).await {
                primaries.insert(primary);
            }
        }
        sessions.push((key, record));
    }
    for primary in 0..3 {
        cluster.until_replicated(primary).await;
    }
    sessions
}
