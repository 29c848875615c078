//! One simulated world: its time, its one store, what truly is the case in it, and what has been seen.
//!
//! Gateways know of it what their store and the issuer answer. The truth kept here is the rules' own: it
//! is written down where a thing takes effect, and compared with what gateways then do (`rules`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cloakroom::clock::{Clock, Timestamp};
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::changes::Changes;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::{LeaseOwner, RecordKey};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::schedule::{IssuerOutage, Schedule};

/// The second at which every world begins.
const DAWN: u64 = 1_800_000_000;

#[derive(Debug)]
pub struct World {
    pub schedule: Schedule,
    pub clock: Arc<SimulatedClock>,
    pub memory: MemoryStore,
    truth: Mutex<Truth>,
}

/// Tells the time of tokio's paused clock.
#[derive(Debug)]
pub struct SimulatedClock(Instant);

/// One gateway process, from its start to its crash: an index into [`Truth::nodes`].
pub type NodeId = usize;

/// Counts what is written into the trace: what came before what, within one millisecond too.
pub type Step = usize;

#[derive(Debug)]
pub struct Truth {
    pub chance: Chance,
    pub trace: Vec<String>,
    /// What broke a rule.
    pub faults: Vec<String>,
    /// From here on nothing fails any more.
    pub is_healed: bool,
    pub users: Vec<User>,
    pub nodes: Vec<Node>,
    pub store_outages: Vec<StoreOutage>,
    pub issuer_outage: Option<(Instant, IssuerOutage)>,
    started: Instant,
}

#[derive(Debug)]
pub struct StoreOutage {
    pub gateway: Option<usize>,
    pub until: Instant,
    pub hangs: bool,
}

/// A gateway process as it truly is.
#[derive(Debug)]
pub struct Node {
    pub gateway: usize,
    pub name: String,
    pub is_alive: bool,
    pub changes: Arc<Changes>,
    /// Counts breaks: what was on its way when one began is lost.
    pub breaks: u32,
    pub link: Link,
    /// No notification overtakes another.
    pub told_until: Instant,
    /// When the store failed it first since it last answered it.
    pub failing_since: Option<Instant>,
    /// Whose end it was told of by the store, and at which step.
    pub told_of_end: BTreeMap<usize, Step>,
    /// Whose logout it is at work on.
    pub logging_out: Vec<usize>,
}

/// The way by which the store tells a node of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Stands,
    BrokeUnnoticed,
    BrokeNoticed,
}

/// One login: its session in the store, and its grant at the issuer.
#[derive(Debug)]
pub struct User {
    pub ticket: Option<Ticket>,
    pub key: Option<RecordKey>,
    /// When the session dies of idleness, by the store's record.
    pub idle_deadline: Timestamp,
    /// When it dies of age.
    pub end_of_life: Timestamp,
    /// Why its record was taken out of the store.
    pub ended: Option<&'static str>,
    /// The user has asked for a logout.
    pub wants_to_leave: bool,
    /// Where and when a logout was first answered as done.
    pub logged_out: Option<(NodeId, Step)>,
    pub lease: Option<Lease>,
    /// For each node, how many of its lease calls have gone wrong since one was last answered.
    pub lease_troubles: BTreeMap<NodeId, u32>,
    /// The number of the newest refresh token; older ones are used up.
    pub newest: u32,
    /// When the access token of each number dies.
    pub access_ends: Vec<Timestamp>,
    pub revoked_access: Vec<u32>,
    pub grant_ended: Option<&'static str>,
    pub sent: Vec<Sent>,
    pub connections: u64,
    /// Why it is nobody's fault if the session is lost: nobody can know the newest refresh token.
    pub may_be_lost: Option<&'static str>,
    /// Why it is nobody's fault if a token of it outlives the logout.
    pub may_stay_unrevoked: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub node: NodeId,
    pub owner: LeaseOwner,
    pub until: Timestamp,
}

