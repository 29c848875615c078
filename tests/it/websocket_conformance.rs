//! The sections of the Autobahn test suite for servers of WebSockets, rebuilt. The gateway carries bytes: each
//! case comes to the same end through it as without it, to the byte, over HTTP/1.1 and HTTP/2 on either side.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};

use crate::support::gateway::{Gateway, NO_ISSUER, ORIGIN, Setup};
use crate::support::http2::{Http2, chunk, request, send_all};
use crate::support::wait::in_time;
use crate::support::websocket_echo::{Spoken, WebSocketEcho};
use crate::support::wire::{Wire, head};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Of a message in parts: how it begins, goes on and ends.
const TEXT_BEGINS: u8 = 0x01;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client sends, and what comes back.
struct Case {
    name: String,
    /// One after another.
    writes: Vec<Vec<u8>>,
    /// Before the server's Close.
    answers: Vec<u8>,
    /// In the server's Close.
    code: Option<u16>,
}

/// A frame of a server's (RFC 6455 §5.2).
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..=125 => frame.push(length.try_into().unwrap()),
        length @ ..=0xffff => {
            frame.push(126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A frame of a client's.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = unmasked(first, payload);
    let head = frame.len() - payload.len();
    frame[1] |= 0x80;
    frame[head..].iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    frame.splice(head..head, MASK);
    frame
}

fn closing(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// These frames, then a Close in order.
fn fine(name: impl Into<String>, frames: &[(u8, &[u8])], answers: &[(u8, &[u8])]) -> Case {
    let close = closing(1000, b"");
    let frames = [frames, &[(CLOSE, &close)]].concat();
    fails(name, &frames, answers, 1000)
}

/// These frames, the last of which ends the connection with this code.
fn fails(name: impl Into<String>, frames: &[(u8, &[u8])], answers: &[(u8, &[u8])], code: u16) -> Case {
    Case {
        name: name.into(),
        writes: frames.iter().map(|(first, payload)| frame(*first, payload)).collect(),
        answers: answers.iter().flat_map(|(first, payload)| unmasked(*first, payload)).collect(),
        code: Some(code),
    }
}

impl Case {
    /// The same in writes of so many bytes.
    fn chopped(mut self, size: usize) -> Self {
        self.writes = self.writes.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self.name += " chopped";
        self
    }

    /// All that came back: the answers, and a Close with the code.
    fn check(&self, came: &[u8]) {
        let rest = came.strip_prefix(&self.answers[..]);
        let rest = rest.unwrap_or_else(|| panic!("{}: {:?}", self.name, &came[..came.len().min(200)]));
        assert_eq!((rest[0], usize::from(rest[1])), (CLOSE, rest.len() - 2), "{}: {rest:?}", self.name);
        let code = rest.get(2..4).map(|code| u16::from_be_bytes(code.try_into().unwrap()));
        assert_eq!(code, self.code, "{}", self.name);
    }
}

/// A WebSocket of a client's, open.
enum Socket {
    Connection(Wire),
    Stream { outgoing: SendStream<Bytes>, incoming: RecvStream, _client: Http2 },
}

impl Socket {
    async fn in_http1(address: std::net::SocketAddr, path: &str, extensions: &str) -> (Self, Option<String>) {
        let mut wire = Wire::connect(address).await;
        let fields = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
             Origin: {ORIGIN}\r\n{extensions}"
        );
        wire.send(head(&format!("GET {path}"), &fields)).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.field("sec-websocket-accept")), (101, Some(ACCEPT)), "{reply:?}");
        let taken = reply.field("sec-websocket-extensions").map(str::to_owned);
        (Self::Connection(wire), taken)
    }

    async fn in_http2(gateway: &Gateway, path: &str, extensions: &[(&str, &str)]) -> (Self, Option<String>) {
        let mut client = Http2::connect(gateway.address).await;
        client.takes_extended_connect().await;
        let fields = [&[("sec-websocket-version", "13"), ("origin", ORIGIN)], extensions].concat();
        let mut handshake = request("CONNECT", path, &fields);
        handshake.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, outgoing) = client.send(handshake, false).await;
        let (head, incoming) = in_time(response).await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let taken = head.headers.get("sec-websocket-extensions");
        let taken = taken.map(|taken| taken.to_str().unwrap().to_owned());
        (Self::Stream { outgoing, incoming, _client: client }, taken)
    }

    async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Connection(wire) => wire.send(bytes).await,
            Self::Stream { outgoing, .. } => {
                send_all(outgoing, Bytes::copy_from_slice(bytes), false).await.unwrap();
            }
        }
    }

    /// All that comes back until the other end closes.
    async fn run(mut self, writes: &[Vec<u8>]) -> Vec<u8> {
        for bytes in writes {
            self.send(bytes).await;
        }
        match self {
            Self::Connection(mut wire) => wire.rest().await,
            Self::Stream { mut incoming, .. } => {
                let mut came = Vec::new();
                while let Some(part) = chunk(&mut incoming).await {
                    came.extend(part.unwrap());
                }
                came
            }
        }
    }
}

