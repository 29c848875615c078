//! Keeps access tokens fresh: once per session, however many requests and processes want it.
//!
//! A refresh is a flight: it runs in a task of its own, so that a browser that goes away cancels nothing.
//! Requests of this process join the flight; processes agree by a lease in the store; and what was issued
//! is written by compare-and-set, so that a logout wins every race (RFC 6749 §6, RFC 9700 §4.14).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::oidc::Grants;
use crate::random::Random;
use crate::revocation::Revocations;
use crate::session::cookie::Ticket;
use crate::session::store::changes::Mark;
use crate::session::store::{RecordKey, Unavailable};
use crate::session::{Session, Sessions};
use crate::tokens::Freshness;

mod backoff;
mod breaker;
mod flight;
mod lease;

use backoff::Backoff;
use breaker::Breaker;
use flight::Flight;

/// How long a request waits for a refresh; the refresh itself may go on.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// When to ask again, where the back-off does not say: the refresh is still under way.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An upstream that refuses every token must not cause a refresh on every request.
const BETWEEN_FORCED: Duration = Duration::from_secs(30);

/// Keeps the access tokens of one app's sessions fresh.
#[derive(Clone, Debug)]
pub struct Refresher(Arc<Shared>);

/// Why there is no fresh token.
#[derive(Debug)]
pub enum Failure {
    /// The issuer has ended the session, and it was ended here.
    Ended,
    /// Somebody else has ended the session meanwhile.
    Gone,
    /// The issuer does not answer, or refuses this gateway; the session stays.
    Issuer {
        /// When it may be worth to ask again.
        retry_after: Duration,
    },
    /// The store does not answer; the session stays.
    Store(Unavailable),
}

#[derive(Debug)]
struct Shared {
    sessions: Arc<Sessions>,
    grants: Arc<dyn Grants>,
    revocations: Revocations,
    clock: Arc<dyn Clock>,
    random: Random,
    refresh_before_expiry: Duration,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// How many flights hold what the store does not know of. Each request asks for its own, and as good as
    /// always there is none: then no request waits for another one's look at the state.
    unwritten: AtomicUsize,
}

/// What this process knows of sessions whose refresh is under way, or went wrong.
#[derive(Debug, Default)]
struct State {
    /// At most one flight for each session.
    flights: HashMap<RecordKey, Arc<SetOnce<Outcome>>>,
    backoff: Backoff,
    breaker: Breaker,
}

/// A refresh went wrong, or did not help, a moment ago.
#[derive(Debug)]
struct TooEarly {
    retry_after: Duration,
}

/// What a flight tells those who wait for it.
#[derive(Clone, Debug)]
enum Outcome {
    Fresh(Arc<Session>),
    /// The same, but the store does not know of the tokens; taken before it was read.
    Unwritten(Arc<Session>, Mark),
    Ended,
    Gone,
    IssuerUnavailable,
    StoreUnavailable,
}

impl Outcome {
    /// Its name in metrics.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Fresh(_) | Self::Unwritten(..) => "succeeded",
            Self::Ended => "session_ended",
            Self::Gone => "session_gone",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::StoreUnavailable => "store_unavailable",
        }
    }
}

