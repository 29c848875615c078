//! Bodies stream both ways in a stream, as fast as the other end takes them; who goes takes the request back.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::open;
use crate::support::frames::{self, Frames, Outcome};
use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::http2::{self, Http2, chunk, request, send_all};
use crate::support::upstream::{Body, Upstream, full, status};
use crate::support::wait::{in_time, until};
use crate::support::wire::read_head;

const LARGE: usize = 20 * 1024 * 1024;

type Writer = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// A body that a test writes while it is sent.
fn channel() -> (Writer, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// An upstream that answers its first request with the body it hands out.
async fn streaming() -> (Upstream, Writer) {
    let (sender, body) = channel();
    let body = Mutex::new(Some(body));
    let upstream = Upstream::raw(move |_| {
        let body = body.lock().unwrap().take();
        async move {
            let mut response = body.map_or_else(|| full(""), Response::new);
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
    })
    .await;
    (upstream, sender)
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.clone())).await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    let body: Bytes = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into();
    let (response, mut outgoing) = client.send(request("POST", "/", &[]), false).await;
    send_all(&mut outgoing, body.clone(), true).await.unwrap();
    let reply = http2::read(in_time(response).await.unwrap()).await;
    assert_eq!((reply.status, reply.whole), (200, true));
    assert_eq!(reply.field("content-length"), Some(LARGE.to_string().as_str()));
    assert!(reply.body == body, "byte for byte");
}

#[tokio::test]
async fn no_more_of_a_body_is_taken_than_the_upstream_takes() {
    let (reads, read_on) = oneshot::channel::<()>();
    let read_on = Mutex::new(Some(read_on));
    let upstream = Upstream::raw(move |request| {
        let read_on = read_on.lock().unwrap().take();
        async move {
            let _ = read_on.unwrap().await;
            let length = request.into_body().collect().await.unwrap().to_bytes().len();
            full(length.to_string())
        }
    })
    .await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, mut outgoing) = client.send(request("POST", "/", &[]), false).await;
    let mut sent = 0;
    // Until the way is full: the sockets' buffers, and the windows.
    while let Ok(part) = tokio::time::timeout(
        Duration::from_secs(1),
        send_all(&mut outgoing, Bytes::from_static(&[0; 16 * 1024]), false),
    )
    .await
    {
        part.unwrap();
        sent += 16 * 1024;
        assert!(sent < LARGE, "somebody keeps all of it");
    }
    reads.send(()).unwrap();
    // What was cut short above went out in part, or not.
    send_all(&mut outgoing, Bytes::from_static(b"end"), true).await.unwrap();
    let reply = http2::read(in_time(response).await.unwrap()).await;
    assert!(reply.text().parse::<usize>().unwrap() >= sent);
}

#[tokio::test]
async fn each_event_comes_before_the_next_is_sent() {
    let (upstream, events) = streaming().await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, _) = client.send(request("GET", "/", &[("te", "trailers")]), true).await;
    let mut incoming = in_time(response).await.unwrap().into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send(Ok(Frame::data(event.into()))).await.unwrap();
        assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), event);
    }
    drop(events);
    assert!(chunk(&mut incoming).await.is_none());
}

#[tokio::test]
async fn r37_trailers_of_an_answer_are_passed_on_and_filtered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n\
                      3\r\nabc\r\n0\r\ngrpc-status: 0\r\nAuthorization: Bearer forged\r\nSet-Cookie: a=1\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    });
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &format!("http://{address}"));
    setup.server = "h2c: true".to_owned();
    let gateway = setup.start().await;
    let reply = http2::get(gateway.address, "/", &[("te", "trailers")]).await;
    assert_eq!((reply.text().as_str(), reply.whole), ("abc", true));
    let trailers: Vec<_> = reply.fields.iter().filter(|(name, _)| name.starts_with("trailer ")).collect();
    assert_eq!(trailers, [&("trailer grpc-status".to_owned(), "0".to_owned())]);
    answering.await.unwrap();
}

#[tokio::test]
async fn r37_trailers_of_a_request_are_filtered() {
    let (seen, mut trailers) = mpsc::unbounded_channel();
    let upstream = Upstream::raw(move |request| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await.unwrap();
            seen.send(body.trailers().cloned().unwrap_or_default()).unwrap();
            full("")
        }
    })
    .await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    let head = request("POST", "/", &[("trailer", "x-late, authorization")]);
    let (response, mut outgoing) = client.send(head, false).await;
    outgoing.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut late = HeaderMap::new();
    late.insert("x-late", "1".parse().unwrap());
    late.insert("authorization", "Bearer forged".parse().unwrap());
    outgoing.send_trailers(late).unwrap();
    assert_eq!(in_time(response).await.unwrap().status(), 200);
    let seen = in_time(trailers.recv()).await.unwrap();
    assert_eq!(seen.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-late"]);
}

