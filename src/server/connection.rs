//! A connection from its first byte to its protocol, all within the time of one head (R65).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http_body_util::{BodyExt, Collected};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Place, Places, TooMany};
use super::prefixed::Prefixed;
use super::proxy_protocol::{self, InvalidHeader};
use super::timing::{TimedStream, Timing};
use super::tls::{Agreed, Tls};
use super::{TURN_AWAY_TIMEOUT, http1, http2};
use crate::config::Limits;
use crate::error::{Code, Refusal};
use crate::gateway::Gateway;
use crate::respond::{self, Audience};
use crate::telemetry::chain;

/// With what a connection in HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The preface, and the head of the SETTINGS that belong to it (RFC 9113 §3.4, §4.1), in bytes.
const WHOLE_PREFACE: usize = PREFACE.len() + 9;

/// The first byte of a connection in TLS: that of a record of the handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What all connections of the public listener share.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) limits: Limits,
    pub(super) gateway: Arc<Gateway>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) proxy_protocol: bool,
    pub(super) h2c: bool,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) places: Places,
    /// Places for connections that are told that they are too many.
    pub(super) turned_away: Semaphore,
}

/// Why a connection has ended before its first request.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("it was silent, or slow, for too long")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] InvalidHeader),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("it does not speak TLS")]
    NotEncrypted,
}

impl Listener {
    /// Serves a connection until it ends, or has become a tunnel.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        stopping: CancellationToken,
    ) {
        // Small answers must not wait for each other; a socket that refuses this works all the same.
        let _ = stream.set_nodelay(true);
        let due = Instant::now() + self.limits.header_timeout;
        let mut stream = Prefixed::new(stream);
        let begun = match timeout_at(due, self.identify(&mut stream, peer, place)).await {
            Ok(Ok(client)) if self.tls.is_some() => {
                Box::pin(self.encrypted(stream, due, client, stopping)).await
            }
            Ok(Ok(client)) => self.plain(stream, due, client, stopping).await,
            Ok(Err(error @ NotServed::TooMany(_))) => {
                self.turn_away(stream).await;
                Err(error)
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = begun {
            tracing::debug!(event = "connection.refused", %peer, error = %chain(&error));
        }
    }

    /// Answers whatever a connection too many may ask, without waiting for it.
    pub(super) async fn turn_away(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        // Those who come in TLS have nothing to hear that costs no handshake.
        if self.tls.is_none()
            && let Ok(_place) = self.turned_away.try_acquire()
        {
            let refusal =
                Refusal::new(Code::Overloaded, "There are too many connections. Try again shortly.");
            say(stream, &refusal).await;
        }
    }

    /// Whose connection this is: the other end's, or what its header of the PROXY protocol says.
    async fn identify(
        &self,
        stream: &mut Prefixed<TcpStream>,
        peer: SocketAddr,
        mut place: Place,
    ) -> Result<Client, NotServed> {
        let mut address = peer;
        if self.proxy_protocol && self.is_trusted(peer.ip()) {
            address = proxy_protocol::read(stream).await?.unwrap_or(peer);
        }
        if !self.is_trusted(address.ip()) {
            self.places.count(&mut place, address.ip())?;
        }
        Ok(Client::new(address, place))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    async fn plain(
        self: Arc<Self>,
        mut stream: Prefixed<TcpStream>,
        due: Instant,
        client: Client,
        stopping: CancellationToken,
    ) -> Result<(), NotServed> {
        if self.h2c && timeout_at(due, stream.look(WHOLE_PREFACE, is_http2)).await?? {
            let served =
                http2::serve(stream, client, self.limits.clone(), Arc::clone(&self.gateway), stopping);
            Box::pin(served).await;
        } else {
            http1::serve(stream, due, client, self, stopping).await;
        }
        Ok(())
    }

    async fn encrypted(
        self: Arc<Self>,
        mut stream: Prefixed<TcpStream>,
        due: Instant,
        client: Client,
        stopping: CancellationToken,
    ) -> Result<(), NotServed> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let first = timeout_at(due, stream.look(1, |ahead| ahead.first().copied())).await??;
        if first != TLS_HANDSHAKE {
            if first.is_ascii_uppercase() {
                say(stream, &Refusal::bad_request("This port speaks HTTPS: the URL begins with https://."))
                    .await;
            }
            return Err(NotServed::NotEncrypted);
        }
        let (stream, agreed) = timeout_at(due, Box::pin(tls.accept(stream))).await??;
        match agreed {
            Agreed::Http11 => http1::serve(Prefixed::new(stream), due, client, self, stopping).await,
            Agreed::Http2 => {
                let mut stream = Prefixed::new(stream);
                // What begins otherwise is for HTTP/2 to refuse.
                timeout_at(due, stream.look(WHOLE_PREFACE, is_http2)).await??;
                http2::serve(stream, client, self.limits.clone(), Arc::clone(&self.gateway), stopping).await;
            }
        }
        Ok(())
    }
}

/// Whether a connection begins as one in HTTP/2 does; nothing where that does not show so far.
fn is_http2(ahead: &[u8]) -> Option<bool> {
    if ahead.iter().zip(PREFACE).any(|(byte, expected)| byte != expected) {
        return Some(false);
    }
    (ahead.len() >= WHOLE_PREFACE).then_some(true)
}

/// Says this in HTTP/1.1, whatever was asked, and closes the connection.
async fn say(stream: impl AsyncRead + AsyncWrite + Unpin, refusal: &Refusal) {
    let (head, body) = respond::refusal(refusal, Audience::Script).into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes) else { return };
    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes());
    answer.extend(body);
    let timing = Timing::new(TURN_AWAY_TIMEOUT, TURN_AWAY_TIMEOUT);
    let mut stream = TimedStream::new(stream, Arc::new(timing), Instant::now() + TURN_AWAY_TIMEOUT);
    let said = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, said).await;
}
