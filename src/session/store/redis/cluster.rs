//! Redis Cluster: each key on the primary that has its slot.
//!
//! The library's own client for clusters is not used. It sends a command again when a connection was lost,
//! and the first may have been carried out: a `take` that was would then find nothing, and the tokens in its
//! lost answer would be revoked by nobody. It keeps to a primary that fell silent, and while it looks
//! for a better one it holds back everybody, those whose slots are well too. Here each primary
//! has a [`Link`] of its own, and what is sent twice is only what was certainly not carried out: a command
//! that was answered with a redirection. All else is an error, for which the caller has an answer.
//!
//! Who has which slot is asked again after any error, and every second that there is something to do: a
//! primary that slept while its replica took over knows nothing of it as it wakes up, and would call sessions
//! absent. Another node is asked than the one that is about to be believed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::cluster_routing::Slot;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::{Instant, timeout};

use super::link::{Link, Target};
use super::replicas::{ReplicasWanted, key_of};
use super::topology::{Access, Address, failed};

/// For one node to say who has which slot, connecting included.
const SLOTS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long it is believed. No cluster gives up a silent primary sooner.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// How long it stands though an error has put it in doubt, so that errors do not become as many questions.
const DOUBTED_FOR: Duration = Duration::from_millis(100);

/// How often one command follows a redirection. While a slot moves there may be two.
const REDIRECTIONS: usize = 5;

/// Some nodes, and what opens each.
pub(super) struct Seeds {
    addresses: Vec<Address>,
    access: Access,
    /// Who had slots when it was last asked: the seeds may be gone by now.
    primaries: Mutex<HashSet<Address>>,
}

/// The nodes of a cluster. Clones share the connections.
#[derive(Clone)]
pub(super) struct Cluster {
    nodes: Arc<Nodes>,
    /// Where the last command went: one without a key belongs to it, as a script to the command that misses it.
    last: Option<Link>,
}

struct Nodes {
    seeds: Arc<Seeds>,
    replicas: ReplicasWanted,
    map: Mutex<Map>,
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
    is_outdated: AtomicBool,
}

#[derive(Default)]
struct Map {
    links: HashMap<Address, Link>,
    owners: HashMap<Slot, Address>,
    asked_at: Option<Instant>,
    /// Who answered last, to be asked first.
    answered: Option<Address>,
}

impl Seeds {
    pub(super) fn new(addresses: Vec<Address>, access: Access) -> Self {
        Self { addresses, access, primaries: Mutex::default() }
    }

