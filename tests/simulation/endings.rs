//! How sessions end, who ended them, and what is then to be revoked.

use std::time::Duration;

use cloakroom::clock::Timestamp;
use cloakroom::seal::{Context, Purpose};
use cloakroom::secret::Secret;
use cloakroom::session::store::outbox;

use crate::issuer::parse;
use crate::world::{NodeId, Truth, User, World};

/// So long after its errand could not be posted a refresh token is tried at the latest.
const LONGEST_FIRST_TRIES: Duration = Duration::from_secs(60);

/// A token that waits in the store's outbox for its revocation.
#[derive(Clone, Debug)]
pub struct Errand {
    pub user: usize,
    pub token: String,
}

/// A refresh token that one process alone still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    pub node: NodeId,
    pub number: u32,
}

impl World {
    pub fn note_posted(&self, node: NodeId, errand: &outbox::Errand) {
        let context = Context { purpose: Purpose::Errand, name: &errand.id, app: "" };
        let content = self.ring.open(&context, &errand.sealed).expect("every gateway can open an errand");
        let content: serde_json::Value = serde_json::from_slice(&content).unwrap();
        let token = content["token"].as_str().unwrap();
        let (user, number) = parse(&Secret::new(token));
        let mut truth = self.truth();
        if token.starts_with('r') {
            truth.users[user].in_hand.retain(|in_hand| *in_hand != InHand { node, number });
            truth.users[user].posted.insert(number);
        }
        truth.errands.insert(errand.id.clone(), Errand { user, token: token.to_owned() });
        truth.note_errand(node, &errand.id, "posted");
    }
}

impl Truth {
    pub fn note_errand(&mut self, node: NodeId, id: &str, what: &str) {
        if let Some(Errand { user, token }) = self.errands.get(id).cloned() {
            self.note_for(node, user, format_args!("{what}: the revocation of {token}"));
        }
    }

    /// A process is about to end this session, and knew so much of it before.
    pub fn note_about_to_end(&mut self, node: NodeId, user: usize, refresh_token: Option<&Secret>) {
        let known = refresh_token.map(|token| parse(token).1);
        self.users[user].wants_to_leave = true;
        self.nodes[node].about_to_end.insert(user, known);
    }

    /// A logout was answered as done: rule 3 holds from here on.
    pub fn note_logged_out(&mut self, node: NodeId, user: usize) {
        let step = self.step();
        self.users[user].logged_out.get_or_insert((node, step));
    }

    /// A record was taken out of the store; `is_answered` where whoever did it is going to be told.
    pub fn note_taken(
        &mut self,
        node: NodeId,
        user: usize,
        operation: &'static str,
        is_answered: bool,
        now: Timestamp,
    ) {
        let was_alive = self.users[user].is_alive(now);
        self.note_for(node, user, format_args!("{operation}: the session has ended"));
        let by_the_issuer = operation == "take_version";
        let kind = if by_the_issuer { "by the issuer" } else { "by a logout" };
        self.users[user].ended.get_or_insert(kind);
        self.users[user].ended_by = Some(node);
        if std::mem::take(&mut self.users[user].came_back) {
            if !self.users[user].stored_is_posted() {
                self.users[user].may_stay_unrevoked = Some("it was written again after a failover");
            }
            return;
        }
        if !by_the_issuer {
            if !self.users[user].wants_to_leave {
                self.fault(format_args!("user {user}: logged out without having asked for it"));
            }
            if was_alive {
                self.note_in_hand(node, user, is_answered);
            } else {
                self.users[user].may_stay_unrevoked.get_or_insert("the session had died before");
            }
        }
        if by_the_issuer && self.users[user].grant_ended.is_none() {
            if self.users[user].newest_is_stored() {
                self.fault(format_args!("user {user}: the session was ended though its grant is alive"));
            }
            self.users[user].may_be_lost.get_or_insert("the newest refresh token never reached the store");
        }
    }

