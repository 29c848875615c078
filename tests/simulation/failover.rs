//! Failovers that lose what the store has acknowledged last, and what must come of that.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::Timestamp;
use cloakroom::session::store::{Record, Store, Version};
use tokio::time::Instant;

use crate::world::{Answer, Link, NodeId, Sent, StoreOutage, Truth, User, World};

/// Within this time of quiet, a process has looked for all that it has written and ended.
const LONGEST_REPAIR: Duration = Duration::from_secs(10);

/// A refresh token may set out this long after it was read: the read and a look at the lease take their time,
/// and an issuer that refuses connections is tried for some seconds.
const LONGEST_DEPARTURE: Duration = Duration::from_secs(8);

impl World {
    /// Notes what lies in the store now, for a failover to bring it back.
    pub async fn remember(&self, user: usize) {
        let key = self.truth().users[user].key.clone().expect("the user has logged in");
        let record = self.memory.read(&key).await.unwrap();
        self.truth().users[user].past.push((Instant::now(), record));
    }

    /// Another server takes the store's place, after so long, that has not got what was written last. It tells
    /// of changes from then on.
    pub async fn fail_over(self: Arc<Self>, lost: Duration, length: Duration) {
        let is_healed = {
            let mut truth = self.truth();
            truth.note(format_args!("the store fails over, and loses what is younger than {lost:?}"));
            let hangs = truth.chance.happens(300);
            let until = Instant::now() + length;
            if !truth.is_healed {
                truth.store_outages.push(StoreOutage { gateway: None, until, hangs });
            }
            truth.is_healed
        };
        self.go_back(lost).await;
        let nodes = self.truth().nodes.len();
        for node in 0..nodes {
            let (notice, later) = {
                let chance = &mut self.truth().chance;
                (chance.millis((0, 300)), chance.millis((0, 300)))
            };
            let length = if is_healed { Duration::ZERO } else { length };
            tokio::spawn(Arc::clone(&self).break_link(node, notice, length + later));
        }
    }

    async fn go_back(&self, lost: Duration) {
        let users = self.truth().users.len();
        for user in 0..users {
            let (key, past) = {
                let mut truth = self.truth();
                let of_user = &mut truth.users[user];
                let is_kept = |(at, _): &(Instant, _)| at.elapsed() >= lost;
                let kept = of_user.past.iter().rposition(is_kept).unwrap_or(0);
                let is_unharmed = kept + 1 == of_user.past.len();
                of_user.past.truncate(kept + 1);
                (of_user.key.clone().unwrap(), (!is_unharmed).then(|| of_user.past[kept].1.clone()))
            };
            match &past {
                Some(Some(record)) => self.memory.create(&key, record).await.unwrap(),
                Some(None) => drop(self.memory.take(&key).await.unwrap()),
                None => {}
            }
            if let Some(Some(record)) = past {
                self.truth().note_went_back(user, &record);
            }
            self.lose_lease(user, lost).await;
        }
    }

    /// A lease that was taken just now is lost too.
    async fn lose_lease(&self, user: usize, lost: Duration) {
        let lease = self.truth().users[user].lease.clone();
        let Some(lease) = lease.filter(|lease| lease.taken_at.elapsed() < lost) else { return };
        let key = self.truth().users[user].key.clone().unwrap();
        self.memory.release(&key, &lease.owner).await.unwrap();
        let mut truth = self.truth();
        truth.note_for(lease.node, user, format_args!("the lease is lost"));
        truth.users[user].lease = None;
        truth.users[user].lost_leases.push(lease.clone());
        for sent in truth.users[user].sent.iter_mut().filter(|sent| sent.node == lease.node) {
            if !sent.is_stored && sent.lost_at.is_none() {
                sent.lapsed = Some(true);
            }
        }
    }
}