    /// A client of each node that has slots.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Client>> {
        let mut last = failed(ErrorKind::ClusterConnectionNotFound, "no node");
        let known = self.known().clone();
        for address in known.iter().chain(&self.addresses) {
            let client = Arc::new(self.access.client(address)?);
            let link = Link::new(Target::Server(client), ReplicasWanted::none());
            match owners(&link, address).await {
                Ok(owners) => {
                    self.learn(&owners);
                    return self.known().iter().map(|primary| self.access.client(primary)).collect();
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn learn(&self, owners: &HashMap<Slot, Address>) {
        *self.known() = owners.values().cloned().collect();
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Address>> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Connects to nothing yet.
    pub(super) fn new(seeds: Arc<Seeds>, replicas: ReplicasWanted) -> Self {
        let nodes = Nodes {
            seeds,
            replicas,
            map: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            is_outdated: AtomicBool::new(false),
        };
        Self { nodes: Arc::new(nodes), last: None }
    }

    /// Sends one command to who has its key, wherever that has gone.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut link = self.link(key_of(command)).await?;
        let mut is_asking = false;
        for _ in 0..REDIRECTIONS {
            let answer = if is_asking { link.send_asking(command).await } else { link.send(command).await };
            self.last = Some(link);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            is_asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
            let Some(address) = self.nodes.observe(&error) else { return Err(error) };
            link = self.nodes.link_to(&address)?;
        }
        Err(failed(ErrorKind::ClusterConnectionNotFound, "redirected in circles"))
    }

    /// Sends commands about keys of one slot to who has it. Redirections are not followed: some of them may
    /// have been carried out.
    pub(super) async fn send_all(
        &mut self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let link = self.link(pipeline.cmd_iter().find_map(key_of)).await?;
        let answers = link.send_all(pipeline, offset, count).await;
        self.last = Some(link);
        if let Err(error) = &answers {
            self.nodes.observe(error);
        }
        answers
    }

    async fn link(&self, key: Option<&[u8]>) -> RedisResult<Link> {
        match (key, &self.last) {
            (Some(key), _) => self.nodes.link_for(Slot::for_key(key)).await,
            (None, Some(last)) => Ok(last.clone()),
            (None, None) => self.nodes.link_for(Slot::for_key("")).await,
        }
    }
}

impl Nodes {
    async fn link_for(&self, slot: Slot) -> RedisResult<Link> {
        if !self.is_believed() {
            let _asking = self.asking.lock().await;
            // Somebody else may have asked in the meantime.
            if !self.is_believed() {
                self.ask(slot).await?;
            }
        }
        let owner = self.map().owners.get(&slot).cloned();
        let nobody = || failed(ErrorKind::ClusterConnectionNotFound, "nobody has this slot");
        self.link_to(&owner.ok_or_else(nobody)?)
    }

    fn is_believed(&self) -> bool {
        let stands_for = if self.is_outdated.load(Ordering::Relaxed) { DOUBTED_FOR } else { BELIEVED_FOR };
        self.map().asked_at.is_some_and(|at| at.elapsed() < stands_for)
    }

    /// Asks the nodes in turn who has which slot. Where nobody answers, what was said last is believed a little
    /// longer: the owner of a slot may well be the last that is left.
    async fn ask(&self, slot: Slot) -> RedisResult<()> {
        self.is_outdated.store(false, Ordering::Relaxed);
        let mut last = failed(ErrorKind::ClusterConnectionNotFound, "no node");
        for address in self.to_ask(slot) {
            let answer = match self.link_to(&address) {
                Ok(link) => owners(&link, &address).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(owners) => {
                    self.seeds.learn(&owners);
                    let mut map = self.map();
                    let known: HashSet<&Address> = owners.values().chain(&self.seeds.addresses).collect();
                    map.links.retain(|address, _| known.contains(address));
                    map.owners = owners;
                    map.asked_at = Some(Instant::now());
                    map.answered = Some(address);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        let mut map = self.map();
        map.answered = None;
        if map.owners.is_empty() {
            return Err(last);
        }
        map.asked_at = Some(Instant::now());
        Ok(())
    }

    /// Who is to be asked, the owner of this slot last.
    fn to_ask(&self, slot: Slot) -> Vec<Address> {
        let map = self.map();
        let others: HashSet<&Address> = map.owners.values().collect();
        let mut ask: Vec<Address> = Vec::new();
        for address in map.answered.iter().chain(others).chain(&self.seeds.addresses) {
            if !ask.contains(address) {
                ask.push(address.clone());
            }
        }
        let owner = map.owners.get(&slot);
        ask.sort_by_key(|address| Some(address) == owner);
        ask
    }

    fn link_to(&self, address: &Address) -> RedisResult<Link> {
        let mut map = self.map();
        if let Some(link) = map.links.get(address) {
            return Ok(link.clone());
        }
        let client = Arc::new(self.seeds.access.client(address)?);
        let link = Link::new(Target::Server(client), self.replicas.clone());
        map.links.insert(address.clone(), link.clone());
        Ok(link)
    }

    /// Where to go instead, if the error says so. All but the fault of one command or of one slot on its
    /// way puts in doubt who has what.
    fn observe(&self, error: &RedisError) -> Option<Address> {
        let kind = error.kind();
        let is_redirection = matches!(kind, ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask));
        let is_harmless = matches!(kind, ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::Ask))
            || error.code() == Some("WRONGTYPE");
        if !is_harmless {
            self.is_outdated.store(true, Ordering::Relaxed);
        }
        error.redirect_node().filter(|_| is_redirection).and_then(|(address, _)| Address::parse(address))
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has which slot, as this node sees it.
async fn owners(link: &Link, asked: &Address) -> RedisResult<HashMap<Slot, Address>> {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    let silent = |_| failed(ErrorKind::Io, "the node is silent");
    let answer = timeout(SLOTS_TIMEOUT, link.send(&question)).await.map_err(silent)??;
    let ranges: Vec<Vec<Value>> = redis::from_redis_value(answer)?;
    let mut owners = HashMap::new();
    for range in ranges {
        let [first, last, primary, ..] = range.as_slice() else { continue };
        let (Value::Int(first), Value::Int(last), Value::Array(primary)) = (first, last, primary) else {
            continue;
        };
        let Some(primary) = address(primary, asked) else { continue };
        for slot in (*first..=*last).filter_map(|slot| Slot::new(u16::try_from(slot).ok()?)) {
            owners.insert(slot, primary.clone());
        }
    }
    if owners.is_empty() {
        return Err(failed(ErrorKind::ClusterConnectionNotFound, "the node knows of no slots"));
    }
    Ok(owners)
}

/// The address of a node. One without a host has that of the node that was asked; `?` is one that is unknown.
fn address(node: &[Value], asked: &Address) -> Option<Address> {
    let [host, Value::Int(port), ..] = node else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::Nil => "",
        _ => return None,
    };
    let host = match host {
        "" => asked.host.clone(),
        "?" => return None,
        host => host.to_owned(),
    };
    Some(Address { host, port: u16::try_from(*port).ok()? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::topology::{Topology, address_of};
    use super::*;
    use crate::config::{self, RedisServers};

    #[test]
    fn a_node_without_a_host_is_where_the_one_that_was_asked_is() {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        let text = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        for (host, found) in [
            (text("10.0.0.1"), Some("10.0.0.1")),
            (text(""), Some("asked")),
            (Value::Nil, Some("asked")),
            (text("?"), None),
            (Value::Int(1), None),
        ] {
            let address = address(&[host, Value::Int(7000)], &asked);
            assert_eq!(address.as_ref().map(|address| address.host.as_str()), found);
            assert!(address.is_none_or(|address| address.port == 7000));
        }
        assert_eq!(address(&[text("10.0.0.1"), Value::Int(70_000)], &asked), None);
        assert_eq!(address(&[text("10.0.0.1")], &asked), None);
    }

    #[tokio::test]
    async fn the_primaries_are_those_that_have_slots_whichever_node_tells() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap()).parse().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let node = tokio::spawn(async move {
            let range = |first: u16, last: u16, host: &str| {
                let host = format!("${}\r\n{host}\r\n", host.len());
                format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n{host}:7000\r\n")
            };
            let ranges = [range(0, 9, "a"), range(10, 19, "b"), range(20, 16383, "a")].concat();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut read).await {
                let greeting = "%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n+OK\r\n".to_owned();
                let is_asked = String::from_utf8_lossy(&read[..length]).contains("SLOTS");
                let answer = if is_asked { format!("*3\r\n{ranges}") } else { greeting };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let config = config::Redis {
            servers: RedisServers::Cluster(vec![format!("redis://{closed}").parse().unwrap(), url]),
            ca: None,
            username: None,
            password: None,
            key_prefix: String::new(),
            wait_for_replicas: 0,
        };
        let primaries = Topology::new(&config).unwrap().primaries().await.unwrap();
        let addresses = primaries.iter().map(|client| address_of(client).unwrap().to_string());
        assert_eq!(
            addresses.collect::<BTreeSet<_>>(),
            BTreeSet::from(["a:7000".to_owned(), "b:7000".to_owned()])
        );
        node.abort();
    }
}
