//! The rules of RFC 9113 and RFC 7541 by which a server tells a faulty client, in the order and by the
//! sections of h2spec's cases.

use tokio::sync::watch;

use super::open;
use crate::support::frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, Frames, GOAWAY, HEADERS, Outcome, PADDED, PING, PRIORITIZED, PRIORITY, PROTOCOL_ERROR,
    PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, fields, frame, get, head, post,
};
use crate::support::upstream::{Upstream, full};

/// What a server makes of it.
enum Fate {
    /// The connection ends with one of these codes.
    Connection(&'static [u32]),
    /// Stream 1 is reset with one of these codes, or the connection ends with it.
    Stream(&'static [u32]),
    /// Nothing is wrong: stream 1 is answered.
    Answer,
}

use Fate::{Answer, Connection, Stream};

const WHOLE: u8 = END_STREAM | END_HEADERS;
const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
/// A frame on a stream that is over may end the connection, too (RFC 9113 §5.1, §5.4).
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

fn request(pseudo: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, 1, fields(pseudo))
}

fn with(field: (&str, &str)) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, head("GET", "/", &[field]))
}

/// Frames on streams, RFC 9113 §4 to §5.
fn streams() -> Vec<(&'static str, Vec<Vec<u8>>, Fate)> {
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes());
    let large = vec![0; 16_385];
    let open_block = frame(HEADERS, END_STREAM, 1, head("GET", "/", &[]));
    vec![
        ("4.1/1 unknown type", vec![frame(0x16, 0, 0, [0; 8]), get(1, "/")], Answer),
        ("4.1/2 undefined flag", vec![frame(PING, 0x16, 0, [0; 8]), get(1, "/")], Answer),
        ("4.1/3 reserved bit", vec![frame(PING, 0, 1 << 31, [0; 8]), get(1, "/")], Answer),
        ("4.2/2 DATA too large", vec![post(1, "/"), frame(DATA, 0, 1, &large)], Stream(&[FRAME_SIZE_ERROR])),
        ("4.2/3 HEADERS too large", vec![frame(HEADERS, WHOLE, 1, &large)], Connection(&[FRAME_SIZE_ERROR])),
        (
            "4.3/1 invalid field block",
            vec![frame(HEADERS, WHOLE, 1, [0x80])],
            Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "4.3/2 PRIORITY in a block",
            vec![open_block.clone(), frame(PRIORITY, 0, 1, [0; 5])],
            Connection(PROTOCOL),
        ),
        ("4.3/3 another HEADERS in a block", vec![open_block.clone(), get(3, "/")], Connection(PROTOCOL)),
        ("5.1/1 DATA on idle", vec![frame(DATA, END_STREAM, 1, "test")], Connection(PROTOCOL)),
        ("5.1/2 RST_STREAM on idle", vec![reset(1)], Connection(PROTOCOL)),
        ("5.1/3 WINDOW_UPDATE on idle", vec![window(1, 100)], Connection(PROTOCOL)),
        (
            "5.1/4 CONTINUATION on idle",
            vec![frame(CONTINUATION, END_HEADERS, 1, head("GET", "/", &[]))],
            Connection(PROTOCOL),
        ),
        ("5.1/5 DATA on half-closed", vec![get(1, "/"), frame(DATA, END_STREAM, 1, "test")], Stream(CLOSED)),
        ("5.1/6 HEADERS on half-closed", vec![get(1, "/"), get(1, "/")], Stream(CLOSED)),
        (
            "5.1/7 CONTINUATION on half-closed",
            vec![get(1, "/"), frame(CONTINUATION, END_HEADERS, 1, "")],
            Connection(CLOSED),
        ),
        (
            "5.1/8 DATA after RST_STREAM",
            vec![post(1, "/"), reset(1), frame(DATA, END_STREAM, 1, "test")],
            Stream(CLOSED),
        ),
        ("5.1/9 HEADERS after RST_STREAM", vec![post(1, "/"), reset(1), get(1, "/")], Stream(CLOSED)),
        ("5.1.1/1 even stream", vec![get(2, "/")], Connection(PROTOCOL)),
        ("5.1.1/2 smaller stream", vec![get(5, "/"), get(3, "/")], Connection(PROTOCOL)),
        (
            "5.3.1/1 HEADERS on itself",
            vec![frame(
                HEADERS,
                WHOLE | PRIORITIZED,
                1,
                [&[0, 0, 0, 1, 255][..], &head("GET", "/", &[])].concat(),
            )],
            Stream(PROTOCOL),
        ),
        ("5.3.1/2 PRIORITY on itself", vec![frame(PRIORITY, 0, 1, [0, 0, 0, 1, 255])], Stream(PROTOCOL)),
        ("5.5/2 unknown type in a block", vec![open_block, frame(0x16, 0, 0, [0; 8])], Connection(PROTOCOL)),
    ]
}

