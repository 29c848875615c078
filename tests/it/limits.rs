//! What a client may use up, from its first byte on (R65). Times are small, and nothing is said of how
//! long anything took: it ends, or it stays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::upstream::{Upstream, full};
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, ask, head};

async fn limited(upstream: &Upstream, limits: &str) -> Gateway {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    limits.clone_into(&mut setup.limits);
    setup.start().await
}

/// Sends a byte ten times a second until the connection ends; fails where it does not.
async fn drip(wire: &mut Wire, byte: &str) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..200 {
        ticks.tick().await;
        if !wire.try_send(byte).await {
            return;
        }
    }
    panic!("it took every byte");
}

#[tokio::test]
async fn r65_a_silent_connection_is_closed() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "header_timeout: 200ms").await;
    assert!(Wire::connect(gateway.address).await.rest().await.is_empty());
    let mut half = Wire::connect(gateway.address).await;
    half.send("GET / HTTP/1.1\r\nHost: sh").await;
    half.rest().await;
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r65_a_head_that_drips_in_is_cut_off_first_and_later() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "header_timeout: 1s").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("GET / HTTP/1.1\r\nX: ").await;
    drip(&mut wire, "a").await;

    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.status, 200);
    wire.send("GET / HTTP/1.1\r\nX: ").await;
    drip(&mut wire, "a").await;
    assert_eq!(upstream.arrived().len(), 1);
}

#[tokio::test]
async fn a_connection_may_be_quiet_between_requests_for_longer_than_a_head_may_take() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "header_timeout: 500ms").await;
    let mut wire = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        wire.send(head("GET /", "")).await;
        assert_eq!(wire.reply().await.status, 200);
        // This one is silent, and is cut off; the other is still there.
        Wire::connect(gateway.address).await.rest().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_quiet_for_seconds_goes_on_as_before() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.clone())).await;
    let mut gateway = limited(&upstream, "header_timeout: 3s").await;
    let mut wire = Wire::connect(gateway.address).await;
    for _ in 0..2 {
        wire.send(head("POST /", "Content-Length: 3\r\n") + "abc").await;
        assert_eq!(wire.reply().await.text(), "abc");
        // This one is silent, and is cut off; the other has given back meanwhile what it does not need.
        Wire::connect(gateway.address).await.rest().await;
    }
    gateway.begin_stop();
    assert!(wire.rest().await.is_empty());
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn r65_the_rest_of_a_body_is_no_request_however_long_ago_it_was_answered() {
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    let upstream = Upstream::raw(move |request| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        // It answers early, and reads on.
        tokio::spawn(request.into_body().collect());
        async { full("early") }
    })
    .await;
    let gateway = limited(&upstream, "header_timeout: 3s").await;
    let smuggled = head("GET /smuggled", "");
    let length = smuggled.len() + 3;
    for (framing, begin, end) in [
        (format!("Content-Length: {length}\r\n"), "abc".to_owned(), ""),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\nabc"), "\r\n0\r\n\r\n"),
    ] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("POST /first", &framing) + &begin).await;
        assert_eq!(wire.reply().await.text(), "early");
        // This one is silent, and is cut off; the other could have given back meanwhile what it does not need.
        Wire::connect(gateway.address).await.rest().await;
        wire.send(smuggled.clone() + end).await;
        wire.send(head("GET /after", "")).await;
        assert_eq!(wire.reply().await.text(), "early");
        assert_eq!(std::mem::take(&mut *paths.lock().unwrap()), ["/first", "/after"], "{framing}");
    }
}

#[tokio::test]
async fn r65_between_requests_the_idle_time_holds() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "idle_timeout: 700ms").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.status, 200);
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn r65_a_body_that_stands_still_is_cut_off() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "idle_timeout: 700ms").await;
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("POST /", framing) + "3\r\nabc").await;
        wire.rest().await;
    }
}

#[tokio::test]
async fn a_slow_body_that_moves_is_let_through() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.clone())).await;
    let gateway = limited(&upstream, "idle_timeout: 2s\nheader_timeout: 1s").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("POST /", "Content-Length: 24\r\n")).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..24 {
        ticks.tick().await;
        wire.send("x").await;
    }
    assert_eq!(wire.reply().await.text(), "x".repeat(24));
}

