//! TLS and users: who is believed, and what is said where nobody can be.

use std::sync::Mutex;

use cloakroom::config::{self, CertificateAuthorities, RedisServers};
use cloakroom::secret::Secret;
use cloakroom::session::store::Unavailable;

use super::redis::everything_is_unavailable;
use super::{keeps_the_contract, store_in};
use crate::support::certificates::Authority;
use crate::support::clock::clock;
use crate::support::redis::{Redis, config_of, free_port};
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::{MASTER, RedisSentinel};

/// What the README says a user needs.
const USER: [&str; 14] = [
    "gateway",
    "on",
    ">hunter2",
    "resetkeys",
    "~cloakroom:*",
    "-@all",
    "+@read",
    "+@write",
    "+@scripting",
    "+@connection",
    "+role",
    "+time",
    "+wait",
    "+cluster|slots",
];

/// A Redis that speaks TLS with this certificate, and knows a user.
async fn start(authority: &Authority, names: &str, days: i32) -> (Redis, config::Redis) {
    let certificate = authority.issue("server", names, days);
    let redis = Redis::start_with(|| certificate.options(&authority.pem(), free_port())).await;
    redis.command::<()>(&[&["ACL", "SETUSER"], USER.as_slice()].concat()).await;
    let port: Vec<String> = redis.command(&["CONFIG", "GET", "tls-port"]).await;
    let url = format!("rediss://localhost:{}", port[1]).parse().unwrap();
    let config = config::Redis {
        ca: Some(CertificateAuthorities::read(&authority.pem()).unwrap()),
        username: Some("gateway".to_owned()),
        password: Some(Secret::new("hunter2")),
        ..config_of(RedisServers::Single(url))
    };
    (redis, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_tls_and_a_user_keeps_the_contract() {
    let (authority, clock) = (Authority::new(), clock());
    let (_redis, config) = start(&authority, "DNS:localhost", 1).await;
    keeps_the_contract(store_in(&config, &clock), &clock).await;
}

#[tokio::test]
async fn nobody_is_believed_who_cannot_show_to_be_the_one_that_is_meant() {
    let clock = clock();
    let (authority, other) = (Authority::new(), Authority::new());
    let (_good, good) = start(&authority, "DNS:localhost", 1).await;
    store_in(&good, &clock).ping().await.unwrap();
    let stranger =
        config::Redis { ca: Some(CertificateAuthorities::read(&other.pem()).unwrap()), ..good.clone() };
    let of_the_system = config::Redis { ca: None, ..good };
    let (_wrong_name, wrong_name) = start(&authority, "DNS:redis.internal,IP:127.0.0.1", 1).await;
    let (_expired, expired) = start(&authority, "DNS:localhost", -1).await;
    for (config, why) in [
        (stranger, "UnknownIssuer"),
        (of_the_system, "UnknownIssuer"),
        (wrong_name, "not valid for name"),
        (expired, "Expired"),
    ] {
        let store = store_in(&config, &clock);
        let Unavailable(reason) = store.ping().await.unwrap_err();
        assert!(reason.contains(why), "{reason}");
        everything_is_unavailable(&*store, &clock).await;
    }
}

#[tokio::test]
async fn a_user_who_is_refused_is_unavailable_and_untold() {
    let (authority, clock) = (Authority::new(), clock());
    let (redis, config) = start(&authority, "DNS:localhost", 1).await;
    for config in [
        config::Redis { password: Some(Secret::new("hunter22")), ..config.clone() },
        config::Redis { username: Some("hunter2".to_owned()), ..config.clone() },
        config::Redis { key_prefix: "another:".to_owned(), ..config.clone() },
    ] {
        everything_is_unavailable(&*store_in(&config, &clock), &clock).await;
    }
    let store = store_in(&config, &clock);
    store.ping().await.unwrap();
    redis.command::<()>(&["ACL", "SETUSER", "gateway", "off"]).await;
    redis.command::<()>(&["CLIENT", "KILL", "USER", "gateway"]).await;
    everything_is_unavailable(&*store, &clock).await;
}

#[tokio::test]
async fn plain_and_tls_do_not_meet() {
    let (authority, clock) = (Authority::new(), clock());
    let (redis, config) = start(&authority, "DNS:localhost", 1).await;
    let RedisServers::Single(url) = &config.servers else { panic!("one server") };
    let plain = format!("redis://localhost:{}", url.port().unwrap()).parse().unwrap();
    let tls = format!("rediss://localhost:{}", redis.port()).parse().unwrap();
    for url in [plain, tls] {
        let config = config::Redis { servers: RedisServers::Single(url), ..config.clone() };
        everything_is_unavailable(&*store_in(&config, &clock), &clock).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_with_sentinels_and_tls_keeps_the_contract() {
    let (authority, clock) = (Authority::new(), clock());
    let certificate = authority.issue("server", "IP:127.0.0.1,DNS:localhost", 1);
    let replication = ["--tls-replication", "yes"].map(str::to_owned);
    let options = || [certificate.options(&authority.pem(), free_port()), replication.to_vec()].concat();
    let urls = Mutex::new(Vec::new());
    let lines = || {
        let port = free_port();
        urls.lock().unwrap().push(format!("rediss://localhost:{port}").parse().unwrap());
        let options = [certificate.options(&authority.pem(), port), replication.to_vec()].concat();
        options.chunks(2).map(|pair| format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1])).collect()
    };
    let redis = RedisSentinel::start_with(lines, options).await;
    let config = config::Redis {
        ca: Some(CertificateAuthorities::read(&authority.pem()).unwrap()),
        ..config_of(RedisServers::Sentinel { master: MASTER.to_owned(), urls: urls.into_inner().unwrap() })
    };
    keeps_the_contract(store_in(&config, &clock), &clock).await;
    drop(redis);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_keeps_the_contract() {
    let (authority, clock) = (Authority::new(), clock());
    let certificate = authority.issue("server", "IP:127.0.0.1,DNS:localhost", 1);
    let tls = ["--tls-cluster", "yes", "--tls-replication", "yes"].map(str::to_owned);
    let options = || [certificate.options(&authority.pem(), free_port()), tls.to_vec()].concat();
    let cluster = RedisCluster::start_with(options).await;
    let mut urls = Vec::new();
    for node in [0, 5] {
        let port: Vec<String> = cluster.node(node).command(&["CONFIG", "GET", "tls-port"]).await;
        urls.push(format!("rediss://localhost:{}", port[1]).parse().unwrap());
    }
    let config = config::Redis {
        ca: Some(CertificateAuthorities::read(&authority.pem()).unwrap()),
        ..config_of(RedisServers::Cluster(urls))
    };
    keeps_the_contract(store_in(&config, &clock), &clock).await;
}
