//! One simulated world: its time, its one store, what truly is the case in it, and what has been seen.
//!
//! Gateways know of it what their store and the issuer answer. The truth kept here is the rules' own: it
//! is written down where a thing takes effect, and compared with what gateways then do (`rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use cloakroom::clock::{Clock, Timestamp};
use cloakroom::seal::{Context, KeyRing, Purpose};
use cloakroom::secret::Secret;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::changes::Changes;
use cloakroom::session::store::memory::MemoryStore;
use cloakroom::session::store::{IndexKey, LeaseOwner, Record, RecordKey, Version};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::endings::{Errand, InHand};
use crate::schedule::{IssuerOutage, Schedule};

/// The second at which every world begins.
const DAWN: u64 = 1_800_000_000;

#[derive(Debug)]
pub struct World {
    pub schedule: Schedule,
    pub clock: Arc<SimulatedClock>,
    pub memory: MemoryStore,
    /// Opens what gateways seal for one another.
    pub ring: Arc<KeyRing>,
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
    /// What lies in the store's outbox.
    pub errands: BTreeMap<String, Errand>,
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
    /// When it last had reason not to look for what it had written: the store failed it, or told it nothing.
    pub hindered_at: Instant,
    /// Whose end it was told of by the store, and at which step.
    pub told_of_end: BTreeMap<usize, Step>,
    /// When the store last failed it in the posting of an errand.
    pub unposted_at: Option<Instant>,
    /// The newest refresh token it knew of whom it is about to end; `None` where it had the session not open.
    pub about_to_end: BTreeMap<usize, Option<u32>>,
    /// Whose end it has asked for without an answer.
    pub unanswered_ends: BTreeSet<usize>,
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
    /// The indexes that list it, and the session's key once more.
    pub indexes: Vec<IndexKey>,
    /// Whether its refresh tokens are used up by a refresh.
    pub rotates: bool,
    /// When the session dies of idleness, by the store's record.
    pub idle_deadline: Timestamp,
    /// When it dies of age.
    pub end_of_life: Timestamp,
    /// Why its record was taken out of the store.
    pub ended: Option<&'static str>,
    /// Who took it out.
    pub ended_by: Option<NodeId>,
    /// It lies there again, by a failover.
    pub came_back: bool,
    /// What lay in the store, from which moment on.
    pub past: Vec<(Instant, Option<Record>)>,
    /// The user has asked for a logout.
    pub wants_to_leave: bool,
    /// Where and when a logout was first answered as done.
    pub logged_out: Option<(NodeId, Step)>,
    pub lease: Option<Lease>,
    /// Leases that a failover has lost: who held them cannot know.
    pub lost_leases: Vec<Lease>,
    /// For each node, how many of its lease calls have gone wrong since one was last answered, and since when.
    pub lease_troubles: BTreeMap<NodeId, (u32, Instant)>,
    /// The number of the newest refresh token; older ones are used up.
    pub newest: u32,
    /// When the access token of each number dies.
    pub access_ends: Vec<Timestamp>,
    pub revoked_access: Vec<u32>,
    /// Which access tokens an upstream has refused.
    pub refused_access: Vec<u32>,
    pub grant_ended: Option<&'static str>,
    pub sent: Vec<Sent>,
    pub connections: u64,
    /// Why it is nobody's fault if the session is lost: nobody can know the newest refresh token.
    pub may_be_lost: Option<&'static str>,
    /// Who has taken refresh tokens of it out of the store that lie nowhere else.
    pub in_hand: Vec<InHand>,
    /// The refresh tokens of it that have been in the outbox.
    pub posted: BTreeSet<u32>,
    /// Why it is nobody's fault if a token of it outlives the session.
    pub may_stay_unrevoked: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub node: NodeId,
    pub owner: LeaseOwner,
    pub until: Timestamp,
    pub taken_at: Instant,
}

