//! A network in front of Redis that holds back what a gateway sends, so that a test can act in between.

use std::sync::Arc;

use cloakroom::config::{self, RedisServers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::support::redis::{Redis, config_of};
use crate::support::wait::in_time;

/// Dropping it ends its connections.
pub struct Network {
    port: u16,
    gate: Arc<Gate>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Gate {
    /// What has this word in it waits.
    word: watch::Sender<Option<&'static str>>,
    /// How often something has come to wait.
    arrived: watch::Sender<usize>,
}

impl Network {
    pub async fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, redis_port) = (listener.local_addr().unwrap().port(), redis.port());
        let gate = Arc::new(Gate::default());
        let passing = Arc::clone(&gate);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(("127.0.0.1", redis_port)).await.unwrap();
                connections.spawn(Arc::clone(&passing).carry(near, far));
            }
        });
        Self { port, gate, _task: AbortOnDropHandle::new(task) }
    }

    /// The configuration of a store behind it.
    pub fn config(&self) -> config::Redis {
        config_of(RedisServers::Single(format!("redis://127.0.0.1:{}", self.port).parse().unwrap()))
    }

    /// Holds back whatever has this word in it, and all that comes after it.
    pub fn hold(&self, word: &'static str) {
        self.gate.arrived.send_replace(0);
        self.gate.word.send_replace(Some(word));
    }

    pub async fn until_held(&self) {
        let mut arrived = self.gate.arrived.subscribe();
        in_time(arrived.wait_for(|arrived| *arrived > 0)).await.unwrap();
    }

    pub fn release(&self) {
        self.gate.word.send_replace(None);
    }
}

impl Gate {
    async fn carry(self: Arc<Self>, near: TcpStream, far: TcpStream) {
        let (mut from_gateway, mut to_gateway) = near.into_split();
        let (mut from_redis, mut to_redis) = far.into_split();
        let there = async {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(length @ 1..) = from_gateway.read(&mut chunk).await {
                self.pass(&chunk[..length]).await;
                if to_redis.write_all(&chunk[..length]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = there => {}
            _ = tokio::io::copy(&mut from_redis, &mut to_gateway) => {}
        }
    }

    async fn pass(&self, chunk: &[u8]) {
        let mut word = self.word.subscribe();
        let is_free = |word: &Option<&str>| {
            word.is_none_or(|word| !chunk.windows(word.len()).any(|window| window == word.as_bytes()))
        };
        if !is_free(&word.borrow()) {
            self.arrived.send_modify(|arrived| *arrived += 1);
        }
        word.wait_for(is_free).await.unwrap();
    }
}
