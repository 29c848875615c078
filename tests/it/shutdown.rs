//! A gateway that is asked to stop: what runs is finished, nothing new begins, and the grace is the end.

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::{Body, Upstream, full};
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, head, read_head};

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
async fn event_streams_and_tunnels_end_while_a_request_is_still_answered() {
    let (upstream, mut requests) = held().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = setup(&upstream, "1h").route(&format!(
        "path: /ws, upstream: \"http://{}\", websocket: true, auth: none",
        listener.local_addr().unwrap()
    ));
    let mut gateway = setup.start().await;
    let mut listening = Wire::connect(gateway.address).await;
    listening.send(head("GET /", "")).await;
    let (_events, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let mut events = Response::new(channel_body(receiver));
    events.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    in_time(requests.recv()).await.unwrap().send(events).unwrap();
    assert_eq!(listening.reply_head().await.status, 200);
    let mut tunnel = Wire::connect(gateway.address).await;
    let upgrade = "Origin: https://shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    tunnel.send(head("GET /ws", upgrade)).await;
    let (mut stream, _) = in_time(listener.accept()).await.unwrap();
    read_head(&mut stream).await;
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, switched).await.unwrap();
    assert_eq!(tunnel.reply().await.status, 101);
    let mut busy = Wire::connect(gateway.address).await;
    busy.send(head("GET /", "")).await;
    let answer = in_time(requests.recv()).await.unwrap();

    gateway.begin_stop();
    assert_eq!(in_time(listening.rest()).await, b"0\r\n\r\n", "it ends as it should");
    assert!(in_time(tunnel.rest()).await.is_empty());
    answer.send(full("last")).unwrap();
    assert_eq!(busy.reply().await.text(), "last");
    in_time(gateway.stop()).await;
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
        .route(&format!(
            "path: /ws, upstream: \"http://{}\", websocket: true, auth: none",
            listener.local_addr().unwrap()
        ))
        .for_anybody("/", &site.url());
    setup.server = "shutdown_grace: 1h".to_owned();
    let process = setup.start_process().await;
    Browser::new(process.address).log_in("/").await;
    let mut wire = Wire::connect(process.address).await;
    wire.send(head("GET /ws", "Origin: https://shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"))
        .await;
    let (mut stream, _) = in_time(listener.accept()).await.unwrap();
    read_head(&mut stream).await;
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    assert_eq!(wire.reply().await.status, 101);
    process.signal("INT");
    assert!(wire.rest().await.is_empty());
    assert_eq!(process.ended().await.0, Some(0));
}
