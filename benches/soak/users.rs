//! Those who use the app: they read, post, follow events, hold WebSockets, and come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::Connection;
use crate::support::browser::Browser;
use crate::world::{EVENTS, World};

/// How many there are of each kind.
const READERS: usize = 8;
const OTHERS: usize = 2;

/// How often each reads, and the others do what they do.
const READ: Duration = Duration::from_millis(500);
const ACT: Duration = Duration::from_secs(2);
const COME_AND_GO: Duration = Duration::from_secs(5);

/// Requests that share a connection.
const SHARE: usize = 30;

/// Of what is posted.
const POSTED: usize = 64 * 1024;

/// What a user does again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Read,
    Post,
    FollowEvents,
    HoldWebSocket,
}

/// They go on until this is dropped.
pub async fn start(world: &Arc<World>) -> JoinSet<()> {
    let mut users = JoinSet::new();
    let door = world.http1.door(world.gateway.address).await;
    let cookie = async || {
        let mut browser = Browser::new(door);
        browser.navigate("/bff/login?return_to=/").await;
        browser.session_cookie().expect("a session")
    };
    for number in 0..READERS {
        users.spawn(act(Arc::clone(world), Deed::Read, cookie().await, number % 2 == 0));
    }
    for number in 0..OTHERS {
        users.spawn(act(Arc::clone(world), Deed::Post, cookie().await, number % 2 == 0));
        users.spawn(act(Arc::clone(world), Deed::FollowEvents, cookie().await, number % 2 == 0));
        users.spawn(act(Arc::clone(world), Deed::HoldWebSocket, cookie().await, false));
    }
    users.spawn(come_and_go(Arc::clone(world), door));
    users
}

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "GET",
            Self::Post => "POST",
            Self::FollowEvents => "events",
            Self::HoldWebSocket => "WebSocket",
        }
    }

    fn pause(self) -> Duration {
        if self == Self::Read { READ } else { ACT }
    }

    async fn perform(self, connection: &mut Connection, cookie: &str) -> Result<(), String> {
        match self {
            Self::Read => {
                let request = connection.request(Method::GET, "/api/x", cookie, Bytes::new());
                expect(connection.ask(request).await? == "{}", "another body")
            }
            Self::Post => {
                let content = Bytes::from(vec![b'x'; POSTED]);
                let request = connection.request(Method::POST, "/api/x", cookie, content.clone());
                expect(connection.ask(request).await? == content, "another body")
            }
            Self::FollowEvents => {
                let request = connection.request(Method::GET, "/api/events", cookie, Bytes::new());
                let body = connection.ask(request).await?;
                expect(body.split(|byte| *byte == b'\n').count() == 2 * EVENTS + 1, "events are missing")
            }
            Self::HoldWebSocket => hold_web_socket(connection, cookie).await,
        }
    }
}

async fn hold_web_socket(connection: &mut Connection, cookie: &str) -> Result<(), String> {
    let mut request = connection.request(Method::GET, "/ws", cookie, Bytes::new());
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let answer = connection.send(request).await?;
    expect(answer.status() == 101, answer.status().as_str())?;
    let tunnel = hyper::upgrade::on(answer).await.map_err(|error| error.to_string())?;
    let mut tunnel = TokioIo::new(tunnel);
    for _ in 0..EVENTS {
        let mut echo = [0; 5];
        let exchange = async {
            tunnel.write_all(b"hello").await?;
            tunnel.read_exact(&mut echo).await
        };
        let exchanged = timeout(Duration::from_secs(15), exchange).await.map_err(|_| "no echo".to_owned())?;
        exchanged.map_err(|error| format!("{:?}", error.kind()))?;
        sleep(READ).await;
    }
    tunnel.shutdown().await.map_err(|error| format!("{:?}", error.kind()))
}

/// Logs in, asks, logs out, and is a stranger then.
async fn come_and_go(world: Arc<World>, door: std::net::SocketAddr) {
    let mut ticks = interval(COME_AND_GO);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let visit = tokio::spawn(async move {
            let mut browser = Browser::new(door);
            browser.navigate("/bff/login?return_to=/").await;
            expect(browser.session_cookie().is_some(), "no session")?;
            expect(browser.fetch("/api/x").await.status == 200, "not let in")?;
            let fields = [("x-csrf", "1"), ("accept", "application/json")];
            let left = browser.script(Method::POST, "/bff/logout", &fields, "").await;
            expect(left.status == 200, "not let out")?;
            expect(browser.fetch("/api/x").await.status == 401, "still in")
        });
        let outcome = visit.await.unwrap_or_else(|_| Err("broken off".to_owned()));
        world.journal.note("login", begun, outcome);
    }
}

/// Does this again and again, on connections that are used for some time.
async fn act(world: Arc<World>, deed: Deed, cookie: String, in_http2: bool) {
    loop {
        let begun = Instant::now();
        let mut connection = match Connection::open(&world, in_http2).await {
            Ok(connection) => connection,
            Err(cause) => {
                world.journal.note("connection", begun, Err(cause));
                sleep(deed.pause()).await;
                continue;
            }
        };
        for _ in 0..SHARE {
            sleep(deed.pause()).await;
            let begun = Instant::now();
            let outcome = deed.perform(&mut connection, &cookie).await;
            // A connection that was upgraded is no longer one for requests.
            let is_over = outcome.is_err() || deed == Deed::HoldWebSocket;
            world.journal.note(deed.name(), begun, outcome);
            if is_over {
                break;
            }
        }
    }
}

fn expect(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}
