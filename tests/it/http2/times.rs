//! What a client may leave unfinished, and for how long (R65); and how a connection ends.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::open;
use crate::support::frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, Outcome, PING,
    PREFACE, SETTINGS, frame, get, head, post,
};
use crate::support::http2::{self, Http2, request};
use crate::support::upstream::{Upstream, full};
use crate::support::wait::{in_time, until};

const SHORT: &str = "header_timeout: 1s\nidle_timeout: 1s";

#[tokio::test]
async fn r65_a_client_that_does_not_come_to_the_end_of_a_head_is_cut_off() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "header_timeout: 1s\nidle_timeout: 1h").await;
    let settings = frame(SETTINGS, 0, 0, "");
    let whole = get(1, "/");
    for start in [
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, &settings[..5]].concat(),
        &[PREFACE, &settings, &whole[..4]].concat(),
        &[PREFACE, &settings, &whole[..whole.len() - 1]].concat(),
        // A field block that is to be continued, while frames come that continue nothing.
        &[PREFACE, &settings[..], &frame(HEADERS, END_STREAM, 1, head("GET", "/", &[]))].concat(),
    ] {
        let mut client = Frames::silent(gateway.address).await;
        client.send(start).await;
        // An unfinished preface may be taken for a faulty request in HTTP/1.1.
        let mut rest = Vec::new();
        in_time(tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut rest)).await.unwrap_or(0);
    }
    assert!(upstream.arrived().is_empty());
}

#[tokio::test]
async fn r65_who_is_too_slow_with_a_head_is_told_so() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "header_timeout: 1s\nidle_timeout: 1h").await;
    let mut client = Frames::connect(gateway.address).await;
    client.send(frame(HEADERS, END_STREAM, 1, head("GET", "/", &[]))).await;
    assert_eq!(client.farewell().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_connection_without_requests_ends_after_its_idle_time_whatever_it_says() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, SHORT).await;
    let mut client = Frames::connect(gateway.address).await;
    client.send(get(1, "/")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    let pinging = async {
        while client.try_send(frame(PING, 0, 0, [0; 8])).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    in_time(pinging).await;
}

#[tokio::test]
async fn r65_a_body_that_stands_still_costs_its_stream_and_no_other() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, SHORT).await;
    let mut client = Frames::connect(gateway.address).await;
    client.send([post(1, "/"), frame(DATA, 0, 1, "some")].concat()).await;
    assert_eq!(client.outcome(1).await, Outcome::Reset(CANCEL));
    client.send(get(3, "/")).await;
    assert_eq!(client.outcome(3).await, Outcome::Status(200));
}

#[tokio::test]
async fn r65_a_client_that_takes_nothing_of_an_answer_loses_its_stream_and_no_other() {
    let upstream = Upstream::answering(|_| full(vec![0; 1_000_000])).await;
    let gateway = open(&upstream, SHORT).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: nothing may be sent at all.
    let mut client = Frames::with_settings(gateway.address, &[(4, 0)]).await;
    client.send(get(1, "/")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    assert_eq!(client.outcome(1).await, Outcome::Reset(CANCEL));
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, head("HEAD", "/", &[]))).await;
    assert_eq!(client.outcome(3).await, Outcome::Status(200));
}

#[tokio::test]
async fn r65_a_client_that_reads_nothing_from_its_socket_is_cut_off() {
    let upstream = Upstream::answering(|_| full(vec![0; 20_000_000])).await;
    let gateway = open(&upstream, SHORT).await;
    let mut client = Frames::with_settings(gateway.address, &[(4, i32::MAX.unsigned_abs())]).await;
    let window = frame(8, 0, 0, (i32::MAX.unsigned_abs() - 70_000).to_be_bytes());
    client.send([window, get(1, "/")].concat()).await;
    // It sends on, but never takes anything: a write that fails shows the end.
    let pinging = async {
        while client.try_send(frame(PING, 0, 0, [0; 8])).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    in_time(pinging).await;
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_idle() {
    let (answers, answer) = tokio::sync::oneshot::channel::<()>();
    let answer = std::sync::Mutex::new(Some(answer));
    let (came, mut comes) = mpsc::unbounded_channel();
    let upstream = Upstream::raw(move |request| {
        let answer = answer.lock().unwrap().take();
        let came = came.clone();
        async move {
            http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
            came.send(()).unwrap();
            let _ = answer.unwrap().await;
            full("late")
        }
    })
    .await;
    let gateway = open(&upstream, SHORT).await;
    let mut client = Http2::connect(gateway.address).await;
    let (response, mut outgoing) = client.send(request("POST", "/", &[]), false).await;
    outgoing.send_data(Bytes::from_static(b"whole"), true).unwrap();
    in_time(comes.recv()).await.unwrap();
    // A connection that is idle from later on ends first.
    let mut idle = Frames::connect(gateway.address).await;
    while idle.next().await.is_some() {}
    answers.send(()).unwrap();
    assert_eq!(http2::read(in_time(response).await.unwrap()).await.text(), "late");
}

#[tokio::test]
async fn at_a_shutdown_what_is_under_way_is_finished_and_nothing_else_begun() {
    let (answers, answer) = tokio::sync::oneshot::channel::<()>();
    let answer = std::sync::Mutex::new(Some(answer));
    let (came, mut comes) = mpsc::unbounded_channel();
    let upstream = Upstream::raw(move |_| {
        let answer = answer.lock().unwrap().take();
        let came = came.clone();
        async move {
            came.send(()).unwrap();
            let _ = answer.unwrap().await;
            full("finished")
        }
    })
    .await;
    let gateway = open(&upstream, "").await;
    let mut idle = Frames::connect(gateway.address).await;
    let mut client = Frames::connect(gateway.address).await;
    client.send(get(1, "/")).await;
    in_time(comes.recv()).await.unwrap();
    let address = gateway.address;
    let stopping = tokio::spawn(gateway.stop());
    client.until(GOAWAY, 0).await;
    // It answers no PING, and holds nobody up.
    assert_eq!(idle.farewell().await, Some(0));
    until(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    assert!(!stopping.is_finished(), "a request is under way");
    answers.send(()).unwrap();
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    assert_eq!(client.until(DATA, END_STREAM).await.payload, b"finished");
    in_time(stopping).await.unwrap();
}
