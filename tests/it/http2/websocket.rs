//! WebSockets over HTTP/2 (RFC 8441): the rules of a handshake in HTTP/1.1, and a tunnel in one stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use serde_json::json;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::browser::{Browser, admin, metric};
use crate::support::certificates::Authority;
use crate::support::chromium;
use crate::support::frames::{self, Outcome};
use crate::support::gateway::{Gateway, NO_ISSUER, ORIGIN, SESSION_COOKIE, Setup};
use crate::support::http2::{Http2, chunk, read, request, send_all};
use crate::support::issuer::Issuer;
use crate::support::port::Reserved;
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};
use crate::support::wire::{Reply, ask, head, read_head};

/// Close with 1001 (RFC 6455 §7.4.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// A server that takes handshakes as RFC 6455 §4.2.2 says, and sends back what it gets.
struct Echo {
    url: String,
    heads: mpsc::UnboundedReceiver<String>,
}

impl Echo {
    /// Where `accept` is given, it answers every key with this.
    async fn start(accept: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (noted, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, noted.clone(), accept));
            }
        });
        Self { url, heads }
    }
}

async fn echo(mut stream: TcpStream, noted: mpsc::UnboundedSender<String>, accept: Option<&str>) {
    if grant(&mut stream, &noted, accept).await {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    }
}

/// Answers a handshake; whether it is granted.
async fn grant(stream: &mut TcpStream, noted: &mpsc::UnboundedSender<String>, accept: Option<&str>) -> bool {
    let head = String::from_utf8(read_head(stream).await).unwrap();
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).unwrap().1;
    let right = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let is_granted = !head.contains("/refused");
    let subprotocol = if head.contains("chat") { "Sec-WebSocket-Protocol: chat\r\n" } else { "" };
    let answer = match is_granted {
        true => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{subprotocol}\
             Set-Cookie: __Host-cloakroom=forged\r\nSet-Cookie: a=1\r\n\r\n",
            accept.unwrap_or(&right)
        ),
        false => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Reason: full\r\n\r\nno".to_owned(),
    };
    let _ = noted.send(head);
    stream.write_all(answer.as_bytes()).await.unwrap();
    is_granted
}

struct Fixture {
    gateway: Gateway,
    cookie: String,
    _issuer: Issuer,
    _site: Upstream,
}

/// A gateway with a user who is logged in, and the echo behind `/ws`.
async fn fixture(upstream: &str) -> Fixture {
    let (issuer, site) = (Issuer::start().await, Upstream::start().await);
    let mut setup = Setup::new(&issuer.url())
        .route(&format!("path: /ws, upstream: \"{upstream}\", websocket: true"))
        .for_users("/plain", upstream)
        .for_anybody("/", &site.url());
    setup.server = "h2c: true\nshutdown_grace: 6s".to_owned();
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    let cookie = format!("{SESSION_COOKIE}={}", browser.session_cookie().unwrap());
    Fixture { gateway, cookie, _issuer: issuer, _site: site }
}

/// An extended CONNECT, as a browser sends it.
fn handshake(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let fields =
        [&[("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat, other")], fields].concat();
    let mut request = request("CONNECT", path, &fields);
    assert_eq!(request.method(), Method::CONNECT);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

impl Fixture {
    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut client = Http2::connect(self.gateway.address).await;
        client.takes_extended_connect().await;
        let (response, _outgoing) = client.send(handshake(path, fields), false).await;
        let response = in_time(response).await.unwrap();
        assert_ne!(response.status(), 200, "no tunnel");
        read(response).await
    }

    async fn open(&self, client: &mut Http2) -> (SendStream<Bytes>, RecvStream, Vec<(String, String)>) {
        client.takes_extended_connect().await;
        let fields = [("origin", ORIGIN), ("cookie", "a=1"), ("cookie", &self.cookie)];
        let (response, outgoing) = client.send(handshake("/ws/room?x=1", &fields), false).await;
        let (head, incoming) = in_time(response).await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        let fields =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        (outgoing, incoming, fields.collect())
    }
}

