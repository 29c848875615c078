//! How one server does, by what its answers and the checks of it say.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::ServerAddress;
use crate::config;

/// Requests in a row without an answer after which a server is left alone. One or two may be the fault of
/// what was asked: a report that takes too long, or that brings a worker down.
const FAILURES_IN_A_ROW: u32 = 3;

/// How long it is left alone the first time; twice as long each further time.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// How long it takes until it has its whole share again: caches are cold, and pools empty.
const SLOW_RETURN: Duration = Duration::from_secs(10);

/// What it begins with.
const LEAST_SHARE: f64 = 0.1;

/// How long after the start, in milliseconds and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// How a server does, for people who look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// It has its whole share of requests.
    Up,
    /// It has its share still, though it gave no answer to so many requests in a row.
    Failing(u32),
    /// It is left alone, for so long from now on.
    Ejected(Duration),
    /// It was away, and has this part of its share.
    Returning(f64),
    /// The checks say that it is not well.
    Unhealthy,
}

/// One server. Everything of it is written by many at once; that a count is missed now and then does no harm.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: ServerAddress,
    /// Requests whose answer is waited for.
    under_way: AtomicUsize,
    /// Requests in a row without an answer.
    failures: AtomicU32,
    /// Times in a row that it was left alone.
    ejections: AtomicU32,
    /// The [`Moment`] from which on it is asked again; 0 where it was never away.
    back_at: AtomicU64,
    /// What the checks say.
    is_unhealthy: AtomicBool,
    /// Checks in a row that say the contrary.
    contrary: AtomicUsize,
}

impl Standing {
    /// Whether requests are sent to it.
    pub fn is_asked(self) -> bool {
        match self {
            Self::Up | Self::Failing(_) | Self::Returning(_) => true,
            Self::Ejected(_) | Self::Unhealthy => false,
        }
    }
}

impl Moment {
    pub(super) const fn after(elapsed: Duration) -> Self {
        Self(millis(elapsed).saturating_add(1))
    }

    pub(super) const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Server {
    pub(super) fn new(address: ServerAddress) -> Self {
        Self {
            address,
            under_way: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            back_at: AtomicU64::new(0),
            is_unhealthy: AtomicBool::new(false),
            contrary: AtomicUsize::new(0),
        }
    }

    /// Counts a request.
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request no longer.
    pub(super) fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether it may be asked.
    pub(super) fn is_available(&self, now: Moment) -> bool {
        !self.is_unhealthy.load(Ordering::Relaxed) && self.back_at.load(Ordering::Relaxed) <= now.0
    }

    /// Orders servers by when they may be asked, for when none may.
    pub(super) fn due(&self) -> (bool, u64, usize) {
        (self.is_unhealthy.load(Ordering::Relaxed), self.back_at.load(Ordering::Relaxed), self.under_way())
    }

    /// Of the requests that it would get, the part that it does get: 1, but for a while after it was away.
    pub(super) fn share(&self, now: Moment) -> f64 {
        match self.back_at.load(Ordering::Relaxed) {
            0 => 1.0,
            back_at => {
                let back_for = Duration::from_millis(now.0.saturating_sub(back_at));
                back_for.div_duration_f64(SLOW_RETURN).clamp(LEAST_SHARE, 1.0)
            }
        }
    }

    /// How it does.
    pub(super) fn standing(&self, now: Moment) -> Standing {
        let (back_at, failures) =
            (self.back_at.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed));
        let share = self.share(now);
        if self.is_unhealthy.load(Ordering::Relaxed) {
            Standing::Unhealthy
        } else if back_at > now.0 {
            Standing::Ejected(Duration::from_millis(back_at - now.0))
        } else if failures > 0 {
            Standing::Failing(failures)
        } else if share < 1.0 {
            Standing::Returning(share)
        } else {
            Standing::Up
        }
    }

