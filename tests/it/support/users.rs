//! Users at work: each sends one request after another, by one protocol, does what a browser does where a connection
//! ends, and notes what the user would notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::gateway::ORIGIN;
use super::websocket_client::{NotOpened, WebSocketClient};

/// How long users think between two requests: every other one long enough to be found idle by a gateway that stops.
const THINKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(700)];

/// What users have noticed.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests, each with an answer in the end.
    pub answered: usize,
    /// Requests that were sent once more, because the connection they were sent on had just been closed: browsers do so
    /// by themselves, and nobody notices.
    pub sent_again: usize,
    pub messages: usize,
    /// Requests without a good answer, and why.
    pub failed: Vec<String>,
    /// Answers that take a user for a stranger.
    pub logged_out: usize,
    /// The ends of WebSockets, by their code.
    pub closed: BTreeMap<u16, usize>,
}

/// Where users work, and until when.
#[derive(Clone)]
pub struct Work {
    pub gateway: SocketAddr,
    pub stop: CancellationToken,
    /// Which of the users this is.
    pub number: usize,
    pub seen: Arc<Mutex<Seen>>,
}

/// By what a user's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A connection, which takes requests for as long as it is open.
enum Link {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Work {
    /// Sends requests until it is over: reads, and now and then what changes something.
    pub async fn request(self, protocol: Protocol, cookie: String) {
        let mut link = None;
        for number in 0_usize.. {
            if self.stop.is_cancelled() {
                return;
            }
            let method = if number % 4 == 3 { Method::POST } else { Method::GET };
            self.exchange(&mut link, protocol, &method, &cookie).await;
            self.think().await;
        }
    }

    /// A request that finds its connection closed goes over a new one; on that one it has to succeed.
    async fn exchange(&self, link: &mut Option<Link>, protocol: Protocol, method: &Method, cookie: &str) {
        for is_new in [false, true] {
            if is_new || link.as_ref().is_none_or(Link::is_closed) {
                match Link::open(self.gateway, protocol).await {
                    Ok(opened) => *link = Some(opened),
                    Err(error) => {
                        return self.note(|seen| seen.failed.push(format!("not connected: {error}")));
                    }
                }
            }
            let is_reused = !is_new;
            let Some(open) = link else { return };
            match open.send(method, cookie).await {
                Ok(StatusCode::OK) => return self.note(|seen| seen.answered += 1),
                Ok(StatusCode::UNAUTHORIZED) => return self.note(|seen| seen.logged_out += 1),
                Ok(status) => return self.note(|seen| seen.failed.push(format!("{method}: {status}"))),
                Err(error) if is_reused && error.is_unanswered => {
                    self.note(|seen| seen.sent_again += 1);
                }
                Err(error) => {
                    *link = None;
                    return self
                        .note(|seen| seen.failed.push(format!("{protocol:?} {method}: {}", error.text)));
                }
            }
        }
    }

    /// Has a WebSocket open until it is over, and opens it again where it ends.
    pub async fn talk(self, cookie: String) {
        while !self.stop.is_cancelled() {
            let mut socket = match WebSocketClient::open(self.gateway, "/ws", &cookie).await {
                Ok(socket) => socket,
                Err(NotOpened::Refused(401)) => {
                    self.note(|seen| seen.logged_out += 1);
                    continue;
                }
                Err(error) => {
                    self.note(|seen| seen.failed.push(format!("no WebSocket: {error:?}")));
                    continue;
                }
            };
            for number in 0_usize.. {
                if self.stop.is_cancelled() {
                    return;
                }
                match socket.exchange(&format!("message {number}")).await {
                    Ok(()) => self.note(|seen| seen.messages += 1),
                    Err(code) => {
                        self.note(|seen| *seen.closed.entry(code).or_default() += 1);
                        break;
                    }
                }
                self.think().await;
            }
        }
    }

    async fn think(&self) {
        tokio::time::sleep(THINKS[self.number % THINKS.len()]).await;
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
    }
}

/// Why a request has no answer.
struct Unanswered {
    /// Nothing of an answer came, so that a browser sends it again on another connection.
    is_unanswered: bool,
    text: String,
}

impl Link {
    async fn open(gateway: SocketAddr, protocol: Protocol) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = TokioIo::new(TcpStream::connect(gateway).await?);
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Self::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Self::Http2(sender)
            }
        })
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// The status of the answer, which is read to its end.
    async fn send(&mut self, method: &Method, cookie: &str) -> Result<StatusCode, Unanswered> {
        let unanswered = |error: hyper::Error| Unanswered { is_unanswered: true, text: format!("{error:?}") };
        let request = Request::builder()
            .method(method)
            .header("x-csrf", "1")
            .header("sec-fetch-site", "same-origin")
            .header(header::ORIGIN, ORIGIN)
            .header(header::COOKIE, cookie);
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.map_err(unanswered)?;
                let request = request.uri("/api/orders").header(header::HOST, "shop.test");
                sender.send_request(request.body(Full::default()).unwrap()).await
            }
            Self::Http2(sender) => {
                sender.ready().await.map_err(unanswered)?;
                let request = request.uri(format!("{ORIGIN}/api/orders"));
                sender.send_request(request.body(Full::default()).unwrap()).await
            }
        };
        let response = response.map_err(unanswered)?;
        let status = response.status();
        match response.into_body().collect().await {
            Ok(_) => Ok(status),
            Err(error) => Err(Unanswered { is_unanswered: false, text: format!("{status}, then {error:?}") }),
        }
    }
}