/// Each kind of frame, RFC 9113 §6.
fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>, Fate)> {
    let start = |flags| frame(HEADERS, flags, 1, head("GET", "/", &[]));
    let more = |stream, flags| frame(CONTINUATION, flags, stream, fields(&[("x-more", "1")]));
    vec![
        ("6.1/1 DATA on 0", vec![frame(DATA, END_STREAM, 0, "test")], Connection(PROTOCOL)),
        (
            "6.1/3 padding too long",
            vec![post(1, "/"), frame(DATA, END_STREAM | PADDED, 1, [6, 0, 0])],
            Connection(PROTOCOL),
        ),
        ("6.2/3 HEADERS on 0", vec![frame(HEADERS, WHOLE, 0, head("GET", "/", &[]))], Connection(PROTOCOL)),
        ("6.2/4 padding too long", vec![frame(HEADERS, WHOLE | PADDED, 1, [9, 0])], Connection(PROTOCOL)),
        ("6.3/1 PRIORITY on 0", vec![frame(PRIORITY, 0, 0, [0, 0, 0, 1, 255])], Connection(PROTOCOL)),
        (
            "6.3/2 PRIORITY of another length",
            vec![frame(PRIORITY, 0, 1, [0, 0, 0, 1])],
            Stream(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.4/1 RST_STREAM on 0", vec![frame(RST_STREAM, 0, 0, [0, 0, 0, 8])], Connection(PROTOCOL)),
        (
            "6.4/3 RST_STREAM of another length",
            vec![post(1, "/"), frame(RST_STREAM, 0, 1, [0, 0, 8])],
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "6.5/1 ACK with content",
            vec![frame(SETTINGS, ACK, 0, [0])],
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "6.5/2 SETTINGS on a stream",
            vec![frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 100])],
            Connection(PROTOCOL),
        ),
        (
            "6.5/3 SETTINGS of another length",
            vec![frame(SETTINGS, 0, 0, [0, 3, 0])],
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.5.2/1 ENABLE_PUSH of 2", vec![setting(2, 2)], Connection(PROTOCOL)),
        (
            "6.5.2/2 window too large",
            vec![setting(4, 1 << 31)],
            Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.5.2/3 frame size too small", vec![setting(5, 16_383)], Connection(PROTOCOL)),
        ("6.5.2/4 frame size too large", vec![setting(5, 1 << 24)], Connection(PROTOCOL)),
        ("6.5.2/5 unknown setting", vec![setting(0xff, 1), get(1, "/")], Answer),
        ("6.7/3 PING on a stream", vec![frame(PING, 0, 1, [0; 8])], Connection(PROTOCOL)),
        (
            "6.7/4 PING of another length",
            vec![frame(PING, 0, 0, [0; 6])],
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.8/1 GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, [0; 8])], Connection(PROTOCOL)),
        ("6.9/1 increment of 0", vec![window(0, 0)], Connection(PROTOCOL)),
        ("6.9/2 increment of 0 on a stream", vec![post(1, "/"), window(1, 0)], Stream(PROTOCOL)),
        (
            "6.9/3 WINDOW_UPDATE of another length",
            vec![frame(WINDOW_UPDATE, 0, 0, [0, 0, 1])],
            Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "6.9.1/2 window beyond its most",
            vec![window(0, i32::MAX.unsigned_abs()), window(0, i32::MAX.unsigned_abs())],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.1/3 the same of a stream",
            vec![post(1, "/"), window(1, i32::MAX.unsigned_abs()), window(1, i32::MAX.unsigned_abs())],
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
        ("6.10/1 several CONTINUATION", vec![start(END_STREAM), more(1, 0), more(1, END_HEADERS)], Answer),
        (
            "6.10/2 another kind between",
            vec![start(END_STREAM), more(1, 0), frame(DATA, END_STREAM, 1, "test")],
            Connection(PROTOCOL),
        ),
        ("6.10/3 CONTINUATION on 0", vec![start(END_STREAM), more(0, END_HEADERS)], Connection(PROTOCOL)),
        ("6.10/4 after END_HEADERS", vec![start(END_HEADERS), more(1, END_HEADERS)], Connection(PROTOCOL)),
        (
            "6.10/5 after another's END_HEADERS",
            vec![start(0), more(1, END_HEADERS), more(1, END_HEADERS)],
            Connection(PROTOCOL),
        ),
        (
            "6.10/6 after DATA",
            vec![start(END_HEADERS), frame(DATA, 0, 1, "test"), more(1, END_HEADERS)],
            Connection(PROTOCOL),
        ),
        (
            "7/1 GOAWAY with an unknown code",
            vec![get(1, "/"), frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 255])],
            Answer,
        ),
    ]
}