#[tokio::test]
async fn head_204_and_304_have_no_body() {
    let upstream = Upstream::answering(|arrived| match arrived.target.as_str() {
        "/204" => status(204, &[]),
        "/304" => status(304, &[("etag", "\"1\"")]),
        _ => full("twelve bytes"),
    })
    .await;
    let gateway = open(&upstream, "").await;
    for (method, path, length) in
        [("HEAD", "/", Some("12")), ("GET", "/204", None), ("GET", "/304", None), ("GET", "/", Some("12"))]
    {
        let mut client = Frames::connect(gateway.address).await;
        let head = frames::head(method, path, &[]);
        client.send(frames::frame(frames::HEADERS, 5, 1, head)).await;
        let answer = loop {
            let answer = client.next().await.unwrap();
            if answer.kind == frames::HEADERS {
                break answer;
            }
        };
        let ends = answer.flags & frames::END_STREAM != 0;
        assert_eq!(ends, (method, path) != ("GET", "/"), "{method} {path}");
        let reply = Http2::connect(gateway.address).await.ask(request(method, path, &[])).await;
        assert_eq!(reply.field("content-length"), length, "{method} {path}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_go_on() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.clone())).await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    let head = frames::head("POST", "/", &[("expect", "100-continue")]);
    client.send(frames::frame(frames::HEADERS, frames::END_HEADERS, 1, head)).await;
    let interim = client.until(frames::HEADERS, frames::END_HEADERS).await;
    assert_eq!(frames::status(&interim.payload), 100);
    client.send(frames::frame(frames::DATA, frames::END_STREAM, 1, "abc")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    assert_eq!(client.until(frames::DATA, frames::END_STREAM).await.payload, b"abc");
}

/// An upstream whose answers never come, and how many wait for one.
async fn waiting() -> (Upstream, std::sync::Arc<()>) {
    let alive = std::sync::Arc::new(());
    let counted = alive.clone();
    let upstream = Upstream::raw(move |request| {
        let counted = counted.clone();
        async move {
            let _counted = (counted, request);
            std::future::pending().await
        }
    })
    .await;
    (upstream, alive)
}

#[tokio::test]
async fn who_resets_a_stream_or_leaves_takes_the_request_back() {
    let (upstream, alive) = waiting().await;
    let gateway = open(&upstream, "").await;
    let before = std::sync::Arc::strong_count(&alive);
    let under_way = || std::sync::Arc::strong_count(&alive) - before;
    let mut client = Frames::connect(gateway.address).await;
    client.send([frames::get(1, "/"), frames::get(3, "/")].concat()).await;
    until(async || under_way() == 2).await;
    client.send(frames::frame(frames::RST_STREAM, 0, 1, 8_u32.to_be_bytes())).await;
    until(async || under_way() == 1).await;
    drop(client);
    until(async || under_way() == 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset_and_so_never_taken_for_whole() {
    let (upstream, events) = streaming().await;
    let gateway = open(&upstream, "").await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, _) = client.send(request("GET", "/", &[]), true).await;
    let mut incoming = in_time(response).await.unwrap().into_body();
    events.send(Ok(Frame::data("half".into()))).await.unwrap();
    assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), "half");
    events.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
    let error = chunk(&mut incoming).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(client.ask(request("GET", "/", &[])).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn early_hints_come_before_the_answer_and_bring_links_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (hinted, was_hinted) = oneshot::channel::<()>();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=1\r\n\r\n";
        stream.write_all(hints.as_bytes()).await.unwrap();
        was_hinted.await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream
    });
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &format!("http://{address}"));
    setup.server = "h2c: true".to_owned();
    let gateway = setup.start().await;
    let mut client = Frames::connect(gateway.address).await;
    client.send(frames::get(1, "/")).await;
    let hints = client.until(frames::HEADERS, frames::END_HEADERS).await;
    assert_eq!(frames::status(&hints.payload), 103);
    // The status, and one field more: it alone, by its name's index in the table (RFC 7541, appendix A).
    let fields = &hints.payload[hints.payload.iter().position(|byte| *byte & 0xc0 == 0x40).unwrap()..];
    assert!(!fields.is_empty() && hints.payload.len() < 60, "{:?}", hints.payload);
    hinted.send(()).unwrap();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    answering.await.unwrap();
}
