//! A configuration that is wrong, or that this process cannot take up, changes nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::config;
use tokio::sync::Notify;

use super::{named, says};
use crate::support::gateway::{Gateway, NO_ISSUER, SESSION_KEY, Setup, environment};
use crate::support::issuer::CLIENT_SECRET;
use crate::support::metrics::count;
use crate::support::reloadable::Reloadable;
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::Wire;

const REFUSED: &str = "cloakroom_config_reloads_total{result=\"refused\"}";

#[tokio::test]
async fn each_fault_is_said_with_its_place_and_a_remedy_and_nothing_secret() {
    let (one, other) = (named("one").await, named("other").await);
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &one.url());
    let gateway = setup.start_process().await;
    let mut wire = Wire::connect(gateway.address).await;
    let wrong = Setup::new(NO_ISSUER)
        .for_anybody("/", &other.url())
        .yaml()
        .replace("    routes:", "    rowtes:")
        .replace("{env: CLIENT_SECRET}", "hunter2");
    gateway.reload(&wrong);
    until(async || count(gateway.admin, REFUSED).await == 1).await;
    until(async || gateway.logged("config.refused").len() >= 2).await;
    let log = gateway.logged("config.refused").join("\n");
    let line = wrong.lines().position(|line| line.contains("rowtes")).unwrap() + 1;
    assert!(log.contains(&format!("cloakroom.yaml:{line}:5")), "{log}");
    assert!(log.contains("`rowtes`") && log.contains("write instead: `routes`"), "{log}");
    for secret in ["hunter2", SESSION_KEY, CLIENT_SECRET] {
        assert!(!log.contains(secret), "{log}");
    }
    assert_eq!(says(&mut wire, "/").await, (200, "one".to_owned()));
}

#[tokio::test]
async fn what_takes_a_restart_is_named_and_the_rest_of_the_change_is_not_taken_either() {
    let (one, other) = (named("one").await, named("other").await);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &one.url());
    setup.telemetry = "telemetry: {log: {format: json}}\n".to_owned();
    let gateway = setup.start_process().await;
    let mut wire = Wire::connect(gateway.address).await;
    let good = Setup { telemetry: setup.telemetry, ..Setup::new(NO_ISSUER) }.for_anybody("/", &other.url());
    let good = good.yaml();
    for (refused, (before, after, key)) in [
        ("listen: 127.0.0.1:0", "listen: 127.0.0.1:1", "server.listen"),
        ("listen: 127.0.0.1:0", "listen: 127.0.0.1:0\n  workers: 7", "server.workers"),
        ("listen: \"127.0.0.1:0\"", "listen: \"127.0.0.1:1\"", "admin.listen"),
        ("admin: {listen: \"127.0.0.1:0\"}\n", "", "admin.listen"),
        ("memory: {}", "file: {path: .}", "sessions.store"),
        ("    routes:", "    session: {cookie: {name: __Host-other}}\n    routes:", "session.cookie.name"),
        ("format: json", "format: text", "telemetry.log.format"),
        ("{log: {format: json}}", "{access_log: false}", "telemetry.access_log"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(good.contains(before), "{before}");
        gateway.reload(&good.replacen(before, after, 1));
        until(async || count(gateway.admin, REFUSED).await == refused as u64 + 1).await;
        let said = format!("{key} cannot change without a restart");
        until(async || gateway.logged("config.refused").last().is_some_and(|line| line.contains(&said)))
            .await;
        assert_eq!(says(&mut wire, "/").await, (200, "one".to_owned()), "{key}");
    }
    gateway.reload(&good);
    until(async || says(&mut wire, "/").await.1 == "other").await;
}

/// What the files say, one time after another, and then for ever.
struct Sequence {
    texts: Mutex<VecDeque<String>>,
    reads: AtomicUsize,
}

impl Sequence {
    fn next(&self) -> String {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut texts = self.texts.lock().unwrap();
        let next = texts.pop_front().unwrap();
        if texts.is_empty() {
            texts.push_back(next.clone());
        }
        next
    }
}

/// A gateway that looks again and again by itself, and the reads so far.
async fn watching(setup: &Setup, texts: &[&str]) -> (Gateway, Arc<Sequence>) {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    let sequence = Arc::new(Sequence { texts: Mutex::new(texts), reads: AtomicUsize::new(0) });
    let source = Arc::clone(&sequence);
    let server = setup.bind(&setup.yaml()).await.reload_interval(Duration::from_millis(10));
    let read = move || config::parse("watched.yaml", &source.next(), &environment);
    (Gateway::run(server.reload_from(read, Arc::new(Notify::new()))), sequence)
}

#[tokio::test]
async fn what_is_watched_is_taken_once_it_was_read_twice_alike() {
    let (one, other) = (named("one").await, named("other").await);
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &one.url()).for_anybody("/last", &one.url());
    let whole = setup.yaml().replace(&one.url(), &other.url());
    // Without its last lines it is as good as any.
    let half = whole.split_inclusive('\n').take(whole.lines().count() - 1).collect::<String>();
    assert!(config::parse("half.yaml", &half, &environment).is_ok());
    let (gateway, sequence) = watching(&setup, &[&setup.yaml(), &half, &whole]).await;
    let mut wire = Wire::connect(gateway.address).await;
    until(async || says(&mut wire, "/").await.1 == "other").await;
    until(async || sequence.reads.load(Ordering::SeqCst) > 6).await;
    assert_eq!(count(gateway.admin, super::SUCCEEDED).await, 1, "never by the half of it");
}

#[tokio::test]
async fn what_is_watched_and_stays_wrong_is_refused_once_and_taken_when_it_is_mended() {
    let upstream = Upstream::start().await;
    let setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    let (gateway, sequence) = watching(&setup, &["server: {}"]).await;
    until(async || sequence.reads.load(Ordering::SeqCst) > 20).await;
    assert_eq!(count(gateway.admin, REFUSED).await, 1);
    sequence.texts.lock().unwrap().push_back(setup.yaml());
    until(async || count(gateway.admin, super::SUCCEEDED).await == 1).await;
    let reads = sequence.reads.load(Ordering::SeqCst);
    until(async || sequence.reads.load(Ordering::SeqCst) > reads + 20).await;
    assert_eq!(count(gateway.admin, super::SUCCEEDED).await, 1, "what has not changed is not taken again");
    assert_eq!(count(gateway.admin, REFUSED).await, 1);
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_configuration_is_wrong() {
    use crate::support::certificates::{Authority, Certificate};
    use crate::support::https::Https;

    let (upstream, authority, stranger) = (Upstream::start().await, Authority::new(), Authority::new());
    let Certificate { certificate, key } = authority.issue("gateway", "DNS:localhost", 1);
    let folder = tempfile::tempdir().unwrap();
    let (served, served_key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let publish = |certificate: &Certificate| {
        std::fs::copy(&certificate.certificate, &served).unwrap();
        std::fs::copy(&certificate.key, &served_key).unwrap();
    };
    publish(&stranger.issue("old", "DNS:localhost", 1));
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server =
        format!("tls: {{certificate: \"{}\", private_key: \"{}\"}}", served.display(), served_key.display());
    let reloadable = Reloadable::start(&setup).await;
    let client = Https::new(&authority, &[]);
    assert!(client.connect(reloadable.gateway.address).await.is_err());
    publish(&Certificate { certificate, key });
    reloadable.refuse("server: {}").await;
    assert!(client.connect(reloadable.gateway.address).await.is_ok());
}
