//! The promises, as rules that each schedule is held to, and every excuse that is granted.

use std::time::Duration;

use cloakroom::clock::Timestamp;
use cloakroom::session::store::{Replaced, Version};
use cloakroom::tokens::Held;
use tokio::time::Instant;

use crate::issuer::parse;
use crate::world::{Answer, Lease, Link, NodeId, Step, Truth, World};

/// A refresh token that may be used up is sent again only this shortly before its access token dies.
pub const NEAR_EXPIRY: Duration = Duration::from_secs(5);

/// While the access token lives, an outage of the store is no excuse before it has lasted so long.
const OUTAGE_THAT_LEASES_OUTLIVE: Duration = Duration::from_secs(25);

/// No back-off is shorter.
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(500);

/// A load is two operations of the store at most, and one more where a lost write is mended.
const LONGEST_LOAD: Duration = Duration::from_millis(4500);

/// What a request waits for a refresh.
const LONGEST_FRESHEN: Duration = Duration::from_secs(10);

/// When and where a request began.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    pub node: NodeId,
    pub user: usize,
    pub step: Step,
}

impl World {
    pub fn check_wait(&self, began: Began, since: Instant, bound: Duration, what: &str) {
        let waited = since.elapsed();
        if waited > bound {
            self.truth().fault(format_args!("user {}: a request waited {waited:?} for {what}", began.user));
        }
    }

    pub fn check_load(&self, began: Began, since: Instant) {
        self.check_wait(began, since, LONGEST_LOAD, "its session");
    }

    pub fn check_freshen(&self, began: Began, since: Instant) {
        self.check_wait(began, since, LONGEST_FRESHEN, "a token");
    }

    /// Twice, for the flight under way may bring the refused token again; and then a look into the store.
    pub fn check_replacement(&self, began: Began, since: Instant) {
        self.check_wait(began, since, 2 * LONGEST_FRESHEN + LONGEST_LOAD, "another token");
    }

    /// A session was loaded for a request. While a node is told of nothing, it serves what the store has
    /// just confirmed, or for the time of grace what it knew before: rule 3 where it cannot know of a logout.
    pub fn check_loaded(&self, began: Began) {
        let mut truth = self.truth();
        let node = &truth.nodes[began.node];
        let is_past_grace = node.failing_since.is_some_and(|since| since.elapsed() >= self.schedule.grace);
        if node.link == Link::BrokeNoticed && is_past_grace {
            truth.fault(format_args!("user {}: served past the grace of an outage", began.user));
        }
    }
}

impl Truth {
    /// Rule 1: no refresh token is sent to the issuer twice, and none without the lease.
    ///
    /// Excused is the second time where the first sender
    /// - crashed before what was issued lay in the store;
    /// - got an ambiguous answer, though the same process sends again only shortly before the access
    ///   token dies, or where an upstream has refused that, or where a route has none that it wants, and never at once;
    /// - was told that the token is dead, but could not end the session: sending it again harms nobody;
    /// - lost, by a failover, what it had written, and had no time yet to write it back (`failover`);
    /// - sent it for a session that had ended, and that a failover has brought back;
    /// - lost its lease by a failover, or the second sender did;
    /// - lost its lease because the store failed it, or was slow, more than once in a row; though not within
    ///   25 s, where the access token lived and no upstream had refused it.
    pub fn check_departure(
        &mut self,
        node: NodeId,
        user: usize,
        number: u32,
        is_missing: bool,
        now: Timestamp,
    ) {
        self.users[user].connections += 1;
        let holds_lease = |lease: &Lease| lease.node == node && now < lease.until;
        let has_lost_it = self.users[user].has_lost_lease(node, now);
        if !has_lost_it && !self.users[user].lease.as_ref().is_some_and(holds_lease) {
            self.fault(format_args!("user {user}: r{user}.{number} is to be sent without the lease"));
        }
        let access_ends = self.users[user].access_ends[number as usize];
        let is_refused = self.users[user].refused_access.contains(&number);
        for sent in self.users[user].sent.clone() {
            if sent.number != number || sent.is_crashed || sent.state == Answer::InvalidGrant {
                continue;
            }
            match sent.state {
                Answer::Ambiguous(at) => {
                    if sent.node == node && now + NEAR_EXPIRY < access_ends && !is_refused && !is_missing {
                        self.fault(format_args!("user {user}: r{user}.{number} is sent again too early"));
                    } else if sent.node == node && at.elapsed() < SHORTEST_BACK_OFF {
                        self.fault(format_args!("user {user}: r{user}.{number} is sent again at once"));
                    }
                }
                Answer::UnderWay | Answer::Issued | Answer::Delivered | Answer::InvalidGrant => {
                    let is_excused =
                        has_lost_it || self.users[user].came_back || self.is_excused_by_failover(&sent, node);
                    if sent.lapsed != Some(true) && !is_excused {
                        self.fault(format_args!("user {user}: r{user}.{number} is sent twice"));
                    }
                }
            }
        }
    }