/// A refresh token on its way to the issuer, and what became of it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub number: u32,
    pub node: NodeId,
    pub state: Answer,
    /// The number of what was issued for it.
    pub issued: Option<u32>,
    /// The sender crashed before what it was answered lay in the store.
    pub is_crashed: bool,
    /// The sender's lease ran out while it was under way; `true` where the store had failed the sender.
    pub lapsed: Option<bool>,
    /// What was issued lies in the store.
    pub is_stored: bool,
    /// The version under which it was written.
    pub version: Option<Version>,
    /// Whether its writer was told that it was written, when it last asked.
    pub is_confirmed: bool,
    /// When a failover lost it, and when it was written back.
    pub lost_at: Option<Instant>,
    pub mended_at: Option<Instant>,
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
    pub fn new(schedule: Schedule, ring: Arc<KeyRing>, seed: u64) -> Arc<Self> {
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
            errands: BTreeMap::new(),
            started,
        };
        let memory = MemoryStore::new(clock.clone());
        Arc::new(Self { schedule, memory, ring, clock, truth: Mutex::new(truth) })
    }

    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The number of the refresh token that comes with the access token of this number.
    pub fn refresh_token(&self, number: u32) -> u32 {
        if self.schedule.issuer.rotates { number } else { 0 }
    }

    /// The number of the refresh token in a sealed record.
    pub fn number_in(&self, user: usize, key: &RecordKey, sealed: &[u8]) -> u32 {
        let ticket = self.truth().users[user].ticket.clone().expect("the user has logged in");
        let context =
            Context { purpose: Purpose::SessionRecord, name: &key.0, app: "https://shop.example.com" };
        let plaintext = ticket.data_key.open(&context, sealed).expect("the record opens");
        let plaintext: serde_json::Value = serde_json::from_slice(&plaintext).expect("it is JSON");
        let refresh_token = plaintext["refresh_token"].as_str().expect("a refresh token");
        crate::issuer::parse(&Secret::new(refresh_token)).1
    }

    /// Who a user is to the issuer.
    pub fn person(&self, user: usize) -> usize {
        if self.schedule.is_one_person { 0 } else { user }
    }

    /// Goes on if this process is alive. One that crashed never does anything again: every effect on
    /// others goes through a call of the store or the issuer, and each of them waits here.
    pub async fn while_alive(&self, node: NodeId) {
        if !self.truth().nodes[node].is_alive {
            std::future::pending::<()>().await;
        }
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
        if self.users[user].ended.is_some() && !self.users[user].came_back {
            let step = self.step();
            self.nodes[node].told_of_end.entry(user).or_insert(step);
        }
    }
}

impl User {
    pub fn new(access_ends: Timestamp, rotates: bool) -> Self {
        Self {
            ticket: None,
            key: None,
            indexes: Vec::new(),
            rotates,
            idle_deadline: Timestamp::from_millis(u64::MAX),
            end_of_life: Timestamp::from_millis(u64::MAX),
            ended: None,
            ended_by: None,
            came_back: false,
            past: Vec::new(),
            wants_to_leave: false,
            logged_out: None,
            lease: None,
            lost_leases: Vec::new(),
            lease_troubles: BTreeMap::new(),
            newest: 0,
            access_ends: vec![access_ends],
            revoked_access: Vec::new(),
            refused_access: Vec::new(),
            grant_ended: None,
            sent: Vec::new(),
            connections: 0,
            may_be_lost: None,
            in_hand: Vec::new(),
            posted: BTreeSet::new(),
            may_stay_unrevoked: None,
        }
    }

    /// Whether the store has the refresh token that the issuer takes.
    pub fn newest_is_stored(&self) -> bool {
        self.stored() == self.newest || !self.rotates
    }

    /// The newest number that the store has.
    pub fn stored(&self) -> u32 {
        let stored = self.sent.iter().filter(|sent| sent.is_stored).filter_map(|sent| sent.issued);
        stored.max().unwrap_or(0)
    }

    /// Nobody has the newest refresh token, and nobody is to blame for it.
    pub fn lose(&mut self, why: &'static str) {
        if self.rotates {
            self.may_be_lost = Some(why);
        }
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
