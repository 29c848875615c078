//! What the gateway is told of the connection that a request came on.

use std::net::SocketAddr;
use std::sync::Arc;

/// A request's surroundings: what the connection knows.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// The connection itself; kept for as long as a tunnel is open that it has become.
    pub client: Arc<dyn ClientConnection>,
}

/// A connection that is told what it is waiting for, since its time limits depend on that.
pub trait ClientConnection: std::fmt::Debug + Send + Sync {
    /// The request has come whole: it is the gateway's turn.
    fn request_received(&self);

    /// The connection now is a tunnel; no limit for requests applies any more.
    fn becomes_tunnel(&self);
}