    /// Rule 2, at each moment: nobody is told that a session has ended that has not.
    pub fn check_told_ended(&mut self, began: Began, now: Timestamp, by: &str) {
        let Began { node, user, .. } = began;
        self.note_for(node, user, format_args!("{by}: there is no session"));
        if self.users[user].is_alive(now) {
            self.fault(format_args!("user {user}: told that the session has ended, which lives"));
        }
    }

    /// Rule 3: after a logout has answered, no request that begins after it is forwarded with a token of the
    /// session. On another gateway, from the moment on at which the store has told it.
    pub fn check_forwarded(&mut self, began: Began, held: Held<'_>, now: Timestamp) {
        let Began { node, user, step } = began;
        let token = held.value;
        self.note_for(node, user, format_args!("forwarded with {}", token.expose()));
        if parse(token).0 != user {
            self.fault(format_args!("user {user}: forwarded with another user's token"));
        }
        if now >= held.expires_at {
            self.fault(format_args!("user {user}: forwarded with a token that has expired"));
        }
        let Some((where_it_was, logged_out)) = self.users[user].logged_out else { return };
        if step <= logged_out {
            return;
        }
        if where_it_was == node {
            self.fault(format_args!("user {user}: forwarded after the logout, where it was answered"));
        } else if !self.users[user].came_back
            && self.nodes[node].told_of_end.get(&user).is_some_and(|told| *told < step)
        {
            self.fault(format_args!("user {user}: forwarded after the logout, of which the node was told"));
        }
    }

    /// No storm: per process and session a back-off grows to half a minute, and all processes together
    /// need one call for each token.
    pub fn check_calls(&mut self, elapsed: Duration, access_token_life: Duration) {
        let nodes = self.nodes.len() as u64;
        let attempts = nodes * (10 + elapsed.as_secs() / 10);
        let needed = 2 * elapsed.as_secs() / access_token_life.as_secs().max(1) + 4;
        for user in 0..self.users.len() {
            let (sent, connections) = (self.users[user].sent.len() as u64, self.users[user].connections);
            if sent > attempts + needed {
                self.fault(format_args!("user {user}: {sent} refreshes in {elapsed:?}"));
            }
            if connections > 42 * (attempts + needed) {
                self.fault(format_args!("user {user}: {connections} connections in {elapsed:?}"));
            }
        }
    }
}

/// What takes effect in the store.
impl Truth {
    pub fn note_leased(&mut self, user: usize, lease: &Lease, now: Timestamp) {
        let node = lease.node;
        let mut lease = lease.clone();
        if let Some(held) = self.users[user].lease.as_ref().filter(|held| held.owner == lease.owner) {
            lease.taken_at = held.taken_at;
        }
        let before = self.users[user].lease.replace(lease.clone());
        if before.as_ref().is_none_or(|before| before.owner != lease.owner) {
            self.note_for(node, user, format_args!("lease taken"));
        }
        if let Some(before) = before.filter(|before| before.node != node && now >= before.until) {
            let of_user = &mut self.users[user];
            let troubles = of_user.lease_troubles.get(&before.node).copied();
            for sent in of_user.sent.iter_mut().filter(|sent| {
                sent.node == before.node
                    && !sent.is_stored
                    && matches!(sent.state, Answer::UnderWay | Answer::Issued | Answer::Delivered)
            }) {
                let lives = now < of_user.access_ends[sent.number as usize]
                    && !of_user.refused_access.contains(&sent.number);
                sent.lapsed = Some(troubles.is_some_and(|(count, since)| {
                    count > 1 && (!lives || since.elapsed() > OUTAGE_THAT_LEASES_OUTLIVE)
                }));
            }
        }
    }

    pub fn note_replaced(
        &mut self,
        node: NodeId,
        user: usize,
        replaced: Replaced,
        version: Version,
        number: Option<u32>,
        exists: bool,
    ) {
        self.note_for(node, user, format_args!("replace with version {}: {replaced:?}", version.0));
        if replaced == Replaced::Written {
            self.users[user].note_stored(node, version, number);
        }
        if exists && self.users[user].ended.is_some() && !self.users[user].came_back {
            self.fault(format_args!("user {user}: a session that has ended was created again"));
        }
    }
}
