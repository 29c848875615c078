//! gRPC through the gateway: HTTP/2 on both sides, `te: trailers` on the way up, the status in trailers on
//! the way down.

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::http2::{Http2, chunk, read, request};
use crate::support::wait::in_time;

const FIELDS: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A gateway before a gRPC server that sends back each message as it comes, and then says that all is well.
async fn echo() -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let (head, mut incoming) = request.into_parts();
                        let mut response = Response::new(());
                        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                        let mut outgoing = respond.send_response(response, false).unwrap();
                        while let Some(Ok(data)) = chunk(&mut incoming).await {
                            outgoing.send_data(data, false).unwrap();
                        }
                        let takes_trailers = head.headers.get("te").is_some_and(|te| te == "trailers");
                        let mut trailers = HeaderMap::new();
                        trailers
                            .insert("grpc-status", if takes_trailers { "0" } else { "13" }.parse().unwrap());
                        outgoing.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    let mut setup = Setup::new(NO_ISSUER)
        .route(&format!("path: /, upstream: {{url: \"{url}\", protocol: http2}}, auth: none"));
    setup.server = "h2c: true".to_owned();
    setup.start().await
}

#[tokio::test]
async fn a_unary_call_ends_with_its_status_in_trailers() {
    let gateway = echo().await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, mut outgoing) = client.send(request("POST", "/shop.Orders/Get", &FIELDS), false).await;
    outgoing.send_data(Bytes::from_static(b"\0\0\0\0\x03abc"), true).unwrap();
    let reply = read(in_time(response).await.unwrap()).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"\0\0\0\0\x03abc"[..]));
    assert_eq!(reply.field("trailer grpc-status"), Some("0"));
}

#[tokio::test]
async fn a_streaming_call_goes_back_and_forth_while_both_sides_are_open() {
    let gateway = echo().await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, mut outgoing) = client.send(request("POST", "/shop.Orders/Watch", &FIELDS), false).await;
    outgoing.send_data(Bytes::from_static(b"first"), false).unwrap();
    let mut incoming = in_time(response).await.unwrap().into_body();
    assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), "first");
    outgoing.send_data(Bytes::from_static(b"second"), false).unwrap();
    assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), "second");
    outgoing.send_data(Bytes::new(), true).unwrap();
    assert!(chunk(&mut incoming).await.is_none());
    let trailers = in_time(incoming.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}
