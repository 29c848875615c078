//! Whether the store answers, by the last that was heard of it, and for how long sessions that are known here
//! may be served without it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;

/// While the store is away it is asked no more often than this on behalf of sessions that are known.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The store's state, and what follows from it.
#[derive(Debug)]
pub(super) struct Outage {
    grace: Duration,
    heard: Arc<Heard>,
}

/// What was heard of the store.
#[derive(Debug)]
struct Heard {
    /// Milliseconds since 1970 of the first failure since the last answer; 0 for none.
    since: AtomicU64,
    /// The same of the last moment at which the store stopped to tell of changes.
    broke_at: AtomicU64,
    /// The same of the last failure.
    failed_at: AtomicU64,
    last_try: Mutex<Option<Instant>>,
}

impl Outage {
    pub(super) fn new(grace: Duration) -> Self {
        // There is no grace before the first answer: nothing is known yet that could be served.
        let (since, broke_at, failed_at) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        let heard = Heard { since, broke_at, failed_at, last_try: Mutex::new(None) };
        Self { grace, heard: Arc::new(heard) }
    }

    /// The same state, with another time of grace.
    pub(super) fn with_grace(&self, grace: Duration) -> Self {
        Self { grace, heard: Arc::clone(&self.heard) }
    }

    /// Whether anything at all may be served out of this process's memory.
    pub(super) fn has_grace(&self) -> bool {
        !self.grace.is_zero()
    }

    pub(super) fn note_answer(&self) {
        // Read first: a store that answers is the rule, and writing would make every core wait for the line.
        if self.is_on() {
            self.heard.since.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn note_failure(&self, now: Timestamp) {
        let before = self.heard.since.compare_exchange(0, millis(now), Ordering::Relaxed, Ordering::Relaxed);
        // Before the first answer it has not failed, but only not been reached yet.
        if before != Err(1) {
            self.heard.failed_at.store(millis(now), Ordering::Relaxed);
        }
        *self.last_try() = Some(Instant::now());
    }

    /// The last moment at which the store failed, whatever it has answered since.
    pub(super) fn failed_at(&self) -> Timestamp {
        Timestamp::from_millis(self.heard.failed_at.load(Ordering::Relaxed))
    }

    /// The store has stopped to tell of changes.
    pub(super) fn note_break(&self, now: Timestamp) {
        self.heard.broke_at.store(millis(now), Ordering::Relaxed);
        self.note_failure(now);
    }

    /// When the store stopped to tell of changes for the last time.
    pub(super) fn broke_at(&self) -> Timestamp {
        Timestamp::from_millis(self.heard.broke_at.load(Ordering::Relaxed))
    }

    /// Whether the store has failed since it last answered.
    pub(super) fn is_on(&self) -> bool {
        self.heard.since.load(Ordering::Relaxed) != 0
    }

    /// Whether known sessions may be used unconfirmed.
    pub(super) fn is_within_grace(&self, now: Timestamp) -> bool {
        match self.heard.since.load(Ordering::Relaxed) {
            0 => self.has_grace(),
            since => self.is_grace_left(Timestamp::from_millis(since), now),
        }
    }

    /// Whether it is no longer than the grace since this moment. One in the future, of a clock that was set
    /// back, is none to count from.
    pub(super) fn is_grace_left(&self, since: Timestamp, now: Timestamp) -> bool {
        since <= now && now.since(since) < self.grace
    }

    /// Whether the store is to be asked on behalf of a session that could be served without it. Of many who
    /// ask in an outage, one is told to.
    pub(super) fn claim_try(&self) -> bool {
        if !self.is_on() {
            return true;
        }
        let mut last_try = self.last_try();
        let is_time = last_try.is_none_or(|last_try| last_try.elapsed() >= BETWEEN_TRIES);
        if is_time {
            *last_try = Some(Instant::now());
        }
        is_time
    }

    fn last_try(&self) -> MutexGuard<'_, Option<Instant>> {
        self.heard.last_try.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never 0, which stands for none.
fn millis(moment: Timestamp) -> u64 {
    moment.as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(1000 + second)
    }

    #[test]
    fn the_grace_begins_with_the_first_failure_and_ends_with_an_answer() {
        let outage = Outage::new(GRACE);
        assert!(!outage.is_within_grace(at(0)), "not before the first answer");
        outage.note_failure(at(0));
        assert!(!outage.is_within_grace(at(0)));
        outage.note_answer();
        assert!(outage.is_within_grace(at(0)));
        outage.note_failure(at(0));
        outage.note_failure(at(29));
        assert!(outage.is_within_grace(at(29)) && !outage.is_within_grace(at(30)));
        outage.note_answer();
        assert!(outage.is_within_grace(at(30)));
        outage.note_break(at(31));
        assert!(outage.is_within_grace(at(60)) && !outage.is_within_grace(at(61)));
        assert_eq!(outage.broke_at(), at(31));
    }

    #[test]
    fn a_clock_that_was_set_back_prolongs_nothing() {
        let outage = Outage::new(GRACE);
        outage.note_answer();
        outage.note_failure(at(3600));
        assert!(!outage.is_within_grace(at(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_in_an_outage_one_asks_the_store_every_now_and_then() {
        let outage = Outage::new(GRACE);
        outage.note_answer();
        assert!(outage.claim_try() && outage.claim_try());
        outage.note_failure(at(0));
        assert!(!outage.claim_try());
        tokio::time::advance(BETWEEN_TRIES).await;
        assert!(outage.claim_try() && !outage.claim_try());
        outage.note_answer();
        assert!(outage.claim_try());
    }

    #[test]
    fn no_grace_is_none_from_the_first() {
        let outage = Outage::new(Duration::ZERO);
        outage.note_answer();
        assert!(!outage.has_grace() && !outage.is_within_grace(at(0)));
    }
}