#[tokio::test]
async fn who_waits_for_the_upstream_is_not_idle() {
    let answers = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&answers);
    let upstream = Upstream::raw(move |request| {
        let held = Arc::clone(&held);
        async move {
            let is_slow = request.uri().path() == "/slow";
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if is_slow {
                held.acquire().await.unwrap().forget();
            }
            full(body)
        }
    })
    .await;
    let gateway = limited(&upstream, "idle_timeout: 500ms").await;
    for (line, fields, body) in [
        ("GET /slow", "", ""),
        ("POST /slow", "Content-Length: 3\r\n", "abc"),
        ("POST /slow", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head(line, fields) + body).await;
        // Another connection's idle time passes twice meanwhile.
        for _ in 0..2 {
            let mut other = Wire::connect(gateway.address).await;
            other.send(head("GET /", "")).await;
            other.reply().await;
            other.rest().await;
        }
        answers.add_permits(1);
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.whole), (200, true), "{line} {fields}");
    }
}

#[tokio::test]
async fn r65_a_reader_that_stands_still_is_cut_off() {
    const LARGE: usize = 50 * 1024 * 1024;
    let upstream = Upstream::answering(|_| full(vec![b'x'; LARGE])).await;
    let gateway = limited(&upstream, "idle_timeout: 1s").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    let reply = wire.reply_head().await;
    assert_eq!(reply.field("content-length"), Some(LARGE.to_string().as_str()));
    // Another connection's idle time passes twice, and this one has not read a byte.
    for _ in 0..2 {
        let mut other = Wire::connect(gateway.address).await;
        other.send(head("HEAD /", "")).await;
        other.reply_head().await;
        other.rest().await;
    }
    assert!(wire.exactly(LARGE).await.is_none(), "the body was cut");
}

#[tokio::test]
async fn r65_one_connection_too_many_is_told_so_and_places_become_free_again() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "connections: 2").await;
    let mut first = Wire::connect(gateway.address).await;
    first.send(head("GET /", "")).await;
    first.reply().await;
    let second = Wire::connect(gateway.address).await;
    for request in
        [String::new(), head("GET /", ""), head("POST /", "Content-Length: 60000\r\n") + &"x".repeat(60_000)]
    {
        let mut third = Wire::connect(gateway.address).await;
        third.try_send(&request).await;
        let reply = third.reply().await;
        assert_eq!((reply.status, reply.problem()), (503, "overloaded".to_owned()));
        assert!(reply.field("retry-after").is_some() && reply.whole, "{reply:?}");
        assert!(third.rest().await.is_empty());
    }
    first.send(head("GET /", "")).await;
    assert_eq!(first.reply().await.status, 200, "those who have a place keep it");
    drop(second);
    until(async || ask(gateway.address, head("GET /", "")).await.status == 200).await;
}

