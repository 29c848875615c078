//! A gateway that is asked to stop: what runs is finished, nothing new begins, and the grace is the end.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::browser::{Browser, admin};
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Body, Upstream, full};
use crate::support::wait::{in_time, until};
use crate::support::websocket_client::WebSocketClient;
use crate::support::websocket_echo::{Spoken, WebSocketEcho};
use crate::support::wire::{Wire, ask, head, read_head};

/// Close with 1001 (RFC 6455 §7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// An upstream whose answers the test gives, one by one.
async fn held() -> (Upstream, mpsc::UnboundedReceiver<tokio::sync::oneshot::Sender<Response<Body>>>) {
    let (came, requests) = mpsc::unbounded_channel();
    let upstream = Upstream::raw(move |_| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let _ = came.send(answer);
        async move { answered.await.unwrap_or_else(|_| full("")) }
    })
    .await;
    (upstream, requests)
}

fn channel_body(mut frames: mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>) -> Body {
    StreamBody::new(futures_util::stream::poll_fn(move |context| frames.poll_recv(context))).boxed_unsync()
}

fn setup(upstream: &Upstream, grace: &str) -> Setup {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = format!("shutdown_grace: {grace}");
    setup
}

async fn until_refused(gateway: &Gateway) {
    until(async || TcpStream::connect(gateway.address).await.is_err()).await;
}

#[tokio::test]
async fn requests_under_way_are_finished_and_idle_connections_closed() {
    let (upstream, mut requests) = held().await;
    let mut gateway = setup(&upstream, "30s").start().await;
    let mut idle = Wire::connect(gateway.address).await;
    idle.send(head("GET /", "")).await;
    in_time(requests.recv()).await.unwrap().send(full("first")).unwrap();
    assert_eq!(idle.reply().await.text(), "first");
    let mut busy = Wire::connect(gateway.address).await;
    busy.send(head("GET /", "")).await;
    let answer = in_time(requests.recv()).await.unwrap();

    gateway.begin_stop();
    assert!(idle.rest().await.is_empty(), "closed");
    until_refused(&gateway).await;
    answer.send(full("last")).unwrap();
    let reply = busy.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "last"));
    assert!(busy.rest().await.is_empty(), "nothing more is taken on this connection");
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn who_has_just_connected_still_gets_one_answer_and_who_says_nothing_holds_nobody_up() {
    for h2c in ["h2c: true\n", ""] {
        let upstream = Upstream::start().await;
        let mut setup = setup(&upstream, "1h");
        setup.server.insert_str(0, h2c);
        let mut gateway = setup.start().await;
        let mut connected = Wire::connect(gateway.address).await;
        let mut silent = Wire::connect(gateway.address).await;
        // In their order, so that both have been accepted.
        assert_eq!(ask(gateway.address, head("GET /", "")).await.status, 200);
        gateway.begin_stop();
        assert_eq!(admin(gateway.admin, "/livez").await.0, 200);
        connected.send(head("GET /", "")).await;
        let reply = connected.reply().await;
        assert_eq!((reply.status, reply.field("connection")), (200, Some("close")));
        assert!(connected.rest().await.is_empty());
        assert!(silent.rest().await.is_empty());
        in_time(gateway.stop()).await;
    }
}

