//! One refresh of one session, from the lease to the write.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::{Outcome, Shared};
use crate::oidc::{IssuerUnavailable, RefreshError};
use crate::session::cookie::Ticket;
use crate::session::store::changes::Mark;
use crate::session::store::{LeaseOwner, RecordKey, Unavailable, Version};
use crate::session::{Cause, Session, TokensReplaced};
use crate::telemetry::chain;
use crate::tokens::{Freshness, Tokens};

/// How long a lease lives unless it is renewed: what a crash costs the others.
const LEASE: Duration = Duration::from_secs(3);

/// How often a lease is renewed. A lease older than this is too old to set out with.
const RENEWAL: Duration = Duration::from_secs(1);

/// How often somebody else's flight, or a store that is away, is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A store that stays away is asked less often, by all the flights that have something to write.
const LONGEST_POLL: Duration = Duration::from_secs(1);

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
    owner: LeaseOwner,
    /// When the call set out by which the lease was last taken or renewed.
    leased_at: Mutex<Instant>,
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
        let owner = LeaseOwner(shared.random.token::<16>());
        let leased_at = Mutex::new(Instant::now());
        Self { shared, ticket, key, seen: session.version, forced, owner, leased_at, announce }
    }

    pub(super) async fn run(self) {
        let outcome = match self.clear_for_departure().await {
            Ok(Clearance::Go(session, mark)) => {
                let started = Instant::now();
                let outcome = tokio::select! {
                    biased;
                    outcome = self.redeem(session, mark) => outcome,
                    never = self.keep_lease() => match never {},
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
        if let Err(unavailable) = self.shared.sessions.release(&self.ticket, &self.owner).await {
            tracing::debug!(event = "refresh.lease_unreleased", error = %unavailable);
        }
    }

    /// Takes the lease and reads the record past every cache; while somebody else has the lease, watches
    /// for what they write.
    async fn clear_for_departure(&self) -> Result<Clearance, Unavailable> {
        let sessions = &self.shared.sessions;
        let started = Instant::now();
        while started.elapsed() < WATCH {
            let leased = self.lease().await?;
            let mark = sessions.mark(&self.ticket);
            let Some(current) = sessions.load_stored(&self.ticket).await? else {
                return Ok(Clearance::Done(Outcome::Gone));
            };
            let freshness = self.shared.freshness(&current);
            let somebody_was_faster = current.version > self.seen && freshness != Freshness::Expired;
            if somebody_was_faster || (!self.forced && freshness == Freshness::Fresh) {
                return Ok(Clearance::Done(Outcome::Fresh(current)));
            }
            // Behind a slow store the lease may have passed on, and what was read be somebody's past.
            if leased && self.lease_age() < RENEWAL {
                return Ok(Clearance::Go(current, mark));
            }
            tokio::time::sleep(POLL.mul_f64(0.5 + self.shared.random.fraction())).await;
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
            tokio::time::sleep(RETRY_PAUSE.mul_f64(0.5 + self.shared.random.fraction())).await;
            // A store that is away may have let the lease pass on: another process may be about to send the
            // same token.
            if self.lease_age() >= LEASE {
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
            RefreshError::NotSent(unavailable) => self.note_outage(&error, unavailable, Duration::ZERO),
            RefreshError::Ambiguous(unavailable) => {
                let left = session.tokens.expires_at.since(self.shared.clock.now());
                self.note_outage(&error, unavailable, left.saturating_sub(NEAR_EXPIRY))
            }
        }
    }

    /// The issuer is there, and has had its say about this session.
    fn note_answer(&self) {
        let mut state = self.shared.state();
        state.backoff.clear(&self.key);
        state.breaker.note_answer();
    }

    /// The issuer brought no tokens this time. It is left alone for as long as it asks for, and `at_least`
    /// this long.
    fn note_outage(
        &self,
        error: &RefreshError,
        unavailable: &IssuerUnavailable,
        at_least: Duration,
    ) -> Outcome {
        tracing::warn!(event = "refresh.issuer_unavailable", error = %chain(error));
        self.shared.state().breaker.note_fault(unavailable.fault());
        let asked_for = unavailable.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.back_off(at_least.max(asked_for))
    }

    fn back_off(&self, at_least: Duration) -> Outcome {
        let (now, jitter) = (self.shared.clock.now(), self.shared.random.fraction());
        self.shared.state().backoff.note_failure(&self.key, now, at_least, jitter);
        Outcome::IssuerUnavailable
    }

    /// Writes what was issued. While the store is away, this process serves the new tokens and keeps
    /// trying, under a lease it wants all the while.
    async fn write(&self, mut before: Arc<Session>, mut mark: Mark, tokens: Tokens) -> Outcome {
        let mut pause = POLL;
        loop {
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
            if self.tell(Outcome::Unwritten(Arc::new(newer), mark)) {
                tracing::warn!(event = "refresh.unwritten", error = %unavailable);
            }
            tokio::time::sleep(pause.mul_f64(0.5 + self.shared.random.fraction())).await;
            pause = (pause * 2).min(LONGEST_POLL);
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

    /// Takes or renews the lease; `false` where another owner holds it.
    async fn lease(&self) -> Result<bool, Unavailable> {
        let set_out = Instant::now();
        let leased = self.shared.sessions.lease(&self.ticket, &self.owner, LEASE).await?;
        if leased {
            *self.leased_at.lock().unwrap_or_else(PoisonError::into_inner) = set_out;
        }
        Ok(leased)
    }

    /// The lease is held until this reaches [`LEASE`], at least.
    fn lease_age(&self) -> Duration {
        self.leased_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Renews the lease for as long as it is polled: it must outlive any delay of the issuer.
    async fn keep_lease(&self) -> Infallible {
        let mut pause = RENEWAL.saturating_sub(self.lease_age());
        let mut after_failure = POLL;
        loop {
            tokio::time::sleep(pause).await;
            let set_out = Instant::now();
            // A lease that was lost is wanted still; the write is fenced by its version in any case.
            match self.lease().await {
                Ok(_) => {
                    // Counted from the last one's departure, or a slow store would make each one late.
                    pause = RENEWAL.saturating_sub(set_out.elapsed());
                    after_failure = POLL;
                }
                Err(unavailable) => {
                    tracing::debug!(event = "refresh.lease_unrenewed", error = %unavailable);
                    // At once at first: the lease lives hardly longer than one call that hangs.
                    pause = after_failure;
                    after_failure = (after_failure * 2).min(LONGEST_POLL);
                }
            }
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
    }
}

fn store_unavailable(unavailable: &Unavailable) -> Outcome {
    tracing::warn!(event = "refresh.store_unavailable", error = %unavailable);
    Outcome::StoreUnavailable
}