/// A gateway before two servers, of which one speaks HTTP/1.1 and the other HTTP/2.
async fn fixture() -> (Gateway, WebSocketEcho, WebSocketEcho) {
    let (http1, http2) =
        (WebSocketEcho::start(Spoken::Http1).await, WebSocketEcho::start(Spoken::Http2).await);
    let mut setup = Setup::new(NO_ISSUER)
        .route(&format!("path: /1, upstream: \"http://{}\", auth: none, websocket: true", http1.address))
        .route(&format!(
            "path: /2, upstream: {{url: \"http://{}\", protocol: http2}}, auth: none, websocket: true",
            http2.address
        ));
    setup.server = "h2c: true".to_owned();
    (setup.start().await, http1, http2)
}

async fn show(cases: impl IntoIterator<Item = Case>) {
    let (gateway, http1, _http2) = fixture().await;
    for case in cases {
        let (direct, _) = Socket::in_http1(http1.address, "/", "").await;
        let direct = direct.run(&case.writes).await;
        case.check(&direct);
        for path in ["/1", "/2"] {
            let (socket, _) = Socket::in_http1(gateway.address, path, "").await;
            assert!(socket.run(&case.writes).await == direct, "{} in HTTP/1.1 to {path}", case.name);
            let (socket, _) = Socket::in_http2(&gateway, path, &[]).await;
            assert!(socket.run(&case.writes).await == direct, "{} in HTTP/2 to {path}", case.name);
        }
    }
}

