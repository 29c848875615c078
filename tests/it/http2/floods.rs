//! Floods of what costs a client nothing: each is cut off, and others are served (R65, RFC 9113 §10.5).

use super::open;
use crate::support::frames::{
    CANCEL, CONTINUATION, DATA, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, Outcome, PING, PRIORITY,
    REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get, head, post,
};
use crate::support::http2;
use crate::support::upstream::{Upstream, full};

/// More than any client has a use for.
const MANY: u32 = 5000;

/// Sends `flood` until the connection ends, or as often as is more than enough; the code it ended with.
async fn flooded(client: &mut Frames, flood: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    for round in 0..MANY / 100 {
        let part: Vec<u8> = (0..100).flat_map(|number| flood(round * 100 + number)).collect();
        if !client.try_send(part).await {
            break;
        }
    }
    client.farewell().await
}

#[tokio::test]
async fn r65_a_flood_of_frames_without_use_ends_its_connection_alone() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let mut neighbour = http2::Http2::connect(gateway.address).await;
    type Flood = fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood); 8] = [
        ("ping", |_| frame(PING, 0, 0, [0; 8])),
        ("settings", |_| frame(SETTINGS, 0, 0, [0, 4, 0, 0, 255, 255])),
        ("empty settings", |_| frame(SETTINGS, 0, 0, "")),
        ("priority", |number| frame(PRIORITY, 0, number * 2 + 1001, [0, 0, 0, 0, 1])),
        ("window update", |_| frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1])),
        ("unknown", |_| frame(0x42, 0, 0, "x")),
        ("empty data", |_| frame(DATA, 0, 1, "")),
        ("goaway", |_| frame(GOAWAY, 0, 0, [0; 8])),
    ];
    for (name, flood) in floods {
        let mut client = Frames::connect(gateway.address).await;
        if name == "empty data" {
            client.send(post(1, "/")).await;
        }
        let code = flooded(&mut client, flood).await;
        // A GOAWAY of the client's ends the connection in any case, and a reset may overtake ours.
        assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None) || name == "goaway", "{name} {code:?}");
        let reply = neighbour.ask(http2::request("GET", "/", &[])).await;
        assert_eq!(reply.status, 200, "{name}");
    }
}

#[tokio::test]
async fn r65_who_is_cut_off_is_told_why() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    let pings: Vec<u8> = (0..1100).flat_map(|_| frame(PING, 0, 0, [0; 8])).collect();
    client.send(pings).await;
    assert_eq!(client.farewell().await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn r65_requests_that_are_reset_at_once_are_counted_and_cut_off() {
    let upstream = Upstream::raw(|_| std::future::pending()).await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    let flood = |number: u32| {
        let stream = number * 2 + 1;
        [get(stream, "/"), frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())].concat()
    };
    let code = flooded(&mut client, flood).await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
}

#[tokio::test]
async fn r65_slow_resets_each_after_its_request_is_under_way_are_counted_too() {
    let upstream = Upstream::raw(|_| std::future::pending()).await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    let mut stream = 1;
    let code = loop {
        // A PING that is answered shows that the request before it was taken in.
        let pinged = client.try_send([get(stream, "/"), frame(PING, 0, 0, [1; 8])].concat()).await;
        let answered = async {
            while let Some(frame) = client.next().await {
                match frame.kind {
                    PING => return None,
                    GOAWAY => return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())),
                    _ => {}
                }
            }
            Some(0)
        };
        if let Some(code) = answered.await {
            break code;
        }
        assert!(pinged && stream < MANY, "nobody has cut this off");
        client.try_send(frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())).await;
        stream += 2;
    };
    assert!(matches!(code, ENHANCE_YOUR_CALM | 0), "{code}");
    assert!(stream < 2000, "some hundreds");
}

#[tokio::test]
async fn r65_faults_that_we_answer_with_a_reset_are_counted() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    let code = flooded(&mut client, |number| {
        frame(HEADERS, 5, number * 2 + 1, head("GET", "/", &[("connection", "close")]))
    })
    .await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
}

#[tokio::test]
async fn r65_a_field_block_without_end_is_cut_off() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "header_bytes: 8KiB").await;
    for part in ["", "x"] {
        let mut client = Frames::connect(gateway.address).await;
        client.send(frame(HEADERS, 1, 1, head("GET", "/", &[]))).await;
        let field = crate::support::frames::fields(&[("x", &part.repeat(4000))]);
        let code = flooded(&mut client, |_| {
            frame(CONTINUATION, 0, 1, if part.is_empty() { &[][..] } else { &field })
        })
        .await;
        assert!(code != Some(0), "{code:?}");
    }
}

#[tokio::test]
async fn r65_no_more_streams_are_served_at_a_time_than_are_let_through() {
    let upstream = Upstream::raw(|request| async move {
        match request.uri().path() {
            "/waits" => std::future::pending().await,
            _ => full("served"),
        }
    })
    .await;
    let gateway = open(&upstream, "http2_streams: 3").await;
    let mut client = Frames::connect(gateway.address).await;
    for stream in [1, 3, 5, 7] {
        client.send(get(stream, "/waits")).await;
    }
    assert_eq!(client.outcome(7).await, Outcome::Reset(REFUSED_STREAM));
    client.send(frame(RST_STREAM, 0, 3, CANCEL.to_be_bytes())).await;
    client.send(get(9, "/")).await;
    assert_eq!(client.outcome(9).await, Outcome::Status(200), "a place has become free");
}

#[tokio::test]
async fn an_honest_client_with_many_requests_is_not_taken_for_a_flood() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    for number in 0..3000 {
        let stream = number * 2 + 1;
        // As gRPC clients do: a PING and two windows with each answer.
        let window = [stream, 0].map(|stream| frame(WINDOW_UPDATE, 0, stream, [0, 0, 0, 64])).concat();
        client.send([get(stream, "/"), window, frame(PING, 0, 0, [0; 8])].concat()).await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200), "{number}");
    }
}
