//! Keys and certificates of the client's own under a gateway that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::browser::Browser;
use crate::support::gateway::{Setup, program};
use crate::support::issuer::{Endpoint, Issuer};
use crate::support::signing_keys::{P256, RSA, jwk, private_key, public_jwk};
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
