//! Bodies stream both ways, chunk by chunk; nothing is kept, and nobody is left waiting for one who has gone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Body, Upstream, full};
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head};

const LARGE: usize = 50 * 1024 * 1024;

async fn open(url: &str, keys: &str) -> Gateway {
    Setup::new(NO_ISSUER).route(&format!("path: /, upstream: \"{url}\", auth: none{keys}")).start().await
}

/// A body that a test writes while it is sent.
fn channel() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|item| item.map(|data: Result<Bytes, _>| data.map(Frame::data)))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// An upstream that answers its first request with the body it hands out.
pub async fn streaming(
    content_type: &'static str,
) -> (Upstream, mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let (sender, body) = channel();
    let body = Mutex::new(Some(body));
    let upstream = Upstream::raw(move |_| {
        let body = body.lock().unwrap().take();
        async move {
            let mut response = body.map_or_else(|| full(""), Response::new);
            response.headers_mut().insert("content-type", content_type.parse().unwrap());
            response
        }
    })
    .await;
    (upstream, sender)
}

#[tokio::test]
async fn the_upstream_sees_the_first_chunk_before_the_client_sends_the_last() {
    for framing in ["Transfer-Encoding: chunked\r\n", "Content-Length: 10\r\n"] {
        let (seen, mut chunks) = mpsc::unbounded_channel();
        let upstream = Upstream::raw(move |request| {
            let seen = seen.clone();
            async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    if let Ok(data) = frame.into_data() {
                        seen.send(data).unwrap();
                    }
                }
                full("done")
            }
        })
        .await;
        let gateway = open(&upstream.url(), "").await;
        let mut wire = Wire::connect(gateway.address).await;
        let chunked = framing.starts_with('T');
        wire.send(head("POST /", framing)).await;
        for part in ["first", "final"] {
            wire.send(if chunked { format!("5\r\n{part}\r\n") } else { part.to_owned() }).await;
            assert_eq!(in_time(chunks.recv()).await.unwrap(), part);
        }
        if chunked {
            wire.send("0\r\n\r\n").await;
        }
        assert_eq!(wire.reply().await.text(), "done");
    }
}

#[tokio::test]
async fn an_event_stream_is_flushed_event_by_event() {
    let (upstream, events) = streaming("text/event-stream").await;
    let gateway = open(&upstream.url(), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /events", "Accept: text/event-stream\r\n")).await;
    let reply = wire.reply_head().await;
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("text/event-stream")));
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        events.send(Ok(event.into())).await.unwrap();
        assert_eq!(wire.chunk().await.unwrap(), event.as_bytes());
    }
    drop(events);
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test]
async fn r49_an_event_stream_ends_with_its_session() {
    let issuer = Issuer::start().await;
    let (upstream, events) = streaming("text/event-stream; charset=utf-8").await;
    let site = Upstream::start().await;
    let setup = Setup::new(&issuer.url()).for_users("/events", &upstream.url()).for_anybody("/", &site.url());
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let cookie = browser.session_cookie().unwrap();
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /events", &format!("Cookie: __Host-cloakroom={cookie}\r\nX-CSRF: 1\r\n"))).await;
    assert_eq!(wire.reply_head().await.status, 200);
    events.send(Ok("data: 1\n\n".into())).await.unwrap();
    assert_eq!(wire.chunk().await.unwrap(), b"data: 1\n\n");
    browser.script(http::Method::POST, "/bff/logout", &[("x-csrf", "1")], "").await;
    assert_eq!(in_time(wire.chunk()).await, None);
    // Nobody reads what the upstream goes on to say.
    in_time(events.closed()).await;
}

#[tokio::test]
async fn a_stream_may_take_longer_than_a_response_but_not_stand_still() {
    let (upstream, events) = streaming("text/event-stream").await;
    let gateway = open(&upstream.url(), ", timeouts: {response: 1s, idle: 3s}").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /events", "")).await;
    wire.reply_head().await;
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..12 {
        ticks.tick().await;
        events.send(Ok("tick".into())).await.unwrap();
        assert_eq!(wire.chunk().await.unwrap(), b"tick");
    }
    assert_eq!(wire.chunk().await, None, "it stood still");
    assert!(!String::from_utf8_lossy(&wire.rest().await).contains("0\r\n\r\n"));
}

