//! One refresh of one session, from the lease to the issuer's answer; and one further token for it, in the same way.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::clearance::Clearance;
use super::lease::Lease;
use super::state::Key;
use super::{Outcome, Shared};
use crate::config::{RouteGrant, RouteToken};
use crate::oidc::{IssuerUnavailable, RefreshError};
use crate::secret::Secret;
use crate::session::cookie::Ticket;
use crate::session::store::changes::Mark;
use crate::session::store::{Unavailable, Version};
use crate::session::{Cause, Session};
use crate::telemetry::audit::Event;
use crate::telemetry::chain;
use crate::tokens::Tokens;

/// How soon somebody else's flight, or a store that is away, is looked at, where it is not told of before.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What takes longer is looked at less often, by all the flights that wait for it.
pub(super) const LONGEST_POLL: Duration = Duration::from_secs(1);

/// For how long what was surely not sent is tried again, and after what pause. Half of what a request
/// waits, so that it may still see the flight land.
pub(super) const RETRY_FOR: Duration = Duration::from_secs(5);
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A refresh token that may have been used up already is sent again only this shortly before the access
/// token dies, when there is nothing left to lose.
const NEAR_EXPIRY: Duration = Duration::from_secs(5);

/// An issuer's `Retry-After` is kept up to this: a session without a token waits for it.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How often an access token is exchanged before this flight gives up. Once more is enough, unless it is refreshed again
/// and again meanwhile.
const MOST_TRIES: usize = 3;

/// For so long after its access token died, a session whose issuer is unknown is left to gateways that may know it.
const UNKNOWN_FOR: Duration = Duration::from_secs(600);

pub(super) struct Flight {
    pub(super) shared: Arc<Shared>,
    pub(super) ticket: Ticket,
    pub(super) key: Key,
    pub(super) issuer: String,
    /// Which token it is, if not the access token.
    pub(super) wanted: Option<Arc<RouteToken>>,
    /// The version that was found wanting, and the token in it, if there was one.
    pub(super) seen: Version,
    pub(super) seen_token: Option<Secret>,
    /// An upstream has refused the token, however fresh it looks.
    pub(super) forced: bool,
    /// `None` where the refresh token is not sent: then nothing is used up, and the compare-and-set suffices.
    pub(super) lease: Option<Lease>,
    announce: Arc<SetOnce<Outcome>>,
}

impl Flight {
    pub(super) fn new(
        shared: Arc<Shared>,
        ticket: Ticket,
        session: &Session,
        wanted: Option<&Arc<RouteToken>>,
        forced: bool,
        announce: Arc<SetOnce<Outcome>>,
    ) -> Self {
        let key = Key::new(shared.sessions.record_key(&ticket), wanted);
        let seen_token = session.tokens.held(wanted.map(Arc::as_ref)).map(|held| held.value.clone());
        let sends_refresh_token = wanted.is_none_or(|wanted| wanted.grant == RouteGrant::RefreshToken);
        // A token that was refused is of as little use as one that has expired: others may wait already. Where it is
        // one route's, all others can do with the access token meanwhile, and are to keep the refresh token.
        let used_until = (!forced || wanted.is_some()).then_some(session.tokens.expires_at);
        let lease = sends_refresh_token.then(|| Lease::new(&shared, &ticket, used_until));
        let (wanted, seen) = (wanted.map(Arc::clone), session.version);
        let issuer = session.identity.issuer.clone();
        Self { shared, ticket, key, issuer, wanted, seen, seen_token, forced, lease, announce }
    }

    pub(super) async fn run(mut self) {
        let mut outcome = None;
        for _ in 0..MOST_TRIES {
            outcome = self.fly().await;
            if outcome.is_some() {
                break;
            }
        }
        self.tell(outcome.unwrap_or(Outcome::IssuerUnavailable));
        // Off the board before a store that is slow lets go: who finds wanting what was told needs another flight.
        let lease = self.lease.take();
        drop(self);
        if let Some(lease) = lease
            && let Err(unavailable) = lease.release().await
        {
            tracing::debug!(event = "refresh.lease_unreleased", error = %unavailable);
        }
    }

