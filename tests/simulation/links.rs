//! Gateway processes as they come and go, and what the store tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::session::store::changes::Changes;
use tokio::time::Instant;

use crate::world::{Answer, Link, Node, NodeId, World};

impl World {
    pub fn begin_node(self: &Arc<Self>, gateway: usize) -> (NodeId, Arc<Changes>) {
        let mut truth = self.truth();
        let id = truth.nodes.len();
        let before = truth.nodes.iter().filter(|node| node.gateway == gateway).count();
        let name = format!("gateway {gateway}{}", "'".repeat(before));
        let changes = Arc::new(Changes::told());
        truth.note(format_args!("{name} starts"));
        let step = truth.trace.len();
        let ended =
            truth.users.iter().enumerate().filter(|(_, user)| user.ended.is_some() && !user.came_back);
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
            hindered_at: Instant::now(),
            told_of_end,
            unposted_at: None,
            about_to_end: BTreeMap::new(),
            unanswered_ends: BTreeSet::new(),
        });
        (id, changes)
    }

    pub fn crash(&self, node: NodeId) {
        let mut truth = self.truth();
        truth.nodes[node].is_alive = false;
        let name = truth.nodes[node].name.clone();
        truth.note(format_args!("{name} crashes"));
        for user in &mut truth.users {
            user.note_crash_at_end(node);
            let mut is_lost = false;
            for sent in user.sent.iter_mut().filter(|sent| sent.node == node && !sent.is_stored) {
                sent.is_crashed = true;
                let is_posted = sent.issued.is_some_and(|issued| user.posted.contains(&issued));
                is_lost |= matches!(sent.state, Answer::Issued | Answer::Delivered) && !is_posted;
            }
            if is_lost {
                user.lose("a gateway crashed with what was issued in its hands");
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
        truth.nodes[node].hindered_at = Instant::now();
        // That is an answer too.
        truth.nodes[node].failing_since = None;
        truth.nodes[node].changes.connected();
        let name = truth.nodes[node].name.clone();
        truth.note(format_args!("{name} is told of changes again"));
    }
}
