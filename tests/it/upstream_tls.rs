//! TLS to an upstream: whom the gateway believes, who it says it is, and what is spoken behind it.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::{Authority, Certificate};
use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::tls_door;
use crate::support::upstream::{Body, full};
use crate::support::wait::until;
use crate::support::wire::{Reply, ask, head};

/// What a server speaks and whom it lets in.
#[derive(Default)]
struct Server<'a> {
    protocols: &'a [&'a str],
    clients: Option<&'a Authority>,
}

impl Server<'_> {
    /// Answers with what the connection is. Gives its port.
    async fn start(self, certificate: &Certificate) -> u16 {
        let mut config = tls_door::settings(certificate, self.clients);
        config.alpn_protocols = self.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let name = session.server_name().unwrap_or("nobody").to_owned();
                    let certificates = session.peer_certificates().map_or(0, <[_]>::len);
                    let is_http2 = session.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = format!("{:?} to {name} with {certificates}", request.version());
                        async move { Ok::<Response<Body>, Infallible>(full(answer)) }
                    });
                    let stream = TokioIo::new(stream);
                    if is_http2 {
                        let _ =
                            http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
                    } else {
                        let _ = http1::Builder::new().serve_connection(stream, service).await;
                    }
                });
            }
        });
        port
    }
}

async fn ask_upstream(keys: &str) -> Reply {
    let route = format!("path: /, upstream: {{{keys}}}, auth: none");
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    ask(gateway.address, head("GET /", "")).await
}

fn tls(authority: &Authority, more: &str) -> String {
    format!("tls: {{ca: \"{}\"{more}}}", authority.pem().display())
}

fn own(path: &Path) -> String {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_private_authority_is_believed_where_it_is_named_and_nobody_else() {
    let (authority, other) = (Authority::new(), Authority::new());
    let port = Server::default().start(&authority.issue("server", "IP:127.0.0.1", 7)).await;
    let url = format!("url: \"https://127.0.0.1:{port}\"");
    let reply = ask_upstream(&format!("{url}, {}", tls(&authority, ""))).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "HTTP/1.1 to nobody with 0"));
    for keys in [url.clone(), format!("{url}, {}", tls(&other, ""))] {
        let reply = ask_upstream(&keys).await;
        assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"), "{keys}");
    }
}

#[tokio::test]
async fn the_name_in_the_certificate_must_be_the_upstreams() {
    let authority = Authority::new();
    let port = Server::default().start(&authority.issue("server", "DNS:orders.internal", 7)).await;
    let url = format!("url: \"https://127.0.0.1:{port}\"");
    assert_eq!(ask_upstream(&format!("{url}, {}", tls(&authority, ""))).await.status, 502);
    let other = format!("{url}, {}", tls(&authority, ", server_name: other.internal"));
    assert_eq!(ask_upstream(&other).await.status, 502);
    let right = format!("{url}, {}", tls(&authority, ", server_name: orders.internal"));
    assert_eq!(ask_upstream(&right).await.text(), "HTTP/1.1 to orders.internal with 0");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let port = Server::default().start(&authority.issue("server", "IP:127.0.0.1", -1)).await;
    let keys = format!("url: \"https://127.0.0.1:{port}\", {}", tls(&authority, ""));
    assert_eq!(ask_upstream(&keys).await.status, 502);
}

#[tokio::test]
async fn the_gateway_shows_its_own_certificate_to_a_server_that_asks() {
    let authority = Authority::new();
    let server = Server { clients: Some(&authority), ..Server::default() };
    let port = server.start(&authority.issue("server", "IP:127.0.0.1", 7)).await;
    let url = format!("url: \"https://127.0.0.1:{port}\"");
    assert_eq!(ask_upstream(&format!("{url}, {}", tls(&authority, ""))).await.status, 502);
    let client = authority.issue("client", "DNS:gateway", 7);
    let (certificate, key) = (own(&client.certificate), own(&client.key));
    let identity = format!(", certificate: \"{certificate}\", private_key: \"{key}\"");
    let reply = ask_upstream(&format!("{url}, {}", tls(&authority, &identity))).await;
    assert_eq!(reply.text(), "HTTP/1.1 to nobody with 1");
}