    /// Notes an answer, whatever its status.
    pub(super) fn note_answer(&self, now: impl FnOnce() -> Moment) {
        // Read first: a store would take the cache line from the other threads.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let back_at = self.back_at.load(Ordering::Relaxed);
        if back_at > 0 && Moment(back_at).plus(SLOW_RETURN) <= now() {
            self.ejections.store(0, Ordering::Relaxed);
            self.back_at.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a request without an answer of the only server there is: nothing would be gained from leaving it alone.
    pub(super) fn note_failure_of_only(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a request without an answer. Gives how long the server is left alone, where it is from now on:
    /// at once where nothing listens, for that is no request's fault. `jitter`, from 0 to 1, keeps gateways
    /// from coming back together.
    pub(super) fn note_failure(&self, is_unreachable: bool, now: Moment, jitter: f64) -> Option<Duration> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let back_at = self.back_at.load(Ordering::Relaxed);
        if (failures < FAILURES_IN_A_ROW && !is_unreachable) || back_at > now.0 {
            return None;
        }
        let ejections = self.ejections.load(Ordering::Relaxed);
        let away = FIRST_EJECTION.saturating_mul(1 << ejections.min(5)).min(LONGEST_EJECTION);
        let away = away.mul_f64(0.5 + jitter / 2.0);
        let until = now.plus(away).0;
        // Of all requests that fail in this moment, one counts.
        self.back_at.compare_exchange(back_at, until, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.ejections.store(ejections.saturating_add(1), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        Some(away)
    }

    /// Notes what a check found. Gives whether the server is well, where that has changed.
    pub(super) fn note_check(&self, is_well: bool, health: &config::Health, now: Moment) -> Option<bool> {
        let was_well = !self.is_unhealthy.load(Ordering::Relaxed);
        if is_well == was_well {
            self.contrary.store(0, Ordering::Relaxed);
            return None;
        }
        let contrary = self.contrary.fetch_add(1, Ordering::Relaxed) + 1;
        let enough = if is_well { health.healthy_after } else { health.unhealthy_after };
        if contrary < enough {
            return None;
        }
        self.contrary.store(0, Ordering::Relaxed);
        if is_well {
            self.back_at.fetch_max(now.0, Ordering::Relaxed);
        }
        self.is_unhealthy.store(!is_well, Ordering::Relaxed);
        Some(is_well)
    }
}

/// A `u64` holds those of many million years.
#[expect(clippy::cast_possible_truncation, reason = "as said")]
const fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::after(Duration::ZERO);

    fn server() -> Server {
        Server::new(ServerAddress::Tcp(([127, 0, 0, 1], 80).into()))
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_left_alone_at_once_and_each_time_longer() {
        let (server, mut now, mut times) = (server(), NOW, Vec::new());
        for _ in 0..7 {
            let away = server.note_failure(true, now, 1.0).unwrap();
            assert!(!server.is_available(now) && server.note_failure(true, now, 1.0).is_none());
            now = now.plus(away);
            assert!(server.is_available(now));
            times.push(away.as_secs());
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 30, 30]);
        now = now.plus(SLOW_RETURN / 2);
        server.note_answer(|| now);
        assert_eq!(
            server.note_failure(true, now, 0.0),
            Some(LONGEST_EJECTION / 2),
            "not yet all the way back"
        );
        now = now.plus(LONGEST_EJECTION / 2 + SLOW_RETURN);
        server.note_answer(|| now);
        assert_eq!(server.note_failure(true, now, 1.0), Some(FIRST_EJECTION));
    }

    #[test]
    fn broken_exchanges_count_in_a_row() {
        let server = server();
        for _ in 0..5 {
            assert_eq!(server.note_failure(false, NOW, 1.0), None);
            assert_eq!(server.note_failure(false, NOW, 1.0), None);
            server.note_answer(|| NOW);
        }
        assert!(server.is_available(NOW));
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(server.note_failure(false, NOW, 1.0), None);
        }
        assert_eq!(server.note_failure(false, NOW, 1.0), Some(FIRST_EJECTION));
    }

    #[test]
    fn checks_must_agree_before_they_are_believed() {
        let server = server();
        let health = config::Health {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        let checks = |well: &[bool]| -> Vec<_> {
            well.iter().map(|is_well| server.note_check(*is_well, &health, NOW)).collect()
        };
        assert_eq!(checks(&[true, false, false, true, false, false]), [None; 6]);
        assert_eq!(checks(&[false, false]), [Some(false), None]);
        assert!(!server.is_available(NOW.plus(LONGEST_EJECTION)), "for as long as the checks say so");
        assert_eq!(checks(&[true, false, true, true]), [None, None, None, Some(true)]);
        assert!(server.is_available(NOW) && server.share(NOW) < 1.0, "it comes back slowly");
    }
}
