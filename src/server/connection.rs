//! A connection from its first byte to its protocol, all within the time of one head (R65).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::{BodyExt, Collected};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Place, Places, TooMany};
use super::prefixed::Prefixed;
use super::proxy_protocol::{self, InvalidHeader};
use super::readiness::Readiness;
use super::timing::{TimedStream, Timing};
use super::tls::{Agreed, InvalidTls, Tls};
use super::{FAREWELL, TURN_AWAY_TIMEOUT, http1, http2};
use crate::config::{self, Limits};
use crate::error::{Reason, Refusal};
use crate::gateway::Gateway;
use crate::respond;
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
    pub(super) in_force: ArcSwap<InForce>,
    pub(super) places: Places,
    /// Places for connections that are told that they are too many.
    pub(super) turned_away: Semaphore,
    pub(super) readiness: Readiness,
}

/// What the configuration in force makes of connections and requests. Each request takes the gateway anew, so that no
/// connection holds on to one that another has taken the place of.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) door: Arc<Door>,
    pub(super) gateway: Gateway,
    pub(super) shutdown_grace: Duration,
}

/// How a connection comes in, and what it may use up: as it was when it began, for as long as it is open.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) limits: Limits,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) proxy_protocol: bool,
    pub(super) h2c: bool,
    pub(super) tls: Option<Arc<Tls>>,
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
    #[error("the gateway stops")]
    Stopping,
}

impl InForce {
    /// What this configuration makes of them. The certificate is kept as it is used where it was `before` in the same
    /// files, so that whoever comes back is known by his ticket (RFC 8446 §2.2).
    pub(super) fn new(
        server: &config::Server,
        gateway: Gateway,
        before: Option<&Self>,
    ) -> Result<Self, InvalidTls> {
        let before = before.and_then(|before| before.door.tls.as_ref());
        let tls = server.tls.as_ref().map(|files| match before.filter(|before| before.is_of(files)) {
            Some(before) => Ok(Arc::clone(before)),
            None => Tls::new(files.clone(), gateway.metrics().clone()).map(Arc::new),
        });
        let door = Door {
            limits: server.limits.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
            proxy_protocol: server.proxy_protocol,
            h2c: server.h2c,
            tls: tls.transpose()?,
        };
        Ok(Self { door: Arc::new(door), gateway, shutdown_grace: server.shutdown_grace })
    }

    /// Reads all certificates and keys again.
    pub(super) fn reload(&self) {
        if let Some(tls) = &self.door.tls {
            tls.reload();
        }
        self.gateway.reload();
    }
}

impl Listener {
    /// As it is for those who come now.
    pub(super) fn door(&self) -> Arc<Door> {
        Arc::clone(&self.in_force.load().door)
    }

    /// Serves a connection until it ends, or has become a tunnel.
    pub(super) async fn serve(
        self: Arc<Self>,
        door: Arc<Door>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        stopping: CancellationToken,
    ) {
        // Small answers must not wait for each other; a socket that refuses this works all the same.
        let _ = stream.set_nodelay(true);
        let due = Instant::now() + door.limits.header_timeout;
        let mut stream = Prefixed::new(stream);
        let begun = match in_time(due, &stopping, self.identify(&door, &mut stream, peer, place)).await {
            Ok(client) if door.tls.is_some() => {
                Box::pin(self.encrypted(door, stream, due, client, stopping)).await
            }
            Ok(client) => self.plain(door, stream, due, client, stopping).await,
            Err(error @ NotServed::TooMany(_)) => {
                self.in_force.load().gateway.metrics().count_overload("connections_per_client");
                self.turn_away(&door, stream).await;
                Err(error)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            tracing::debug!(event = "connection.refused", %peer, error = %chain(&error));
        }
    }

    /// Answers whatever a connection too many may ask, without waiting for it.
    pub(super) async fn turn_away(&self, door: &Door, stream: impl AsyncRead + AsyncWrite + Unpin) {
        // Those who come in TLS have nothing to hear that costs no handshake.
        if door.tls.is_none()
            && let Ok(_place) = self.turned_away.try_acquire()
        {
            let refusal = Refusal::new(Reason::TooManyConnections);
            say(stream, &refusal).await;
        }
    }

    /// Whose connection this is: the other end's, or what its header of the PROXY protocol says.
    async fn identify(
        &self,
        door: &Door,
        stream: &mut Prefixed<TcpStream>,
        peer: SocketAddr,
        mut place: Place,
    ) -> Result<Client, NotServed> {
        let mut address = peer;
        if door.proxy_protocol && door.is_trusted(peer.ip()) {
            address = proxy_protocol::read(stream).await?.unwrap_or(peer);
        }
        if !door.is_trusted(address.ip()) {
            self.places.count(&mut place, address.ip(), door.limits.connections_per_client)?;
        }
        Ok(Client::new(address, place))
    }

    async fn plain(
        self: Arc<Self>,
        door: Arc<Door>,
        mut stream: Prefixed<TcpStream>,
        due: Instant,
        client: Client,
        stopping: CancellationToken,
    ) -> Result<(), NotServed> {
        if door.h2c && in_time(due, &stopping, stream.look(WHOLE_PREFACE, is_http2)).await? {
            Box::pin(http2::serve(stream, client, &door.limits, self, stopping)).await;
        } else {
            http1::serve(stream, due, client, &door.limits, self, stopping).await;
        }
        Ok(())
    }

    async fn encrypted(
        self: Arc<Self>,
        door: Arc<Door>,
        mut stream: Prefixed<TcpStream>,
        due: Instant,
        client: Client,
        stopping: CancellationToken,
    ) -> Result<(), NotServed> {
        let Some(tls) = &door.tls else { return Ok(()) };
        let first = in_time(due, &stopping, stream.look(1, |ahead| ahead.first().copied())).await?;
        if first != TLS_HANDSHAKE {
            if first.is_ascii_uppercase() {
                say(stream, &Refusal::new(Reason::PlainHttp)).await;
            }
            return Err(NotServed::NotEncrypted);
        }
        let (stream, agreed) = in_time(due, &stopping, Box::pin(tls.accept(stream))).await?;
        match agreed {
            Agreed::Http11 => {
                http1::serve(Prefixed::new(stream), due, client, &door.limits, self, stopping).await;
            }
            Agreed::Http2 => {
                let mut stream = Prefixed::new(stream);
                // What begins otherwise is for HTTP/2 to refuse.
                in_time(due, &stopping, stream.look(WHOLE_PREFACE, is_http2)).await?;
                http2::serve(stream, client, &door.limits, self, stopping).await;
            }
        }
        Ok(())
    }
}

impl Door {
    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

/// What a connection does before its first request, for which it has until it is `due`, and less where the gateway stops.
async fn in_time<T, E>(
    due: Instant,
    stopping: &CancellationToken,
    begins: impl Future<Output = Result<T, E>>,
) -> Result<T, NotServed>
where
    NotServed: From<E>,
{
    let stopped = async {
        stopping.cancelled().await;
        sleep(FAREWELL).await;
    };
    tokio::select! {
        begun = timeout_at(due, begins) => Ok(begun??),
        () = stopped => Err(NotServed::Stopping),
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
    let (head, body) = respond::problem(refusal).into_parts();
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