#[tokio::test]
async fn r65_one_client_leaves_places_for_others_and_a_trusted_proxy_has_them_all() {
    let upstream = Upstream::start().await;
    for (trusted, is_limited) in [("10.0.0.0/8", true), ("127.0.0.2", false)] {
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
        setup.server = format!("trusted_proxies: [{trusted}]");
        setup.limits = "connections_per_client: 2".to_owned();
        let gateway = setup.start().await;
        let connect = async || Wire::connect_from([127, 0, 0, 2].into(), gateway.address).await;
        let (first, mut second, mut third) = (connect().await, connect().await, connect().await);
        second.send(head("GET /", "")).await;
        assert_eq!(second.reply().await.status, 200);
        third.try_send(head("GET /", "")).await;
        let reply = third.reply().await;
        assert_eq!(reply.status, if is_limited { 503 } else { 200 });
        assert_eq!(ask(gateway.address, head("GET /", "")).await.status, 200, "another client");
        drop(first);
        until(async || {
            let mut next = connect().await;
            next.try_send(head("GET /", "")).await && next.reply().await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn r65_fields_beyond_their_number_are_431() {
    let upstream = Upstream::start().await;
    for (limits, most) in [("", 100), ("header_count: 20", 20), ("header_count: 150", 150)] {
        let gateway = limited(&upstream, limits).await;
        for (fields, status) in [(most, 200), (most + 1, 431)] {
            // `Host` is one of them.
            let fields: String = (1..fields).map(|at| format!("X-{at}: 1\r\n")).collect();
            assert_eq!(ask(gateway.address, head("GET /", &fields)).await.status, status, "{limits}");
        }
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_answered_with_a_status_alone_and_the_end() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "header_count: 20").await;
    let many = "X: 1\r\n".repeat(20);
    for (request, status) in
        [("GET / HTTP/1.1\r\nHost app\r\n\r\n".to_owned(), "400 "), (head("GET /", &many), "431 ")]
    {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(&request).await;
        let answer = String::from_utf8(wire.rest().await).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("content-type"), "{answer}");
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r65_a_connection_that_may_become_http_2_is_silent_no_longer_than_others() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = "h2c: true".to_owned();
    setup.limits = "header_timeout: 1s".to_owned();
    let gateway = setup.start().await;
    for begin in ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "P", "POST / HT"] {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(begin).await;
        wire.rest().await;
    }
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("PRI ").await;
    drip(&mut wire, "x").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("P").await;
    wire.send(&head("POST /", "Content-Length: 0\r\n")[1..]).await;
    assert_eq!(wire.reply().await.status, 200);
}

#[tokio::test]
async fn http_2_without_tls_is_refused_where_it_is_not_configured() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "").await;
    let mut wire = Wire::connect(gateway.address).await;
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let rest = wire.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{}", rest.escape_ascii());
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r65_a_head_larger_than_the_limit_is_431() {
    let upstream = Upstream::start().await;
    for (limits, size, status) in [
        ("header_bytes: 8KiB", 7 * 1024, 200),
        ("header_bytes: 8KiB", 9 * 1024, 431),
        ("header_bytes: 8KiB", 300 * 1024, 431),
        ("", 60 * 1024, 200),
        ("", 66 * 1024, 431),
        ("header_bytes: 256KiB", 200 * 1024, 200),
    ] {
        let gateway = limited(&upstream, limits).await;
        let before = upstream.arrived().len();
        let mut wire = Wire::connect(gateway.address).await;
        wire.try_send(head("GET /", &format!("X: {}\r\n", "x".repeat(size)))).await;
        assert_eq!(wire.reply().await.status, status, "{limits} {size}");
        assert_eq!(upstream.arrived().len() - before, usize::from(status == 200));
    }
    let gateway = limited(&upstream, "").await;
    let many: String = (0..1000).map(|at| format!("X-{at}: 1\r\n")).collect();
    assert_eq!(ask(gateway.address, head("GET /", &many)).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\n\r\n", "x".repeat(70 * 1024));
    let mut wire = Wire::connect(gateway.address).await;
    wire.try_send(long).await;
    assert!(matches!(wire.reply().await.status, 414 | 431));
}

#[tokio::test]
async fn r65_a_body_larger_than_the_limit_is_413() {
    let upstream = Upstream::answering(|arrived| full(arrived.body.len().to_string())).await;
    let gateway = limited(&upstream, "body_bytes: 1000").await;
    let chunks = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, status) in [
        (head("POST /", "Content-Length: 1000\r\n") + &"x".repeat(1000), 200),
        (head("POST /", "Content-Length: 1001\r\n") + &"x".repeat(1001), 413),
        (head("POST /", "Content-Length: 1001\r\nExpect: 100-continue\r\n"), 413),
        (head("POST /", "Content-Length: 99999999999\r\n"), 413),
        (head("POST /", chunked) + &chunks(600) + &chunks(400) + "0\r\n\r\n", 200),
        (head("POST /", chunked) + &chunks(600) + &chunks(401) + "0\r\n\r\n", 413),
        (head("POST /", chunked) + &chunks(600) + &chunks(401), 413),
    ] {
        let before = upstream.arrived().len();
        let reply = ask(gateway.address, &request).await;
        assert_eq!(reply.status, status, "{} {}", &request[..80], reply.text());
        if status == 413 {
            assert_eq!(reply.problem(), "too-large");
            for arrived in &upstream.arrived()[before..] {
                assert!(arrived.body.len() <= 1000);
            }
        }
    }
}

#[tokio::test]
async fn r65_a_client_that_is_still_sending_hears_that_its_body_is_too_large() {
    let upstream = Upstream::start().await;
    let gateway = limited(&upstream, "body_bytes: 1KiB").await;
    const SIZE: usize = 20 * 1024 * 1024;
    for framing in [format!("Content-Length: {SIZE}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned()] {
        let wire = Wire::connect(gateway.address).await;
        let mut whole = head("POST /", &framing);
        if framing.starts_with('T') {
            whole += &format!("{SIZE:x}\r\n");
        }
        // As a browser does, which reads nothing before all is sent.
        let (read, mut write) = wire.stream.into_split();
        let sent = in_time(async {
            write.write_all(whole.as_bytes()).await?;
            write.write_all(&vec![b'x'; SIZE]).await
        });
        let sent = sent.await;
        let mut answer = Vec::new();
        let mut read = read;
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(sent.is_ok() && answer.starts_with("HTTP/1.1 413"), "{sent:?} {answer}");
    }
}
