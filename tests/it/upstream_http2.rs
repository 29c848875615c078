//! HTTP/2 to an upstream: many requests on one connection, streamed both ways, and sent again only where the
//! server has surely not processed them (RFC 9113 §8.7).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::LINK;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, mpsc};

use crate::support::frames::{self, Outcome};
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::upstream::{Body, full};
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head};

mod websocket;

/// A server that speaks HTTP/2 alone, by prior knowledge, and counts its connections.
struct Server {
    url: String,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    async fn start<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::limited(None, answer).await
    }

    /// Lets so many requests through at a time on each connection.
    async fn limited<F>(
        streams: Option<u32>,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(streams);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn open(url: &str) -> Gateway {
    let route = format!("path: /, upstream: {{url: \"{url}\", protocol: http2}}, auth: none");
    Setup::new(NO_ISSUER).route(&route).start().await
}

/// Answers each request behind early hints.
async fn hinting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let hints = Response::builder().status(StatusCode::EARLY_HINTS).header(LINK, "</a.css>");
                    respond.send_informational(hints.body(()).unwrap()).unwrap();
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from("answered"), true).unwrap();
                }
            });
        }
    });
    url
}

/// Sends back what comes, part by part, and ends as gRPC does.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (sender, mut parts) = mpsc::channel::<Frame<Bytes>>(1);
    tokio::spawn(async move {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if frame.is_data() && sender.send(frame).await.is_err() {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("authorization", "Bearer forged".parse().unwrap());
        let _ = sender.send(Frame::trailers(trailers)).await;
    });
    let frames =
        futures_util::stream::poll_fn(move |context| parts.poll_recv(context).map(|part| part.map(Ok)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response.headers_mut().insert("trailer", "grpc-status, authorization".parse().unwrap());
    response
}

#[tokio::test]
async fn early_hints_over_http2_are_passed_over_and_spoil_no_answer() {
    let route = format!("path: /, upstream: {{url: \"{}\", protocol: http2}}, auth: none", hinting().await);
    let mut setup = Setup::new(NO_ISSUER).route(&route);
    setup.server = "h2c: true".to_owned();
    let gateway = setup.start().await;
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "answered"));
    assert_eq!(reply.field("link"), None);
    let mut client = frames::Frames::connect(gateway.address).await;
    client.send(frames::get(1, "/")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200), "and nothing before it");
}

