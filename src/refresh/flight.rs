//! One refresh of one session, from the lease to the write.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::lease::Lease;
use super::{Outcome, Shared};
use crate::oidc::{IssuerUnavailable, RefreshError};
use crate::session::cookie::Ticket;
use crate::session::store::changes::Mark;
use crate::session::store::{RecordKey, Unavailable, Version};
use crate::session::{Cause, Session, TokensReplaced};
use crate::telemetry::chain;
use crate::tokens::{Freshness, Tokens};

/// After an outage, others may hold what they could not write, and their leases may have run out: so long they
/// are left to write it first. A writer comes back sooner, whatever it hung in.
const AFTER_OUTAGE: Duration = Duration::from_secs(3);

/// How soon somebody else's flight, or a store that is away, is looked at, where it is not told of before.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What takes longer is looked at less often, by all the flights that wait for it.
pub(super) const LONGEST_POLL: Duration = Duration::from_secs(1);

/// How long somebody else's flight is watched before this one gives up. The lease's owner may take
/// longer; whoever comes next looks again.
const WATCH: Duration = Duration::from_secs(40);

/// For how long what was surely not sent is tried again, and after what pause. Half of what a request
/// waits, so that it may still see the flight land.
const RETRY_FOR: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A refresh token that may have been used up already is sent again only this shortly before the access
/// token dies, when there is nothing left to lose.
const NEAR_EXPIRY: Duration = Duration::from_secs(5);

/// An issuer's `Retry-After` is kept up to this: a session without a token waits for it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Flight {
    shared: Arc<Shared>,
    ticket: Ticket,
    key: RecordKey,
    /// The version that was found wanting.
    seen: Version,
    /// An upstream has refused the token, however fresh it looks.
    forced: bool,
    lease: Lease,
    announce: Arc<SetOnce<Outcome>>,
}

/// Whether a flight may go to the issuer.
enum Clearance {
    /// With the lease in hand, and the newest session; the mark was taken before it was read.
    Go(Arc<Session>, Mark),
    /// There is nothing to do any more.
    Done(Outcome),
}

impl Flight {
    pub(super) fn new(
        shared: Arc<Shared>,
        ticket: Ticket,
        session: &Session,
        forced: bool,
        announce: Arc<SetOnce<Outcome>>,
    ) -> Self {
        let key = shared.sessions.record_key(&ticket);
        // A token that was refused is of as little use as one that has expired: others may wait already.
        let used_until = (!forced).then_some(session.tokens.expires_at);
        let lease = Lease::new(&shared, &ticket, used_until);
        Self { shared, ticket, key, seen: session.version, forced, lease, announce }
    }

    pub(super) async fn run(self) {
        let outcome = match self.clear_for_departure().await {
            Ok(Clearance::Go(session, mark)) => {
                let started = Instant::now();
                let outcome = tokio::select! {
                    biased;
                    outcome = self.redeem(session, mark) => outcome,
                    never = self.lease.keep() => match never {},
                };
                let metrics = self.shared.sessions.common().metrics();
                metrics.observe_refresh(self.shared.sessions.app(), outcome.as_str(), started.elapsed());
                outcome
            }
            Ok(Clearance::Done(outcome)) => outcome,
            Err(unavailable) => store_unavailable(&unavailable),
        };
        self.tell(outcome);
        // Whoever waits for the lease elsewhere can go on; here it is on the board until then.
        if let Err(unavailable) = self.lease.release().await {
            tracing::debug!(event = "refresh.lease_unreleased", error = %unavailable);
        }
    }

    /// Takes the lease and reads the record past every cache; while somebody else has the lease, watches
    /// for what they write.
    async fn clear_for_departure(&self) -> Result<Clearance, Unavailable> {
        let sessions = &self.shared.sessions;
        let (started, change) = (Instant::now(), sessions.await_change(&self.ticket));
        let mut poll = POLL;
        while started.elapsed() < WATCH {
            let mut changed = pin!(change.notified());
            changed.as_mut().enable();
            let leased = self.lease.take().await?;
            let mark = sessions.mark(&self.ticket);
            let Some(current) = sessions.load_stored(&self.ticket).await? else {
                return Ok(Clearance::Done(Outcome::Gone));
            };
            let freshness = self.shared.freshness(&current);
            let somebody_was_faster = current.version > self.seen && freshness != Freshness::Expired;
            if somebody_was_faster || (!self.forced && freshness == Freshness::Fresh) {
                return Ok(Clearance::Done(Outcome::Fresh(current)));
            }
            let may_be_unwritten =
                started.elapsed() < AFTER_OUTAGE && sessions.had_an_outage_within(AFTER_OUTAGE);
            // Behind a slow store the lease may have passed on, and what was read be somebody's past.
            if leased && self.lease.is_young() && !may_be_unwritten {
                return Ok(Clearance::Go(current, mark));
            }
            let _ = tokio::time::timeout(self.jittered(poll), changed).await;
            poll = (poll * 2).min(LONGEST_POLL);
        }
        Ok(Clearance::Done(Outcome::IssuerUnavailable))
    }