/// Messages and their fields, RFC 9113 §8 and RFC 7541.
fn messages() -> Vec<(&'static str, Vec<Vec<u8>>, Fate)> {
    let (method, scheme, path) = ((":method", "GET"), (":scheme", "https"), (":path", "/"));
    let host = (":authority", "shop.test");
    let all = [method, scheme, path, host];
    let block = |bytes: &[u8]| vec![frame(HEADERS, WHOLE, 1, [&head("GET", "/", &[])[..], bytes].concat())];
    let lengths = |length, parts: &[&str]| {
        let mut frames =
            vec![frame(HEADERS, END_HEADERS, 1, head("POST", "/", &[("content-length", length)]))];
        frames.extend(
            parts
                .iter()
                .enumerate()
                .map(|(at, part)| frame(DATA, if at + 1 == parts.len() { END_STREAM } else { 0 }, 1, part)),
        );
        frames
    };
    let undecodable = || Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
    vec![
        ("8.1/1 second HEADERS without an end", vec![post(1, "/"), post(1, "/")], Stream(PROTOCOL)),
        ("8.1.2/1 upper case", vec![with(("X-TEST", "1"))], Stream(PROTOCOL)),
        ("8.1.2.1/1 unknown pseudo field", vec![with((":test", "1"))], Stream(PROTOCOL)),
        (
            "8.1.2.1/2 a response's pseudo field",
            vec![request(&[&all[..], &[(":status", "200")]].concat(), WHOLE)],
            Stream(PROTOCOL),
        ),
        (
            "8.1.2.1/3 pseudo field in trailers, which is left out",
            vec![post(1, "/"), request(&[method], WHOLE)],
            Answer,
        ),
        (
            "8.1.2.1/4 pseudo field last",
            vec![request(&[method, scheme, host, ("x-test", "1"), path], WHOLE)],
            Stream(PROTOCOL),
        ),
        ("8.1.2.2/1 connection-specific", vec![with(("connection", "keep-alive"))], Stream(PROTOCOL)),
        ("8.1.2.2/2 TE", vec![with(("te", "trailers, deflate"))], Stream(PROTOCOL)),
        (
            "8.1.2.3/1 empty path",
            vec![request(&[method, scheme, host, (":path", "")], WHOLE)],
            Stream(PROTOCOL),
        ),
        ("8.1.2.3/2 no method", vec![request(&[scheme, path, host], WHOLE)], Stream(PROTOCOL)),
        ("8.1.2.3/3 no scheme", vec![request(&[method, path, host], WHOLE)], Stream(PROTOCOL)),
        ("8.1.2.3/4 no path", vec![request(&[method, scheme, host], WHOLE)], Stream(PROTOCOL)),
        (
            "8.1.2.3/5 two methods",
            vec![request(&[method, method, scheme, path, host], WHOLE)],
            Stream(PROTOCOL),
        ),
        (
            "8.1.2.3/6 two schemes",
            vec![request(&[method, scheme, scheme, path, host], WHOLE)],
            Stream(PROTOCOL),
        ),
        ("8.1.2.3/7 two paths", vec![request(&[method, scheme, path, path, host], WHOLE)], Stream(PROTOCOL)),
        ("8.1.2.6/1 another length", lengths("1", &["test"]), Stream(PROTOCOL)),
        ("8.1.2.6/2 another length in parts", lengths("1", &["te", "st"]), Stream(PROTOCOL)),
        (
            "8.2/1 PUSH_PROMISE",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &head("GET", "/", &[])].concat())],
            Connection(PROTOCOL),
        ),
        ("hpack 2.3.3/1 index beyond the tables", block(&[0xff, 0x00]), undecodable()),
        ("hpack 4.2/1 table size at the end", block(&[0x20]), undecodable()),
        ("hpack 5.2/1 padding longer than 7 bits", block(&[0, 1, b'x', 0x82, 0x1f, 0xff]), undecodable()),
        ("hpack 5.2/2 padded by zero", block(&[0, 1, b'x', 0x81, 0x18]), undecodable()),
        ("hpack 5.2/3 EOS", block(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), undecodable()),
        ("hpack 6.1/1 index 0", block(&[0x80]), undecodable()),
        (
            "hpack 6.3/1 table size too large",
            vec![frame(HEADERS, WHOLE, 1, [&[0x3f, 0xe2, 0x1f][..], &head("GET", "/", &[])].concat())],
            undecodable(),
        ),
    ]
}

