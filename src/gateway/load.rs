//! What the gateway has to do, and whom it refuses first when that is too much (R65).
//!
//! There are two signs of it: how many requests wait for an answer, and how late a thread comes to what it was
//! to do by now. A request that finds no place is refused at once, before anything is asked for it; those of
//! live sessions are the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};

use super::app::App;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::error::{Reason, Refusal};
use crate::session::cookie;
use crate::worker;

/// How often a thread looks whether it is late.
const TICK: Duration = Duration::from_millis(100);

/// A thread that is later than this, time after time, has too much to do.
const LATE: Duration = Duration::from_millis(300);

/// How often in a row it is. Once or twice may be the machine's doing.
const LATE_TICKS: u32 = 5;

/// A thread that is no later than this, time after time, has not.
const TIMELY: Duration = Duration::from_millis(100);

/// How often in a row.
const TIMELY_TICKS: u32 = 10;

/// How often it is said that requests are refused, while they are.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How much there is to do, in all threads, and how much there may be.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// How many requests may wait for an answer.
    most: usize,
    seen: Arc<Seen>,
}

/// How much there is to do.
#[derive(Debug)]
struct Seen {
    waiting: AtomicUsize,
    /// Whether each thread that serves has too much to do.
    strained: Box<[AtomicBool]>,
    /// In milliseconds since 1970.
    said_at: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// A request's place among those that wait. It is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    load: &'a Load,
    is_reserved: bool,
}

/// Whether a thread has too much to do, by how late it came lately.
#[derive(Debug, Default)]
struct Strain {
    is_strained: bool,
    /// How often in a row the opposite was seen.
    seen: u32,
}

impl Load {
    pub(super) fn new(server: &config::Server, clock: Arc<dyn Clock>) -> Self {
        let workers = server.workers.or_else(|| Some(available_parallelism().ok()?.get())).unwrap_or(1);
        let seen = Seen {
            waiting: AtomicUsize::new(0),
            strained: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            said_at: AtomicU64::new(0),
            clock,
        };
        Self { most: server.limits.requests, seen: Arc::new(seen) }
    }

    /// The same load, under the limits of another configuration.
    pub(super) fn under(&self, server: &config::Server) -> Self {
        Self { most: server.limits.requests, seen: Arc::clone(&self.seen) }
    }

    /// A place for one more request.
    ///
    /// # Errors
    /// Where there is none, not even for one of a live session.
    pub(super) fn enter(&self) -> Result<Place<'_>, Refusal> {
        let before = self.seen.waiting.fetch_add(1, Ordering::Relaxed);
        let is_reserved = before >= self.most - self.most / 5 || self.is_strained();
        let place = Place { load: self, is_reserved };
        if before >= self.most { Err(self.refuse()) } else { Ok(place) }
    }

    /// Looks again and again whether the thread that this runs on has too much to do. Never ends.
    pub(super) async fn watch(&self) {
        let number = worker::current();
        let mut strain = Strain::default();
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let late = Instant::now() - due;
            if strain.note(late)
                && let Some(strained) = self.seen.strained.get(number)
            {
                strained.store(strain.is_strained, Ordering::Relaxed);
                let late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    event = "server.strained",
                    worker = number,
                    is_strained = strain.is_strained,
                    late_ms
                );
            }
        }
    }

    fn is_strained(&self) -> bool {
        self.seen.strained.get(worker::current()).is_some_and(|strained| strained.load(Ordering::Relaxed))
    }

    fn refuse(&self) -> Refusal {
        let (now, said_at) = (self.seen.clock.now(), self.seen.said_at.load(Ordering::Relaxed));
        let is_due = now.since(Timestamp::from_millis(said_at)) >= SAID_EVERY;
        let is_ours = || {
            self.seen.said_at.compare_exchange(said_at, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed)
        };
        if is_due && is_ours().is_ok() {
            let waiting = self.seen.waiting.load(Ordering::Relaxed);
            tracing::warn!(event = "server.overloaded", waiting, is_strained = self.is_strained());
        }
        Refusal::new(Reason::TooManyRequests)
    }
}