    fn note_in_hand(&mut self, node: NodeId, user: usize, is_answered: bool) {
        let of_user = &mut self.users[user];
        let number = if of_user.rotates { of_user.stored() } else { 0 };
        let is_tried_again = self.nodes[node].unanswered_ends.contains(&user);
        let newest = of_user.sent.iter().find(|sent| sent.issued == Some(of_user.newest));
        if newest.is_some_and(|sent| sent.lost_at.is_some() && !sent.is_stored) {
            of_user.may_stay_unrevoked = Some("a failover had lost it, and it was not written back yet");
        }
        match self.nodes[node].about_to_end.get(&user) {
            Some(None) | None => {
                of_user.may_stay_unrevoked = Some("nobody could read the record that was taken out");
            }
            Some(Some(known)) if *known != number && (!is_answered || is_tried_again) => {
                of_user.may_stay_unrevoked = Some("the store lost the answer that held the newest tokens");
            }
            Some(Some(_)) if !self.nodes[node].is_alive => {
                of_user.may_stay_unrevoked =
                    Some("a gateway crashed before the store did what it had asked for");
            }
            Some(Some(_)) => of_user.in_hand.push(InHand { node, number }),
        }
    }

    /// The store has not told a process whether the session that it wanted to end has ended.
    pub fn note_end_unanswered(&mut self, node: NodeId, user: usize) {
        self.nodes[node].unanswered_ends.insert(user);
    }

    /// A process has given up to learn whether the session has ended.
    pub fn note_gave_up(&mut self, node: NodeId, user: usize) {
        self.note_for(node, user, format_args!("gives up the logout"));
        if self.users[user].in_hand.iter().any(|in_hand| in_hand.node == node) {
            self.users[user].may_stay_unrevoked =
                Some("the store was away for longer than a logout is tried");
        }
    }

    /// Rule 4, at each try: what a crash in the middle of it would lose lies in the outbox, unless the store has
    /// just failed to take it.
    pub fn check_posted(&mut self, node: NodeId, user: usize, number: u32) {
        let unposted_at = self.nodes[node].unposted_at;
        let has_failed = unposted_at.is_some_and(|unposted_at| unposted_at.elapsed() < LONGEST_FIRST_TRIES);
        if !self.users[user].posted.contains(&number) && !has_failed {
            self.fault(format_args!("user {user}: r{user}.{number} is to be revoked, and was not posted"));
        }
    }

    /// Rule 4, at the end: what was issued for a session that was logged out is revoked, and no token of a
    /// session that lives (`NodeGrants::revoke`).
    ///
    /// Excused is a refresh token that
    /// - the issuer has no way to be told of;
    /// - nobody knows, for the issuer's answer was lost, or fell to a crash;
    /// - was in the hands of a process that crashed before it could post it;
    /// - a failover lost, and that was not written back before the session ended;
    /// - was written into a record that a failover had brought back, and that its ender then took out again
    ///   without a look at it;
    /// - lay in a record that had expired, which nobody may have had open any more;
    /// - lay in a record that none of those could read who ended the session without its cookie;
    /// - lay in a record that was written after its ender had looked at it, and the first taking was not
    ///   answered: whatever takes it out then throws it away.
    pub fn check_revoked(&mut self, issuer_revokes: bool) {
        if !self.errands.is_empty() {
            let errands = format!("{:?}", self.errands.values());
            self.fault(format_args!("errands are left in the outbox: {errands}"));
        }
        for user in 0..self.users.len() {
            let of_user = &self.users[user];
            let excuse = of_user.may_stay_unrevoked.or(of_user.may_be_lost);
            let is_excused = excuse.is_some() || !issuer_revokes || of_user.came_back;
            if of_user.ended == Some("by a logout") && of_user.grant_ended.is_none() && !is_excused {
                let newest = of_user.newest;
                self.fault(format_args!("user {user}: r{user}.{newest} lives on after the logout"));
            }
        }
    }
}

impl User {
    fn stored_is_posted(&self) -> bool {
        !self.rotates || self.posted.contains(&self.stored())
    }

    pub fn note_crash_at_end(&mut self, node: NodeId) {
        if self.in_hand.iter().any(|in_hand| in_hand.node == node) {
            self.may_stay_unrevoked = Some("a gateway crashed before it had posted what was to be revoked");
        }
    }
}