/// A refresh token on its way to the issuer, and what became of it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub number: u32,
    pub node: NodeId,
    pub state: Answer,
    /// The sender crashed before what it was answered lay in the store.
    pub is_crashed: bool,
    /// The sender's lease ran out while it was under way; `true` where the store had failed the sender.
    pub lapsed: Option<bool>,
    /// What was issued lies in the store.
    pub is_stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    UnderWay,
    /// Processed; the answer has not arrived.
    Issued,
    Delivered,
    Ambiguous(Instant),
    InvalidGrant,
}

impl World {
    pub fn new(schedule: Schedule, seed: u64) -> Arc<Self> {
        let started = Instant::now();
        let clock = Arc::new(SimulatedClock(started));
        let truth = Truth {
            chance: Chance::new(seed ^ 0xfa7e),
            trace: Vec::new(),
            faults: Vec::new(),
            is_healed: false,
            users: Vec::new(),
            nodes: Vec::new(),
            store_outages: Vec::new(),
            issuer_outage: None,
            started,
        };
        Arc::new(Self { schedule, memory: MemoryStore::new(clock.clone()), clock, truth: Mutex::new(truth) })
    }

    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Goes on if this process is alive. One that crashed never does anything again: every effect on
    /// others goes through a call of the store or the issuer, and each of them waits here.
    pub async fn while_alive(&self, node: NodeId) {
        if !self.truth().nodes[node].is_alive {
            std::future::pending::<()>().await;
        }
    }

    pub fn begin_node(self: &Arc<Self>, gateway: usize) -> (NodeId, Arc<Changes>) {
        let mut truth = self.truth();
        let id = truth.nodes.len();
        let before = truth.nodes.iter().filter(|node| node.gateway == gateway).count();
        let name = format!("gateway {gateway}{}", "'".repeat(before));
        let changes = Arc::new(Changes::told());
        truth.note(format_args!("{name} starts"));
        let step = truth.trace.len();
        let ended = truth.users.iter().enumerate().filter(|(_, user)| user.ended.is_some());
        let told_of_end = ended.map(|(user, _)| (user, step)).collect();
        truth.nodes.push(Node {
            gateway,
            name,
            is_alive: true,
            changes: Arc::clone(&changes),
            breaks: 0,
            link: Link::Stands,
            told_until: Instant::now(),
            failing_since: None,
            told_of_end,
            logging_out: Vec::new(),
        });
        (id, changes)
    }

    pub fn crash(&self, node: NodeId) {
        let mut truth = self.truth();
        truth.nodes[node].is_alive = false;
        let name = truth.nodes[node].name.clone();
        truth.note(format_args!("{name} crashes"));
        for user in std::mem::take(&mut truth.nodes[node].logging_out) {
            truth.users[user].may_stay_unrevoked = Some("the gateway crashed in the middle of the logout");
        }
        for user in &mut truth.users {
            for sent in user.sent.iter_mut().filter(|sent| sent.node == node && !sent.is_stored) {
                sent.is_crashed = true;
                if matches!(sent.state, Answer::Issued | Answer::Delivered) {
                    user.may_be_lost = Some("a gateway crashed with what was issued in its hands");
                }
            }
        }
    }

