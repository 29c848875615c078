//! An upstream behind a Unix socket.

use std::convert::Infallible;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::upstream::full;
use crate::support::wire::{ask, head};

#[tokio::test]
async fn a_server_behind_a_unix_socket_is_named_by_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.sock");
    let keys = format!("url: \"http://orders.internal/v1\", addresses: [\"unix:{}\"]", path.display());
    let gateway =
        Setup::new(NO_ISSUER).route(&format!("path: /, upstream: {{{keys}}}, auth: none")).start().await;
    assert_eq!(ask(gateway.address, head("GET /", "")).await.status, 502, "nobody is there yet");

    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<Incoming>| {
                let host = request.headers()["host"].to_str().unwrap();
                Ok::<_, Infallible>(full(format!("{host}{}", request.uri())))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    for _ in 0..2 {
        assert_eq!(ask(gateway.address, head("GET /a?b", "")).await.text(), "orders.internal/v1/a?b");
    }
}