#[tokio::test]
async fn what_a_client_does_wrong_ends_its_stream_or_its_connection_as_the_rfcs_say() {
    // What has a fault is never answered, or the answer might come before the fault shows.
    let is_answered = watch::Sender::new(false);
    let answers = is_answered.clone();
    let upstream = Upstream::raw(move |request| {
        let mut is_answered = answers.subscribe();
        async move {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            let _ = is_answered.wait_for(|is_answered| *is_answered).await;
            full("answered")
        }
    })
    .await;
    let gateway = open(&upstream, "").await;
    for (name, sent, fate) in streams().into_iter().chain(kinds()).chain(messages()) {
        is_answered.send_replace(matches!(fate, Answer));
        let mut client = Frames::connect(gateway.address).await;
        client.send(sent.concat()).await;
        let outcome = client.outcome(1).await;
        match fate {
            Answer => assert_eq!(outcome, Outcome::Status(200), "{name}"),
            Connection(codes) => {
                let Outcome::Gone(Some(code)) = outcome else { panic!("{name}: {outcome:?}") };
                assert!(codes.contains(&code), "{name}: {code}");
            }
            Stream(codes) => {
                let (Outcome::Gone(Some(code)) | Outcome::Reset(code)) = outcome else {
                    panic!("{name}: {outcome:?}")
                };
                assert!(codes.contains(&code), "{name}: {code}");
            }
        }
    }
}

#[tokio::test]
async fn settings_and_pings_are_acknowledged_and_nothing_else_is_said_to_an_answer() {
    let upstream = Upstream::start().await;
    let gateway = open(&upstream, "").await;
    let mut client = Frames::connect(gateway.address).await;
    client.send(frame(PING, ACK, 0, *b"not sent")).await;
    client.send(frame(PING, 0, 0, *b"hpingtst")).await;
    assert_eq!(client.until(PING, ACK).await.payload, b"hpingtst");
    client.send(setting(4, 1)).await;
    client.until(SETTINGS, ACK).await;
    client.send(get(1, "/")).await;
    client.until(HEADERS, END_HEADERS).await;
    assert_eq!(client.until(DATA, 0).await.payload.len(), 1, "6.9.1/1: no more than the window");
    // 6.9.2/2: a window that has become negative holds until it is opened far enough.
    client.send([setting(4, 0), window(1, 1)].concat()).await;
    client.until(SETTINGS, ACK).await;
    client.send([window(1, 2)].concat()).await;
    assert!(!client.until(DATA, 0).await.payload.is_empty());
}
