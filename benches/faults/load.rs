//! Users who send requests all the while, and what became of each.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::gateway::SESSION_COOKIE;
use crate::support::wire::head;
use crate::world::World;

/// How often each user sends a request to each gateway.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// Longer than a gateway lets a request wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// One request, and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub user: usize,
    pub started: Instant,
    pub ended: Instant,
    /// 0 where there was none.
    pub status: u16,
}

/// Sends requests until it is dropped.
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    _users: JoinSet<()>,
}

impl Load {
    pub fn start(world: &World) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let mut users = JoinSet::new();
        for (number, user) in world.users.iter().enumerate() {
            for gateway in world.gateways.iter().map(|gateway| gateway.address) {
                let (cookie, noted) = (user.cookie.clone(), Arc::clone(&samples));
                users.spawn(async move {
                    let mut ticks = interval(INTERVAL);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    loop {
                        ticks.tick().await;
                        let started = Instant::now();
                        let status = get(gateway, &cookie).await;
                        let sample = Sample { user: number, started, ended: Instant::now(), status };
                        noted.lock().unwrap().push(sample);
                    }
                });
            }
        }
        Self { samples, _users: users }
    }

    /// All that have been answered so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap().clone()
    }
}

/// One request of an app's script; the status of its answer, or 0.
pub async fn get(gateway: SocketAddr, cookie: &str) -> u16 {
    request(gateway, "GET /api", cookie).await
}

/// The same, to log out.
pub async fn log_out(gateway: SocketAddr, cookie: &str) -> u16 {
    request(gateway, "POST /bff/logout", cookie).await
}

async fn request(gateway: SocketAddr, line: &str, cookie: &str) -> u16 {
    let fields = format!(
        "Cookie: {SESSION_COOKIE}={cookie}\r\nX-CSRF: 1\r\nContent-Length: 0\r\nConnection: close\r\n"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(gateway).await?;
        stream.write_all(head(line, &fields).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.ok().and_then(Result::ok).unwrap_or_default();
    let status = answer.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
    status.and_then(|word| word.parse().ok()).unwrap_or(0)
}