    /// `None` where the access token was refreshed while it was exchanged.
    async fn fly(&self) -> Option<Outcome> {
        match self.clear_for_departure().await {
            Ok(Clearance::Go(session, mark)) => {
                let started = Instant::now();
                let outcome = tokio::select! {
                    biased;
                    outcome = self.redeem(session, mark) => outcome?,
                    never = self.keep_lease() => match never {},
                };
                let metrics = self.shared.sessions.common().metrics();
                metrics.observe_refresh(self.shared.sessions.app(), outcome.as_str(), started.elapsed());
                Some(outcome)
            }
            Ok(Clearance::Done(outcome)) => Some(outcome),
            Err(unavailable) => Some(store_unavailable(&unavailable)),
        }
    }

    async fn keep_lease(&self) -> Infallible {
        match &self.lease {
            Some(lease) => lease.keep().await,
            None => std::future::pending().await,
        }
    }

    /// Asks the issuer, again where surely nothing was sent, and has the answer written.
    async fn redeem(&self, session: Arc<Session>, mark: Mark) -> Option<Outcome> {
        let started = Instant::now();
        let mut nonce_is_at_hand = false;
        let error = loop {
            let error = match self.ask(&session).await {
                Ok(tokens) => {
                    self.note_answer();
                    self.note(Event::RefreshSucceeded, &session, None);
                    return self.write(session, mark, tokens).await;
                }
                // Once: an issuer that refuses its own nonce would do so for ever.
                Err(RefreshError::NonceRequired)
                    if !nonce_is_at_hand && !self.lease.as_ref().is_some_and(Lease::may_be_over) =>
                {
                    nonce_is_at_hand = true;
                    continue;
                }
                Err(error) => error,
            };
            if !matches!(error, RefreshError::NotSent(_)) || started.elapsed() >= RETRY_FOR {
                break error;
            }
            tokio::time::sleep(self.jittered(RETRY_PAUSE)).await;
            // A store that is away may have let the lease pass on: another process may be about to send the
            // same token.
            if self.lease.as_ref().is_some_and(Lease::may_be_over) {
                break error;
            }
        };
        Some(self.explain(&session, &error).await)
    }

    async fn ask(&self, session: &Session) -> Result<Tokens, RefreshError> {
        let (grants, Session { tokens, identity, .. }) = (&self.shared.grants, session);
        match &self.wanted {
            None => grants.refresh(tokens, identity).await,
            Some(wanted) => grants.obtain(tokens, identity, wanted).await,
        }
    }

    /// What comes of it where the issuer has brought no tokens.
    async fn explain(&self, session: &Session, error: &RefreshError) -> Outcome {
        if let Some(reason) = error.refusal() {
            self.note(Event::RefreshRefused, session, Some(reason));
        }
        match error {
            // Some issuers say `invalid_grant` of a resource. Whether the refresh token is dead the next refresh tells.
            RefreshError::InvalidGrant
            | RefreshError::Refused { .. }
            | RefreshError::InvalidSubject { .. }
            | RefreshError::NonceRequired
            | RefreshError::UnknownIssuer
                if self.wanted.is_some() =>
            {
                tracing::error!(event = "route_token.refused", error = %chain(error), "requests that need it are refused");
                self.shared.state().breaker(&self.issuer).note_answer();
                self.back_off(Duration::ZERO);
                self.shared.state().backoff.note_refusal(&self.key, error);
                Outcome::Refused
            }
            RefreshError::InvalidGrant => {
                self.note_answer();
                self.end(session.version, Cause::InvalidGrant).await
            }
            RefreshError::WrongIdentity(issued) => {
                self.note_answer();
                let outcome = self.end(session.version, Cause::WrongIdentity).await;
                self.shared.revocations.revoke(&session.identity, issued).await;
                outcome
            }
            RefreshError::UnknownIssuer => self.wind_up(session, error).await,
            RefreshError::Refused { .. }
            | RefreshError::InvalidSubject { .. }
            | RefreshError::NonceRequired => {
                tracing::error!(event = "refresh.refused", error = %chain(error), "sessions are kept");
                self.shared.state().breaker(&self.issuer).note_answer();
                self.back_off(Duration::ZERO)
            }
            RefreshError::NotSent(unavailable) => self.note_outage(error, unavailable),
            RefreshError::Ambiguous(unavailable) => {
                let outcome = self.note_outage(error, unavailable);
                self.spare(session);
                outcome
            }
        }
    }

