//! How a request boards a flight, and what it is told when that has landed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::SetOnce;

use super::flight::Flight;
use super::state::{Key, TooEarly};
use super::{Failure, Outcome, REQUEST_WAIT, Shared};
use crate::config::RouteToken;
use crate::session::Session;
use crate::session::cookie::Ticket;
use crate::session::store::changes::Mark;
use crate::session::store::{RecordKey, Unavailable};
use crate::telemetry::for_request;

impl Shared {
    /// The session with tokens that the store does not know of yet, as it was at this mark.
    pub(super) fn unwritten(&self, key: &RecordKey) -> Option<(Arc<Session>, Mark)> {
        if self.board.unwritten.load(Ordering::SeqCst) == 0 {
            return None;
        }
        match self.state().flights.get(&Key::Session(key.clone()))?.get()? {
            Outcome::Unwritten(session, mark) => Some((Arc::clone(session), *mark)),
            Outcome::Fresh(_)
            | Outcome::Ended
            | Outcome::Gone
            | Outcome::Refused
            | Outcome::IssuerUnavailable
            | Outcome::StoreUnavailable => None,
        }
    }

    /// Joins the flight of this token, or starts one, unless it is too early to try again; `forced` where
    /// the token was refused, however fresh it looks.
    pub(super) fn board(
        self: &Arc<Self>,
        ticket: &Ticket,
        session: &Session,
        wanted: Option<&Arc<RouteToken>>,
        forced: bool,
    ) -> Result<Arc<SetOnce<Outcome>>, TooEarly> {
        let key = Key::new(self.sessions.record_key(ticket), wanted);
        let now = self.clock.now();
        let outcome = Arc::new(SetOnce::new());
        {
            let mut state = self.state();
            if let Some(outcome) = state.flights.get(&key) {
                return Ok(Arc::clone(outcome));
            }
            state.admit(&key, &session.identity.issuer, now, forced)?;
            state.flights.insert(key, Arc::clone(&outcome));
        }
        let flight =
            Flight::new(Arc::clone(self), ticket.clone(), session, wanted, forced, Arc::clone(&outcome));
        self.tasks.spawn(for_request(flight.run()));
        Ok(outcome)
    }

    /// Waits for a flight to tell what became of it, for as long as a request should.
    pub(super) async fn land(
        &self,
        ticket: &Ticket,
        wanted: Option<&Arc<RouteToken>>,
        flight: Result<Arc<SetOnce<Outcome>>, TooEarly>,
    ) -> Result<Arc<Session>, Failure> {
        let flight = match flight {
            Ok(flight) => flight,
            Err(_) if self.refusal(ticket, wanted).is_some() => return Err(Failure::Refused),
            Err(TooEarly { retry_after }) => return Err(Failure::Issuer { retry_after }),
        };
        let landing = async {
            match flight.wait().await {
                Outcome::Fresh(session) => Ok(Arc::clone(session)),
                Outcome::Unwritten(session, mark) => self.vouch_for(ticket, session, mark).await,
                Outcome::Ended => Err(Failure::Ended),
                Outcome::Gone => Err(Failure::Gone),
                Outcome::StoreUnavailable => Err(Failure::Store(Unavailable("during a refresh".to_owned()))),
                Outcome::Refused => Err(Failure::Refused),
                Outcome::IssuerUnavailable => Err(self.issuer_failure(ticket, wanted)),
            }
        };
        let landed = tokio::time::timeout(REQUEST_WAIT, landing).await;
        // It takes longer than a request should wait.
        landed.unwrap_or_else(|_| Err(self.issuer_failure(ticket, wanted)))
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
}