#[tokio::test]
async fn r49_a_tunnel_in_a_stream_is_a_handshake_in_http_1_1_to_the_upstream() {
    let mut echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let mut client = Http2::connect(fixture.gateway.address).await;
    let (mut outgoing, mut incoming, fields) = fixture.open(&mut client).await;
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!names.contains(&name), "{fields:?}");
    }
    assert!(fields.contains(&("sec-websocket-protocol".to_owned(), "chat".to_owned())));
    assert!(fields.contains(&("set-cookie".to_owned(), "a=1".to_owned())));
    assert!(!fields.iter().any(|(_, value)| value.contains("forged")), "R46 holds for a handshake too");

    let seen = in_time(echo.heads.recv()).await.unwrap().to_lowercase();
    assert!(seen.starts_with("get /ws/room?x=1 http/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("\r\nconnection: upgrade\r\n") && seen.contains("\r\nupgrade: websocket\r\n"),
        "{seen}"
    );
    assert!(seen.contains("\r\nsec-websocket-version: 13\r\n"), "{seen}");
    assert!(seen.contains("\r\ncookie: a=1\r\n") && !seen.contains("__host-cloakroom"), "{seen}");
    assert_eq!(seen.matches("\r\nauthorization: bearer ").count(), 1, "{seen}");

    outgoing.send_data(Bytes::from_static(b"one"), false).unwrap();
    assert_eq!(chunk(&mut incoming).await.unwrap().unwrap(), "one");
    let large = Bytes::from(vec![7; 1_000_000]);
    let sending = tokio::spawn(async move {
        send_all(&mut outgoing, large, false).await.unwrap();
        outgoing
    });
    let mut back = 0;
    while back < 1_000_000 {
        back += chunk(&mut incoming).await.unwrap().unwrap().len();
    }
    // Both ends close in order: END_STREAM each way.
    in_time(sending).await.unwrap().send_data(Bytes::new(), true).unwrap();
    assert!(chunk(&mut incoming).await.is_none());
    assert_eq!(client.ask(request("GET", "/", &[])).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn r39_a_handshake_that_names_a_length_takes_nothing_of_the_next_request() {
    let mut echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let fields =
        [("origin", ORIGIN), ("cookie", &fixture.cookie), ("content-length", "70"), ("trailer", "x")];
    assert_eq!(fixture.ask("/ws/refused", &fields).await.status, 403);
    let seen = in_time(echo.heads.recv()).await.unwrap().to_lowercase();
    assert!(seen.starts_with("get /ws/refused ") && !seen.contains("content-length"), "{seen}");
    assert!(!seen.contains("\r\ntrailer:") && !seen.contains("transfer-encoding"), "{seen}");
}

#[tokio::test]
async fn each_handshake_has_a_key_of_its_own() {
    let mut echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let mut client = Http2::connect(fixture.gateway.address).await;
    let mut keys = std::collections::HashSet::new();
    for _ in 0..3 {
        let _tunnel = fixture.open(&mut client).await;
        let seen = in_time(echo.heads.recv()).await.unwrap().to_lowercase();
        let key = seen.lines().find(|line| line.starts_with("sec-websocket-key: ")).unwrap();
        assert!(keys.insert(key.to_owned()), "{key}");
    }
}

#[tokio::test]
async fn r49_another_origin_is_403_no_session_is_401_and_another_route_takes_no_handshake() {
    let mut echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let cookie = ("cookie", fixture.cookie.as_str());
    for fields in [&[][..], &[("x-csrf", "1")], &[("origin", "null")], &[("origin", "https://evil.test")]] {
        let reply = fixture.ask("/ws", &[fields, &[cookie]].concat()).await;
        assert_eq!((reply.status, reply.problem()), (403, "csrf".to_owned()), "{fields:?}");
    }
    assert_eq!(fixture.ask("/ws", &[("origin", ORIGIN)]).await.status, 401);
    let plain = ask(
        fixture.gateway.address,
        head(
            "GET /plain",
            &format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {ORIGIN}\r\nCookie: {}\r\n",
                fixture.cookie
            ),
        ),
    )
    .await;
    let reply = fixture.ask("/plain", &[("origin", ORIGIN), cookie]).await;
    assert_eq!((reply.status, reply.problem()), (plain.status, plain.problem()), "as in HTTP/1.1");
    assert!(echo.heads.try_recv().is_err(), "nothing has reached the upstream");
}

#[tokio::test]
async fn an_extended_connect_for_anything_else_is_refused() {
    let echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let block = frames::fields(&[
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/ws"),
        (":protocol", "connect-udp"),
        ("origin", ORIGIN),
        ("cookie", &fixture.cookie),
    ]);
    assert_eq!(frames::ask(fixture.gateway.address, block).await, Outcome::Status(405));
}

#[tokio::test]
async fn a_handshake_that_the_upstream_refuses_is_refused_with_its_words() {
    let echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let reply = fixture.ask("/ws/refused", &[("origin", ORIGIN), ("cookie", &fixture.cookie)]).await;
    assert_eq!((reply.status, reply.field("x-reason"), reply.text().as_str()), (403, Some("full"), "no"));
}

#[tokio::test]
async fn an_answer_to_another_key_opens_no_tunnel() {
    let echo = Echo::start(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")).await;
    let fixture = fixture(&echo.url).await;
    let reply = fixture.ask("/ws", &[("origin", ORIGIN), ("cookie", &fixture.cookie)]).await;
    assert_eq!((reply.status, reply.problem()), (502, "upstream-unavailable".to_owned()));
    until(async || metric(fixture.gateway.admin, "cloakroom_open_tunnels", "").await == 0.0).await;
}

#[tokio::test]
async fn r49_a_tunnel_in_a_stream_dies_with_its_session_and_an_end_that_dies_takes_the_other_with_it() {
    let echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let mut client = Http2::connect(fixture.gateway.address).await;
    let open = async || metric(fixture.gateway.admin, "cloakroom_open_tunnels", "").await;
    let (mut reset, _, _) = fixture.open(&mut client).await;
    assert_eq!(open().await, 1.0);
    reset.send_reset(h2::Reason::CANCEL);
    until(async || open().await == 0.0).await;

    let (_outgoing, mut incoming, _) = fixture.open(&mut client).await;
    let logout = format!("Cookie: {}\r\nX-CSRF: 1\r\nContent-Length: 0\r\n", fixture.cookie);
    assert_eq!(ask(fixture.gateway.address, head("POST /bff/logout", &logout)).await.status, 303);
    while let Some(Ok(_)) = chunk(&mut incoming).await {}
    until(async || open().await == 0.0).await;
}

#[tokio::test]
async fn at_a_shutdown_a_tunnel_in_a_stream_says_goodbye_and_holds_nobody_up() {
    let echo = Echo::start(None).await;
    let fixture = fixture(&echo.url).await;
    let mut client = Http2::connect(fixture.gateway.address).await;
    let (_outgoing, incoming, _) = fixture.open(&mut client).await;
    in_time(fixture.gateway.stop()).await;
    assert_eq!(rest(incoming).await, GOING_AWAY, "and the stream has an end");
}

#[tokio::test]
async fn where_others_serve_tunnels_in_streams_end_one_after_another_and_none_is_cut() {
    let echo = Echo::start(None).await;
    let mut fixture = fixture(&echo.url).await;
    assert_eq!(admin(fixture.gateway.admin, "/readyz").await.0, 200, "somebody looks");
    let mut client = Http2::connect(fixture.gateway.address).await;
    let mut tunnels = Vec::new();
    for _ in 0..8 {
        tunnels.push(fixture.open(&mut client).await);
    }
    fixture.gateway.begin_stop();
    for (_outgoing, incoming, _) in tunnels {
        assert_eq!(rest(incoming).await, GOING_AWAY);
    }
    in_time(fixture.gateway.stop()).await;
}

/// All that comes until a stream ends, or is reset.
async fn rest(mut incoming: RecvStream) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(Ok(part)) = chunk(&mut incoming).await {
        said.extend(part);
    }
    said
}

#[tokio::test]
async fn chromium_opens_its_websockets_in_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let heads = mpsc::unbounded_channel().0;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        grant(&mut stream, &heads, None).await;
        // One masked text of less than 126 bytes, and the same without its mask (RFC 6455 §5.2).
        let mut start = [0; 6];
        stream.read_exact(&mut start).await.unwrap();
        let mut text = vec![0; usize::from(start[1] & 0x7f)];
        stream.read_exact(&mut text).await.unwrap();
        text.iter_mut().zip(start[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&[&[start[0], start[1] & 0x7f], &text[..]].concat()).await.unwrap();
        let _ = stream.read(&mut start).await;
    });
    let (authority, site) = (Authority::new(), Upstream::start().await);
    let identity = authority.issue("localhost", "DNS:localhost", 7);
    let port = Reserved::new();
    let origin = format!("https://localhost:{}", port.address().port());
    let mut setup = Setup::new(NO_ISSUER)
        .route(&format!("path: /ws, upstream: \"{upstream}\", websocket: true, auth: none"))
        .for_anybody("/", &site.url());
    setup.origin.clone_from(&origin);
    setup.listen = port.address().to_string();
    setup.server = format!(
        "tls: {{certificate: {}, private_key: {}}}",
        identity.certificate.display(),
        identity.key.display()
    );
    let _gateway = setup.start().await;
    chromium::run("websocket_over_http2", &json!({"gateway": origin, "admin": NO_ISSUER})).await;
}
