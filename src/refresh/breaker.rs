//! Keeps many sessions from asking an issuer that is away, or has just come back, all at once.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oidc::CallFault;

/// So many failures in a row, of whichever sessions, and the issuer counts as away.
const TRIPS_AT: u32 = 5;

/// How often an issuer that is away is asked, by one session for all.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the issuer, as the refreshes of all sessions found it.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures_in_a_row: u32,
    last_probe: Option<Timestamp>,
}

impl Breaker {
    /// Whether a session may ask the issuer now: for all others, it is the probe of this interval.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<(), Duration> {
        if self.failures_in_a_row < TRIPS_AT {
            return Ok(());
        }
        let next_probe = self.last_probe.map_or(now, |last| last + PROBE_INTERVAL);
        let wait = next_probe.since(now);
        if wait.is_zero() {
            self.last_probe = Some(now);
            return Ok(());
        }
        // No longer than an interval, also where the clock was set back.
        Err(wait.min(PROBE_INTERVAL))
    }

    /// Notes what became of a call that brought no tokens.
    pub(super) fn note_fault(&mut self, fault: &CallFault) {
        match fault {
            CallFault::NotSent(_)
            | CallFault::TimedOut(_)
            | CallFault::Broken(_)
            | CallFault::Status(_)
            | CallFault::Metadata(_) => self.failures_in_a_row = self.failures_in_a_row.saturating_add(1),
            // An answer, which tells something about one session at most.
            CallFault::TooLarge | CallFault::KeySet | CallFault::TokenAnswer(_) | CallFault::IdToken(_) => {}
        }
    }

    /// Notes that the issuer does its work, whatever it said.
    pub(super) fn note_answer(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn tripped() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..TRIPS_AT {
            assert_eq!(breaker.admit(NOW), Ok(()));
            breaker.note_fault(&CallFault::TimedOut(Duration::from_secs(1)));
        }
        breaker
    }

    #[test]
    fn an_issuer_that_is_away_is_asked_by_one_session_at_a_time() {
        let mut breaker = tripped();
        assert_eq!(breaker.admit(NOW), Ok(()), "the probe");
        assert_eq!(breaker.admit(NOW), Err(PROBE_INTERVAL));
        assert_eq!(breaker.admit(NOW + PROBE_INTERVAL / 2), Err(PROBE_INTERVAL / 2));
        assert_eq!(breaker.admit(NOW + PROBE_INTERVAL), Ok(()));
        assert_eq!(breaker.admit(NOW + PROBE_INTERVAL), Err(PROBE_INTERVAL));
    }

    #[test]
    fn one_answer_lets_everybody_in_again() {
        let mut breaker = tripped();
        breaker.note_answer();
        for _ in 0..2 * TRIPS_AT {
            assert_eq!(breaker.admit(NOW), Ok(()));
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_says_nothing_about_other_sessions() {
        let mut breaker = Breaker::default();
        for _ in 0..2 * TRIPS_AT {
            breaker.note_fault(&CallFault::TooLarge);
        }
        assert_eq!(breaker.admit(NOW), Ok(()));
        assert_eq!(breaker.admit(NOW), Ok(()));
    }
}
