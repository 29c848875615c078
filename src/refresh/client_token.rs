//! Access tokens of the client's own (RFC 6749 §4.4): one in this process for all who use a route, in no session,
//! and fetched anew rather than refreshed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::flight::{LONGEST_RETRY_AFTER, RETRY_FOR, RETRY_PAUSE};
use super::state::{Key, TooEarly};
use super::{Failure, Outcome, REQUEST_WAIT, RETRY_AFTER, Refresher, Shared};
use crate::config::TokenTarget;
use crate::dpop;
use crate::oidc::{Client, RefreshError};
use crate::telemetry::{chain, for_request};
use crate::tokens::{AccessToken, Freshness};

/// A token of a client's own, kept fresh.
#[derive(Debug)]
pub struct ClientToken {
    shared: Arc<Shared>,
    client: Arc<Client>,
    target: TokenTarget,
    held: Arc<Mutex<Held>>,
}

/// The tokens of one app's own client, each once, however many routes want it. No two apps share one, though they may be
/// the same client: they may prove themselves in other ways, and bind their tokens to other keys.
#[derive(Debug, Default)]
pub struct ClientTokens(HashMap<TokenTarget, Arc<ClientToken>>);

#[derive(Debug, Default)]
struct Held {
    token: Option<Arc<AccessToken>>,
    /// The fetch under way, if there is one; `None` comes of it where there is no token to be had.
    flight: Option<Arc<SetOnce<Option<Arc<AccessToken>>>>>,
}

impl ClientTokens {
    /// The token that this client gets for such a target, with the back-off and the clock of `refresher`; the one that
    /// it has got `before`, if it has.
    pub fn get(
        &mut self,
        client: &Arc<Client>,
        target: &TokenTarget,
        refresher: &Refresher,
        before: Option<&Self>,
    ) -> Arc<ClientToken> {
        let token = self.0.entry(target.clone()).or_insert_with(|| {
            let before = before.and_then(|before| before.0.get(target));
            let before = before.filter(|before| Arc::ptr_eq(&before.client, client));
            let held = before.map(|before| Arc::clone(&before.held)).unwrap_or_default();
            let (shared, client) = (Arc::clone(&refresher.0), Arc::clone(client));
            Arc::new(ClientToken { shared, client, target: target.clone(), held })
        });
        Arc::clone(token)
    }
}

impl ClientToken {
    /// A token that can be used. One that will expire soon is used, and replaced in the background; one that has
    /// expired is waited for, though not for long.
    pub async fn fresh(self: &Arc<Self>) -> Result<Arc<AccessToken>, Failure> {
        let Some(token) = self.held().token.clone() else { return self.land(self.board(false)).await };
        match self.freshness(&token) {
            Freshness::Fresh => Ok(token),
            Freshness::Stale => {
                let _ = self.board(false);
                Ok(token)
            }
            Freshness::Expired => self.land(self.board(false)).await,
        }
    }

    /// A token other than the one that an upstream has refused; `None` where another is not to be had, or was
    /// fetched a moment ago.
    pub async fn replace_refused(self: &Arc<Self>, refused: &AccessToken) -> Option<Arc<AccessToken>> {
        let helps = |token: &Arc<AccessToken>| {
            token.value != refused.value && self.freshness(token) != Freshness::Expired
        };
        let held = self.held().token.clone();
        if let Some(token) = held.filter(helps) {
            return Some(token);
        }
        let flight = self.board(true).ok()?;
        self.land(Ok(flight)).await.ok().filter(helps)
    }

    /// What each such token is bound to (RFC 9449), where it is.
    pub fn dpop_key(&self) -> Option<&dpop::Key> {
        self.client.key().map(Arc::as_ref)
    }

    /// Tells that an upstream has accepted the token that replaced a refused one.
    pub fn note_accepted(&self) {
        self.shared.state().backoff.note_helped(&self.key());
    }

    fn board(self: &Arc<Self>, forced: bool) -> Result<Arc<SetOnce<Option<Arc<AccessToken>>>>, TooEarly> {
        let mut held = self.held();
        if let Some(flight) = &held.flight {
            return Ok(Arc::clone(flight));
        }
        self.shared.state().admit(&self.key(), self.client.issuer(), self.shared.clock.now(), forced)?;
        let flight = Arc::new(SetOnce::new());
        held.flight = Some(Arc::clone(&flight));
        // In a task of its own: a browser that goes away cancels nothing.
        let fetching = Fetching { token: Arc::clone(self), flight: Arc::clone(&flight) };
        self.shared.tasks.spawn(for_request(fetching.run()));
        Ok(flight)
    }

