//! Connections to an upstream: kept and used again while nothing about them is in doubt, and only then (R39).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, ask, head, read_head};

/// A server that serves each of its connections as the test says, and counts them.
struct Server {
    url: String,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// `serve` gets a connection and its number, counted from 1.
    async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(stream, number));
            }
        });
        Self { url, accepted }
    }

    /// Answers every request with these bytes, in which `N` stands for the connection's number.
    async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut stream, number| async move {
            while next_request(&mut stream).await {
                let answer = answer.replace('N', &number.to_string());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Whether one more head came before the connection ended.
async fn next_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|part| part == b"\r\n\r\n") {
        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

async fn open(server: &Server) -> Gateway {
    Setup::new(NO_ISSUER).for_anybody("/", &server.url).start().await
}

#[tokio::test]
async fn one_connection_serves_requests_one_after_another() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nN",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nN\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nN",
    ] {
        let server = Server::answering(answer).await;
        let gateway = open(&server).await;
        for _ in 0..5 {
            let reply = ask(gateway.address, head("GET /", "")).await;
            assert!(reply.whole && matches!(reply.status, 200 | 204 | 304), "{reply:?}");
            assert!(matches!(reply.text().as_str(), "1" | ""), "{reply:?}");
        }
        assert_eq!(server.accepted(), 1, "{answer}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_have_connections_of_their_own_which_serve_the_next() {
    const AT_ONCE: usize = 5;
    let all_are_here = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let server = Server::start(move |mut stream, _| {
        let all_are_here = Arc::clone(&all_are_here);
        async move {
            while next_request(&mut stream).await {
                all_are_here.wait().await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    let gateway = open(&server).await;
    for _ in 0..3 {
        let replies = (0..AT_ONCE).map(|_| ask(gateway.address, head("GET /", "")));
        for reply in futures_util::future::join_all(replies).await {
            assert_eq!(reply.text(), "ok");
        }
    }
    assert_eq!(server.accepted(), AT_ONCE);
}

#[tokio::test]
async fn a_body_larger_than_any_buffer_leaves_its_connection_usable() {
    let server = Server::start(|mut stream, number| async move {
        while next_request(&mut stream).await {
            let body = number.to_string().repeat(3_000_000);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    for _ in 0..3 {
        let reply = ask(gateway.address, head("GET /", "")).await;
        assert_eq!(reply.body, vec![b'1'; 3_000_000]);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_costs_nobody_a_request() {
    let (closed, mut has_closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            next_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
            closed.send(()).unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    for line in ["GET /", "POST /", "POST /", "PATCH /", "GET /"] {
        let reply = ask(gateway.address, head(line, "Content-Length: 0\r\n")).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{line}");
        in_time(has_closed.recv()).await.unwrap();
    }
    assert_eq!(server.accepted(), 5);
}

#[tokio::test]
async fn a_body_is_sent_whole_though_the_kept_connection_was_closed() {
    let (closed, mut has_closed) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, number| {
        let closed = closed.clone();
        async move {
            let mut seen = read_head(&mut stream).await;
            while number == 2 && !seen.ends_with(b"0\r\n\r\n") {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.len());
            stream.write_all(&[answer.as_bytes(), &seen].concat()).await.unwrap();
            stream.shutdown().await.unwrap();
            closed.send(()).unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    ask(gateway.address, head("GET /", "")).await;
    in_time(has_closed.recv()).await.unwrap();
    let request = head("POST /", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    let seen = ask(gateway.address, request).await.text();
    assert!(seen.ends_with("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn what_the_server_may_have_processed_is_not_sent_again() {
    for line in ["GET /", "PUT /", "POST /"] {
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let server = Server::start(move |mut stream, _| {
            let counter = Arc::clone(&counter);
            async move {
                next_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                // The next one is read, and not answered.
                next_request(&mut stream).await;
                counter.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await;
        let gateway = open(&server).await;
        assert_eq!(ask(gateway.address, head("GET /", "")).await.status, 200);
        let reply = ask(gateway.address, head(line, "")).await;
        assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"), "{line}");
        assert_eq!((requests.load(Ordering::SeqCst), server.accepted()), (1, 1), "{line}");
    }
}

#[tokio::test]
async fn r39_what_a_server_says_unasked_is_no_answer() {
    let (sent, mut was_sent) = mpsc::unbounded_channel();
    let passed_on = Arc::new(Notify::new());
    let is_passed_on = Arc::clone(&passed_on);
    let server = Server::start(move |mut stream, number| {
        let (sent, is_passed_on) = (sent.clone(), Arc::clone(&is_passed_on));
        async move {
            while next_request(&mut stream).await {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                is_passed_on.notified().await;
                let forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
                let _ = stream.write_all(forged).await;
                sent.send(()).unwrap();
            }
        }
    })
    .await;
    let gateway = open(&server).await;
    for expected in 1..=4 {
        let reply = ask(gateway.address, head("POST /", "Content-Length: 0\r\n")).await;
        assert_eq!(reply.text(), expected.to_string());
        passed_on.notify_one();
        in_time(was_sent.recv()).await.unwrap();
    }
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn r39_an_answer_that_nobody_reads_to_its_end_is_not_read_by_somebody_else() {
    let server = Server::start(|mut stream, number| async move {
        while next_request(&mut stream).await {
            let body = number.to_string().repeat(30_000_000);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    })
    .await;
    let gateway = open(&server).await;
    let mut leaving = Wire::connect(gateway.address).await;
    leaving.send(head("GET /", "")).await;
    leaving.reply_head().await;
    drop(leaving);
    let mut next = Wire::connect(gateway.address).await;
    next.send(head("GET /", "")).await;
    assert_eq!(next.reply_head().await.status, 200);
    assert_eq!(next.exactly(5).await.unwrap(), b"22222");
}

#[tokio::test]
async fn r39_a_request_half_sent_when_it_was_answered_is_not_the_beginning_of_the_next() {
    let server = Server::start(|mut stream, number| async move {
        // What comes of the body stays unread.
        while next_request(&mut stream).await {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    let mut sending = Wire::connect(gateway.address).await;
    sending.send(head("POST /", "Content-Length: 100\r\n")).await;
    assert_eq!(sending.reply().await.text(), "1");
    for _ in 0..3 {
        assert_eq!(ask(gateway.address, head("GET /", "")).await.text(), "2");
    }
    drop(sending);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_its_fields_say() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-Link: N\r\n\r\n").await;
    let gateway = open(&server).await;
    for _ in 0..3 {
        let mut wire = Wire::connect(gateway.address).await;
        wire.send(head("HEAD /", "")).await;
        let reply = wire.reply_head().await;
        assert_eq!((reply.field("content-length"), reply.field("x-link")), (Some("7"), Some("1")));
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_its_server_wants_to_close_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nN",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\nN",
        "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nN",
        // A body of unknown length, such as any client may send, could not be sent there any more.
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nN",
    ] {
        let server = Server::answering(answer).await;
        let gateway = open(&server).await;
        for expected in 1..=3 {
            let request = head("POST /", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n";
            assert_eq!(ask(gateway.address, request).await.text(), expected.to_string(), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_kept_in_memory() {
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            next_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            let mut sent = 0;
            while stream.write_all(b"X-Field: 0123456789abcdef0123456789abcdef\r\n").await.is_ok() {
                sent += 40;
            }
            ended.send(sent).unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"));
    in_time(has_ended.recv()).await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_before_their_server_would() {
    let (ended, mut has_ended) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            while next_request(&mut stream).await {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
            ended.send(()).unwrap();
        }
    })
    .await;
    let gateway = open(&server).await;
    ask(gateway.address, head("GET /", "")).await;
    assert!(has_ended.try_recv().is_err(), "it is kept at first");
    in_time(has_ended.recv()).await.unwrap();
    until(async || server.accepted() == 1).await;
}

#[tokio::test]
async fn an_answer_with_more_than_a_hundred_fields_is_502_and_ends_its_connection() {
    let server = Server::start(|mut stream, _| async move {
        while next_request(&mut stream).await {
            let fields = "X-Many: 1\r\n".repeat(101);
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let gateway = open(&server).await;
    for _ in 0..2 {
        let reply = ask(gateway.address, head("POST /", "Content-Length: 0\r\n")).await;
        assert_eq!((reply.status, reply.problem().as_str()), (502, "upstream-unavailable"));
    }
    assert_eq!(server.accepted(), 2);
}
