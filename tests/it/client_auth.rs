//! Keys and certificates of the client's own under a gateway that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use http::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::certificates::{Authority, Certificate};
use crate::support::clock::clock;
use crate::support::gateway::{Setup, program};
use crate::support::https::Https;
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::signing_keys::{P256, RSA, jwk, private_key, public_jwk};
use crate::support::tls_door::{Door, Shown};
use crate::support::upstream::Upstream;
use crate::support::wait::until;

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn register(issuer: &Issuer, pem: &str) {
    let key = (public_jwk(pem), issuer.url());
    issuer.behave(|behaviour| behaviour.client_key = Some(key));
}

fn setup(issuer: &Issuer, upstream: &Upstream, key: &Path) -> Setup {
    let mut setup =
        Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    setup.oidc = format!(
        "client_auth: {{private_key_jwt: {{file: \"{}\"}}}}\nscopes: [openid, offline_access]",
        key.display()
    );
    setup
}

#[tokio::test]
async fn a_key_that_is_replaced_under_a_running_gateway_signs_from_then_on() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let (first, second) = (private_key(P256), private_key(RSA));
    write(&path, &first);
    register(&issuer, &first);
    let gateway = setup(&issuer, &upstream, &path).start().await;
    Browser::new(gateway.address).log_in("/").await;

    write(&path, &jwk(&second).to_string());
    register(&issuer, &second);
    until(async || {
        let mut browser = Browser::new(gateway.address);
        browser.navigate("/bff/login?return_to=/").await;
        browser.session_cookie().is_some()
    })
    .await;
}

#[tokio::test]
async fn r62_a_key_that_has_become_wrong_is_named_in_the_log_and_neither_it_nor_an_assertion_is_shown() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let pem = private_key(P256);
    write(&path, &pem);
    register(&issuer, &pem);
    let mut setup = setup(&issuer, &upstream, &path);
    setup.telemetry = "telemetry: {log: {level: trace}}\n".to_owned();
    let process = setup.start_process().await;
    Browser::new(process.address).log_in("/").await;
    write(&path, &pem[..pem.len() / 2]);
    until(async || process.has_logged("files.refused")).await;
    assert!(process.has_logged(path.to_str().unwrap()));
    let mut browser = Browser::new(process.address);
    browser.log_in("/").await;
    browser.submit("/bff/logout").await;
    process.signal("TERM");
    let (code, log) = process.ended().await;
    assert_eq!(code, Some(0));
    let requests = issuer.received();
    let mut secrets: Vec<_> =
        requests.iter().filter_map(|asked| asked.field("client_assertion")).map(str::to_owned).collect();
    assert!(secrets.len() >= 4 && issuer.received_at(Endpoint::Revoke).len() == 2, "{}", secrets.len());
    secrets.push(jwk(&pem)["d"].as_str().unwrap().to_owned());
    secrets.push(pem.lines().nth(1).unwrap().to_owned());
    for secret in secrets {
        assert!(!log.iter().any(|line| line.contains(&secret)), "{secret}");
    }
}

