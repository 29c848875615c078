//! The way to a server: TCP or a Unix socket, and TLS, all within one deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};

use super::tls::Tls;
use crate::config;
use crate::proxy::BuildError;
use crate::proxy::servers::ServerAddress;
use crate::proxy::tunnel::Duplex;
use crate::reloaded::Reload;

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

    /// How TLS is spoken now: another one whenever our certificate is another.
    pub(super) fn tls_config(&self) -> Option<Arc<ClientConfig>> {
        self.tls.as_ref().map(Tls::config)
    }

    /// Reads our certificate again, where there is one.
    pub(super) fn reload(&self) -> Option<Reload> {
        self.tls.as_ref().and_then(Tls::reload)
    }

    /// A new connection.
    pub(super) async fn connect(
        &self,
        server: &ServerAddress,
        offer: Offer,
        config: Option<&Arc<ClientConfig>>,
    ) -> Result<Connected, ConnectError> {
        self.in_time(self.connect_at_leisure(server, offer, config)).await?
    }

    /// Waits for no longer than a connection may take.
    pub(super) async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, ConnectError> {
        tokio::time::timeout(self.timeout, wait).await.map_err(|_| ConnectError::Timeout)
    }

    async fn connect_at_leisure(
        &self,
        server: &ServerAddress,
        offer: Offer,
        config: Option<&Arc<ClientConfig>>,
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
        let (Some(tls), Some(config)) = (&self.tls, config) else {
            let is_http2 = offer == Offer::Http2;
            return Ok(if is_http2 { Connected::Http2(stream) } else { Connected::Http1(stream) });
        };
        match tls.handshake(stream, offer, config).await.map_err(ConnectError::Tls)? {
            // A server that negotiates nothing speaks HTTP/1.1 (RFC 7301 §3.2).
            Connected::Http1(_) if offer == Offer::Http2 => Err(ConnectError::NotHttp2),
            connected => Ok(connected),
        }
    }
}
