//! What the issuer publishes and seldom changes: fetched when first needed, by one caller however many
//! want it, and kept through an outage.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

use super::CACHE_LIFETIME;
use super::error::IssuerUnavailable;

/// A failure with nothing to fall back on is remembered this long: a crowd asks once, and a login
/// after the recovery works at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// While there is an old value to use, a failing issuer is asked no more often than this.
const RENEWAL_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// A published value.
pub(super) struct Cached<T> {
    clock: Arc<dyn Clock>,
    state: Mutex<State<T>>,
    /// Held while a fetch is under way.
    flight: tokio::sync::Mutex<()>,
}

struct State<T> {
    value: Option<(Arc<T>, Timestamp)>,
    failure: Option<(IssuerUnavailable, Timestamp)>,
    renewed_at: Option<Timestamp>,
}

impl<T> Cached<T> {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State { value: None, failure: None, renewed_at: None };
        Self { clock, state: Mutex::new(state), flight: tokio::sync::Mutex::new(()) }
    }

    /// The value, fetched if there is none or it is old. An outage keeps the old one.
    pub(super) async fn get(
        &self,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>>,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        if let Some(outcome) = self.settled() {
            return outcome;
        }
        let _flight = self.flight.lock().await;
        // Whoever held the flight before may have brought the value, or found the issuer away.
        if let Some(outcome) = self.settled() {
            return outcome;
        }
        let outcome = self.fetch(fetch).await;
        match (outcome, &self.state().value) {
            (Err(error), Some((old, _))) => {
                tracing::warn!(%error, cause = %error.fault(), "the issuer is away; what it last published is used");
                Ok(Arc::clone(old))
            }
            (outcome, _) => outcome,
        }
    }

    /// A newer value than `seen`, which lacks something: fetched unless that was done within `interval`.
    pub(super) async fn renewed(
        &self,
        seen: &Arc<T>,
        interval: Duration,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>>,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        let _flight = self.flight.lock().await;
        let now = self.clock.now();
        {
            let state = self.state();
            match &state.value {
                Some((value, _)) if !Arc::ptr_eq(value, seen) => return Ok(Arc::clone(value)),
                _ if state.renewed_at.is_some_and(|at| is_within(now, at, interval)) => {
                    return Ok(Arc::clone(seen));
                }
                _ => {}
            }
            if let Some((error, _)) =
                state.failure.as_ref().filter(|(_, at)| is_within(now, *at, RETRY_INTERVAL))
            {
                return Err(error.clone());
            }
        }
        let value = self.fetch(fetch).await?;
        self.state().renewed_at = Some(self.clock.now());
        Ok(value)
    }

    /// Whether the last fetch brought a value; `None` before the first.
    pub(super) fn last_fetch_succeeded(&self) -> Option<bool> {
        let state = self.state();
        match (&state.failure, &state.value) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        }
    }

    /// The outcome that stands without a fetch.
    fn settled(&self) -> Option<Result<Arc<T>, IssuerUnavailable>> {
        let now = self.clock.now();
        let state = self.state();
        let failed_within = |interval| state.failure.as_ref().filter(|(_, at)| is_within(now, *at, interval));
        match &state.value {
            Some((value, at)) if is_within(now, *at, CACHE_LIFETIME) => Some(Ok(Arc::clone(value))),
            Some((value, _)) => failed_within(RENEWAL_RETRY_INTERVAL).map(|_| Ok(Arc::clone(value))),
            None => failed_within(RETRY_INTERVAL).map(|(error, _)| Err(error.clone())),
        }
    }

    async fn fetch(
        &self,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>>,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        let outcome = fetch.await.map(Arc::new);
        let now = self.clock.now();
        let mut state = self.state();
        match &outcome {
            Ok(value) => {
                state.value = Some((Arc::clone(value), now));
                state.failure = None;
            }
            Err(error) => state.failure = Some((error.clone(), now)),
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `at` lies no more than `interval` back. A moment in the future, of a clock that was set back
/// since, does not: it could freeze a failure for as long as the clock was wrong.
fn is_within(now: Timestamp, at: Timestamp, interval: Duration) -> bool {
    at <= now && now.since(at) < interval
}