impl Refresher {
    /// Refreshes the sessions of one app. Flights run on `tasks`, which a shutdown waits for.
    pub fn new(
        sessions: Arc<Sessions>,
        grants: Arc<dyn Grants>,
        revocations: Revocations,
        clock: Arc<dyn Clock>,
        random: Random,
        refresh_before_expiry: Duration,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Shared {
            sessions,
            grants,
            revocations,
            clock,
            random,
            refresh_before_expiry,
            tasks,
            state: Mutex::default(),
            unwritten: AtomicUsize::new(0),
        }))
    }

    /// The session of a ticket: the store's, or this process's own where that is newer.
    pub async fn load(&self, ticket: &Ticket) -> Result<Option<Arc<Session>>, Unavailable> {
        let loaded = self.0.sessions.load(ticket).await;
        let unwritten = self.0.unwritten(ticket.record_key());
        match (loaded, unwritten) {
            (Ok(Some(stored)), Some((newer, _))) if newer.version > stored.version => Ok(Some(newer)),
            // The store is away, and what this process holds was to be written there. Where the session may
            // have ended meanwhile, it holds nothing.
            (Err(_), Some((newer, mark)))
                if newer.is_alive(self.0.clock.now())
                    && self.0.sessions.is_within_grace()
                    && self.0.sessions.is_untouched(&mark) =>
            {
                Ok(Some(newer))
            }
            (loaded, _) => loaded,
        }
    }

    /// A session whose access token can be used. A token that will expire soon is used, and replaced in
    /// the background; one that has expired is waited for, though not for long.
    pub async fn freshen(&self, ticket: &Ticket, session: Arc<Session>) -> Result<Arc<Session>, Failure> {
        match self.0.freshness(&session) {
            Freshness::Fresh => Ok(session),
            Freshness::Stale => {
                if session.tokens.refresh_token.is_some() {
                    // Nobody waits; what becomes of it the next request finds in the store.
                    let _ = self.0.board(ticket, &session, false);
                }
                Ok(session)
            }
            Freshness::Expired => {
                let landing = self.0.land(ticket, self.0.board(ticket, &session, false));
                let renewed = Box::pin(landing).await?;
                if has_same_token(&renewed, &session) {
                    // It could not be written for as long as it lived.
                    return Err(Failure::Store(Unavailable("longer than the token lived".to_owned())));
                }
                if self.0.freshness(&renewed) == Freshness::Expired {
                    // Somebody else got further, but too long ago.
                    return Err(self.0.issuer_failure(ticket));
                }
                Ok(renewed)
            }
        }
    }

    /// A session with a token other than that of `refused`, which an upstream has refused; `None` where
    /// another would not help or was fetched a moment ago.
    pub async fn replace_refused(
        &self,
        ticket: &Ticket,
        refused: &Session,
    ) -> Option<Result<Arc<Session>, Failure>> {
        refused.tokens.refresh_token.as_ref()?;
        // Twice, for the flight that was under way may have found this very token good.
        for _ in 0..2 {
            let Ok(flight) = self.0.board(ticket, refused, true) else { break };
            match self.0.land(ticket, Ok(flight)).await {
                Ok(session) if !self.0.helps(&session, refused) => {}
                landed => return Some(landed),
            }
        }
        // Others that were refused with the same token may have had it replaced by now.
        let session = self.load(ticket).await.ok()??;
        self.0.helps(&session, refused).then_some(Ok(session))
    }

    /// Tells that an upstream has accepted the token that replaced a refused one.
    pub fn note_accepted(&self, ticket: &Ticket) {
        let key = self.0.sessions.record_key(ticket);
        self.0.state().backoff.note_helped(&key);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session with tokens that the store does not know of yet, as it was at this mark.
    fn unwritten(&self, key: &RecordKey) -> Option<(Arc<Session>, Mark)> {
        if self.unwritten.load(Ordering::SeqCst) == 0 {
            return None;
        }
        match self.state().flights.get(key)?.get()? {
            Outcome::Unwritten(session, mark) => Some((Arc::clone(session), *mark)),
            Outcome::Fresh(_)
            | Outcome::Ended
            | Outcome::Gone
            | Outcome::IssuerUnavailable
            | Outcome::StoreUnavailable => None,
        }
    }

    /// Joins the flight of this session, or starts one, unless it is too early to try again; `forced` where
    /// the token was refused, however fresh it looks.
    fn board(
        self: &Arc<Self>,
        ticket: &Ticket,
        session: &Session,
        forced: bool,
    ) -> Result<Arc<SetOnce<Outcome>>, TooEarly> {
        let key = self.sessions.record_key(ticket);
        let now = self.clock.now();
        let outcome = Arc::new(SetOnce::new());
        {
            let mut state = self.state();
            if let Some(outcome) = state.flights.get(&key) {
                return Ok(Arc::clone(outcome));
            }
            if let Some(retry_after) = state.backoff.wait(&key, now, forced) {
                return Err(TooEarly { retry_after });
            }
            if forced && !state.backoff.may_force(&key, now) {
                return Err(TooEarly { retry_after: BETWEEN_FORCED });
            }
            state.breaker.admit(now).map_err(|retry_after| TooEarly { retry_after })?;
            state.flights.insert(key, Arc::clone(&outcome));
        }
        let flight = Flight::new(Arc::clone(self), ticket.clone(), session, forced, Arc::clone(&outcome));
        self.tasks.spawn(flight.run());
        Ok(outcome)
    }

    /// Waits for a flight to tell what became of it, for as long as a request should.
    async fn land(
        &self,
        ticket: &Ticket,
        flight: Result<Arc<SetOnce<Outcome>>, TooEarly>,
    ) -> Result<Arc<Session>, Failure> {
        let flight = flight?;
        let landing = async {
            match flight.wait().await {
                Outcome::Fresh(session) => Ok(Arc::clone(session)),
                Outcome::Unwritten(session, mark) => self.vouch_for(ticket, session, mark).await,
                Outcome::Ended => Err(Failure::Ended),
                Outcome::Gone => Err(Failure::Gone),
                Outcome::StoreUnavailable => Err(Failure::Store(Unavailable("during a refresh".to_owned()))),
                Outcome::IssuerUnavailable => Err(self.issuer_failure(ticket)),
            }
        };
        let landed = tokio::time::timeout(REQUEST_WAIT, landing).await;
        // It takes longer than a request should wait.
        landed.unwrap_or_else(|_| Err(self.issuer_failure(ticket)))
    }

    /// What is unwritten stays on the board until its flight has ended, also where that is busy with revoking
    /// it: once the session may have ended, it is asked for like any other.
    async fn vouch_for(
        &self,
        ticket: &Ticket,
        unwritten: &Arc<Session>,
        mark: &Mark,
    ) -> Result<Arc<Session>, Failure> {
        if unwritten.is_alive(self.clock.now()) && self.sessions.is_untouched(mark) {
            return Ok(Arc::clone(unwritten));
        }
        match self.sessions.load(ticket).await {
            Ok(Some(stored)) if stored.version >= unwritten.version => Ok(stored),
            Ok(Some(_)) => Ok(Arc::clone(unwritten)),
            Ok(None) => Err(Failure::Gone),
            Err(unavailable) => Err(Failure::Store(unavailable)),
        }
    }

    fn issuer_failure(&self, ticket: &Ticket) -> Failure {
        let wait = self.state().backoff.wait(&self.sessions.record_key(ticket), self.clock.now(), false);
        Failure::Issuer { retry_after: wait.unwrap_or(RETRY_AFTER) }
    }

    /// Whether a session has a token that may do what that of `refused` did not.
    fn helps(&self, session: &Session, refused: &Session) -> bool {
        !has_same_token(session, refused) && self.freshness(session) != Freshness::Expired
    }

    fn freshness(&self, session: &Session) -> Freshness {
        session.tokens.freshness(self.clock.now(), self.refresh_before_expiry)
    }
}

impl From<TooEarly> for Failure {
    fn from(TooEarly { retry_after }: TooEarly) -> Self {
        Self::Issuer { retry_after }
    }
}

fn has_same_token(one: &Session, other: &Session) -> bool {
    one.tokens.access_token == other.tokens.access_token
}