#[tokio::test]
async fn check_takes_a_good_key_and_names_a_bad_one_with_exit_code_78() {
    let folder = tempfile::tempdir().unwrap();
    let (path, yaml) = (folder.path().join("key.pem"), folder.path().join("cloakroom.yaml"));
    let issuer = Issuer::start().await;
    let upstream = Upstream::start().await;
    fs::write(&yaml, setup(&issuer, &upstream, &path).yaml()).unwrap();
    let check = async || {
        let output = program(&["check", "-c", yaml.to_str().unwrap()]).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    write(&path, &private_key(P256));
    assert_eq!(check().await.0, Some(0));
    for (key, problem) in [
        (private_key("-algorithm RSA -pkeyopt rsa_keygen_bits:1024"), "too short"),
        ("hunter2".to_owned(), "neither a private key in PEM nor a JWK"),
    ] {
        write(&path, &key);
        let (code, faults) = check().await;
        assert_eq!(code, Some(78), "{faults}");
        assert!(faults.contains(problem) && faults.contains("write instead"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

/// Where a client shows its certificate, and proves itself by it.
const FOR_CLIENTS: [Endpoint; 6] = [
    Endpoint::Push,
    Endpoint::Token,
    Endpoint::Userinfo,
    Endpoint::Introspect,
    Endpoint::AuthorizeDevice,
    Endpoint::Revoke,
];

/// An issuer with two doors; at one of them nobody gets in without a certificate.
struct TwoDoors {
    issuer: Issuer,
    authority: Authority,
    own: Certificate,
    /// The host of the door for clients, and what was shown there.
    alias: String,
    shown: Shown,
}

impl TwoDoors {
    async fn open(clock: Arc<dyn Clock>) -> Self {
        let authority = Authority::new();
        let server = authority.issue("server", "DNS:localhost", 2);
        let own = authority.issue("client", "DNS:client.test", 2);
        fs::set_permissions(&own.key, fs::Permissions::from_mode(0o600)).unwrap();
        let (door, for_clients) =
            (Door::build(&server, None).await, Door::build(&server, Some(&authority)).await);
        let issuer = Issuer::start_named(clock, |_| door.url()).await;
        let aliases: serde_json::Map<_, _> = [
            "pushed_authorization_request_endpoint",
            "token_endpoint",
            "userinfo_endpoint",
            "introspection_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
        ]
        .into_iter()
        .zip(FOR_CLIENTS)
        .map(|(name, endpoint)| (name.to_owned(), json!(format!("{}{}", for_clients.url(), endpoint.path()))))
        .collect();
        issuer.behave(|behaviour| {
            behaviour.public_client = true;
            behaviour.takes_pushed_requests = true;
            behaviour.keeps_connections = false;
            behaviour.metadata.insert("mtls_endpoint_aliases".to_owned(), aliases.into());
        });
        let alias = for_clients.url().replace("https://", "");
        door.lead_to(issuer.address());
        let shown = for_clients.lead_to(issuer.address());
        Self { issuer, authority, own, alias, shown }
    }

    fn setup(&self, upstream: &Upstream) -> Setup {
        let mut setup = Setup::new(&self.issuer.url())
            .for_users("/api", &upstream.url())
            .for_anybody("/", &upstream.url());
        setup.oidc = format!(
            "client_auth: {{tls_client_auth: {{certificate: \"{}\", private_key: \"{}\"}}}}\ntls: {{ca: \"{}\"}}\n\
             scopes: [openid, offline_access]\nuserinfo: true\nintrospection: {{interval: 30s}}\ndevice_authorization: true",
            self.own.certificate.display(),
            self.own.key.display(),
            self.authority.pem().display()
        );
        setup
    }

    fn browser(&self, gateway: std::net::SocketAddr) -> Browser {
        Browser::new(gateway).with_tls_elsewhere(Https::new(&self.authority, &[]))
    }
}

#[tokio::test]
async fn rfc8705_5_each_endpoint_for_clients_is_asked_at_its_alias_and_no_other() {
    let clock = clock();
    let (scene, upstream) = (TwoDoors::open(clock.clone()).await, Upstream::start().await);
    let own = CertificateDer::from_pem_file(&scene.own.certificate).unwrap();
    let gateway = scene.setup(&upstream).clock(clock.clone()).start().await;
    let mut browser = scene.browser(gateway.address);
    browser.log_in("/").await;
    clock.advance(Duration::from_secs(31));
    assert_eq!(browser.fetch("/api/orders").await.status, 200);
    browser.submit("/bff/logout").await;
    let answer = browser.script(Method::POST, "/bff/device", &[("x-csrf", "1")], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for endpoint in FOR_CLIENTS {
        until(async || !scene.issuer.received_at(endpoint).is_empty()).await;
    }
    for request in scene.issuer.received() {
        let is_for_clients = FOR_CLIENTS.contains(&request.endpoint);
        assert_eq!(request.headers["host"] == scene.alias, is_for_clients, "{:?}", request.endpoint);
    }
    assert!(scene.shown.lock().unwrap().iter().all(|shown| *shown == own));
}

#[tokio::test]
async fn a_pair_that_has_become_wrong_is_named_in_the_log_without_its_content_and_the_last_good_one_is_shown()
{
    let (scene, upstream) = (TwoDoors::open(Arc::new(SystemClock)).await, Upstream::start().await);
    let Certificate { certificate, key } = &scene.own;
    let own = CertificateDer::from_pem_file(certificate).unwrap();
    let good = fs::read_to_string(key).unwrap();
    let mut setup = scene.setup(&upstream);
    setup.telemetry = "telemetry: {log: {level: trace}}\n".to_owned();
    let process = setup.start_process().await;
    fs::write(key, &good[..good.len() / 2]).unwrap();
    until(async || process.has_logged("files.refused")).await;
    let count = scene.shown.lock().unwrap().len();
    scene.browser(process.address).log_in("/").await;
    let shown = scene.shown.lock().unwrap().clone();
    assert!(shown.len() > count && shown.iter().all(|shown| *shown == own), "in connections of its own");
    process.signal("TERM");
    let (code, log) = process.ended().await;
    assert_eq!(code, Some(0));
    let refused: Vec<_> = log.iter().filter(|line| line.contains("files.refused")).collect();
    assert!(refused.iter().all(|line| line.contains(key.to_str().unwrap())), "{refused:?}");
    for secret in good.lines().filter(|line| !line.starts_with('-')) {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret}");
    }
}

#[tokio::test]
async fn r62_check_shows_nothing_of_a_key_that_is_wrong() {
    let (scene, upstream) = (TwoDoors::open(Arc::new(SystemClock)).await, Upstream::start().await);
    let yaml = tempfile::NamedTempFile::new().unwrap();
    fs::write(yaml.path(), scene.setup(&upstream).yaml()).unwrap();
    let good = fs::read_to_string(&scene.own.key).unwrap();
    for (key, code) in [(good.as_str(), 0), (&good[..good.len() / 2], 78), ("hunter2", 78)] {
        fs::write(&scene.own.key, key).unwrap();
        let output = program(&["check", "-c", yaml.path().to_str().unwrap()]).output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for line in key.lines().filter(|line| !line.starts_with('-')) {
            assert!(!said.contains(line), "{said}");
        }
    }
}