#[tokio::test]
async fn an_upload_may_take_longer_than_a_response() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.len().to_string())).await;
    let gateway = open(&upstream.url(), ", timeouts: {response: 1s}").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("POST /", "Content-Length: 12\r\n")).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..12 {
        ticks.tick().await;
        wire.send("x").await;
    }
    assert_eq!(wire.reply().await.text(), "12");
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.clone())).await;
    let gateway = open(&upstream.url(), "").await;
    let content: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    for chunked in [false, true] {
        let mut wire = Wire::connect(gateway.address).await;
        let framing = if chunked {
            "Transfer-Encoding: chunked\r\n".to_owned()
        } else {
            format!("Content-Length: {LARGE}\r\n")
        };
        wire.send(head("POST /", &framing)).await;
        for part in content.chunks(1024 * 1024) {
            if chunked {
                wire.send(format!("{:x}\r\n", part.len())).await;
            }
            wire.send(part).await;
            if chunked {
                wire.send("\r\n").await;
            }
        }
        if chunked {
            wire.send("0\r\n\r\n").await;
        }
        let reply = wire.reply().await;
        assert!(reply.whole && reply.body == content, "{} bytes", reply.body.len());
    }
}

/// Writes until nothing has gone out for a while, and says how much has.
async fn fill(stream: &mut TcpStream) -> usize {
    let part = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while let Ok(length) = timeout(Duration::from_millis(700), stream.write(&part)).await {
        written += length.unwrap();
        assert!(written < 4 * LARGE, "what nobody reads is held back, not kept");
    }
    written
}

#[tokio::test]
async fn an_upload_nobody_reads_is_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("POST /", "Content-Length: 104857600\r\n")).await;
    let (_upstream, _) = in_time(listener.accept()).await.unwrap();
    assert!(fill(&mut wire.stream).await < LARGE);
}

#[tokio::test]
async fn a_download_nobody_reads_is_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    let (mut upstream, _) = in_time(listener.accept()).await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576000\r\n\r\n").await.unwrap();
    assert!(fill(&mut upstream).await < LARGE);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_upstreams_work() {
    // Before the answer, while it streams, and in the middle of an upload.
    for case in ["waiting", "streaming", "uploading"] {
        let (done, ended) = oneshot::channel::<()>();
        let done = Arc::new(Mutex::new(Some(done)));
        let (began, mut started) = mpsc::unbounded_channel();
        let upstream = Upstream::raw(move |request| {
            let (done, began) = (done.lock().unwrap().take(), began.clone());
            async move {
                began.send(()).unwrap();
                match case {
                    "waiting" => {
                        let _done = done;
                        std::future::pending().await
                    }
                    "uploading" => {
                        let _ = request.into_body().collect().await;
                        drop(done);
                        std::future::pending().await
                    }
                    _ => {
                        let (sender, body) = channel();
                        tokio::spawn(async move {
                            let _done = done;
                            while sender.send(Ok("tick".into())).await.is_ok() {
                                tokio::task::yield_now().await;
                            }
                        });
                        Response::new(body)
                    }
                }
            }
        })
        .await;
        let gateway = open(&upstream.url(), "").await;
        let mut wire = Wire::connect(gateway.address).await;
        match case {
            "uploading" => wire.send(head("POST /", "Content-Length: 100\r\n") + "abc").await,
            _ => wire.send(head("GET /", "")).await,
        }
        in_time(started.recv()).await;
        if case == "streaming" {
            wire.reply_head().await;
            wire.chunk().await.unwrap();
        }
        drop(wire);
        assert!(in_time(ended).await.is_err(), "{case}: the other end was dropped");
    }
}