#[tokio::test]
async fn requests_at_the_same_time_share_a_connection() {
    const AT_ONCE: usize = 20;
    let all_are_here = Arc::new(Barrier::new(AT_ONCE));
    let server = Server::start(move |request: Request<Incoming>| {
        let all_are_here = Arc::clone(&all_are_here);
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert!(!request.headers().contains_key("host"), "which the client has asked");
            all_are_here.wait().await;
            full(request.uri().to_string())
        }
    })
    .await;
    let gateway = open(&server.url).await;
    for _ in 0..2 {
        let replies = (0..AT_ONCE).map(|_| ask(gateway.address, head("GET /a?b=c", "")));
        for reply in futures_util::future::join_all(replies).await {
            assert_eq!(reply.text(), format!("{}/a?b=c", server.url), "the target names the upstream");
        }
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_server_that_takes_few_requests_at_a_time_gets_few() {
    let at_a_time = Arc::new(AtomicUsize::new(0));
    let server = Server::limited(Some(2), move |_| {
        let at_a_time = Arc::clone(&at_a_time);
        async move {
            at_a_time.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            at_a_time.fetch_sub(1, Ordering::SeqCst);
            full("ok")
        }
    })
    .await;
    let gateway = open(&server.url).await;
    for _ in 0..3 {
        let replies = (0..30).map(|_| ask(gateway.address, head("POST /", "Content-Length: 0\r\n")));
        for reply in futures_util::future::join_all(replies).await {
            assert_eq!(reply.status, 200);
        }
    }
    assert!((2..=8).contains(&server.accepted()), "{}", server.accepted());
}

#[tokio::test]
async fn r37_nothing_that_belongs_to_a_connection_crosses_into_http2() {
    let server = Server::start(async |request: Request<Incoming>| {
        let names: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        full(names.join("\n"))
    })
    .await;
    let gateway = open(&server.url).await;
    let hop_by_hop = "Connection: x-mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n";
    for (te, passes) in [("trailers", true), ("trailers, gzip", false), ("gzip", false)] {
        let fields = format!("{hop_by_hop}TE: {te}\r\nTransfer-Encoding: chunked\r\n");
        let seen = ask(gateway.address, head("POST /", &fields) + "1\r\nx\r\n0\r\n\r\n").await.text();
        for name in ["connection=", "x-mine", "keep-alive", "upgrade=", "transfer-encoding", "host="] {
            assert!(!seen.lines().any(|line| line.starts_with(name)), "{name} in {seen}");
        }
        assert_eq!(seen.contains("te=\"trailers\""), passes, "{te}: {seen}");
    }
}

#[tokio::test]
async fn grpc_calls_pass_part_by_part_both_ways_with_their_status() {
    let server = Server::start(echo).await;
    let gateway = open(&server.url).await;
    let mut wire = Wire::connect(gateway.address).await;
    let fields = "Content-Type: application/grpc\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n";
    wire.send(head("POST /shop.Orders/Watch", fields)).await;
    let reply = wire.reply_head().await;
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/grpc")));
    for part in ["one", "two", "three"] {
        wire.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        assert_eq!(wire.chunk().await.unwrap(), part.as_bytes(), "it comes before the next is sent");
    }
    wire.send("0\r\n\r\n").await;
    let end = String::from_utf8(wire.exactly("0\r\ngrpc-status: 0\r\n\r\n".len()).await.unwrap()).unwrap();
    assert_eq!(end, "0\r\ngrpc-status: 0\r\n\r\n");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let server = Server::start(echo).await;
    let gateway = open(&server.url).await;
    let body = vec![b'x'; 5_000_000];
    let mut wire = Wire::connect(gateway.address).await;
    let request = head("POST /", &format!("Content-Length: {}\r\n", body.len()));
    let (mut reading, mut writing) = wire.stream.split();
    let mut seen = Vec::new();
    let sent = async {
        writing.write_all(request.as_bytes()).await.unwrap();
        writing.write_all(&body).await.unwrap();
    };
    let read = async {
        while !seen.ends_with(b"0\r\n\r\n") {
            assert!(reading.read_buf(&mut seen).await.unwrap() > 0);
        }
    };
    in_time(async { tokio::join!(sent, read) }).await;
    assert!(seen.iter().filter(|byte| **byte == b'x').count() >= body.len());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_the_clients_fault() {
    let server = Server::start(async |request: Request<Incoming>| {
        let whole = request.into_body().collect().await;
        full(if whole.is_ok() { "whole" } else { "broken" })
    })
    .await;
    let route = format!("path: /, upstream: {{url: \"{}\", protocol: http2}}, auth: none", server.url);
    let mut setup = Setup::new(NO_ISSUER).route(&route);
    "body_bytes: 10".clone_into(&mut setup.limits);
    let gateway = setup.start().await;
    let chunked = head("POST /", "Transfer-Encoding: chunked\r\n");
    let reply = ask(gateway.address, chunked + "14\r\n01234567890123456789\r\n0\r\n\r\n").await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "too-large"));
}

#[tokio::test]
async fn a_websocket_is_502_where_the_server_does_not_say_that_it_takes_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = Server::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { full("no") }
    })
    .await;
    let route = format!(
        "path: /, upstream: {{url: \"{}\", protocol: http2}}, auth: none, websocket: true",
        server.url
    );
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    let reply = ask(gateway.address, head("GET /", WEBSOCKET)).await;
    assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"));
    assert_eq!((server.accepted(), asked.load(Ordering::SeqCst)), (1, 0));
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://shop.test\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const PREFACE: usize = 24;

/// One connection in HTTP/2, frame by frame.
struct Frames(TcpStream);

impl Frames {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        stream.read_exact(&mut [0; PREFACE]).await.unwrap();
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        loop {
            let mut head = [0; 9];
            in_time(self.0.read_exact(&mut head)).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length.try_into().unwrap()];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[3] == HEADERS {
                return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
        }
    }

    /// Status 200 (RFC 7541 §A), and nothing behind it.
    async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, 5, stream, &[0x88]).await;
    }
}

async fn listening() -> (TcpListener, Gateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap())).await;
    (listener, gateway)
}

