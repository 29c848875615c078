//! A balancer in front of gateways, as simple as they come: it looks at `/readyz`, and carries each new connection to the
//! next gateway that is ready. It knows nothing of HTTP, so that clients see all that gateways do to their connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::wait::until;

/// How often it looks, which must be well below the notice that a gateway gives.
const INTERVAL: Duration = Duration::from_millis(50);

pub struct Balancer {
    pub address: SocketAddr,
    members: Arc<Vec<Member>>,
    _running: JoinSet<()>,
}

struct Member {
    address: SocketAddr,
    admin: SocketAddr,
    is_ready: AtomicBool,
}

impl Balancer {
    /// In front of the gateways at these addresses; with each, that of its admin listener.
    pub async fn start(members: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Self {
        let members = members.into_iter();
        let members: Arc<Vec<_>> = Arc::new(
            members
                .map(|(address, admin)| Member { address, admin, is_ready: AtomicBool::new(false) })
                .collect(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut running = JoinSet::new();
        for number in 0..members.len() {
            let members = Arc::clone(&members);
            running.spawn(async move { members[number].watch().await });
        }
        running.spawn(serve(listener, Arc::clone(&members)));
        Self { address, members, _running: running }
    }

    /// Waits until this gateway gets new connections.
    pub async fn until_ready(&self, number: usize) {
        until(async || self.members[number].is_ready.load(Ordering::Relaxed)).await;
    }
}

impl Member {
    async fn watch(&self) {
        loop {
            self.is_ready.store(self.look().await.unwrap_or(false), Ordering::Relaxed);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer.starts_with(b"HTTP/1.1 200"))
    }
}

async fn serve(listener: TcpListener, members: Arc<Vec<Member>>) {
    // Dropped with this task, and every connection with it.
    let (mut connections, next) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    while let Ok((mut near, _)) = listener.accept().await {
        let (members, next) = (Arc::clone(&members), Arc::clone(&next));
        connections.spawn(async move {
            // As every balancer does, it goes on to the next one where a gateway takes no connection.
            for _ in 0..members.len() * 2 {
                let member = &members[next.fetch_add(1, Ordering::Relaxed) % members.len()];
                if !member.is_ready.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(mut far) = TcpStream::connect(member.address).await else { continue };
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                return;
            }
        });
    }
}