#[tokio::test]
async fn section_1_frames_of_every_length_pass() {
    let lengths = [0, 125, 126, 127, 128, 65_535, 65_536];
    let texts = lengths.map(|length| (length, TEXT, vec![b'*'; length]));
    let binaries = lengths.map(|length| (length, BINARY, vec![0xfe; length]));
    let cases = texts.iter().chain(&binaries).flat_map(|(length, kind, payload)| {
        let case = || fine(format!("{kind:x} of {length}"), &[(*kind, payload)], &[(*kind, payload)]);
        [case(), case().chopped(997)]
    });
    show(cases.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn section_2_pings_are_answered_and_pongs_are_not() {
    let (largest, too_large) = ([0xfe; 125], [0xfe; 126]);
    let ten: Vec<_> = (0..10_u8).map(|number| [b'p', number]).collect();
    let pings: Vec<_> = ten.iter().map(|payload| (PING, &payload[..])).collect();
    let pongs: Vec<_> = ten.iter().map(|payload| (PONG, &payload[..])).collect();
    show([
        fine("an empty ping", &[(PING, b"")], &[(PONG, b"")]),
        fine("a ping", &[(PING, b"Hello")], &[(PONG, b"Hello")]),
        fine("a binary ping", &[(PING, &[0, 255, 254])], &[(PONG, &[0, 255, 254])]),
        fine("the largest ping", &[(PING, &largest)], &[(PONG, &largest)]),
        fine("the largest ping", &[(PING, &largest)], &[(PONG, &largest)]).chopped(1),
        fails("too large a ping", &[(PING, &too_large)], &[], 1002),
        fine("a pong", &[(PONG, b"")], &[]),
        fine("a pong, then a ping", &[(PONG, b"unasked"), (PING, b"asked")], &[(PONG, b"asked")]),
        fine("ten pings", &pings, &pongs),
        fine("ten pings", &pings, &pongs).chopped(1),
    ])
    .await;
}

#[tokio::test]
async fn section_3_reserved_bits_reach_a_server_that_gives_them_no_meaning() {
    let mut cases = Vec::new();
    for bits in 1..=7_u8 {
        for kind in [TEXT, BINARY, PING, CLOSE] {
            let frames: [(u8, &[u8]); 2] = [(TEXT, b"before"), (kind | bits << 4, b"Hello")];
            cases.push(fails(format!("{kind:x} with {bits:b}"), &frames, &frames[..1], 1002));
        }
    }
    show(cases).await;
}

#[tokio::test]
async fn section_4_opcodes_without_a_meaning_reach_the_server() {
    let codes = (0x3..=0x7_u8).chain(0xb..=0xf);
    let cases = codes.map(|code| {
        let frames: [(u8, &[u8]); 2] = [(TEXT, b"before"), (0x80 | code, b"")];
        fails(format!("{code:x}"), &frames, &frames[..1], 1002)
    });
    show(cases.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn section_5_messages_in_parts_pass_with_what_comes_between() {
    let parts: [(u8, &[u8]); 3] = [(TEXT_BEGINS, b"one, "), (GOES_ON, b"two, "), (ENDS, b"three")];
    let whole: (u8, &[u8]) = (TEXT, b"one, two, three");
    let with_pings = [parts[0], (PING, b"1"), parts[1], (PING, b"2"), parts[2]];
    let pongs: [(u8, &[u8]); 3] = [(PONG, b"1"), (PONG, b"2"), whole];
    show([
        fails("a ping in parts", &[(PING & 0x0f, b"a"), (ENDS, b"b")], &[], 1002),
        fails("a pong in parts", &[(PONG & 0x0f, b"a"), (ENDS, b"b")], &[], 1002),
        fine("a text in parts", &parts, &[whole]),
        fine("a text in parts", &parts, &[whole]).chopped(1),
        fine("binary in parts", &[(BINARY_BEGINS, &[0]), (ENDS, &[255])], &[(BINARY, &[0, 255])]),
        fine("pings between", &with_pings, &pongs),
        fine("pings between", &with_pings, &pongs).chopped(1),
        fails("nothing to end", &[(ENDS, b"end"), (TEXT, b"more")], &[], 1002),
        fails("nothing to go on with", &[(GOES_ON, b"on"), (ENDS, b"end")], &[], 1002),
        fails("an end after an end", &[parts[0], parts[2], (ENDS, b"!")], &[(TEXT, b"one, three")], 1002),
        fails("another before the end", &[parts[0], (TEXT, b"other")], &[], 1002),
    ])
    .await;
}

#[tokio::test]
async fn section_6_text_that_is_none_reaches_the_server() {
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let mut cases = vec![
        fine("nothing", &[(TEXT, b"")], &[(TEXT, b"")]),
        fine("nothing in parts", &[(TEXT_BEGINS, b""), (GOES_ON, b""), (ENDS, b"")], &[(TEXT, b"")]),
        fine(
            "cut in a letter",
            &[(TEXT_BEGINS, &greeting[..7]), (ENDS, &greeting[7..])],
            &[(TEXT, greeting)],
        ),
    ];
    for valid in [
        "κόσμε",
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "\u{fffd}",
    ] {
        let case = || fine(valid, &[(TEXT, valid.as_bytes())], &[(TEXT, valid.as_bytes())]);
        cases.extend([case(), case().chopped(1)]);
    }
    let invalid: [&[u8]; 13] = [
        &[0x80],
        &[0xbf],
        &[0xc0, 0xaf],
        &[0xe0, 0x80, 0xaf],
        &[0xf0, 0x80, 0x80, 0xaf],
        &[0xc2],
        &[0xe0, 0xa0],
        &[0xed, 0xa0, 0x80],
        &[0xed, 0xaf, 0xbf, 0xed, 0xb0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xf8, 0x88, 0x80, 0x80, 0x80],
        &[0xfe],
        &[0xff],
    ];
    for payload in invalid {
        cases.push(fails(format!("{payload:x?}"), &[(TEXT, payload)], &[], 1007));
        cases.push(fails(
            format!("{payload:x?} last"),
            &[(TEXT_BEGINS, greeting), (ENDS, payload)],
            &[],
            1007,
        ));
    }
    show(cases).await;
}

#[tokio::test]
async fn section_7_a_close_is_answered_and_nothing_behind_it() {
    let reason = [b'*'; 124];
    let close = closing(1000, b"");
    let mut empty = fails("an empty close", &[(CLOSE, b"")], &[], 0);
    empty.code = None;
    let mut cases = vec![
        empty,
        fine("a text before", &[(TEXT, b"before")], &[(TEXT, b"before")]),
        fails("two", &[(CLOSE, &close), (CLOSE, &close)], &[], 1000),
        fails("a ping behind", &[(CLOSE, &close), (PING, b"no")], &[], 1000),
        fails("a text behind", &[(CLOSE, &close), (TEXT, b"no")], &[], 1000),
        fails("in a message", &[(TEXT_BEGINS, b"begun"), (CLOSE, &close), (ENDS, b"no")], &[], 1000),
        fails("a large text behind", &[(CLOSE, &close), (BINARY, &vec![0; 300_000])], &[], 1000),
        fails("half a code", &[(CLOSE, &[3])], &[], 1002),
        fails("a reason", &[(CLOSE, &closing(1000, b"Hello World!"))], &[], 1000),
        fails("the longest reason", &[(CLOSE, &closing(1000, &reason[..123]))], &[], 1000),
        fails("too long a reason", &[(CLOSE, &closing(1000, &reason))], &[], 1002),
        fails("a reason that is no text", &[(CLOSE, &closing(1000, &[0xce, 0xba, 0xff]))], &[], 1007),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(fails(format!("{code}"), &[(CLOSE, &closing(code, b"why"))], &[], code));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(fails(format!("{code}"), &[(CLOSE, &closing(code, b"why"))], &[], 1002));
    }
    show(cases).await;
}

#[tokio::test]
async fn section_9_messages_of_megabytes_pass_whole_and_in_many_parts() {
    let large: Vec<u8> = (b'a'..=b'z').cycle().take(4 << 20).collect();
    let mut cases = Vec::new();
    for kind in [TEXT, BINARY] {
        for length in [64 << 10, 256 << 10, 1 << 20, 4 << 20] {
            let message = [(kind, &large[..length])];
            cases.push(fine(format!("{kind:x} of {length}"), &message, &message));
        }
        for part in [4 << 10, 64 << 10, 1 << 20] {
            let mut parts: Vec<_> = large.chunks(part).map(|part| (GOES_ON, part)).collect();
            parts[0].0 = kind & 0x0f;
            parts.last_mut().unwrap().0 = ENDS;
            cases.push(fine(format!("{kind:x} in parts of {part}"), &parts, &[(kind, &large)]));
        }
        let message = [(kind, &large[..1 << 20])];
        cases.push(fine(format!("{kind:x}"), &message, &message).chopped(1031));
    }
    show(cases).await;
}

#[tokio::test]
async fn section_10_a_message_in_uneven_parts_passes() {
    let message: Vec<u8> = vec![b'*'; 65_536];
    let mut parts: Vec<_> = message.chunks(1300).map(|part| (GOES_ON, part)).collect();
    parts[0].0 = TEXT_BEGINS;
    parts.last_mut().unwrap().0 = ENDS;
    show([fine("parts of 1300", &parts, &[(TEXT, &message)])]).await;
}

#[tokio::test]
async fn permessage_deflate_is_agreed_upon_between_the_ends_and_its_frames_pass() {
    const OFFER: &str = "permessage-deflate; client_max_window_bits, x-other";
    // "Hello" (RFC 7692 §7.2.3.1), which has the first reserved bit.
    let compressed = frame(TEXT | 0x40, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let (gateway, _http1, _http2) = fixture().await;
    for path in ["/1/raw", "/2/raw"] {
        let offer = format!("Sec-WebSocket-Extensions: {OFFER}\r\n");
        let (mut socket, taken) = Socket::in_http1(gateway.address, path, &offer).await;
        assert_eq!(taken.as_deref(), Some("permessage-deflate; server_no_context_takeover"), "{path}");
        socket.send(&compressed).await;
        let Socket::Connection(mut wire) = socket else { unreachable!() };
        assert_eq!(wire.exactly(compressed.len()).await.unwrap(), compressed);

        let (mut socket, taken) =
            Socket::in_http2(&gateway, path, &[("sec-websocket-extensions", OFFER)]).await;
        assert_eq!(taken.as_deref(), Some("permessage-deflate; server_no_context_takeover"), "{path}");
        socket.send(&compressed).await;
        let Socket::Stream { mut incoming, .. } = socket else { unreachable!() };
        assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), compressed);
    }
}