    async fn land(
        &self,
        flight: Result<Arc<SetOnce<Option<Arc<AccessToken>>>>, TooEarly>,
    ) -> Result<Arc<AccessToken>, Failure> {
        let flight = flight.map_err(|TooEarly { retry_after }| Failure::Issuer { retry_after })?;
        match tokio::time::timeout(REQUEST_WAIT, flight.wait()).await {
            Ok(Some(token)) => Ok(Arc::clone(token)),
            // It takes longer than a request should wait, or was in vain.
            Err(_) | Ok(None) => {
                let wait = self.shared.state().backoff.wait(&self.key(), self.shared.clock.now(), false);
                Err(Failure::Issuer { retry_after: wait.unwrap_or(RETRY_AFTER) })
            }
        }
    }

    /// Asks the issuer, again where surely nothing was sent.
    async fn fetch(&self) -> Result<AccessToken, RefreshError> {
        let started = Instant::now();
        loop {
            match self.shared.grants.client_credentials(self.client.issuer(), &self.target).await {
                Err(RefreshError::NotSent(_)) if started.elapsed() < RETRY_FOR => {}
                fetched => return fetched,
            }
            tokio::time::sleep(RETRY_PAUSE.mul_f64(0.5 + self.shared.random.fraction())).await;
        }
    }

    /// Gives the failure's name in metrics.
    fn note_failure(&self, error: &RefreshError) -> &'static str {
        let (asked_for, result) = match error {
            RefreshError::NotSent(unavailable) | RefreshError::Ambiguous(unavailable) => {
                tracing::warn!(event = "client_token.issuer_unavailable", error = %chain(error));
                self.shared.state().breaker(self.client.issuer()).note_fault(unavailable.fault());
                let asked_for = unavailable.retry_after().unwrap_or_default().min(LONGEST_RETRY_AFTER);
                (asked_for, Outcome::IssuerUnavailable)
            }
            RefreshError::InvalidGrant
            | RefreshError::Refused { .. }
            | RefreshError::InvalidSubject { .. }
            | RefreshError::NonceRequired
            | RefreshError::UnknownIssuer
            | RefreshError::WrongIdentity(_) => {
                tracing::error!(event = "client_token.refused", error = %chain(error));
                self.shared.state().breaker(self.client.issuer()).note_answer();
                (Duration::ZERO, Outcome::Refused)
            }
        };
        let (now, jitter) = (self.shared.clock.now(), self.shared.random.fraction());
        self.shared.state().backoff.note_failure(&self.key(), now, asked_for, jitter);
        result.as_str()
    }

    fn freshness(&self, token: &AccessToken) -> Freshness {
        token.held().freshness(self.shared.clock.now(), self.shared.refresh_before_expiry)
    }

    fn key(&self) -> Key {
        Key::Client(self.target.clone())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One fetch of one token.
struct Fetching {
    token: Arc<ClientToken>,
    flight: Arc<SetOnce<Option<Arc<AccessToken>>>>,
}

impl Fetching {
    async fn run(self) {
        let (token, started) = (&self.token, Instant::now());
        let fetched = token.fetch().await;
        let outcome = match fetched {
            Ok(fetched) => {
                let fetched = Arc::new(fetched);
                let mut state = token.shared.state();
                state.backoff.clear(&token.key());
                state.breaker(token.client.issuer()).note_answer();
                drop(state);
                token.held().token = Some(Arc::clone(&fetched));
                let _ = self.flight.set(Some(fetched));
                "succeeded"
            }
            Err(error) => token.note_failure(&error),
        };
        let sessions = &token.shared.sessions;
        sessions.common().metrics().observe_refresh(sessions.app(), outcome, started.elapsed());
    }
}

impl Drop for Fetching {
    /// However it ends, by a panic too, nobody waits for it any more.
    fn drop(&mut self) {
        let _ = self.flight.set(None);
        self.token.held().flight = None;
    }
}