#[tokio::test]
async fn an_upstream_that_dies_in_the_middle_never_looks_like_an_end() {
    for head_and_part in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n9\r\nxy",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("GET /", "")).await;
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        let mut seen = [0; 1024];
        assert!(stream.read(&mut seen).await.unwrap() > 0);
        stream.write_all(head_and_part.as_bytes()).await.unwrap();
        drop(stream);
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200);
        assert!(!reply.whole, "{head_and_part:?}: {reply:?}");
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("POST /", "Content-Length: 1000000\r\n") + "abc").await;
    let (mut stream, _) = in_time(listener.accept()).await.unwrap();
    let mut seen = [0; 1024];
    assert!(stream.read(&mut seen).await.unwrap() > 0);
    stream
        .write_all(b"HTTP/1.1 422 Unprocessable\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
        .await
        .unwrap();
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (422, "no"));
}

#[tokio::test]
async fn r37_trailers_bring_nothing_that_frames_or_authenticates() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let hostile = "Authorization: Bearer forged\r\nX-Forwarded-For: forged\r\nContent-Length: 5\r\nHost: forged\r\n\
        Set-Cookie: __Host-cloakroom=forged\r\nCookie: forged=1\r\nTransfer-Encoding: chunked\r\n";
    let names = "Trailer: Authorization, X-Forwarded-For, Content-Length, Host, Set-Cookie, Cookie, Transfer-Encoding\r\n";
    wire.send(head("POST /", &format!("TE: trailers\r\nTransfer-Encoding: chunked\r\n{names}"))).await;
    wire.send(format!("3\r\nabc\r\n0\r\n{hostile}\r\n")).await;
    let (mut stream, _) = in_time(listener.accept()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n0\r\n\r\n") {
        assert!(in_time(stream.read_buf(&mut seen)).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(!String::from_utf8_lossy(&seen).contains("forged"));
    let answer =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{names}\r\n3\r\nabc\r\n0\r\n{hostile}\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    let reply = wire.reply().await;
    assert!(reply.whole && reply.body == b"abc", "{reply:?}");
    assert!(!reply.fields.iter().any(|(_, value)| value.contains("forged")), "{reply:?}");
}

#[tokio::test]
async fn r37_what_may_trail_a_body_passes_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap()), "").await;
    let mut wire = Wire::connect(gateway.address).await;
    let announced = "Transfer-Encoding: chunked\r\nTrailer: Digest, Authorization\r\n";
    wire.send(head("POST /", &format!("TE: trailers\r\n{announced}"))).await;
    wire.send("3\r\nabc\r\n0\r\nDigest: sum\r\nAuthorization: forged\r\n\r\n").await;
    let (mut stream, _) = in_time(listener.accept()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") || !seen.windows(3).any(|part| part == b"abc") {
        assert!(in_time(stream.read_buf(&mut seen)).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    let seen = String::from_utf8_lossy(&seen).to_lowercase();
    assert!(!seen.contains("\r\nte:") && seen.contains("trailer: digest\r\n"), "{seen}");
    assert!(seen.ends_with("0\r\ndigest: sum\r\n\r\n"), "{seen}");
    let trailers = "0\r\nGrpc-Status: 0\r\nSet-Cookie: forged=1\r\n\r\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status, Set-Cookie\r\n\r\n3\r\nabc\r\n{trailers}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    drop(stream);
    let reply = wire.reply_head().await;
    assert_eq!(reply.field("trailer").map(str::to_lowercase).as_deref(), Some("grpc-status"), "{reply:?}");
    assert_eq!(wire.chunk().await.as_deref(), Some(&b"abc"[..]));
    let end = wire.exactly("0\r\nGrpc-Status: 0\r\n\r\n".len()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&end).to_lowercase(), "0\r\ngrpc-status: 0\r\n\r\n");
}

#[tokio::test]
async fn a_streamed_upload_carries_the_token_too() {
    let (issuer, upstream) =
        (Issuer::start().await, Upstream::answering(|arrived| full(arrived.body.clone())).await);
    let setup =
        Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let cookie = browser.session_cookie().unwrap();
    let body = "x".repeat(300_000);
    let request = head(
        "POST /api",
        &format!("Cookie: __Host-cloakroom={cookie}\r\nX-CSRF: 1\r\nContent-Length: {}\r\n", body.len()),
    ) + &body;
    let reply = ask(gateway.address, request).await;
    assert!(reply.status == 200 && reply.body == body.as_bytes(), "{}", reply.status);
    assert_eq!(upstream.tokens().len(), 1);
}
