//! Whether a flight may go to the issuer: it has the lease, the newest session, and nobody has settled it meanwhile.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use super::flight::{Flight, LONGEST_POLL, POLL};
use super::lease::Lease;
use crate::session::Session;
use crate::session::store::Unavailable;
use crate::session::store::changes::Mark;
use crate::tokens::Freshness;

/// After an outage, others may hold what they could not write, and their leases may have run out: so long they
/// are left to write it first. A writer comes back sooner, whatever it hung in.
const AFTER_OUTAGE: Duration = Duration::from_secs(3);

/// How long somebody else's flight is watched before this one gives up. The lease's owner may take
/// longer; whoever comes next looks again.
const WATCH: Duration = Duration::from_secs(40);

/// Whether a flight may go to the issuer.
pub(super) enum Clearance {
    /// With the lease in hand, and the newest session; the mark was taken before it was read.
    Go(Arc<Session>, Mark),
    /// There is nothing to do any more.
    Done(Outcome),
}

impl Flight {
    /// Takes the lease and reads the record past every cache; while somebody else has the lease, watches
    /// for what they write.
    pub(super) async fn clear_for_departure(&self) -> Result<Clearance, Unavailable> {
        let sessions = &self.shared.sessions;
        let (started, change) = (Instant::now(), sessions.await_change(&self.ticket));
        let mut poll = POLL;
        while started.elapsed() < WATCH {
            let mut changed = pin!(change.notified());
            changed.as_mut().enable();
            let leased = match &self.lease {
                Some(lease) => lease.take().await?,
                None => true,
            };
            let mark = sessions.mark(&self.ticket);
            let Some(current) = sessions.load_stored(&self.ticket).await? else {
                return Ok(Clearance::Done(Outcome::Gone));
            };
            if let Some(outcome) = self.is_settled_by(&current) {
                return Ok(Clearance::Done(outcome));
            }
            let may_be_unwritten =
                started.elapsed() < AFTER_OUTAGE && sessions.had_an_outage_within(AFTER_OUTAGE);
            // Behind a slow store the lease may have passed on, and what was read be somebody's past.
            let is_young = self.lease.as_ref().is_none_or(Lease::is_young);
            if leased && is_young && !may_be_unwritten && self.is_alone() {
                if self.is_held_back(&current) {
                    return Ok(Clearance::Done(Outcome::IssuerUnavailable));
                }
                return Ok(Clearance::Go(current, mark));
            }
            let is_told = tokio::time::timeout(self.jittered(poll), changed).await.is_ok();
            // Whoever has written gives the lease up next.
            poll = if is_told { POLL } else { (poll * 2).min(LONGEST_POLL) };
        }
        Ok(Clearance::Done(Outcome::IssuerUnavailable))
    }

    /// What comes of it where there is nothing to ask the issuer for, or nothing to ask it with.
    fn is_settled_by(&self, current: &Arc<Session>) -> Option<Outcome> {
        let wanted = self.wanted.as_ref();
        let freshness = self.shared.freshness(current, wanted);
        let held = current.tokens.held(wanted.map(Arc::as_ref)).map(|held| held.value);
        let somebody_was_faster = current.version > self.seen
            && held != self.seen_token.as_ref()
            && freshness != Freshness::Expired;
        if somebody_was_faster || (!self.forced && freshness == Freshness::Fresh) {
            return Some(Outcome::Fresh(Arc::clone(current)));
        }
        let subject_is_dead =
            self.lease.is_none() && self.shared.freshness(current, None) == Freshness::Expired;
        subject_is_dead.then_some(Outcome::IssuerUnavailable)
    }

    /// Whether no other flight of this process has sent the session's refresh token and is still about it, its lease gone.
    fn is_alone(&self) -> bool {
        if self.lease.is_none() {
            return true;
        }
        let mut state = self.shared.state();
        let record = self.shared.sessions.record_key(&self.ticket);
        *state.redeeming.entry(record).or_insert_with(|| self.key.clone()) == self.key
    }

    /// Another flight of this session may have sent the same refresh token in vain while this one waited for the lease.
    fn is_held_back(&self, current: &Session) -> bool {
        let urgent = self.forced || self.wanted.is_some();
        let urgent = urgent || self.shared.freshness(current, None) == Freshness::Expired;
        let now = self.shared.clock.now();
        self.lease.is_some() && self.shared.state().backoff.wait(&self.session_key(), now, urgent).is_some()
    }
}
