//! A Redis Cluster of three masters with a replica each, which can be killed, frozen and have slots moved.

use std::collections::BTreeSet;

use cloakroom::config::{self, RedisServers};
use cloakroom::session::store::RecordKey;
use redis::Value;

use super::redis::{Redis, SERVER, config_of, free_port};
use super::wait::{in_time, until};

/// The last slot of each third.
const THIRDS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Six servers, the masters first. Dropping it kills them.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts a cluster and waits until all of it agrees, and each replica has what its master has.
    pub async fn start() -> Self {
        Self::start_with(Vec::new).await
    }

    /// The same, each node with more arguments.
    pub async fn start_with(arguments: impl Fn() -> Vec<String>) -> Self {
        Self::start_program(SERVER, arguments).await
    }

    /// The same of another program that takes Redis' arguments.
    pub async fn start_program(program: &str, arguments: impl Fn() -> Vec<String>) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let arguments = || [options(free_port()), arguments()].concat();
            nodes.push(Redis::start_program(program, arguments).await);
        }
        let cluster = Self { nodes };
        for (index, node) in cluster.nodes.iter().enumerate() {
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            if let Some((first, last)) = THIRDS.get(index) {
                let range = [first.to_string(), last.to_string()];
                node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            }
        }
        for node in &cluster.nodes[1..] {
            let (is_tls, bus) =
                (setting(node, "tls-cluster").await == "yes", setting(node, "cluster-port").await);
            let port = if is_tls { setting(node, "tls-port").await } else { node.port().to_string() };
            cluster.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        for index in 0..6 {
            until(async || cluster.known_to(index).await.len() == 6).await;
        }
        for (master, replica) in [(0, 3), (1, 4), (2, 5)] {
            let name: String = cluster.nodes[master].command(&["CLUSTER", "MYID"]).await;
            cluster.nodes[replica].command::<()>(&["CLUSTER", "REPLICATE", &name]).await;
        }
        for index in 0..6 {
            until(async || cluster.is_whole(index).await).await;
        }
        cluster
    }

    /// The configuration of a store in it, by two of its nodes.
    pub fn config(&self) -> config::Redis {
        config_of(RedisServers::Cluster(vec![self.nodes[0].url(), self.nodes[4].url()]))
    }

    pub fn node(&self, index: usize) -> &Redis {
        &self.nodes[index]
    }

    pub fn kill(&mut self, index: usize) {
        self.nodes[index].stop();
    }

    /// Who has this slot, as a node sees it.
    pub async fn owner_of_slot(&self, slot: i64, asked: usize) -> usize {
        for range in self.slots(asked).await {
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
                panic!("a range of slots")
            };
            if (*first..=*last).contains(&slot) {
                let Value::Int(port) = master[1] else { panic!("a port") };
                return self.nodes.iter().position(|node| i64::from(node.port()) == port).unwrap();
            }
        }
        panic!("nobody has {slot}")
    }

    /// Whether a node has a store's record, itself or as a replica.
    pub async fn has(&self, index: usize, key: &RecordKey) -> bool {
        let names: Vec<String> = self.nodes[index].command(&["KEYS", "cloakroom:session:*}"]).await;
        let shown = format!("{key:?}");
        names.iter().any(|name| shown.contains(name.split(['{', '}']).nth(1).unwrap()))
    }

    /// Waits until a master's replica has what it has.
    pub async fn until_replicated(&self, master: usize) {
        assert_eq!(in_time(self.nodes[master].command::<u64>(&["WAIT", "1", "0"])).await, 1);
    }

    /// Has a replica leave its master's place alone, or no longer.
    pub async fn hold_failover(&self, replica: usize, hold: bool) {
        let hold = if hold { "yes" } else { "no" };
        self.nodes[replica].command::<()>(&["CONFIG", "SET", "cluster-replica-no-failover", hold]).await;
    }

    /// Waits until a node knows that slots are missing.
    pub async fn until_down(&self, index: usize) {
        until(async || {
            self.nodes[index].command::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:fail")
        })
        .await;
    }

    /// Where the store's only record lies, and its name there.
    pub async fn only_record(&self) -> (usize, String) {
        for (index, node) in self.nodes[..3].iter().enumerate() {
            let mut names: Vec<String> = node.command(&["KEYS", "cloakroom:session:*"]).await;
            if let Some(name) = names.pop() {
                return (index, name);
            }
        }
        panic!("no record")
    }

    /// The name that the cluster's own commands have for a node.
    pub async fn name(&self, index: usize) -> String {
        self.nodes[index].command(&["CLUSTER", "MYID"]).await
    }

    async fn slots(&self, asked: usize) -> Vec<Vec<Value>> {
        self.nodes[asked].command(&["CLUSTER", "SLOTS"]).await
    }

    async fn known_to(&self, index: usize) -> BTreeSet<String> {
        let nodes: String = self.nodes[index].command(&["CLUSTER", "NODES"]).await;
        let known = nodes.lines().filter(|node| !node.contains("handshake"));
        known.map(|node| node.split(' ').next().unwrap().to_owned()).collect()
    }

    async fn is_whole(&self, index: usize) -> bool {
        let info: String = self.nodes[index].command(&["CLUSTER", "INFO"]).await;
        let replication: String = self.nodes[index].command(&["INFO", "replication"]).await;
        let slots = self.slots(index).await;
        info.contains("cluster_state:ok")
            && (slots.len(), slots.iter().all(|range| range.len() == 4)) == (3, true)
            && !replication.contains("master_link_status:down")
            && replication.contains(if index < 3 { "connected_slaves:1" } else { "role:slave" })
            && !replication.contains("state=wait_bgsave")
    }
}

fn options(bus: u16) -> Vec<String> {
    let bus = bus.to_string();
    let mut options = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    options.extend(["--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]);
    options.extend(["--repl-diskless-sync-delay", "0"]);
    options.into_iter().map(str::to_owned).collect()
}

async fn setting(node: &Redis, name: &str) -> String {
    let answer: Vec<String> = node.command(&["CONFIG", "GET", name]).await;
    answer.into_iter().nth(1).expect("the setting")
}
