//! `check --connect`: what it says of issuer, store, upstreams and certificate, and what it leaves as its exit code.

use std::net::TcpListener;

use serde_json::json;

use crate::support::certificates::{Authority, Certificate};
use crate::support::collector::Collector;
use crate::support::gateway::{NO_ISSUER, ORIGIN, Setup, program};
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Endpoint, Fault, Issuer};
use crate::support::real_issuer::RealIssuer;
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{MASTER, RedisSentinel};
use crate::support::tls_door::Door;
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;

/// The verdicts, and what they are about.
struct Said {
    code: Option<i32>,
    lines: Vec<String>,
}

impl Said {
    /// The one line with this verdict that has all of these words in it.
    #[track_caller]
    fn has(&self, verdict: &str, words: &[&str]) {
        let is_meant = |line: &&String| {
            line.starts_with(&format!("{verdict} ")) && words.iter().all(|word| line.contains(word))
        };
        let count = self.lines.iter().filter(is_meant).count();
        assert_eq!(count, 1, "{verdict} {words:?}: {:#?}", self.lines);
    }

    fn count(&self, verdict: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(&format!("{verdict} "))).count()
    }
}

/// An app at this issuer, with files alone.
fn app(issuer: &str) -> Setup {
    Setup::new(issuer).route("path: /, files: docs")
}

async fn check(setup: &Setup) -> Said {
    check_text(&setup.yaml()).await
}

async fn check_text(yaml: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    std::fs::write(&path, yaml).unwrap();
    let output =
        in_time(program(&["check", "--connect", "-c", path.to_str().unwrap()]).output()).await.unwrap();
    let (good, other) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(good.lines().skip(1).all(|line| line.starts_with("good ")), "{good}");
    for secret in [CLIENT_SECRET, "hunter2"] {
        assert!(!good.contains(secret) && !other.contains(secret), "{good}{other}");
    }
    let mut lines = Vec::<String>::new();
    for line in good.lines().skip(1).chain(other.lines()) {
        match line.strip_prefix("         ") {
            // The remedy.
            Some(remedy) => assert!(!remedy.is_empty() && !lines.is_empty(), "{line}"),
            None => lines.push(line.to_owned()),
        }
    }
    Said { code: output.status.code(), lines }
}

async fn kept() -> Redis {
    Redis::start_with(|| ["--appendonly", "yes"].map(str::to_owned).to_vec()).await
}

#[tokio::test]
async fn all_is_good_where_it_is() {
    let (issuer, upstream, redis) = (Issuer::start().await, Upstream::start().await, kept().await);
    let setup = Setup::new(&issuer.url()).for_users("/", &upstream.url()).redis(&redis.url());
    let said = check(&setup).await;
    assert_eq!((said.code, said.count("good"), said.lines.len()), (Some(0), 7, 7), "{:#?}", said.lines);
    said.has("good", &["issuer ", &issuer.url(), ": metadata"]);
    said.has("good", &["issuer ", &issuer.url(), ": keys for ES256 (1)"]);
    said.has("good", &["issuer ", &issuer.url(), ": clock 0 s"]);
    said.has("good", &["client shop:1 at", "client_secret_basic accepted"]);
    said.has("good", &["store ", redis.url().as_str(), "in plain text: takes writes"]);
    said.has("good", &["store server", "noeviction", "0 replicas"]);
    said.has("good", &["upstream ", &upstream.url()]);
    let sent = issuer.received_at(Endpoint::Token).pop().unwrap();
    assert_eq!(sent.field("redirect_uri"), Some(format!("{ORIGIN}/bff/callback").as_str()));
    assert_eq!(sent.field("grant_type"), Some("authorization_code"));
}