#[tokio::test]
async fn event_streams_and_tunnels_end_while_a_request_is_still_answered() {
    let (upstream, mut requests) = held().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = setup(&upstream, "1h").route(&websocket_route(listener.local_addr().unwrap()));
    let mut gateway = setup.start().await;
    let mut listening = Wire::connect(gateway.address).await;
    listening.send(head("GET /", "")).await;
    let (_events, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let mut events = Response::new(channel_body(receiver));
    events.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    in_time(requests.recv()).await.unwrap().send(events).unwrap();
    assert_eq!(listening.reply_head().await.status, 200);
    let (mut tunnel, stream) = open_tunnel(gateway.address, &listener).await;
    let mut server = Wire::over(stream);
    let mut busy = Wire::connect(gateway.address).await;
    busy.send(head("GET /", "")).await;
    let answer = in_time(requests.recv()).await.unwrap();

    gateway.begin_stop();
    assert_eq!(in_time(listening.rest()).await, b"0\r\n\r\n", "it ends as it should");
    assert_eq!(tunnel.exactly(4).await.unwrap(), GOING_AWAY);
    let to_server = server.exactly(8).await.unwrap();
    assert_eq!(to_server[..2], [0x88, 0x82], "masked, as all that a client sends");
    // Whoever answers a goodbye has its connection closed; who does not, in a moment.
    tunnel.send([0x88, 0x80, 0, 0, 0, 0]).await;
    server.send([0x88, 0]).await;
    assert!(in_time(tunnel.rest()).await.is_empty());
    assert!(in_time(server.rest()).await.is_empty());
    answer.send(full("last")).unwrap();
    assert_eq!(busy.reply().await.text(), "last");
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn a_goodbye_tears_no_frame_and_none_is_said_behind_another() {
    let (upstream, _requests) = held().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = setup(&upstream, "1h").route(&websocket_route(listener.local_addr().unwrap()));
    let mut gateway = setup.start().await;
    let (mut talking, mut talker) = open_tunnel(gateway.address, &listener).await;
    let (mut parting, mut parter) = open_tunnel(gateway.address, &listener).await;
    // Half a message, and half a goodbye.
    talker.write_all(&[0x81, 4, b'h', b'a']).await.unwrap();
    assert_eq!(talking.exactly(4).await.unwrap(), [0x81, 4, b'h', b'a']);
    parter.write_all(&[0x88, 2, 0x03]).await.unwrap();
    assert_eq!(parting.exactly(3).await.unwrap(), [0x88, 2, 0x03]);

    gateway.begin_stop();
    assert_eq!(close_of_client(&mut talker).await, [0x88, 0x82], "the other direction is between two frames");
    assert_eq!(close_of_client(&mut parter).await, [0x88, 0x82]);
    talker.write_all(&[b'l', b'f', 0x81, 1, b'x', 0x88, 0]).await.unwrap();
    parter.write_all(&[0xe8]).await.unwrap();
    assert_eq!(
        talking.exactly(6).await.unwrap(),
        [&b"lf"[..], &GOING_AWAY].concat(),
        "and no further message"
    );
    assert_eq!(parting.exactly(1).await.unwrap(), [0xe8]);
    assert!(in_time(talking.rest()).await.is_empty());
    assert!(in_time(parting.rest()).await.is_empty());
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn where_a_balancer_looks_tunnels_have_the_grace_and_end_one_after_another() {
    let (upstream, echo) = (Upstream::start().await, WebSocketEcho::start(Spoken::Http1).await);
    let setup = setup(&upstream, "6s").route(&websocket_route(echo.address));
    let mut gateway = setup.start().await;
    assert_eq!(admin(gateway.admin, "/readyz").await.0, 200, "somebody looks");
    let mut tunnels = Vec::new();
    for _ in 0..20 {
        tunnels.push(WebSocketClient::open(gateway.address, "/ws", "").await.unwrap());
    }
    gateway.begin_stop();
    until_refused(&gateway).await;
    let (mut codes, mut alive) = (Vec::new(), 0);
    for tunnel in &mut tunnels {
        match in_time(tunnel.exchange("still here")).await {
            Ok(()) => alive += 1,
            Err(code) => codes.push(code),
        }
    }
    assert!(alive > 0, "some go on though nobody can connect any more");
    for tunnel in &mut tunnels {
        codes.push(in_time(tunnel.closed()).await);
    }
    let said_goodbye = codes.iter().filter(|code| **code == 1001).count();
    assert_eq!(said_goodbye, tunnels.len(), "{codes:?}");
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn during_the_notice_each_answer_is_the_last_of_its_connection() {
    let upstream = Upstream::start().await;
    let mut gateway = setup(&upstream, "6s").start().await;
    assert_eq!(admin(gateway.admin, "/readyz").await.0, 200, "somebody looks");
    let mut wire = Wire::connect(gateway.address).await;
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.field("connection"), None);
    gateway.begin_stop();
    until(async || admin(gateway.admin, "/readyz").await.0 == 503).await;
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.field("connection"), Some("close"));
    assert!(wire.rest().await.is_empty());
    // Who connects all the same is served, too.
    let reply = ask(gateway.address, head("GET /", "")).await;
    assert_eq!((reply.status, reply.field("connection")), (200, Some("close")));
    in_time(gateway.stop()).await;
}

#[tokio::test]
async fn a_second_signal_ends_the_program_at_once_with_1() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let (upstream, mut requests) = held().await;
        let mut process = setup(&upstream, "1h").start_process().await;
        let mut hanging = Wire::connect(process.address).await;
        hanging.send(head("GET /", "")).await;
        let _never_answered = in_time(requests.recv()).await.unwrap();
        process.signal(first);
        until(async || TcpStream::connect(process.address).await.is_err()).await;
        assert!(process.runs(), "it waits for the answer");
        process.signal(second);
        assert!(hanging.rest().await.is_empty());
        let (code, lines) = process.ended().await;
        assert_eq!(code, Some(1), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("a second signal came")), "{lines:?}");
    }
}

