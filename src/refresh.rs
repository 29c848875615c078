//! Keeps access tokens fresh: once per session, however many requests and processes want it.
//!
//! A refresh is a flight: it runs in a task of its own, so that a browser that goes away cancels nothing.
//! Requests of this process join the flight; processes agree by a lease in the store; and what was issued
//! is written by compare-and-set, so that a logout wins every race (RFC 6749 §6, RFC 9700 §4.14).
//!
//! So do the further tokens that routes want of a session: one for a resource (RFC 8707 §2.2) uses the refresh token
//! up as a refresh does; one that the access token is exchanged for (RFC 8693) uses nothing up, and does without
//! the lease. [`ClientToken`] is the client's own, and no session's.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{RouteGrant, RouteToken};
use crate::oidc::Grants;
use crate::random::Random;
use crate::revocation::Revocations;
use crate::session::cookie::Ticket;
use crate::session::store::Unavailable;
use crate::session::store::changes::Mark;
use crate::session::{Session, Sessions};
use crate::tokens::Freshness;

mod backoff;
mod boarding;
mod breaker;
mod clearance;
mod client_token;
mod confirmation;
mod conflict;
mod flight;
mod landing;
mod lease;
mod state;

pub use client_token::{ClientToken, ClientTokens};

use backoff::Denied;
use state::{Key, State};

pub use confirmation::Confirmations;

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
    /// The issuer gives this session no such token for a route; all else about the session stands.
    Refused,
    /// The store does not answer; the session stays.
    Store(Unavailable),
}

#[derive(Clone, Debug)]
struct Shared {
    sessions: Arc<Sessions>,
    grants: Arc<dyn Grants>,
    revocations: Revocations,
    clock: Arc<dyn Clock>,
    random: Random,
    refresh_before_expiry: Duration,
    tasks: TaskTracker,
    board: Arc<Board>,
}

/// The flights of one app, whichever its settings are at the time.
#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    /// How many flights hold what the store does not know of. Each request asks for its own, and as good as
    /// always there is none: then no request waits for another one's look at the state.
    unwritten: AtomicUsize,
}