#[tokio::test]
async fn an_issuer_that_would_turn_users_away_is_a_fault() {
    let issuer = Issuer::start().await;
    let mut setup = app(&issuer.url());
    setup.oidc += "\ntimeout: 2s";
    for (fault, verdict, word, code) in [
        (Fault::invalid_client(), "fault", "invalid_client", 1),
        (Fault::error(400, "unauthorized_client"), "fault", "unauthorized_client", 1),
        (Fault::status(401), "fault", "status 401", 1),
        (Fault::error(400, "invalid_request"), "warning", "could not be tried", 0),
        (
            Fault::json(200, json!({"access_token": "x", "token_type": "Bearer"})),
            "warning",
            "tokens for no code",
            0,
        ),
        (Fault::html(502), "fault", "502", 1),
        (Fault::Silence, "fault", "no answer", 1),
    ] {
        issuer.fail_once(Endpoint::Token, fault);
        let said = check(&setup).await;
        said.has(verdict, &["client shop:1", "client_secret_basic", word]);
        assert_eq!((said.code, said.count(verdict)), (Some(code), 1), "{:#?}", said.lines);
    }
    issuer.behave(|behaviour| behaviour.publish = Some(Box::new(Vec::clear)));
    check(&setup).await.has("fault", &["keys: none for any algorithm of its ID tokens: "]);
    issuer.behave(|behaviour| behaviour.publish = None);
    issuer.behave(|behaviour| behaviour.date = Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let said = check(&setup).await;
    said.has("fault", &["clock: ", " s behind"]);
    assert_eq!(said.code, Some(1));
    issuer.behave(|behaviour| behaviour.date = Some("no date"));
    let said = check(&setup).await;
    said.has("warning", &["clock: it does not say"]);
    assert_eq!(said.code, Some(0));
    issuer.behave(|behaviour| {
        drop(behaviour.metadata.insert("issuer".to_owned(), json!("https://other.test")));
    });
    let said = check(&setup).await;
    said.has("fault", &["metadata: ", "issuer is not the configured one"]);
    assert_eq!(said.lines.len(), 2, "nothing else is asked of it: {:#?}", said.lines);
}

#[tokio::test]
async fn a_public_client_has_nothing_to_be_tried_by() {
    let issuer = Issuer::start().await;
    issuer.behave(|behaviour| behaviour.public_client = true);
    let mut setup = app(&issuer.url());
    setup.oidc = "client_auth: none\nscopes: [openid]".to_owned();
    check(&setup).await.has("good", &["client shop:1", ": none, a public client", "no proof to try"]);
}

#[tokio::test]
async fn a_real_issuer_tells_a_right_secret_from_a_wrong_one() {
    for (secret, code) in [(CLIENT_SECRET, 0), ("another", 1)] {
        let client = json!({
            "client_id": CLIENT_ID,
            "client_secret": secret,
            "token_endpoint_auth_method": "client_secret_basic",
            "redirect_uris": [format!("{ORIGIN}/bff/callback")],
        });
        let issuer = RealIssuer::start(&json!({"clients": [client]})).await;
        let said = check(&app(issuer.url())).await;
        assert_eq!(said.code, Some(code), "{:#?}", said.lines);
        match code {
            0 => said.has("good", &["client ", "client_secret_basic accepted"]),
            _ => said.has("fault", &["client ", "the issuer says invalid_client"]),
        }
        said.has("good", &["keys for "]);
        said.has("good", &["clock 0 s"]);
        assert_eq!(issuer.state().await.token_requests.len(), 1);
    }
}

#[tokio::test]
async fn a_store_that_would_lose_sessions_is_told_of() {
    let (issuer, redis) = (Issuer::start().await, Redis::start().await);
    let mut setup = app(&issuer.url()).redis(&redis.url());
    let said = check(&setup).await;
    said.has("warning", &["store server", "neither `appendonly` nor `save`"]);
    assert_eq!((said.code, said.count("warning")), (Some(0), 1), "{:#?}", said.lines);

    let set = async |name: &str, value: &str| {
        redis.command::<String>(&["CONFIG", "SET", name, value]).await;
    };
    set("save", "60 1").await;
    set("maxmemory-policy", "allkeys-lru").await;
    let said = check(&setup).await;
    said.has("warning", &["snapshots alone (`save 60 1`)"]);
    assert_eq!(said.count("warning"), 1, "without a limit nothing is evicted: {:#?}", said.lines);
    set("maxmemory", "100mb").await;
    check(&setup).await.has("warning", &["maxmemory-policy is allkeys-lru"]);

    setup.store = format!("redis: {{url: \"{}\", wait_for_replicas: 1}}", redis.url());
    let said = check(&setup).await;
    said.has("fault", &["0 replicas, and wait_for_replicas is 1"]);
    assert_eq!(said.code, Some(1));

    // The rights that README asks for.
    let rights = "resetkeys ~cloakroom:* -@all +@read +@write +@scripting +@connection +role +time +wait +cluster|slots";
    let user = [vec!["ACL", "SETUSER", "cloakroom", "on", ">hunter2"], rights.split(' ').collect()].concat();
    redis.command::<String>(&user).await;
    setup.store = format!(
        "redis: {{url: \"{}\", username: cloakroom, password: {{env: REDIS_PASSWORD}}}}",
        redis.url()
    );
    let yaml = setup.yaml().replace("{env: REDIS_PASSWORD}", &password());
    let said = check_text(&yaml).await;
    said.has("warning", &["store server", "INFO is not allowed"]);
    said.has("good", &["takes writes"]);
    assert_eq!(said.code, Some(0), "{:#?}", said.lines);
    redis.command::<String>(&["ACL", "SETUSER", "cloakroom", "+info"]).await;
    check_text(&yaml).await.has("warning", &["CONFIG GET is not allowed"]);

    redis.command::<String>(&["ACL", "SETUSER", "cloakroom", "-@write"]).await;
    let said = check_text(&yaml).await;
    said.has("fault", &["takes writes: "]);
    assert_eq!(said.code, Some(1));
}

/// A file with a password, for as long as the tests run.
fn password() -> String {
    use std::os::unix::fs::PermissionsExt;
    let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
    std::fs::write(&path, "hunter2").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("{{file: {}}}", path.display())
}

#[tokio::test]
async fn a_master_that_takes_writes_though_it_is_cut_off_is_told_of() {
    let (issuer, sentinel) = (Issuer::start().await, RedisSentinel::start().await);
    let mut setup = app(&issuer.url());
    setup.store =
        format!("redis: {{sentinel: {{master: {MASTER}, urls: [\"{}\"]}}}}", sentinel.sentinel(0).url());
    let said = check(&setup).await;
    said.has("good", &["store ", MASTER, "takes writes"]);
    said.has("warning", &["min-replicas-to-write is 0"]);
}

#[tokio::test]
async fn each_address_of_an_upstream_is_tried_as_it_will_be_used() {
    let (issuer, upstream, authority) = (Issuer::start().await, Upstream::start().await, Authority::new());
    let good = authority.issue("good", "DNS:localhost", 30);
    let (soon, old, other) = (
        authority.issue("soon", "DNS:localhost", 3),
        authority.issue("old", "DNS:localhost", -1),
        authority.issue("other", "DNS:elsewhere.test", 30),
    );
    let mut setup = app(&issuer.url());
    let mut add = |path: &str, url: &str, more: &str| {
        let tls = if url.starts_with("https") {
            format!(", tls: {{ca: {}}}", authority.pem().display())
        } else {
            String::new()
        };
        setup.add_route(&format!("path: {path}, upstream: {{url: \"{url}\"{more}{tls}}}"));
    };
    let mut urls = Vec::new();
    for (path, certificate) in [("/good", &good), ("/soon", &soon), ("/old", &old), ("/other", &other)] {
        let door = Door::build(certificate, None).await;
        urls.push(door.url());
        add(path, &door.url(), "");
        door.lead_to(upstream.address);
    }
    let door = Door::build(&good, None).await;
    let without_http2 = door.url();
    add("/h2", &door.url(), ", protocol: http2");
    door.lead_to(upstream.address);
    add("/h2c", &upstream.url(), ", protocol: http2");
    let mut speaks = Setup::new(NO_ISSUER).for_anybody("/", NO_ISSUER);
    speaks.server = "h2c: true".to_owned();
    let speaks = speaks.start().await;
    let with_http2 = format!("http://{}", speaks.address);
    add("/knows", &with_http2, ", protocol: http2");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    add("/away", &format!("http://{closed}"), "");

    let said = check(&setup).await;
    assert_eq!(said.code, Some(1));
    said.has("good", &["upstream ", &urls[0], "certificate good until "]);
    said.has("warning", &["upstream ", &urls[1], "certificate: expires on "]);
    said.has("fault", &["upstream ", &urls[2], "Expired"]);
    said.has("fault", &["upstream ", &urls[3], "certificate not valid for name"]);
    said.has("fault", &["upstream ", &without_http2, "it does not speak HTTP/2"]);
    said.has("fault", &["upstream ", &upstream.url(), "it does not speak HTTP/2"]);
    said.has("good", &["upstream ", &with_http2]);
    said.has("fault", &["upstream ", &closed.to_string(), "it cannot be reached"]);
}

#[tokio::test]
async fn our_own_certificate_is_to_cover_each_app_and_to_last() {
    let (issuer, authority) = (Issuer::start().await, Authority::new());
    let mut setup = app(&issuer.url());
    for (names, days, verdicts) in [
        ("DNS:shop.test", 30, [("good", "good until "), ("good", "for shop.test")]),
        ("DNS:shop.test,DNS:desk.test", 3, [("warning", "expires on "), ("good", "for shop.test")]),
        ("DNS:desk.test", 30, [("good", "good until "), ("fault", "for shop.test: it is not for this name")]),
    ] {
        let Certificate { certificate, key } = authority.issue("own", names, days);
        let (certificate, key) = (certificate.display(), key.display());
        setup.server = format!("tls: {{certificate: {certificate}, private_key: {key}}}");
        let said = check(&setup).await;
        for (verdict, words) in verdicts {
            said.has(verdict, &["certificate ", words]);
        }
    }
}

#[tokio::test]
async fn issuer_and_store_that_are_away_are_faults_with_remedies() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut setup = app(&format!("http://{closed}"));
    setup.store = format!("redis: {{url: \"redis://{closed}\"}}");
    let said = check(&setup).await;
    assert_eq!((said.code, said.count("fault"), said.lines.len()), (Some(1), 2, 2), "{:#?}", said.lines);
}

#[tokio::test]
async fn a_collector_is_tried_in_its_protocol_and_is_no_fault_where_it_is_away() {
    let (grpc, http, issuer) = (Collector::start().await, Upstream::start().await, Issuer::start().await);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |endpoint: String, protocol: &str| {
        let mut setup = app(&issuer.url());
        setup.telemetry =
            format!("telemetry: {{otlp: {{endpoint: \"{endpoint}\", protocol: {protocol}}}}}\n");
        setup
    };
    check(&at(format!("http://{}", grpc.address), "grpc")).await.has("good", &["collector http://"]);
    check(&at(http.url(), "http/protobuf")).await.has("good", &["collector http://"]);
    for (endpoint, wrong) in
        [(http.url(), "does not speak HTTP/2"), (format!("http://{away}"), "cannot be reached")]
    {
        let said = check(&at(endpoint, "grpc")).await;
        said.has("warning", &["collector http://", wrong]);
        assert_eq!((said.code, said.count("fault")), (Some(0), 0));
    }
}
