//! Where one request ends and the next begins: nothing that two servers could read in two ways gets
//! through (R39, RFC 9112 §6.3, §11.2). What counts is how many requests the upstream saw.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head, read_head};

async fn open(upstream: &str) -> Gateway {
    Setup::new(NO_ISSUER).for_anybody("/", upstream).start().await
}

#[tokio::test]
async fn r39_a_request_with_faulty_framing_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream.url()).await;
    for fields in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 3\r\n",
        " Content-Length: 3\r\n",
        "X: 1\r\n Content-Length: 3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "X-No-Colon\r\n",
        ": no name\r\n",
        "Bad Name: 1\r\n",
    ] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("POST /", fields) + "3\r\nabc\r\n0\r\n\r\n" + &head("GET /smuggled", "")).await;
        let reply = wire.reply().await;
        assert!(matches!(reply.status, 400 | 413 | 501), "{fields:?} {reply:?}");
        assert!(wire.rest().await.is_empty(), "{fields:?}: nothing else on this connection is answered");
    }
    assert!(upstream.arrived().is_empty(), "{:?}", upstream.arrived());
}

#[tokio::test]
async fn r39_content_length_besides_transfer_encoding_smuggles_nothing() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream.url()).await;
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: Chunked\r\nConnection: keep-alive\r\n",
    ] {
        let before = upstream.arrived().len();
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("POST /first", fields) + "3\r\nabc\r\n0\r\n\r\n" + &head("GET /smuggled", "")).await;
        wire.reply().await;
        assert!(wire.rest().await.is_empty(), "{fields:?}: the connection ends after it (RFC 9112 §6.1)");
        for arrived in &upstream.arrived()[before..] {
            assert_eq!(arrived.target, "/first");
            assert!(!arrived.headers.contains_key("content-length"), "{fields:?}");
            assert_eq!(arrived.body, "abc");
        }
        assert!(upstream.arrived().len() <= before + 1, "{fields:?}");
    }
}

#[tokio::test]
async fn r39_connection_cannot_take_the_framing_away() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream.url()).await;
    let body = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in ["Connection: content-length\r\n", "Connection: close, Content-Length\r\n"] {
        let before = upstream.arrived().len();
        let request = head("POST /first", &format!("{fields}Content-Length: {}\r\n", body.len())) + body;
        assert_eq!(ask(gateway.address, request).await.status, 200);
        let arrived = &upstream.arrived()[before..];
        assert_eq!((arrived.len(), arrived[0].target.as_str()), (1, "/first"));
        assert_eq!(arrived[0].body, body);
    }
    for method in ["GET", "DELETE", "POST", "OPTIONS"] {
        let before = upstream.arrived().len();
        let fields = "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n";
        let request =
            head(&format!("{method} /first"), fields) + &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        assert_eq!(ask(gateway.address, request).await.status, 200);
        let arrived = &upstream.arrived()[before..];
        assert_eq!((arrived.len(), arrived[0].target.as_str()), (1, "/first"));
        assert_eq!(arrived[0].body, body, "{method}");
    }
}

#[tokio::test]
async fn r39_a_body_that_breaks_off_or_has_faulty_chunks_never_ends_well_upstream() {
    for (fields, body) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nxyz\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nffffffffffffffffff\r\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = open(&format!("http://{}", listener.local_addr().unwrap())).await;
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("POST /", fields) + body).await;
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("abc") {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
        wire.stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut seen).await;
        let seen = String::from_utf8_lossy(&seen);
        assert!(!seen.ends_with("0\r\n\r\n"), "{body:?}: {seen}");
        assert_eq!(seen.matches("HTTP/1.1").count(), 1);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream.url()).await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /1", "") + &head("POST /2", "Content-Length: 2\r\n") + "ab" + &head("GET /3", ""))
        .await;
    for expected in ["/1", "/2", "/3"] {
        assert_eq!(wire.reply().await.text(), format!("{{\"path\":\"{expected}\"}}"));
    }
}

#[tokio::test]
async fn r39_bytes_behind_an_answer_never_become_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap())).await;
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            count += 1;
            tokio::spawn(async move {
                loop {
                    let mut seen = Vec::new();
                    while !seen.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{count}");
                    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
                    stream.write_all(format!("{answer}{forged}").as_bytes()).await.unwrap();
                }
            });
        }
    });
    let mut wire = Wire::connect(gateway.address).await;
    for _ in 0..5 {
        wire.send(head("GET /", "")).await;
        let reply = wire.reply().await;
        assert_ne!(reply.text(), "forged");
    }
}

#[tokio::test]
async fn r39_a_connection_whose_framing_was_doubtful_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = open(&format!("http://{}", listener.local_addr().unwrap())).await;
    let mut still_open = Vec::new();
    for (answer, status) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502),
        ("Transfer-Encoding: identity, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502),
        ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502),
        ("Content-Length: 3\r\n\r\nabc", 200),
    ] {
        let answered = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes()).await.unwrap();
            stream
        };
        // Each comes on a connection of its own, though the last one stays open.
        let (reply, stream) = tokio::join!(ask(gateway.address, head("GET /", "")), in_time(answered));
        assert_eq!(reply.status, status, "{answer}");
        still_open.push(stream);
    }
}