    /// The store has changed this record: every node that it reaches is told, each in its own time.
    pub fn tell(self: &Arc<Self>, user: usize) {
        let mut truth = self.truth();
        let now = Instant::now();
        for node in 0..truth.nodes.len() {
            if !truth.nodes[node].is_alive || truth.nodes[node].link != Link::Stands {
                continue;
            }
            let delay =
                if truth.is_healed { Duration::ZERO } else { truth.chance.millis(self.schedule.telling) };
            let at = (now + delay).max(truth.nodes[node].told_until);
            truth.nodes[node].told_until = at;
            let (world, breaks) = (Arc::clone(self), truth.nodes[node].breaks);
            tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                let mut truth = world.truth();
                let Some(key) = truth.users[user].key.clone() else { return };
                if truth.nodes[node].breaks == breaks {
                    truth.note_for(node, user, format_args!("told of a change"));
                    truth.nodes[node].changes.note(&key);
                    truth.note_told_of_end(node, user);
                }
            });
        }
    }

    /// The notifications of a node break off for a while.
    pub async fn break_link(self: Arc<Self>, node: NodeId, notice: Duration, length: Duration) {
        {
            let mut truth = self.truth();
            if !truth.nodes[node].is_alive || truth.nodes[node].link != Link::Stands {
                return;
            }
            truth.nodes[node].link = Link::BrokeUnnoticed;
            truth.nodes[node].breaks += 1;
            let name = truth.nodes[node].name.clone();
            truth.note(format_args!("{name} is told of nothing any more"));
        }
        tokio::time::sleep(notice).await;
        {
            let mut truth = self.truth();
            truth.nodes[node].link = Link::BrokeNoticed;
            truth.nodes[node].failing_since.get_or_insert(Instant::now());
            truth.nodes[node].changes.disconnected();
            let name = truth.nodes[node].name.clone();
            truth.note(format_args!("{name} notices that it is told of nothing"));
        }
        tokio::time::sleep(length).await;
        let mut truth = self.truth();
        truth.nodes[node].link = Link::Stands;
        truth.nodes[node].changes.connected();
        let name = truth.nodes[node].name.clone();
        truth.note(format_args!("{name} is told of changes again"));
    }
}

impl Truth {
    /// Writes a line of the trace.
    pub fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let at = self.started.elapsed().as_secs_f64();
        self.trace.push(format!("{at:9.3}  {line}"));
    }

    pub fn note_for(&mut self, node: NodeId, user: usize, line: std::fmt::Arguments<'_>) {
        let name = self.nodes[node].name.clone();
        self.note(format_args!("{name}, user {user}: {line}"));
    }

    /// A rule is broken.
    pub fn fault(&mut self, fault: std::fmt::Arguments<'_>) {
        self.note(format_args!("FAULT: {fault}"));
        self.faults.push(fault.to_string());
    }

    pub fn step(&self) -> Step {
        self.trace.len()
    }

    pub fn user_of(&self, key: &RecordKey) -> usize {
        self.users.iter().position(|user| user.key.as_ref() == Some(key)).expect("a session of this world")
    }

    /// The store has told this node that a session has ended, if it has.
    pub fn note_told_of_end(&mut self, node: NodeId, user: usize) {
        if self.users[user].ended.is_some() {
            let step = self.step();
            self.nodes[node].told_of_end.entry(user).or_insert(step);
        }
    }
}

impl User {
    pub fn new(access_ends: Timestamp) -> Self {
        Self {
            ticket: None,
            key: None,
            idle_deadline: Timestamp::from_millis(u64::MAX),
            end_of_life: Timestamp::from_millis(u64::MAX),
            ended: None,
            wants_to_leave: false,
            logged_out: None,
            lease: None,
            lease_troubles: BTreeMap::new(),
            newest: 0,
            access_ends: vec![access_ends],
            revoked_access: Vec::new(),
            grant_ended: None,
            sent: Vec::new(),
            connections: 0,
            may_be_lost: None,
            may_stay_unrevoked: None,
        }
    }

    /// Whether the store has the refresh token that the issuer takes.
    pub fn newest_is_stored(&self) -> bool {
        self.newest == 0 || self.sent.iter().any(|sent| sent.number + 1 == self.newest && sent.is_stored)
    }

    /// Whether its session may be used, in truth.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.idle_deadline && now < self.end_of_life
    }
}

impl SimulatedClock {
    pub fn dawn() -> Timestamp {
        Timestamp::from_secs(DAWN)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Self::dawn() + self.0.elapsed()
    }
}