/// What stands goes by the certificate it began with, and is left: a token that is bound to the new one would be
/// refused on it (RFC 8705 §3).
#[tokio::test]
async fn another_certificate_of_the_gateways_is_shown_as_soon_as_it_is_there() {
    let authority = Authority::new();
    let certificate = authority.issue("server", "IP:127.0.0.1", 7);
    for protocol in ["http1", "http2"] {
        let [client, next] = ["client", "next"].map(|name| authority.issue(name, "DNS:gateway", 7));
        let server = Server { protocols: &["h2", "http/1.1"], clients: Some(&authority) };
        let port = server.start(&certificate).await;
        let identity =
            format!(", certificate: \"{}\", private_key: \"{}\"", own(&client.certificate), own(&client.key));
        let route = format!(
            "path: /, upstream: {{url: \"https://127.0.0.1:{port}\", protocol: {protocol}, {}}}, auth: none",
            tls(&authority, &identity)
        );
        let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
        let shown = async || ask(gateway.address, head("GET /", "")).await.text();
        assert!(shown().await.ends_with("with 1"));
        // Told apart by how many are shown: the next one comes with its authority's.
        let chain = [next.certificate, authority.pem()].map(|file| fs::read_to_string(file).unwrap());
        fs::write(&client.certificate, chain.concat()).unwrap();
        fs::write(&client.key, fs::read(next.key).unwrap()).unwrap();
        until(async || shown().await.ends_with("with 2")).await;
    }
}

#[tokio::test]
async fn what_is_spoken_is_what_both_sides_want() {
    let authority = Authority::new();
    let certificate = authority.issue("server", "IP:127.0.0.1", 7);
    for (speaks, wanted, spoken) in [
        (["h2", "http/1.1"].as_slice(), "auto", Some("HTTP/2.0")),
        (&["h2", "http/1.1"], "http1", Some("HTTP/1.1")),
        (&["h2", "http/1.1"], "http2", Some("HTTP/2.0")),
        (&["http/1.1"], "auto", Some("HTTP/1.1")),
        (&[], "auto", Some("HTTP/1.1")),
        (&["h2"], "auto", Some("HTTP/2.0")),
        (&["http/1.1"], "http2", None),
        (&[], "http2", None),
        (&["h2"], "http1", None),
    ] {
        let port = Server { protocols: speaks, clients: None }.start(&certificate).await;
        let keys = format!("url: \"https://127.0.0.1:{port}\", protocol: {wanted}, {}", tls(&authority, ""));
        let reply = ask_upstream(&keys).await;
        match spoken {
            Some(version) => {
                assert_eq!(reply.text(), format!("{version} to nobody with 0"), "{speaks:?} {wanted}");
            }
            None => assert_eq!(reply.status, 502, "{speaks:?} {wanted}"),
        }
    }
}

#[tokio::test]
async fn a_websocket_begins_in_http1_where_that_is_spoken_too() {
    let authority = Authority::new();
    let server = Server { protocols: &["h2", "http/1.1"], clients: None };
    let port = server.start(&authority.issue("server", "IP:127.0.0.1", 7)).await;
    let route = format!(
        "path: /, upstream: {{url: \"https://127.0.0.1:{port}\", {}}}, auth: none, websocket: true",
        tls(&authority, "")
    );
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://shop.test\r\n";
    // The server takes it for any other request, and says how it came.
    for (fields, spoken) in [("", "HTTP/2.0"), (handshake, "HTTP/1.1"), ("", "HTTP/2.0")] {
        let reply = ask(gateway.address, head("GET /", fields)).await;
        assert_eq!(reply.text(), format!("{spoken} to nobody with 0"));
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_in_time() {
    // It accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let route = format!(
        "path: /, upstream: \"https://127.0.0.1:{port}\", auth: none, timeouts: {{connect: 50ms, response: 1h}}"
    );
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"));
}
