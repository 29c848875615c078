//! Keeps many sessions from asking an issuer that is away, or has just come back, all at once.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oidc::CallFault;

/// So many failures in a row, of whichever sessions, and the issuer counts as away.
const TRIPS_AT: u32 = 5;

/// How often an issuer that is away is asked, by one session for all.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Each answer of an issuer that was away lets so many more sessions in: as many are on their way to it at a
/// time as it has shown that it can take, and then twice as many.
const FOR_EACH_ANSWER: u32 = 2;

/// After so many answers, which is eight doublings, the issuer is as it was.
const MENDS_AT: u32 = 255;

/// The state of the issuer, as the refreshes of all sessions found it.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures_in_a_row: u32,
    last_probe: Option<Timestamp>,
    /// While the issuer is away, and until it has shown that it is back.
    recovery: Option<Recovery>,
}

#[derive(Debug, Default)]
struct Recovery {
    answers: u32,
    /// How many sessions may ask besides the probe.
    places: u32,
}

impl Breaker {
    /// Whether a session may ask the issuer now: because it is well, because it has answered others, or as the
    /// probe of this interval.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<(), Duration> {
        let Some(recovery) = &mut self.recovery else { return Ok(()) };
        if let Some(places) = recovery.places.checked_sub(1) {
            recovery.places = places;
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
            | CallFault::Metadata(_) => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                if self.failures_in_a_row >= TRIPS_AT {
                    self.recovery = Some(Recovery::default());
                }
            }
            // An answer, which tells something about one session at most.
            CallFault::TooLarge | CallFault::KeySet | CallFault::TokenAnswer(_) | CallFault::IdToken(_) => {}
            // Nobody was asked.
            CallFault::NotSigned => {}
        }
    }

    /// Notes that the issuer does its work, whatever it said.
    pub(super) fn note_answer(&mut self) {
        self.failures_in_a_row = 0;
        let Some(recovery) = &mut self.recovery else { return };
        recovery.answers += 1;
        recovery.places += FOR_EACH_ANSWER;
        if recovery.answers >= MENDS_AT {
            *self = Self::default();
        }
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

    /// How many sessions of a crowd may ask at this moment.
    fn admitted(breaker: &mut Breaker, now: Timestamp) -> u32 {
        (0..10_000).take_while(|_| breaker.admit(now).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn who_asks_an_issuer_that_is_back_doubles_with_the_answers_until_it_is_as_it_was() {
        let mut breaker = tripped();
        let mut now = NOW;
        let mut crowds = Vec::new();
        for _ in 0..9 {
            let crowd = admitted(&mut breaker, now);
            crowds.push(crowd);
            // It answers within the interval of the probe.
            now = NOW + PROBE_INTERVAL / 2;
            for _ in 0..crowd {
                breaker.note_answer();
            }
        }
        assert_eq!(crowds, [1, 2, 4, 8, 16, 32, 64, 128, 10_000]);
    }

    #[test]
    fn an_issuer_that_fails_again_before_it_was_well_is_left_alone_again() {
        let mut breaker = tripped();
        assert_eq!(breaker.admit(NOW), Ok(()));
        for _ in 0..10 {
            breaker.note_answer();
        }
        for _ in 0..TRIPS_AT {
            breaker.note_fault(&CallFault::TimedOut(Duration::from_secs(1)));
        }
        assert_eq!(admitted(&mut breaker, NOW), 0);
        assert_eq!(admitted(&mut breaker, NOW + PROBE_INTERVAL), 1);
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
