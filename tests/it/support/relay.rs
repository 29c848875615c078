//! A network between a gateway and a server, which can be cut.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

use super::wait::until;

/// Carries bytes both ways until it is cut or dropped.
pub struct Relay {
    port: u16,
    is_cut: Arc<watch::Sender<bool>>,
    running: AbortHandle,
}

impl Relay {
    /// A relay to the server at this port of 127.0.0.1.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_cut = Arc::new(watch::Sender::new(false));
        let cut = Arc::clone(&is_cut);
        let running = tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(carry(near, server, cut.subscribe()));
            }
        });
        Self { port, is_cut, running: running.abort_handle() }
    }

    /// Where a Redis behind it is to be found.
    pub fn redis_url(&self) -> Url {
        Url::parse(&format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }

    /// Ends every connection, and each new one at once: once this is done nothing passes any more.
    pub async fn cut(&self) {
        self.is_cut.send_replace(true);
        until(async || self.is_cut.receiver_count() == 0).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Has the receiver until both connections are closed.
async fn carry(mut near: TcpStream, server: u16, is_cut: watch::Receiver<bool>) {
    let mut cut = is_cut.clone();
    carry_until(&mut near, server, async move { drop(cut.wait_for(|cut| *cut).await) }).await;
    drop(near);
    drop(is_cut);
}

async fn carry_until(near: &mut TcpStream, server: u16, is_cut: impl Future<Output = ()>) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    tokio::select! {
        biased;
        () = is_cut => {}
        _ = tokio::io::copy_bidirectional(near, &mut far) => {}
    }
}