#[tokio::test]
async fn a_request_behind_the_last_that_goaway_names_is_sent_again_elsewhere() {
    let (listener, gateway) = listening().await;
    let served = async {
        let mut first = Frames::accept(&listener).await;
        let stream = first.request().await;
        first.send(GOAWAY, 0, 0, &[0; 8]).await;
        let mut second = Frames::accept(&listener).await;
        let again = second.request().await;
        second.answer(again).await;
        assert_eq!((stream, again), (1, 1));
        (first, second)
    };
    let (reply, _open) = tokio::join!(ask(gateway.address, head("DELETE /", "")), served);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn nothing_of_a_websocket_goes_to_a_server_that_does_not_say_that_it_takes_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream =
        format!("upstream: {{url: \"http://{}\", protocol: http2}}", listener.local_addr().unwrap());
    let route = format!("path: /, {upstream}, auth: none, websocket: true");
    let gateway = Setup::new(NO_ISSUER).route(&route).start().await;
    let served = async {
        let mut frames = Frames::accept(&listener).await;
        let stream = frames.request().await;
        frames.answer(stream).await;
        (stream, frames)
    };
    let asked = async {
        let refused = ask(gateway.address, head("GET /", WEBSOCKET)).await;
        (refused.status, ask(gateway.address, head("GET /", "")).await.status)
    };
    let (statuses, (stream, _open)) = tokio::join!(asked, served);
    assert_eq!((statuses, stream), ((502, 200), 1), "the second request is the connection's first");
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let (listener, gateway) = listening().await;
    let served = async {
        let mut frames = Frames::accept(&listener).await;
        let refused = frames.request().await;
        frames.send(RST_STREAM, 0, refused, &[0, 0, 0, 7]).await;
        let again = frames.request().await;
        frames.answer(again).await;
        frames
    };
    let (reply, _open) = tokio::join!(ask(gateway.address, head("POST /", "Content-Length: 0\r\n")), served);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn what_the_server_may_have_processed_is_not_sent_again() {
    // An internal error; the same by GOAWAY that names the stream; the end of the connection.
    for case in ["reset", "goaway", "end"] {
        let (listener, gateway) = listening().await;
        let served = async {
            let mut frames = Frames::accept(&listener).await;
            let stream = frames.request().await;
            match case {
                "reset" => frames.send(RST_STREAM, 0, stream, &[0, 0, 0, 2]).await,
                "goaway" => frames.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]).await,
                _ => {}
            }
            if case != "reset" {
                frames.0.shutdown().await.unwrap();
            }
            frames
        };
        let (reply, _open) = tokio::join!(ask(gateway.address, head("GET /", "")), served);
        assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"), "{case}");
    }
}

#[tokio::test]
async fn after_goaway_the_next_request_has_a_new_connection() {
    let (listener, gateway) = listening().await;
    let served = async {
        let mut first = Frames::accept(&listener).await;
        let stream = first.request().await;
        // All up to this one is still answered.
        first.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
        first.answer(stream).await;
        let mut second = Frames::accept(&listener).await;
        let next = second.request().await;
        second.answer(next).await;
        (first, second)
    };
    let asked = async {
        for _ in 0..2 {
            assert_eq!(ask(gateway.address, head("POST /", "Content-Length: 0\r\n")).await.status, 200);
        }
    };
    tokio::join!(asked, served);
}

#[tokio::test]
async fn a_connection_that_left_three_requests_unanswered_gets_no_fourth() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keys =
        format!("upstream: {{url: \"{url}\", protocol: http2}}, auth: none, timeouts: {{response: 1s}}");
    let gateway = Setup::new(NO_ISSUER).route(&format!("path: /, {keys}")).start().await;
    let served = async {
        let dead = Frames::accept(&listener).await;
        let mut next = Frames::accept(&listener).await;
        let stream = next.request().await;
        next.answer(stream).await;
        (dead, next)
    };
    let asked = async {
        for expected in [504, 504, 504, 200] {
            assert_eq!(ask(gateway.address, head("GET /", "")).await.status, expected);
        }
    };
    tokio::join!(asked, served);
}

#[tokio::test]
async fn clients_that_go_away_cost_nobody_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keys = format!("upstream: {{url: \"{url}\", protocol: http2}}, auth: none");
    let gateway = Setup::new(NO_ISSUER).route(&format!("path: /, {keys}")).start().await;
    let connecting = tokio::spawn(async move { (Frames::accept(&listener).await, listener) });
    let mut gone = Wire::connect(gateway.address).await;
    gone.send(head("GET /", "")).await;
    let (mut server, _listener) = in_time(connecting).await.unwrap();
    for _ in 0..4 {
        server.request().await;
        gone = Wire::connect(gateway.address).await;
        gone.send(head("GET /", "")).await;
    }
    let stream = server.request().await;
    server.answer(stream).await;
    assert_eq!(gone.reply().await.status, 200);
}

#[tokio::test]
async fn an_answer_with_more_than_a_hundred_fields_passes() {
    let server = Server::start(async |_| {
        let mut response = full("ok");
        for number in 0..150 {
            response.headers_mut().append("x-many", number.into());
        }
        response
    })
    .await;
    let gateway = open(&server.url).await;
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!(reply.fields.iter().filter(|(name, _)| name == "x-many").count(), 150);
}
