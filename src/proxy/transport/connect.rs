//! The way to a server: TCP or a Unix socket, and TLS, all within one deadline.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;
use crate::config;
use crate::proxy::BuildError;
use crate::proxy::servers::ServerAddress;
use crate::proxy::tunnel::Duplex;

/// Bytes to and from a server.
pub(super) type Stream = Box<dyn Duplex>;

/// What is offered to a server to be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Http1,
    Http2,
    /// What it would rather have; without TLS HTTP/1.1.
    Either,
}

/// What a server has agreed to speak.
pub(super) enum Connected {
    Http1(Stream),
    Http2(Stream),
}

/// Makes connections to the servers of one upstream.
#[derive(Debug)]
pub(super) struct Connector {
    timeout: Duration,
    tls: Option<Tls>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the server cannot be reached")]
    Transport(#[source] io::Error),
    #[error("TLS could not be agreed upon")]
    Tls(#[source] io::Error),
    #[error("the server does not speak HTTP/2")]
    NotHttp2,
    #[error("the connection could not be set up")]
    Protocol(#[from] hyper::Error),
    #[error("there was no connection in time")]
    Timeout,
}

impl Connector {
    pub(super) fn new(upstream: &config::Upstream, timeout: Duration) -> Result<Self, BuildError> {
        let tls = (upstream.url.scheme() == "https").then(|| Tls::new(upstream)).transpose()?;
        Ok(Self { timeout, tls })
    }

    /// Without TLS, what is offered is what will be spoken.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// A new connection.
    pub(super) async fn connect(
        &self,
        server: &ServerAddress,
        offer: Offer,
    ) -> Result<Connected, ConnectError> {
        self.in_time(self.connect_at_leisure(server, offer)).await?
    }

    /// Waits for no longer than a connection may take.
    pub(super) async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, ConnectError> {
        tokio::time::timeout(self.timeout, wait).await.map_err(|_| ConnectError::Timeout)
    }

    async fn connect_at_leisure(
        &self,
        server: &ServerAddress,
        offer: Offer,
    ) -> Result<Connected, ConnectError> {
        let stream: Stream = match server {
            ServerAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(ConnectError::Transport)?;
                stream.set_nodelay(true).map_err(ConnectError::Transport)?;
                Box::new(stream)
            }
            ServerAddress::Unix(path) => {
                Box::new(UnixStream::connect(path).await.map_err(ConnectError::Transport)?)
            }
        };
        let Some(tls) = &self.tls else {
            let is_http2 = offer == Offer::Http2;
            return Ok(if is_http2 { Connected::Http2(stream) } else { Connected::Http1(stream) });
        };
        match tls.handshake(stream, offer).await.map_err(ConnectError::Tls)? {
            // A server that negotiates nothing speaks HTTP/1.1 (RFC 7301 §3.2).
            Connected::Http1(_) if offer == Offer::Http2 => Err(ConnectError::NotHttp2),
            connected => Ok(connected),
        }
    }
}