    /// The issuer is there, and has had its say about this session.
    fn note_answer(&self) {
        let mut state = self.shared.state();
        state.backoff.clear(&self.key);
        if self.lease.is_some() {
            // The refresh token that may have been used up was not, or is another now.
            state.backoff.clear(&self.session_key());
        }
        state.breaker(&self.issuer).note_answer();
    }

    /// The issuer brought no tokens this time. It is left alone for as long as it asks for.
    fn note_outage(&self, error: &RefreshError, unavailable: &IssuerUnavailable) -> Outcome {
        tracing::warn!(event = "refresh.issuer_unavailable", error = %chain(error));
        self.shared.state().breaker(&self.issuer).note_fault(unavailable.fault());
        let asked_for = unavailable.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.back_off(asked_for)
    }

    /// A refresh token that may have been used up is not sent again while the access token is of use. One that
    /// an upstream refuses is of none: then the refresh token is sent after the ordinary back-off. Where it was
    /// used up indeed, the session ends, and its user logs in again. Where it was not, as is likely behind a
    /// 503 or a 429, waiting would have the user refused for as long as the dead token looks alive.
    ///
    /// Where it was sent for a route's token, that one is spared in the same way, and the access token too.
    fn spare(&self, session: &Session) {
        if self.lease.is_none() {
            return;
        }
        let (now, jitter) = (self.shared.clock.now(), self.shared.random.fraction());
        let until = |wanted: Option<&RouteToken>| {
            let held = session.tokens.held(wanted);
            held.map_or(now, |held| now + held.expires_at.since(now).saturating_sub(NEAR_EXPIRY))
        };
        let mut state = self.shared.state();
        state.backoff.spare(&self.key, until(self.wanted.as_deref()));
        if self.wanted.is_some() {
            let key = self.session_key();
            state.backoff.note_failure(&key, now, Duration::ZERO, jitter);
            state.backoff.spare(&key, until(None));
        }
    }

    pub(super) fn session_key(&self) -> Key {
        Key::Session(self.shared.sessions.record_key(&self.ticket))
    }

    fn back_off(&self, at_least: Duration) -> Outcome {
        let (now, jitter) = (self.shared.clock.now(), self.shared.random.fraction());
        self.shared.state().backoff.note_failure(&self.key, now, at_least, jitter);
        Outcome::IssuerUnavailable
    }

    /// Nothing here can renew this session. Another gateway may, where its issuer is new and not known here yet.
    async fn wind_up(&self, session: &Session, error: &RefreshError) -> Outcome {
        if self.shared.clock.now().since(session.tokens.expires_at) >= UNKNOWN_FOR {
            tracing::warn!(event = "refresh.issuer_unknown", error = %error, "the session ends");
            return self.end(session.version, Cause::UnknownIssuer).await;
        }
        let outcome = self.back_off(Duration::ZERO);
        self.shared.state().backoff.spare(&self.key, session.tokens.expires_at);
        outcome
    }

    /// This pause, or half as much less or more: who waits for the same comes back one after the other.
    pub(super) fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.shared.random.fraction())
    }

    /// Tells those who wait, once; `true` the first time.
    pub(super) fn tell(&self, outcome: Outcome) -> bool {
        self.announce.set(outcome).is_ok()
    }
}

impl Drop for Flight {
    /// However a flight ends, by a panic too, nobody waits for it, nor may board it any more.
    fn drop(&mut self) {
        self.tell(Outcome::IssuerUnavailable);
        {
            let mut state = self.shared.state();
            state.flights.remove(&self.key);
            let record = self.shared.sessions.record_key(&self.ticket);
            if state.redeeming.get(&record) == Some(&self.key) {
                state.redeeming.remove(&record);
            }
        }
        if let Some(Outcome::Unwritten(..)) = self.announce.get() {
            self.shared.board.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

pub(super) fn store_unavailable(unavailable: &Unavailable) -> Outcome {
    tracing::warn!(event = "refresh.store_unavailable", error = %unavailable);
    Outcome::StoreUnavailable
}
