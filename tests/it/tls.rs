//! HTTPS on the public listener.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};

use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::https::Https;
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Wire, ask, head};

fn setup(upstream: &Upstream, certificate: &Path, key: &Path) -> Setup {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server =
        format!("tls: {{certificate: \"{}\", private_key: \"{}\"}}", certificate.display(), key.display());
    setup
}

async fn start(upstream: &Upstream, authority: &Authority, limits: &str) -> Gateway {
    let Certificate { certificate, key } = authority.issue("gateway", "DNS:localhost", 1);
    let mut setup = setup(upstream, &certificate, &key);
    limits.clone_into(&mut setup.limits);
    setup.start().await
}

#[tokio::test]
async fn https_is_served_in_both_versions_of_tls_that_are_safe() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "").await;
    for version in [&TLS12, &TLS13] {
        let client = Https::with_versions(&authority, &["http/1.1"], &[version]);
        let mut wire = client.connect(gateway.address).await.unwrap();
        assert_eq!(wire.stream.get_ref().1.protocol_version(), Some(version.version));
        for _ in 0..2 {
            wire.send(head("GET /a", "")).await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "{\"path\":\"/a\"}"));
        }
    }
}

#[tokio::test]
async fn the_protocol_is_what_alpn_agrees_on_and_http_1_1_where_nothing_is_said() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "").await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut wire = Https::new(&authority, offered).connect(gateway.address).await.unwrap();
        assert_eq!(wire.stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
        if agreed != Some("h2") {
            wire.send(head("GET /", "")).await;
            assert_eq!(wire.reply().await.status, 200);
        }
    }
    assert!(Https::new(&authority, &["spdy/3"]).connect(gateway.address).await.is_err(), "RFC 7301 §3.2");
}

#[tokio::test]
async fn who_comes_back_resumes_its_session() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "").await;
    for version in [&TLS12, &TLS13] {
        let client = Https::with_versions(&authority, &[], &[version]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut wire = client.connect(gateway.address).await.unwrap();
            wire.send(head("GET /", "")).await;
            assert_eq!(wire.reply().await.status, 200, "by now the tickets have come as well");
            kinds.push(wire.stream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
}

#[tokio::test]
async fn who_speaks_http_to_the_https_port_is_told_so() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "").await;
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!((reply.status, reply.problem()), (400, "bad-request".to_owned()));
    assert!(reply.text().contains("HTTPS"));
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("\0\0\0\0").await;
    assert!(wire.rest().await.is_empty());
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r65_a_connection_that_is_silent_before_in_or_after_the_handshake_is_closed() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "header_timeout: 1s").await;
    assert!(Wire::connect(gateway.address).await.rest().await.is_empty());
    let mut half = Wire::connect(gateway.address).await;
    half.send(b"\x16\x03\x01\x02\x00\x01").await;
    half.rest().await;
    for protocol in ["http/1.1", "h2"] {
        let client = Https::new(&authority, &[protocol]);
        let mut wire = client.connect(gateway.address).await.unwrap();
        assert!(wire.rest().await.is_empty(), "{protocol}");
    }
}

#[tokio::test]
async fn r65_a_connection_counts_before_its_handshake_and_one_too_many_is_closed() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let gateway = start(&upstream, &authority, "connections: 1").await;
    let client = Https::new(&authority, &[]);
    let silent = Wire::connect(gateway.address).await;
    assert!(client.connect(gateway.address).await.is_err());
    drop(silent);
    until(async || client.connect(gateway.address).await.is_ok()).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_as_kubernetes_does_and_a_wrong_one_is_refused() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let publish = |generation: &str, certificate: &Path, key: &Path| {
        fs::create_dir(at(generation)).unwrap();
        fs::copy(certificate, at(generation).join("tls.crt")).unwrap();
        fs::copy(key, at(generation).join("tls.key")).unwrap();
        symlink(generation, at("next")).unwrap();
        fs::rename(at("next"), at("data")).unwrap();
    };
    let [first, second, third] =
        ["first", "second", "third"].map(|name| authority.issue(name, "DNS:localhost", 1));
    publish("1", &first.certificate, &first.key);
    let setup = setup(&upstream, &at("data/tls.crt"), &at("data/tls.key"));
    let gateway = setup.start().await;

    let shown = async || {
        let wire = Https::new(&authority, &[]).connect(gateway.address).await.unwrap();
        wire.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let is = |certificate: &Certificate| CertificateDer::from_pem_file(&certificate.certificate).unwrap();
    assert_eq!(shown().await, is(&first));
    let mut open = Https::new(&authority, &[]).connect(gateway.address).await.unwrap();

    publish("2", &second.certificate, &second.key);
    until(async || shown().await == is(&second)).await;
    open.send(head("GET /", "")).await;
    assert_eq!(open.reply().await.status, 200, "who is connected notices nothing");

    // A certificate with another's key, and then a key that others may read.
    publish("3", &third.certificate, &second.key);
    publish("4", &third.certificate, &third.key);
    fs::set_permissions(at("4/tls.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(shown().await, is(&second));
    fs::set_permissions(at("4/tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    until(async || shown().await == is(&third)).await;
}

#[tokio::test]
async fn a_certificate_that_has_become_wrong_is_named_in_the_log_and_the_last_good_one_is_shown() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let Certificate { certificate, key } = authority.issue("gateway", "DNS:localhost", 1);
    let process = setup(&upstream, &certificate, &key).start_process().await;
    fs::write(&certificate, "nothing").unwrap();
    until(async || process.has_logged("files.refused")).await;
    assert!(process.has_logged(certificate.to_str().unwrap()));
    let mut wire = Https::new(&authority, &[]).connect(process.address).await.unwrap();
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.status, 200);
}