    /// Asks the issuer, again where surely nothing was sent, and has the answer written.
    async fn redeem(&self, session: Arc<Session>, mark: Mark) -> Outcome {
        let started = Instant::now();
        let error = loop {
            let error = match self.shared.grants.refresh(&session.tokens, &session.identity).await {
                Ok(tokens) => {
                    self.note_answer();
                    return self.write(session, mark, tokens).await;
                }
                Err(error) => error,
            };
            if !matches!(error, RefreshError::NotSent(_)) || started.elapsed() >= RETRY_FOR {
                break error;
            }
            tokio::time::sleep(self.jittered(RETRY_PAUSE)).await;
            // A store that is away may have let the lease pass on: another process may be about to send the
            // same token.
            if self.lease.may_be_over() {
                break error;
            }
        };
        match &error {
            RefreshError::InvalidGrant => {
                self.note_answer();
                self.end(session.version, Cause::InvalidGrant).await
            }
            RefreshError::WrongIdentity(issued) => {
                self.note_answer();
                let outcome = self.end(session.version, Cause::WrongIdentity).await;
                self.shared.revocations.revoke(issued).await;
                outcome
            }
            RefreshError::Refused { .. } => {
                tracing::error!(event = "refresh.refused", error = %chain(&error), "sessions are kept");
                self.shared.state().breaker.note_answer();
                self.back_off(Duration::ZERO)
            }
            RefreshError::NotSent(unavailable) => self.note_outage(&error, unavailable),
            RefreshError::Ambiguous(unavailable) => {
                let outcome = self.note_outage(&error, unavailable);
                self.spare(&session);
                outcome
            }
        }
    }

    /// The issuer is there, and has had its say about this session.
    fn note_answer(&self) {
        let mut state = self.shared.state();
        state.backoff.clear(&self.key);
        state.breaker.note_answer();
    }

    /// The issuer brought no tokens this time. It is left alone for as long as it asks for.
    fn note_outage(&self, error: &RefreshError, unavailable: &IssuerUnavailable) -> Outcome {
        tracing::warn!(event = "refresh.issuer_unavailable", error = %chain(error));
        self.shared.state().breaker.note_fault(unavailable.fault());
        let asked_for = unavailable.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.back_off(asked_for)
    }

    /// A refresh token that may have been used up is not sent again while the access token is of use. One that
    /// an upstream refuses is of none: then the refresh token is sent after the ordinary back-off. Where it was
    /// used up indeed, the session ends, and its user logs in again. Where it was not, as is likely behind a
    /// 503 or a 429, waiting would have the user refused for as long as the dead token looks alive.
    fn spare(&self, session: &Session) {
        let now = self.shared.clock.now();
        let left = session.tokens.expires_at.since(now).saturating_sub(NEAR_EXPIRY);
        self.shared.state().backoff.spare(&self.key, now + left);
    }

    fn back_off(&self, at_least: Duration) -> Outcome {
        let (now, jitter) = (self.shared.clock.now(), self.shared.random.fraction());
        self.shared.state().backoff.note_failure(&self.key, now, at_least, jitter);
        Outcome::IssuerUnavailable
    }

