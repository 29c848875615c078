//! WebSockets to a server that speaks HTTP/2 alone: extended CONNECT where it says that it takes that (RFC 8441).

use std::sync::Arc;

use h2::ext::Protocol;
use http::{Method, Request, Response, StatusCode, Version, header};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::gateway::{Gateway, NO_ISSUER, ORIGIN, Setup};
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Protocol: chat\r\nOrigin: https://shop.test\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A server with extended CONNECT, and what it was asked. It grants what is not below `/refused`, sends back
/// the first part of each tunnel, and ends it. All else is answered with 200.
async fn server() -> (String, mpsc::UnboundedReceiver<Request<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = mpsc::unbounded_channel();
    let asked = Arc::new(asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.enable_connect_protocol();
                let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (head, mut incoming) = request.into_parts();
                    let is_tunnel = head.method == Method::CONNECT;
                    let is_refused = head.uri.path().starts_with("/refused");
                    let _ = asked.send(Request::from_parts(head, ()));
                    let mut response = Response::new(());
                    if !is_tunnel || is_refused {
                        *response.status_mut() =
                            if is_refused { StatusCode::FORBIDDEN } else { StatusCode::OK };
                        let mut outgoing = respond.send_response(response, false).unwrap();
                        outgoing.send_data("words".into(), true).unwrap();
                        continue;
                    }
                    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, "chat".parse().unwrap());
                    let mut outgoing = respond.send_response(response, false).unwrap();
                    tokio::spawn(async move {
                        let part = incoming.data().await.unwrap().unwrap();
                        outgoing.send_data(part, true).unwrap();
                    });
                }
            });
        }
    });
    (url, requests)
}

async fn open(url: &str) -> Gateway {
    let keys = format!("upstream: {{url: \"{url}\", protocol: http2}}, auth: none, websocket: true");
    Setup::new(NO_ISSUER).route(&format!("path: /, {keys}")).start().await
}

#[tokio::test]
async fn r49_a_handshake_goes_to_the_server_as_an_extended_connect() {
    let (url, mut requests) = server().await;
    let gateway = open(&url).await;
    let mut wire = Wire::connect(gateway.address).await;
    // What is behind the handshake is the tunnel's already.
    wire.send(head("GET /room?x=1", &format!("{HANDSHAKE}{KEY}")) + "early").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.field("sec-websocket-accept")), (101, Some(ACCEPT)), "{reply:?}");
    assert_eq!(reply.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!(reply.field("upgrade"), Some("websocket"));
    assert_eq!(wire.exactly(5).await.unwrap(), b"early");
    assert!(in_time(wire.rest()).await.is_empty(), "the server's end closes the client's");

    let seen = in_time(requests.recv()).await.unwrap();
    assert_eq!((seen.method(), seen.version()), (&Method::CONNECT, Version::HTTP_2));
    assert_eq!(seen.uri().to_string(), format!("{url}/room?x=1"));
    assert_eq!(seen.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
    for name in ["connection", "upgrade", "sec-websocket-key", "transfer-encoding", "content-length"] {
        assert!(!seen.headers().contains_key(name), "{name} in {:?}", seen.headers());
    }
    assert_eq!(seen.headers()["sec-websocket-version"], "13");
    assert_eq!(seen.headers()["origin"], ORIGIN);
    assert_eq!(ask(gateway.address, head("GET /", "")).await.text(), "words", "the connection goes on");
}

#[tokio::test]
async fn a_handshake_that_a_server_in_http2_refuses_is_refused_with_its_words() {
    let (url, _requests) = server().await;
    let gateway = open(&url).await;
    let reply = ask(gateway.address, head("GET /refused", &format!("{HANDSHAKE}{KEY}"))).await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "words"));
}

#[tokio::test]
async fn a_handshake_without_a_key_reaches_no_server_in_http2() {
    let (url, mut requests) = server().await;
    let gateway = open(&url).await;
    assert_eq!(ask(gateway.address, head("GET /", HANDSHAKE)).await.status, 400);
    assert!(requests.try_recv().is_err());
}