#[tokio::test]
async fn the_program_exits_with_0_once_what_ran_is_finished() {
    let (upstream, mut requests) = held().await;
    let mut process = setup(&upstream, "30s").start_process().await;
    let mut busy = Wire::connect(process.address).await;
    busy.send(head("GET /", "")).await;
    let answer = in_time(requests.recv()).await.unwrap();
    process.signal("TERM");
    until(async || TcpStream::connect(process.address).await.is_err()).await;
    assert!(process.runs(), "it waits for the answer");
    answer.send(full("last")).unwrap();
    assert_eq!(busy.reply().await.text(), "last");
    assert_eq!(process.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_off_with_the_grace() {
    let (upstream, mut requests) = held().await;
    let process = setup(&upstream, "300ms").start_process().await;
    let mut hanging = Wire::connect(process.address).await;
    hanging.send(head("GET /", "")).await;
    let _never_answered = in_time(requests.recv()).await.unwrap();
    process.signal("TERM");
    assert!(hanging.rest().await.is_empty());
    assert_eq!(process.ended().await.0, Some(0));
}

#[tokio::test]
async fn an_interrupt_stops_it_too_and_a_tunnel_does_not_hold_it_up() {
    let (issuer, site) = (Issuer::start().await, Upstream::start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut setup = Setup::new(&issuer.url())
        .route(&websocket_route(listener.local_addr().unwrap()))
        .for_anybody("/", &site.url());
    setup.server = "shutdown_grace: 1h".to_owned();
    let process = setup.start_process().await;
    Browser::new(process.address).log_in("/").await;
    let (mut tunnel, _server) = open_tunnel(process.address, &listener).await;
    process.signal("INT");
    assert_eq!(tunnel.rest().await, GOING_AWAY, "nobody answers the goodbye");
    assert_eq!(process.ended().await.0, Some(0));
}

fn websocket_route(server: SocketAddr) -> String {
    format!("path: /ws, upstream: \"http://{server}\", websocket: true, auth: none")
}

/// Both ends of a tunnel: the browser's, and the server's behind the gateway.
async fn open_tunnel(gateway: SocketAddr, server: &TcpListener) -> (Wire, TcpStream) {
    let mut wire = Wire::connect(gateway).await;
    let upgrade = "Origin: https://shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    wire.send(head("GET /ws", upgrade)).await;
    let (mut stream, _) = in_time(server.accept()).await.unwrap();
    read_head(&mut stream).await;
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(switched).await.unwrap();
    assert_eq!(wire.reply().await.status, 101);
    (wire, stream)
}

/// How the masked Close begins that comes next.
async fn close_of_client(stream: &mut TcpStream) -> [u8; 2] {
    let mut close = [0; 8];
    in_time(stream.read_exact(&mut close)).await.unwrap();
    [close[0], close[1]]
}