/// What a flight tells those who wait for it.
#[derive(Clone, Debug)]
enum Outcome {
    Fresh(Arc<Session>),
    /// The same, but the store does not know of the tokens; taken before it was read.
    Unwritten(Arc<Session>, Mark),
    Ended,
    Gone,
    Refused,
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
            Self::Refused => "refused",
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
            board: Arc::default(),
        }))
    }

    /// The same with other settings, in whose place it comes. They share their flights: what one of them has under
    /// way, the other does not begin.
    #[must_use]
    pub fn succeeded_by(
        &self,
        sessions: Arc<Sessions>,
        grants: Arc<dyn Grants>,
        revocations: Revocations,
        refresh_before_expiry: Duration,
    ) -> Self {
        let before = Shared::clone(&self.0);
        Self(Arc::new(Shared { sessions, grants, revocations, refresh_before_expiry, ..before }))
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
        self.freshen_token(ticket, session, None).await
    }

    /// The same, with a token that a route wants beside the access token, which has to be fresh in any case: it is
    /// what is exchanged, and by it a session is known to have ended.
    pub async fn freshen_for(
        &self,
        ticket: &Ticket,
        session: Arc<Session>,
        wanted: &Arc<RouteToken>,
    ) -> Result<Arc<Session>, Failure> {
        let both = async {
            let session = self.freshen(ticket, session).await?;
            match self.freshen_token(ticket, Arc::clone(&session), Some(wanted)).await {
                Err(Failure::Refused) if self.0.refusal(ticket, Some(wanted)) == Some(Denied::Subject) => {
                    self.exchange_another(ticket, &session, wanted).await
                }
                freshened => freshened,
            }
        };
        let both = tokio::time::timeout(REQUEST_WAIT, both).await;
        both.unwrap_or_else(|_| Err(self.0.issuer_failure(ticket, Some(wanted))))
    }

    async fn freshen_token(
        &self,
        ticket: &Ticket,
        session: Arc<Session>,
        wanted: Option<&Arc<RouteToken>>,
    ) -> Result<Arc<Session>, Failure> {
        match self.0.freshness(&session, wanted) {
            Freshness::Fresh => Ok(session),
            Freshness::Stale => {
                if can_be_renewed(&session, wanted) {
                    // Nobody waits; what becomes of it the next request finds in the store.
                    let _ = self.0.board(ticket, &session, wanted, false);
                }
                Ok(session)
            }
            Freshness::Expired => {
                let landing = self.0.land(ticket, wanted, self.0.board(ticket, &session, wanted, false));
                let renewed = Box::pin(landing).await?;
                if has_same_token(&renewed, &session, wanted) {
                    // It could not be written for as long as it lived.
                    return Err(Failure::Store(Unavailable("longer than the token lived".to_owned())));
                }
                if self.0.freshness(&renewed, wanted) == Freshness::Expired {
                    // Somebody else got further, but too long ago.
                    return Err(self.0.issuer_failure(ticket, wanted));
                }
                Ok(renewed)
            }
        }
    }

    /// An issuer that has killed the access token before its time does not exchange it: it is replaced, no more often
    /// than one that an upstream refuses.
    async fn exchange_another(
        &self,
        ticket: &Ticket,
        refused: &Session,
        wanted: &Arc<RouteToken>,
    ) -> Result<Arc<Session>, Failure> {
        let renewed = match self.replace_refused(ticket, refused, None).await {
            Some(Ok(renewed)) => renewed,
            Some(Err(failure @ (Failure::Ended | Failure::Gone))) => return Err(failure),
            Some(Err(_)) | None => return Err(Failure::Refused),
        };
        self.0.state().backoff.clear(&Key::new(self.0.sessions.record_key(ticket), Some(wanted)));
        let exchanged = self.freshen_token(ticket, renewed, Some(wanted)).await?;
        self.note_accepted(ticket, None);
        Ok(exchanged)
    }

    /// A session with a token other than that of `refused`, which an upstream has refused; `None` where
    /// another would not help or was fetched a moment ago. `wanted` is which of its tokens it was.
    pub async fn replace_refused(
        &self,
        ticket: &Ticket,
        refused: &Session,
        wanted: Option<&Arc<RouteToken>>,
    ) -> Option<Result<Arc<Session>, Failure>> {
        if !can_be_renewed(refused, wanted) {
            return None;
        }
        // Twice, for the flight that was under way may have found this very token good.
        for _ in 0..2 {
            let Ok(flight) = self.0.board(ticket, refused, wanted, true) else { break };
            match self.0.land(ticket, wanted, Ok(flight)).await {
                Ok(session) if !self.0.helps(&session, refused, wanted) => {}
                landed => return Some(landed),
            }
        }
        // Others that were refused with the same token may have had it replaced by now.
        let session = self.load(ticket).await.ok()??;
        self.0.helps(&session, refused, wanted).then_some(Ok(session))
    }

    /// Tells that an upstream has accepted the token that replaced a refused one.
    pub fn note_accepted(&self, ticket: &Ticket, wanted: Option<&Arc<RouteToken>>) {
        let key = Key::new(self.0.sessions.record_key(ticket), wanted);
        self.0.state().backoff.note_helped(&key);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.board.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuer_failure(&self, ticket: &Ticket, wanted: Option<&Arc<RouteToken>>) -> Failure {
        let key = Key::new(self.sessions.record_key(ticket), wanted);
        let wait = self.state().backoff.wait(&key, self.clock.now(), false);
        Failure::Issuer { retry_after: wait.unwrap_or(RETRY_AFTER) }
    }

    fn refusal(&self, ticket: &Ticket, wanted: Option<&Arc<RouteToken>>) -> Option<Denied> {
        let key = Key::new(self.sessions.record_key(ticket), wanted);
        self.state().backoff.refusal(&key, self.clock.now())
    }

    /// Whether a session has a token that may do what that of `refused` did not.
    fn helps(&self, session: &Session, refused: &Session, wanted: Option<&Arc<RouteToken>>) -> bool {
        !has_same_token(session, refused, wanted) && self.freshness(session, wanted) != Freshness::Expired
    }

    /// How fresh the wanted token is. One that is not there is as good as expired.
    fn freshness(&self, session: &Session, wanted: Option<&Arc<RouteToken>>) -> Freshness {
        let held = session.tokens.held(wanted.map(Arc::as_ref));
        held.map_or(Freshness::Expired, |held| held.freshness(self.clock.now(), self.refresh_before_expiry))
    }
}

/// Whether there is something to get the wanted token for.
fn can_be_renewed(session: &Session, wanted: Option<&Arc<RouteToken>>) -> bool {
    wanted.is_some_and(|wanted| wanted.grant == RouteGrant::TokenExchange)
        || session.tokens.refresh_token.is_some()
}

fn has_same_token(one: &Session, other: &Session, wanted: Option<&Arc<RouteToken>>) -> bool {
    let wanted = wanted.map(Arc::as_ref);
    match (one.tokens.held(wanted), other.tokens.held(wanted)) {
        (Some(one), Some(other)) => one.value == other.value,
        (_, _) => false,
    }
}
