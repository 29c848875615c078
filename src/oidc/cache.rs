//! What the issuer publishes and seldom changes: fetched when first needed, once however many want it, and
//! kept through an outage.
//!
//! A fetch runs in a task of its own: a caller that gives up cancels nothing, and the next one finds what
//! became of it. Nobody waits for a fetch while there is an old value to use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::CACHE_LIFETIME;
use super::error::{CallFault, IssuerUnavailable};
use crate::clock::{Clock, Timestamp};
use crate::telemetry::{chain, for_request};

/// A failure with nothing to fall back on is remembered this long: a crowd asks once, and a login
/// after the recovery works at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// While there is an old value to use, a failing issuer is asked no more often than this.
const RENEWAL_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// A published value.
pub(super) struct Cached<T>(Arc<Shared<T>>);

struct Shared<T> {
    clock: Arc<dyn Clock>,
    state: Mutex<State<T>>,
    /// Held by the fetch that is under way.
    flight: Arc<tokio::sync::Mutex<()>>,
}

struct State<T> {
    value: Option<(Arc<T>, Timestamp)>,
    failure: Option<(IssuerUnavailable, Timestamp)>,
    renewed_at: Option<Timestamp>,
}

/// What there is without a fetch.
enum Standing<T> {
    /// An outcome that needs no fetch yet.
    Settled(Result<Arc<T>, IssuerUnavailable>),
    /// A value that is to be fetched anew.
    Old(Arc<T>),
    /// Nothing.
    Missing,
}

impl<T: Send + Sync + 'static> Cached<T> {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State { value: None, failure: None, renewed_at: None });
        Self(Arc::new(Shared { clock, state, flight: Arc::default() }))
    }

    /// The value, fetched if there is none. An old one is given at once, and fetched anew meanwhile.
    pub(super) async fn get(
        &self,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>> + Send + 'static,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        match self.0.standing() {
            Standing::Settled(outcome) => outcome,
            Standing::Old(value) => {
                // Whoever held the flight a moment ago may have brought a newer one.
                if let Ok(flight) = Arc::clone(&self.0.flight).try_lock_owned()
                    && let Standing::Old(_) = self.0.standing()
                {
                    drop(fly(flight, Arc::clone(&self.0).fetch(fetch)));
                }
                Ok(value)
            }
            Standing::Missing => {
                let flight = Arc::clone(&self.0.flight).lock_owned().await;
                // Whoever held the flight before may have brought the value, or found the issuer away.
                match self.0.standing() {
                    Standing::Settled(outcome) => outcome,
                    Standing::Old(value) => Ok(value),
                    Standing::Missing => fly(flight, Arc::clone(&self.0).fetch(fetch)).await,
                }
            }
        }
    }

    /// A newer value than `seen`, which lacks something: fetched unless that was done within `interval`.
    pub(super) async fn renewed(
        &self,
        seen: &Arc<T>,
        interval: Duration,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>> + Send + 'static,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        let flight = Arc::clone(&self.0.flight).lock_owned().await;
        let now = self.0.clock.now();
        {
            let state = self.0.state();
            match &state.value {
                Some((value, _)) if !Arc::ptr_eq(value, seen) => return Ok(Arc::clone(value)),
                _ if state.renewed_at.is_some_and(|at| is_within(now, at, interval)) => {
                    return Ok(Arc::clone(seen));
                }
                _ => {}
            }
            if let Some(error) = state.failed_within(now, RETRY_INTERVAL) {
                return Err(error.clone());
            }
        }
        let shared = Arc::clone(&self.0);
        let renewal = async move {
            let value = Arc::clone(&shared).fetch(fetch).await?;
            shared.state().renewed_at = Some(shared.clock.now());
            Ok(value)
        };
        fly(flight, renewal).await
    }

    /// A value that at the time of this call is no older than `age`: for those who need to know that the
    /// issuer is there, and for whom an old one is worth nothing. Those who wait for a fetch share it.
    pub(super) async fn no_older_than(
        &self,
        age: Duration,
        fetch: impl Future<Output = Result<T, IssuerUnavailable>> + Send + 'static,
    ) -> Result<Arc<T>, IssuerUnavailable> {
        let asked_at = self.0.clock.now();
        let flight = Arc::clone(&self.0.flight).lock_owned().await;
        {
            let state = self.0.state();
            if let Some(error) = state.failed_within(self.0.clock.now(), RETRY_INTERVAL) {
                return Err(error.clone());
            }
            if let (Some((value, at)), None) = (&state.value, &state.failure)
                && (*at >= asked_at || is_within(asked_at, *at, age))
            {
                return Ok(Arc::clone(value));
            }
        }
        fly(flight, Arc::clone(&self.0).fetch(fetch)).await
    }

    /// The value there is, however old.
    pub(super) fn peek(&self) -> Option<Arc<T>> {
        self.0.state().value.as_ref().map(|(value, _)| Arc::clone(value))
    }

    /// Whether the last fetch brought a value; `None` before the first.
    pub(super) fn last_fetch_succeeded(&self) -> Option<bool> {
        let state = self.0.state();
        match (&state.failure, &state.value) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        }
    }
}

impl<T> Shared<T> {
    fn standing(&self) -> Standing<T> {
        let now = self.clock.now();
        let state = self.state();
        match &state.value {
            Some((value, at))
                if is_within(now, *at, CACHE_LIFETIME)
                    || state.failed_within(now, RENEWAL_RETRY_INTERVAL).is_some() =>
            {
                Standing::Settled(Ok(Arc::clone(value)))
            }
            Some((value, _)) => Standing::Old(Arc::clone(value)),
            None => match state.failed_within(now, RETRY_INTERVAL) {
                Some(error) => Standing::Settled(Err(error.clone())),
                None => Standing::Missing,
            },
        }
    }

    /// Fetches, and puts down what came of it.
    async fn fetch(
        self: Arc<Self>,
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
            Err(error) => {
                state.failure = Some((error.clone(), now));
                if state.value.is_some() {
                    tracing::warn!(event = "issuer.unavailable", error = %chain(error), "what it last published is used");
                }
            }
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// The failure of the last fetch, if that was this short a while ago.
    fn failed_within(&self, now: Timestamp, interval: Duration) -> Option<&IssuerUnavailable> {
        self.failure.as_ref().filter(|(_, at)| is_within(now, *at, interval)).map(|(error, _)| error)
    }
}

/// Starts a task that holds the flight until it is done, whoever waits for it. One that breaks off, by a
/// panic or with the runtime, brings nothing.
fn fly<T: Send + Sync + 'static>(
    flight: OwnedMutexGuard<()>,
    work: impl Future<Output = Result<Arc<T>, IssuerUnavailable>> + Send + 'static,
) -> impl Future<Output = Result<Arc<T>, IssuerUnavailable>> {
    let task = tokio::spawn(for_request(async move {
        let outcome = work.await;
        drop(flight);
        outcome
    }));
    async { task.await.unwrap_or_else(|error| Err(CallFault::Broken(error.into()).into())) }
}

/// Whether `at` lies no more than `interval` back. A moment in the future, of a clock that was set back
/// since, does not: it could freeze a failure for as long as the clock was wrong.
fn is_within(now: Timestamp, at: Timestamp, interval: Duration) -> bool {
    at <= now && now.since(at) < interval
}
