//! Connections that a proxy passes on with a header of the PROXY protocol.

use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Reply, Wire, head};

const LINE: &str = "PROXY TCP4 192.0.2.1 10.0.0.1 56789 443\r\n";

/// The same in version 2.
fn binary() -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[192, 0, 2, 1, 10, 0, 0, 1, 0xdd, 0xd5, 1, 0xbb][..]].concat()
}

async fn start(upstream: &Upstream, trusted: &str, limits: &str) -> Gateway {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = format!("proxy_protocol: true\ntrusted_proxies: [{trusted}]");
    limits.clone_into(&mut setup.limits);
    setup.start().await
}

async fn ask(gateway: &Gateway, header: impl AsRef<[u8]>, fields: &str) -> Reply {
    let mut wire = Wire::connect(gateway.address).await;
    wire.send([header.as_ref(), head("GET /", fields).as_bytes()].concat()).await;
    wire.reply().await
}

#[tokio::test]
async fn the_client_is_whom_the_header_names_and_is_believed_no_more_than_others() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, "127.0.0.1", "").await;
    let claims = "X-Forwarded-For: 198.51.100.7\r\n";
    for (header, client) in [
        (LINE.as_bytes().to_vec(), "192.0.2.1"),
        (binary(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), "2001:db8::1"),
        // The proxy's own, which is trusted: what it says counts.
        (b"PROXY UNKNOWN\r\n".to_vec(), "198.51.100.7, 127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "198.51.100.7, 127.0.0.1"),
    ] {
        assert_eq!(ask(&gateway, &header, claims).await.status, 200, "{}", header.escape_ascii());
        assert_eq!(upstream.last().headers["x-forwarded-for"], client, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn a_trusted_proxy_that_sends_no_header_is_not_served() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, "127.0.0.1", "").await;
    for begin in [head("GET /", ""), format!("PROXY TCP4 192.0.2.1\r\n{}", head("GET /", ""))] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(begin).await;
        assert!(wire.rest().await.is_empty());
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn a_header_of_anybody_else_is_a_bad_request() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, "192.0.2.99", "").await;
    assert_eq!(ask(&gateway, "", "").await.status, 200);
    assert_eq!(upstream.last().headers["x-forwarded-for"], "127.0.0.1");
    for header in [LINE.as_bytes(), &binary()] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send([header, head("GET /", "").as_bytes()].concat()).await;
        assert_eq!(wire.reply().await.status, 400);
    }
    assert_eq!(upstream.arrived().len(), 1);
}

#[tokio::test]
async fn r65_a_header_that_does_not_come_is_not_waited_for() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, "127.0.0.1", "header_timeout: 300ms").await;
    for begin in ["", "PROXY TCP4", "\r\n\r\n\0"] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(begin).await;
        assert!(wire.rest().await.is_empty());
    }
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let Certificate { certificate, key } = authority.issue("gateway", "DNS:localhost", 1);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = format!(
        "proxy_protocol: true\ntrusted_proxies: [127.0.0.1]\ntls: {{certificate: {}, private_key: {}}}",
        certificate.display(),
        key.display()
    );
    let gateway = setup.start().await;
    let client = crate::support::https::Https::new(&authority, &[]);
    let mut wire = client.connect_after(gateway.address, binary()).await.unwrap();
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(upstream.last().headers["x-forwarded-for"], "192.0.2.1");
    assert!(client.connect(gateway.address).await.is_err());
}

#[tokio::test]
async fn r65_the_connections_of_a_client_count_whichever_way_they_come() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream, "127.0.0.1", "connections_per_client: 1").await;
    let mut first = Wire::connect(gateway.address).await;
    first.send(LINE.to_owned() + &head("GET /", "")).await;
    assert_eq!(first.reply().await.status, 200);
    let other = "PROXY TCP4 192.0.2.2 10.0.0.1 56789 443\r\n";
    assert_eq!(ask(&gateway, other, "").await.status, 200);
    let refused = ask(&gateway, LINE, "").await;
    assert_eq!((refused.status, refused.problem()), (503, "overloaded".to_owned()));
    let _checks = [Wire::connect(gateway.address).await, Wire::connect(gateway.address).await];
    assert_eq!(ask(&gateway, "PROXY UNKNOWN\r\n", "").await.status, 200, "a proxy has no such limit");
    drop(first);
    until(async || ask(&gateway, LINE, "").await.status == 200).await;
}