impl Place<'_> {
    /// Whether it is kept for requests of live sessions.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Goes on with a request that is of no live session.
    ///
    /// # Errors
    /// Where the place is kept for one that is.
    pub(super) fn take_for_anybody(&self) -> Result<(), Refusal> {
        if self.is_reserved { Err(self.load.refuse()) } else { Ok(()) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.load.seen.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Strain {
    /// Takes how late a thread has come; whether that changes what is thought of it.
    fn note(&mut self, late: Duration) -> bool {
        let (is_opposite, enough) =
            if self.is_strained { (late <= TIMELY, TIMELY_TICKS) } else { (late > LATE, LATE_TICKS) };
        self.seen = if is_opposite { self.seen + 1 } else { 0 };
        if self.seen < enough {
            return false;
        }
        *self = Self { is_strained: !self.is_strained, seen: 0 };
        true
    }
}

/// Whether a request may be of a live session: nobody but a gateway can have made its cookie. The store is not asked,
/// and need not know of it any more.
pub(super) fn may_be_of_a_session(app: &App, headers: &HeaderMap) -> bool {
    cookie::find(headers, app.sessions.cookie_name())
        .is_ok_and(|value| value.is_some_and(|value| app.sessions.ticket(&value).is_some()))
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::*;
    use crate::clock::ManualClock;
    use crate::error::Code;

    fn load(most: usize) -> Load {
        let seen = Seen {
            waiting: AtomicUsize::new(0),
            strained: [AtomicBool::new(false), AtomicBool::new(false)].into(),
            said_at: AtomicU64::new(0),
            clock: Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000_000))),
        };
        Load { most, seen: Arc::new(seen) }
    }

    /// Whether anybody gets a place.
    fn takes_anybody(load: &Load) -> bool {
        load.enter().is_ok_and(|place| place.take_for_anybody().is_ok())
    }

    #[test]
    fn r65_the_last_fifth_of_the_places_is_for_live_sessions() {
        let load = load(10);
        let eight: Vec<_> = (0..8).map(|_| load.enter().unwrap()).collect();
        assert!(eight.iter().all(|place| !place.is_reserved() && place.take_for_anybody().is_ok()));
        let two: Vec<_> = (0..2).map(|_| load.enter().unwrap()).collect();
        assert!(two.iter().all(|place| place.is_reserved() && place.take_for_anybody().is_err()));
        assert_eq!(load.enter().unwrap_err().code(), Code::Overloaded);
        drop(eight);
        assert!(takes_anybody(&load), "a refused request has given its place up as well");
    }

    #[test]
    fn where_there_are_few_places_anybody_gets_one() {
        for most in 1..5 {
            assert!(takes_anybody(&load(most)), "{most}");
        }
    }

    async fn lateness(late: Duration, times: u32) {
        for _ in 0..times {
            advance(TICK + late).await;
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn r65_a_thread_that_is_late_again_and_again_serves_live_sessions_alone_until_it_is_in_time_again()
    {
        let load = Arc::new(load(10));
        let watched = Arc::clone(&load);
        let watching = tokio::spawn(async move { watched.watch().await });
        yield_now().await;
        lateness(LATE + TICK, LATE_TICKS - 1).await;
        assert!(takes_anybody(&load), "not often enough");
        lateness(Duration::ZERO, 1).await;
        lateness(LATE + TICK, LATE_TICKS - 1).await;
        assert!(takes_anybody(&load), "not in a row");
        lateness(LATE + TICK, 1).await;
        assert!(!takes_anybody(&load));
        assert!(load.enter().is_ok(), "a live session gets its place");
        lateness(Duration::ZERO, TIMELY_TICKS - 1).await;
        lateness(LATE / 2, 1).await;
        lateness(Duration::ZERO, TIMELY_TICKS - 1).await;
        assert!(!takes_anybody(&load), "not in time for long enough");
        lateness(Duration::ZERO, 1).await;
        assert!(takes_anybody(&load));
        watching.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_for_an_hour_is_no_overload() {
        let load = Arc::new(load(10));
        let watched = Arc::clone(&load);
        let watching = tokio::spawn(async move { watched.watch().await });
        yield_now().await;
        lateness(Duration::from_secs(3600), 1).await;
        assert!(takes_anybody(&load));
        watching.abort();
    }

    #[test]
    fn a_thread_that_is_late_says_nothing_of_another() {
        let load = load(10);
        load.seen.strained[1].store(true, Ordering::Relaxed);
        assert!(takes_anybody(&load));
        worker::enter(1);
        assert!(!takes_anybody(&load));
        worker::enter(0);
    }
}
