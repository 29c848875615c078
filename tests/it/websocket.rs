//! WebSockets: a handshake with the app's own `Origin` and a session, then bytes both ways (R49).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::browser::{Browser, metric, post_form};
use crate::support::gateway::{Gateway, ORIGIN, Setup};
use crate::support::issuer::Issuer;
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};
use crate::support::wire::{Wire, ask, head, read_head};

/// RFC 6455 §1.3: this key has this answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A server that takes each handshake and sends back what it gets.
struct Echo {
    url: String,
    heads: mpsc::UnboundedReceiver<String>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (noted, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, noted.clone()));
            }
        });
        Self { url, heads }
    }

    /// The head of the handshake that came, in lower case.
    async fn head(&mut self) -> String {
        in_time(self.heads.recv()).await.unwrap().to_lowercase()
    }
}

async fn serve(mut stream: TcpStream, noted: mpsc::UnboundedSender<String>) {
    let head = String::from_utf8(read_head(&mut stream).await).unwrap();
    let subprotocol = if head.contains("chat") { "Sec-WebSocket-Protocol: chat\r\n" } else { "" };
    noted.send(head).unwrap();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{subprotocol}Set-Cookie: __Host-cloakroom=forged\r\nSet-Cookie: a=1\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

struct Fixture {
    gateway: Gateway,
    cookie: String,
    issuer: Issuer,
    _site: Upstream,
}

/// A gateway with a user who is logged in, and the echo behind `/ws`.
async fn fixture(upstream: &str, limits: &str) -> Fixture {
    let (issuer, site) = (Issuer::start().await, Upstream::start().await);
    let mut setup = Setup::new(&issuer.url())
        .route(&format!("path: /ws, upstream: \"{upstream}\", websocket: true"))
        .route(&format!("path: /ws-open, upstream: \"{upstream}\", websocket: true, auth: none"))
        .route(&format!("path: /ws-optional, upstream: \"{upstream}\", websocket: true, auth: optional"))
        .for_users("/plain", upstream)
        .for_anybody("/", &site.url());
    limits.clone_into(&mut setup.limits);
    let gateway = setup.start().await;
    let mut browser = Browser::new(gateway.address);
    browser.log_in("/").await;
    Fixture { gateway, cookie: browser.session_cookie().unwrap(), issuer, _site: site }
}

fn handshake(path: &str, fields: &str) -> String {
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    head(&format!("GET {path}"), &format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n{fields}"))
}

impl Fixture {
    fn logged_in(&self, path: &str, fields: &str) -> String {
        let cookie = format!("Cookie: a=1; __Host-cloakroom={}\r\n", self.cookie);
        handshake(path, &format!("Origin: {ORIGIN}\r\n{cookie}{fields}"))
    }

    async fn open(&self, path: &str, fields: &str) -> Wire {
        let mut wire = Wire::connect(self.gateway.address).await;
        wire.send(self.logged_in(path, fields)).await;
        assert_eq!(wire.reply().await.status, 101);
        wire
    }
}

#[tokio::test]
async fn r49_a_tunnel_carries_bytes_both_ways_with_the_token_and_without_our_cookie() {
    let mut echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    let mut wire = Wire::connect(fixture.gateway.address).await;
    let fields = "Sec-WebSocket-Protocol: chat, superchat\r\nAuthorization: Bearer forged\r\nX-Forwarded-For: forged\r\n";
    // A client may send before it has read the answer.
    wire.send(fixture.logged_in("/ws/room?x=1", fields) + "early").await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.field("upgrade").map(str::to_lowercase).as_deref(), Some("websocket"));
    assert_eq!(reply.field("connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(reply.field("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(reply.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!(reply.field("set-cookie"), Some("a=1"), "R46 holds for a handshake too");

    let seen = echo.head().await;
    assert!(seen.starts_with("get /ws/room?x=1 http/1.1\r\n"), "{seen}");
    assert!(!seen.contains("forged") && !seen.contains("__host-cloakroom"), "{seen}");
    assert!(seen.contains("\r\ncookie: a=1\r\n"), "{seen}");
    assert!(seen.contains("sec-websocket-protocol: chat, superchat"));
    assert!(seen.contains(&format!("sec-websocket-key: {}", KEY.to_lowercase())));
    assert_eq!(seen.matches("\r\nauthorization: bearer ").count(), 1, "{seen}");
    assert_eq!(seen.matches("\r\nupgrade: websocket\r\n").count(), 1, "{seen}");
    assert!(seen.contains("\r\nconnection: upgrade\r\n"), "{seen}");
    assert_eq!(fixture.issuer.token_requests("authorization_code"), 1);

    assert_eq!(wire.exactly(5).await.unwrap(), b"early");
    let large = vec![7; 1_000_000];
    let mut sent = wire.stream;
    let (mut read, mut write) = sent.split();
    let mut back = vec![0; large.len()];
    let (written, got) = tokio::join!(write.write_all(&large), read.read_exact(&mut back));
    written.unwrap();
    got.unwrap();
    assert_eq!(back, large);
    write.shutdown().await.unwrap();
    assert_eq!(read.read(&mut back).await.unwrap(), 0, "both ends close");
}

#[tokio::test]
async fn r49_another_origin_or_none_is_403_and_no_session_is_401() {
    let mut echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    let cookie = format!("Cookie: __Host-cloakroom={}\r\n", fixture.cookie);
    for fields in [
        "",
        "X-CSRF: 1\r\n",
        "Origin: null\r\n",
        "Origin: http://shop.test\r\n",
        "Origin: https://shop.test:8443\r\n",
        "Origin: https://evil.test\r\n",
        "Origin: https://shop.test.evil.test\r\n",
        "Origin: https://shop.test\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
    ] {
        let reply = ask(fixture.gateway.address, handshake("/ws", &format!("{cookie}{fields}"))).await;
        assert_eq!((reply.status, reply.problem()), (403, "csrf".to_owned()), "{fields:?}");
    }
    let reply = ask(fixture.gateway.address, handshake("/ws", &format!("Origin: {ORIGIN}\r\n"))).await;
    assert_eq!((reply.status, reply.problem()), (401, "unauthenticated".to_owned()));
    let forged = format!("Origin: {ORIGIN}\r\nCookie: __Host-cloakroom=forged\r\n");
    assert_eq!(ask(fixture.gateway.address, handshake("/ws", &forged)).await.status, 401);
    assert!(echo.heads.try_recv().is_err(), "the upstream saw nothing of it");
}

#[tokio::test]
async fn r34_an_open_tunnel_gets_no_token_and_an_optional_one_only_with_the_right_origin() {
    let mut echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    fixture.open("/ws-open", "").await;
    let seen = echo.head().await;
    assert!(!seen.contains("authorization") && !seen.contains("__host-cloakroom"), "{seen}");
    fixture.open("/ws-optional", "").await;
    assert!(echo.head().await.contains("\r\nauthorization: bearer "));
    let cookie = format!("Cookie: __Host-cloakroom={}\r\nOrigin: https://evil.test\r\n", fixture.cookie);
    assert_eq!(ask(fixture.gateway.address, handshake("/ws-optional", &cookie)).await.status, 101);
    let seen = echo.head().await;
    assert!(!seen.contains("authorization") && !seen.contains("__host-cloakroom"), "{seen}");
}

#[tokio::test]
async fn a_route_that_does_not_say_websocket_takes_none() {
    let mut echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    for upgrade in ["websocket", "WebSocket", "WEBSOCKET, h2c", "h2c, websocket"] {
        let request =
            fixture.logged_in("/plain", "").replace("Upgrade: websocket", &format!("Upgrade: {upgrade}"));
        let reply = ask(fixture.gateway.address, request).await;
        assert!(matches!(reply.status, 400 | 403), "{upgrade}: {reply:?}");
    }
    assert!(echo.heads.try_recv().is_err());
}

#[tokio::test]
async fn only_a_true_handshake_opens_a_tunnel() {
    let echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    // The echo answers 101 to whatever comes; nobody asked it to switch.
    for request in [
        fixture.logged_in("/ws", "X-CSRF: 1\r\nContent-Length: 0\r\n").replace("GET ", "POST "),
        fixture.logged_in("/ws", "X-CSRF: 1\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        fixture.logged_in("/ws", "X-CSRF: 1\r\n").replace("Upgrade: websocket", "Upgrade: h2c"),
        fixture.logged_in("/ws", "X-CSRF: 1\r\n").replace("keep-alive, Upgrade", "keep-alive"),
    ] {
        let reply = ask(fixture.gateway.address, &request).await;
        assert!(matches!(reply.status, 400 | 502), "{request} {reply:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_the_upgrade_is_heard() {
    let upstream = Upstream::answering(|_| {
        let mut response = crate::support::upstream::full("not today");
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        response
    })
    .await;
    let fixture = fixture(&upstream.url(), "").await;
    let mut wire = Wire::connect(fixture.gateway.address).await;
    wire.send(fixture.logged_in("/ws", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "not today"));
    wire.send(head("GET /", "")).await;
    assert_eq!(wire.reply().await.status, 200, "the connection is one for requests still");
}

#[tokio::test]
async fn r65_a_silent_tunnel_is_closed_after_its_own_time_and_a_busy_one_is_not() {
    let echo = Echo::start().await;
    let fixture =
        fixture(&echo.url, "idle_timeout: 1s\nheader_timeout: 1s\nwebsocket_idle_timeout: 2s").await;
    let mut silent = fixture.open("/ws", "").await;
    let mut busy = fixture.open("/ws", "").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..15 {
        ticks.tick().await;
        busy.send("x").await;
        assert_eq!(busy.exactly(1).await.unwrap(), b"x");
    }
    assert!(silent.rest().await.is_empty(), "closed");
}

#[tokio::test]
async fn a_tunnel_outlives_the_idle_timeout_of_requests() {
    let echo = Echo::start().await;
    let fixture =
        fixture(&echo.url, "idle_timeout: 1s\nheader_timeout: 1s\nwebsocket_idle_timeout: 1h").await;
    let mut quiet = fixture.open("/ws", "").await;
    // This connection is cut by its idle time, and began later than the tunnel.
    let mut other = Wire::connect(fixture.gateway.address).await;
    other.send(head("GET /", "")).await;
    other.reply().await;
    assert!(other.rest().await.is_empty());
    quiet.send("still here").await;
    assert_eq!(quiet.exactly(10).await.unwrap(), b"still here");
}

#[tokio::test]
async fn r49_a_tunnel_dies_with_its_session_and_with_no_other() {
    let echo = Echo::start().await;
    let fixture = fixture(&echo.url, "").await;
    let mut neighbour = Browser::new(fixture.gateway.address);
    neighbour.log_in("/").await;
    let theirs = Fixture { cookie: neighbour.session_cookie().unwrap(), ..fixture };
    let ours =
        handshake("/ws", &format!("Origin: {ORIGIN}\r\nCookie: __Host-cloakroom={}\r\n", fixture.cookie));
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(theirs.gateway.address).await;
        wire.send(&ours).await;
        assert_eq!(wire.reply().await.status, 101);
        wires.push(wire);
    }
    let mut other = theirs.open("/ws", "").await;
    let logout = format!("Cookie: __Host-cloakroom={}\r\nX-CSRF: 1\r\nContent-Length: 0\r\n", fixture.cookie);
    assert_eq!(ask(theirs.gateway.address, head("POST /bff/logout", &logout)).await.status, 303);
    for mut wire in wires {
        assert!(in_time(wire.rest()).await.is_empty(), "closed");
    }
    other.send("x").await;
    assert_eq!(other.exactly(1).await.unwrap(), b"x");
}

#[tokio::test]
async fn r49_a_tunnel_dies_when_an_operator_or_the_issuer_ends_its_session_and_is_counted_until_then() {
    let echo = Echo::start().await;
    for by_issuer in [true, false] {
        let fixture = fixture(&echo.url, "").await;
        let open = async || metric(fixture.gateway.admin, "cloakroom_open_tunnels", "").await;
        let mut wire = fixture.open("/ws", "").await;
        assert_eq!(open().await, 1.0);
        if by_issuer {
            let form = format!("logout_token={}", fixture.issuer.logout_token(|_| {}));
            let told = post_form(fixture.gateway.address, "/bff/backchannel-logout", &form).await;
            assert_eq!(told.status, 200);
        } else {
            let end = head("DELETE /sessions?sub=alice", "Content-Length: 0\r\n");
            assert_eq!(ask(fixture.gateway.admin, end).await.status, 200);
        }
        assert!(in_time(wire.rest()).await.is_empty(), "closed");
        until(async || open().await == 0.0).await;
    }
}

#[tokio::test]
async fn an_end_that_dies_takes_the_other_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let fixture = fixture(&url, "").await;
    for upstream_dies in [true, false] {
        let mut wire = Wire::connect(fixture.gateway.address).await;
        wire.send(fixture.logged_in("/ws", "")).await;
        let (mut stream, _) = in_time(listener.accept()).await.unwrap();
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(wire.reply().await.status, 101);
        if upstream_dies {
            drop(stream);
            assert!(wire.rest().await.is_empty());
        } else {
            drop(wire);
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        }
    }
}

#[tokio::test]
async fn r65_a_tunnel_takes_a_place_among_the_connections() {
    let echo = Echo::start().await;
    let fixture = fixture(&echo.url, "connections: 2").await;
    let mut first = fixture.open("/ws", "").await;
    let second = fixture.open("/ws", "").await;
    let reply = Wire::connect(fixture.gateway.address).await.reply().await;
    assert_eq!((reply.status, reply.problem()), (503, "overloaded".to_owned()));
    drop(second);
    first.send("x").await;
    assert_eq!(first.exactly(1).await.unwrap(), b"x");
    until(async || ask(fixture.gateway.address, head("GET /", "")).await.status == 200).await;
}