    /// Writes what was issued. While the store is away, this process serves the new tokens and keeps
    /// trying, under a lease it wants all the while.
    async fn write(&self, mut before: Arc<Session>, mut mark: Mark, tokens: Tokens) -> Outcome {
        let change = self.shared.sessions.await_change(&self.ticket);
        let mut pause = POLL;
        loop {
            let mut changed = pin!(change.notified());
            changed.as_mut().enable();
            let unavailable = match self.try_write(&mut before, &mut mark, &tokens).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => continue,
                Err(unavailable) => unavailable,
            };
            // The session has died of age: nobody will ask for these tokens, nor log them out.
            if self.shared.clock.now() >= before.expires_at {
                return self.discard(&tokens).await;
            }
            let version = Version(before.version.0 + 1);
            let newer = Session { tokens: tokens.clone(), version, ..Session::clone(&before) };
            self.tell_unwritten(newer, mark, &unavailable);
            // A store that is heard of again wakes all who wait for it.
            let is_told = tokio::time::timeout(self.jittered(pause), changed).await.is_ok();
            pause = if is_told { POLL } else { (pause * 2).min(LONGEST_POLL) };
        }
    }

    /// Writes over `before`; `None` where there was something older, which now is `before`.
    async fn try_write(
        &self,
        before: &mut Arc<Session>,
        mark: &mut Mark,
        tokens: &Tokens,
    ) -> Result<Option<Outcome>, Unavailable> {
        let sessions = &self.shared.sessions;
        match sessions.replace_tokens(&self.ticket, before, tokens.clone()).await? {
            TokensReplaced::Written(session) => return Ok(Some(Outcome::Fresh(session))),
            TokensReplaced::Ended => return Ok(Some(self.discard(tokens).await)),
            TokensReplaced::Conflict => {}
        }
        *mark = sessions.mark(&self.ticket);
        let Some(found) = sessions.load_stored(&self.ticket).await? else {
            return Ok(Some(self.discard(tokens).await));
        };
        // A failover may lose what was written last, and with it what `before` was.
        if found.version <= before.version {
            tracing::warn!(event = "refresh.store_went_back", found = found.version.0);
            *before = found;
            return Ok(None);
        }
        // A write whose answer was lost may have been done: then what lies there is ours.
        if found.tokens != *tokens {
            tracing::warn!(event = "refresh.conflict", found = found.version.0);
        }
        Ok(Some(Outcome::Fresh(found)))
    }

    /// The session's end was faster: what was issued for a dead session is revoked and thrown away.
    async fn discard(&self, tokens: &Tokens) -> Outcome {
        tracing::info!(event = "refresh.session_gone", "what was issued is revoked");
        self.tell(Outcome::Gone);
        self.shared.revocations.revoke(tokens).await;
        Outcome::Gone
    }

    /// The refresh token is dead. Another process may have got further; otherwise the session has ended.
    async fn end(&self, version: Version, cause: Cause) -> Outcome {
        match self.shared.sessions.end_version(&self.ticket, version).await {
            Ok(Some(session)) => {
                self.shared.sessions.note_end(cause);
                self.tell(Outcome::Ended);
                self.shared.revocations.revoke(&session.tokens).await;
                Outcome::Ended
            }
            Ok(None) => match self.shared.sessions.load_stored(&self.ticket).await {
                Ok(Some(session)) => Outcome::Fresh(session),
                Ok(None) => Outcome::Gone,
                Err(unavailable) => store_unavailable(&unavailable),
            },
            Err(unavailable) => store_unavailable(&unavailable),
        }
    }

    /// This pause, or half as much less or more: who waits for the same comes back one after the other.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.shared.random.fraction())
    }

    /// Lets this process serve what the store did not take.
    fn tell_unwritten(&self, newer: Session, mark: Mark, unavailable: &Unavailable) {
        // Counted before anybody can know of it, and until the flight ends.
        self.shared.unwritten.fetch_add(1, Ordering::SeqCst);
        if self.tell(Outcome::Unwritten(Arc::new(newer), mark)) {
            tracing::warn!(event = "refresh.unwritten", error = %unavailable);
        } else {
            self.shared.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Tells those who wait, once; `true` the first time.
    fn tell(&self, outcome: Outcome) -> bool {
        self.announce.set(outcome).is_ok()
    }
}

impl Drop for Flight {
    /// However a flight ends, by a panic too, nobody waits for it, nor may board it any more.
    fn drop(&mut self) {
        self.tell(Outcome::IssuerUnavailable);
        self.shared.state().flights.remove(&self.key);
        if let Some(Outcome::Unwritten(..)) = self.announce.get() {
            self.shared.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn store_unavailable(unavailable: &Unavailable) -> Outcome {
    tracing::warn!(event = "refresh.store_unavailable", error = %unavailable);
    Outcome::StoreUnavailable
}