impl Truth {
    fn note_went_back(&mut self, user: usize, record: &Record) {
        self.note(format_args!("user {user}: the store is back at version {}", record.version.0));
        let step = self.step();
        let is_alive = |node: NodeId| self.nodes[node].is_alive;
        let of_user = &mut self.users[user];
        of_user.idle_deadline = record.expires_at;
        let mut is_lost = false;
        for sent in of_user.sent.iter_mut().filter(|sent| sent.version > Some(record.version)) {
            (sent.is_stored, sent.lost_at, sent.mended_at) = (false, Some(Instant::now()), None);
            is_lost |= !is_alive(sent.node);
        }
        if is_lost {
            of_user.lose("the store has lost what a gateway had written that has crashed since");
        }
        if of_user.ended.is_none() {
            return;
        }
        of_user.came_back = true;
        // Who was told that it has ended may be wrong now. Who has ended it must know better.
        of_user.logged_out = of_user.logged_out.and(of_user.ended_by).map(|ender| (ender, step));
        for node in &mut self.nodes {
            node.told_of_end.remove(&user);
        }
    }

    /// Rule 1 after a failover: the process that wrote it, and lives, never sends an older refresh token
    /// again; another one only before it had the time to write it back, or where the answer to the write was
    /// lost: what is found to be written is not looked for after a break.
    pub fn is_excused_by_failover(&self, sent: &Sent, node: NodeId) -> bool {
        if sent.node == node || sent.lost_at.is_none() {
            return false;
        }
        match sent.mended_at {
            Some(mended_at) => mended_at.elapsed() <= LONGEST_DEPARTURE,
            None => !sent.is_confirmed || !self.has_had_time(sent.node),
        }
    }

    /// Rule 2 after a failover: what a living process knows to have written lies in the store again, even if no request comes.
    pub fn check_written_back(&mut self, now: Timestamp) {
        for user in 0..self.users.len() {
            let of_user = &self.users[user];
            let newest = of_user.sent.iter().find(|sent| sent.issued == Some(of_user.newest));
            let is_missing = newest.is_some_and(|sent| {
                sent.lost_at.is_some() && sent.is_confirmed && !sent.is_stored && self.has_had_time(sent.node)
            });
            if is_missing && of_user.is_alive(now) && of_user.grant_ended.is_none() {
                self.fault(format_args!("user {user}: what a failover has lost was not written back"));
            }
        }
    }

    /// Rule 3 after a failover: a logout stays one, as long as the process lives that took the record out.
    pub fn check_stayed_ended(&mut self) {
        for user in 0..self.users.len() {
            let of_user = &self.users[user];
            let remembers = of_user.ended_by.is_some_and(|node| self.has_had_time(node));
            if of_user.came_back && of_user.ended == Some("by a logout") && remembers {
                self.fault(format_args!("user {user}: a failover has undone the logout"));
            }
        }
    }

    fn has_had_time(&self, node: NodeId) -> bool {
        let node = &self.nodes[node];
        node.is_alive && node.link == Link::Stands && node.hindered_at.elapsed() >= LONGEST_REPAIR
    }
}

impl User {
    /// Whether this process must think that it holds the lease, which a failover has lost.
    pub fn has_lost_lease(&self, node: NodeId, now: Timestamp) -> bool {
        self.lost_leases.iter().any(|lease| lease.node == node && now < lease.until)
    }

    pub fn confirm(&mut self, node: NodeId, version: Version) {
        let written = |sent: &&mut Sent| sent.node == node && sent.version == Some(version);
        self.sent.iter_mut().filter(written).for_each(|sent| sent.is_confirmed = true);
    }

    /// A process has written this version: what it was issued, or what a failover had lost.
    ///
    /// Where other tokens are written too, `number` says which refresh token it is that lies there now.
    pub fn note_stored(&mut self, node: NodeId, version: Version, number: Option<u32>) {
        if number.is_some() {
            for sent in self.sent.iter_mut().filter(|sent| sent.issued == number && !sent.is_stored) {
                sent.is_stored = true;
                match sent.version {
                    None => sent.version = Some(version),
                    Some(_) => sent.mended_at = Some(Instant::now()),
                }
            }
            return;
        }
        let mut is_new = false;
        for sent in &mut self.sent {
            if sent.node == node && sent.state == Answer::Delivered && sent.version.is_none() {
                (sent.is_stored, sent.version, is_new) = (true, Some(version), true);
            }
        }
        if !is_new {
            for sent in self.sent.iter_mut().filter(|sent| sent.version == Some(version)) {
                (sent.is_stored, sent.mended_at) = (true, Some(Instant::now()));
            }
        }
    }
}
