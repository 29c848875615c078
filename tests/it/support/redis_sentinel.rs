//! A master with a replica, and three sentinels that look after them.

use cloakroom::config::{self, RedisServers};

use super::redis::{Redis, config_of};
use super::wait::until;

/// The master's name among the sentinels.
pub const MASTER: &str = "sessions";

/// Two servers, the first one the master, and three sentinels. Dropping it kills them.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl RedisSentinel {
    /// Starts it all, and waits until the sentinels know each other and the replica has what its master has.
    pub async fn start() -> Self {
        Self::start_with(String::new, Vec::new).await
    }

    /// The same, with more lines for each sentinel, and more arguments for each server.
    pub async fn start_with(lines: impl Fn() -> String, arguments: impl Fn() -> Vec<String>) -> Self {
        let delay = ["--repl-diskless-sync-delay", "0"].map(str::to_owned);
        let arguments = || [delay.to_vec(), arguments()].concat();
        let servers = vec![Redis::start_with(&arguments).await, Redis::start_with(&arguments).await];
        let port = replication_port(&servers[0]).await;
        servers[1].command::<()>(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await;
        let configuration = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 3000\n"
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Redis::start_sentinel(&format!("{}{configuration}", lines())).await);
        }
        let started = Self { servers, sentinels };
        until(async || started.is_in_step().await).await;
        for sentinel in &started.sentinels {
            until(async || started.is_whole(sentinel).await).await;
        }
        started
    }

    /// The configuration of a store in whoever is the master.
    pub fn config(&self) -> config::Redis {
        let urls = self.sentinels.iter().map(Redis::url).collect();
        config_of(RedisServers::Sentinel { master: MASTER.to_owned(), urls })
    }

    pub fn server(&self, index: usize) -> &Redis {
        &self.servers[index]
    }

    pub fn sentinel(&self, index: usize) -> &Redis {
        &self.sentinels[index]
    }

    pub fn kill(&mut self, index: usize) {
        self.servers[index].stop();
    }

    pub fn kill_sentinel(&mut self, index: usize) {
        self.sentinels[index].stop();
    }

    /// Has the sentinels leave a silent master alone, or no longer.
    pub async fn hold_failovers(&self, hold: bool) {
        // More than there are never agree.
        let quorum = if hold { "4" } else { "2" };
        for sentinel in &self.sentinels {
            sentinel.command::<()>(&["SENTINEL", "SET", MASTER, "quorum", quorum]).await;
        }
    }

    /// Orders the sentinels to make the replica the master.
    pub async fn order_failover(&self) {
        self.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", MASTER]).await;
    }

    /// Waits until all sentinels name this server, and it takes writes.
    pub async fn until_master_is(&self, index: usize) {
        let port = self.servers[index].port();
        for sentinel in &self.sentinels {
            until(async || {
                let address: (String, u16) =
                    sentinel.command(&["SENTINEL", "get-master-addr-by-name", MASTER]).await;
                address.1 == port
            })
            .await;
        }
    }

    /// Waits until this server follows the other.
    pub async fn until_replica_is(&self, index: usize) {
        until(async || {
            // Whoever is made a replica is rid of its connections.
            let replication = self.servers[index].try_command::<String>(&["INFO", "replication"]).await;
            replication.is_ok_and(|it| it.contains("role:slave") && it.contains("master_link_status:up"))
        })
        .await;
    }

    async fn is_in_step(&self) -> bool {
        let replication: String = self.servers[0].command(&["INFO", "replication"]).await;
        replication.contains("state=online")
    }

    async fn is_whole(&self, sentinel: &Redis) -> bool {
        let master: Vec<String> = sentinel.command(&["SENTINEL", "MASTER", MASTER]).await;
        let value = |name: &str| {
            let at = master.iter().position(|field| field == name).expect("a field");
            master[at + 1].as_str()
        };
        (value("flags"), value("num-slaves"), value("num-other-sentinels")) == ("master", "1", "2")
    }
}

/// Where its replicas reach a server, and the sentinels.
async fn replication_port(server: &Redis) -> u16 {
    let setting = async |name: &str| server.command::<Vec<String>>(&["CONFIG", "GET", name]).await.remove(1);
    match setting("tls-replication").await.as_str() {
        "yes" => setting("tls-port").await.parse().expect("a port"),
        _ => server.port(),
    }
}
