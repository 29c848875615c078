//! A TLS terminator in front of the gateway, for what a browser does on https alone.

use std::net::SocketAddr;

use serde::Deserialize;

use super::node;

/// A running terminator; dropping it stops it.
pub struct Terminator {
    ready: Ready,
    server: node::Server,
}

#[derive(Deserialize)]
struct Ready {
    origin: String,
}

impl Terminator {
    /// Starts a terminator that holds its requests back until it knows where to send them.
    pub async fn start() -> Self {
        let (server, ready) = node::Server::start(node::script("terminator.mjs")).await;
        Self { ready, server }
    }

    /// The origin for the gateway's configuration, `https://localhost:…`; it connects from 127.0.0.1.
    pub fn origin(&self) -> &str {
        &self.ready.origin
    }

    /// Says where the gateway listens.
    pub async fn forward_to(&mut self, gateway: SocketAddr) {
        self.server.tell(&format!("http://{gateway}")).await;
    }
}
