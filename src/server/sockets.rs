//! The sockets that connections come in by: bound here, or handed over by who has started the process, as systemd does
//! for a unit with sockets (sd_listen_fds(3)). Those outlive the process, and who connects between its end and the
//! start of the next waits in their queue.

use std::io;
use std::net::{self, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted, as far as the operating system allows.
const BACKLOG: u32 = 4096;

/// What a socket is for, and what it goes by: the name in a socket unit, the key in the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    name: &'static str,
    key: &'static str,
}

pub(super) const PUBLIC: Purpose = Purpose { name: "public", key: "server.listen" };
pub(super) const ADMIN: Purpose = Purpose { name: "admin", key: "admin.listen" };

/// Sockets that were handed over, by name (`FileDescriptorName=` of systemd.socket(5)).
#[derive(Debug, Default)]
pub struct HandedOver(Vec<(String, net::TcpListener)>);

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system refuses.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Socket unit and configuration say different things.
    #[error(
        "the socket `{name}` that was handed over listens on {found}, and `{key}` says {configured}: let both name the same address"
    )]
    Elsewhere {
        /// Its name.
        name: &'static str,
        /// Where it listens.
        found: SocketAddr,
        /// Where the configuration says.
        key: &'static str,
        /// The address there.
        configured: SocketAddr,
    },
    /// Nobody would accept what comes in by it.
    #[error(
        "a socket `{name}` was handed over and has no use: its name (`FileDescriptorName=`) is `public`, or `admin` where `admin.listen` is set, and there is one of each at most"
    )]
    Unused {
        /// Its name.
        name: String,
    },
}

impl HandedOver {
    /// These, by name.
    #[must_use]
    pub fn new(sockets: Vec<(String, net::TcpListener)>) -> Self {
        Self(sockets)
    }

    /// The socket for this purpose, which is bound where none was handed over.
    pub(super) fn listen(
        &mut self,
        purpose: Purpose,
        address: SocketAddr,
    ) -> Result<TcpListener, ListenError> {
        let refused = |source| ListenError::Refused { address, source };
        let Some(position) = self.0.iter().position(|(name, _)| name == purpose.name) else {
            return bind(address).map_err(refused);
        };
        let (_, socket) = self.0.swap_remove(position);
        let found = socket.local_addr().map_err(refused)?;
        if found != address {
            let Purpose { name, key } = purpose;
            return Err(ListenError::Elsewhere { name, found, key, configured: address });
        }
        socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)).map_err(refused)
    }

    /// Whether none was handed over, or is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All have found their use.
    pub(super) fn finish(mut self) -> Result<(), ListenError> {
        self.0.pop().map_or(Ok(()), |(name, _)| Err(ListenError::Unused { name }))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the one before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
