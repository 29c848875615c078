//! What the gateway is told of the connection that a request came on.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::proxy::EarlyHints;
use crate::proxy::tunnel::End;

/// A request's surroundings: what the connection knows.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// The connection itself, or in HTTP/2 the stream; kept for as long as a tunnel is open that it has become.
    pub client: Arc<dyn ClientConnection>,
}

/// A connection, or in HTTP/2 a stream of one, that may become a tunnel.
pub trait ClientConnection: std::fmt::Debug + Send + Sync {
    /// The client's end of the tunnel that a handshake asks for: there once its answer was sent.
    fn tunnel_end(&self) -> End;

    /// The connection now is a tunnel; no limit for requests applies any more.
    fn becomes_tunnel(&self);

    /// Takes the links that the upstream names before it answers (RFC 8297). In HTTP/1.1 nobody does:
    /// browsers take early hints in HTTP/2 alone.
    fn early_hints(self: Arc<Self>) -> Option<EarlyHints>;
}
