//! When a token may be asked for again after that went wrong.

use std::collections::HashMap;
use std::time::Duration;

use super::{BETWEEN_FORCED, Key};
use crate::clock::Timestamp;
use crate::oidc::RefreshError;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What is over is forgotten once there is this much of it, and then whenever it has doubled.
const SWEEP_AT_LEAST: usize = 64;

/// The tokens of this process whose refresh went wrong lately, or was forced.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: HashMap<Key, Failures>,
    forced: HashMap<Key, Timestamp>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    next_attempt: Timestamp,
    /// Until then only a token that was refused is replaced.
    spared_until: Timestamp,
    /// The issuer has had its say, and it was no.
    refusal: Option<Denied>,
}

/// What the issuer has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token that was asked for.
    Wanted,
    /// The access token that was to be exchanged for it: with another it may go well.
    Subject,
}

impl Denied {
    const fn by(error: &RefreshError) -> Self {
        match error {
            RefreshError::InvalidSubject { .. } => Self::Subject,
            RefreshError::InvalidGrant
            | RefreshError::NotSent(_)
            | RefreshError::Ambiguous(_)
            | RefreshError::NonceRequired
            | RefreshError::Refused { .. }
            | RefreshError::UnknownIssuer
            | RefreshError::WrongIdentity(_) => Self::Wanted,
        }
    }
}

impl Backoff {
    /// How long to wait before this one is asked for again; `None` where it may be at once. `forced` where there is
    /// none that can be used instead.
    pub(super) fn wait(&self, key: &Key, now: Timestamp, forced: bool) -> Option<Duration> {
        let failures = self.failures.get(key)?;
        let wait = if forced { failures.next_attempt } else { failures.not_before() }.since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes a failure: the next attempt waits longer each time, and for `at_least` this long. `jitter`,
    /// from 0 to 1, keeps sessions that failed together from coming back together.
    pub(super) fn note_failure(&mut self, key: &Key, now: Timestamp, at_least: Duration, jitter: f64) {
        self.sweep(now);
        let first = Failures { count: 0, next_attempt: now, spared_until: now, refusal: None };
        let failures = self.failures.entry(key.clone()).or_insert(first);
        let exponential = FIRST.saturating_mul(1 << failures.count.min(5)).min(LONGEST);
        failures.count += 1;
        failures.refusal = None;
        failures.next_attempt = now + exponential.mul_f64(0.5 + jitter / 2.0).max(at_least);
    }

    /// After a failure: the session is not refreshed before this moment, unless its token is refused.
    pub(super) fn spare(&mut self, key: &Key, until: Timestamp) {
        if let Some(failures) = self.failures.get_mut(key) {
            failures.spared_until = until;
        }
    }

    /// The failure just noted was the issuer's word.
    pub(super) fn note_refusal(&mut self, key: &Key, error: &RefreshError) {
        if let Some(failures) = self.failures.get_mut(key) {
            failures.refusal = Some(Denied::by(error));
        }
    }

    /// What was refused, where the last failure was the issuer's word and it is too early to ask again. Later it says
    /// nothing of why there is no token: the issuer may be away by then.
    pub(super) fn refusal(&self, key: &Key, now: Timestamp) -> Option<Denied> {
        self.failures.get(key).filter(|failures| now < failures.not_before())?.refusal
    }

    /// Forgets the failures of a session that was refreshed, or has ended.
    pub(super) fn clear(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Whether a token that an upstream refused may be replaced now: not where the last replacement did not
    /// help, for a while. Notes that it is.
    pub(super) fn may_force(&mut self, key: &Key, now: Timestamp) -> bool {
        if self.forced.get(key).is_some_and(|forced| now.since(*forced) < BETWEEN_FORCED) {
            return false;
        }
        self.sweep(now);
        self.forced.insert(key.clone(), now);
        true
    }

    /// The replaced token was accepted: should it be refused one day, replacing it may help again.
    pub(super) fn note_helped(&mut self, key: &Key) {
        self.forced.remove(key);
    }

    /// An outage fails thousands of sessions, whose browsers may never come back.
    fn sweep(&mut self, now: Timestamp) {
        if self.failures.len() + self.forced.len() < self.sweep_at.max(SWEEP_AT_LEAST) {
            return;
        }
        self.failures.retain(|_, failures| now.since(failures.not_before()) < LONGEST * 4);
        self.forced.retain(|_, forced| now.since(*forced) < BETWEEN_FORCED);
        self.sweep_at = 2 * (self.failures.len() + self.forced.len());
    }
}

impl Failures {
    fn not_before(&self) -> Timestamp {
        self.next_attempt.max(self.spared_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::store::RecordKey;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn key() -> Key {
        named("a")
    }

    fn named(record: &str) -> Key {
        Key::Session(RecordKey(record.to_owned()))
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.note_failure(&key(), NOW, Duration::ZERO, 1.0);
            waits.push(backoff.wait(&key(), NOW, false).unwrap().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        backoff.clear(&key());
        assert_eq!(backoff.wait(&key(), NOW, false), None);
    }

    #[test]
    fn jitter_shortens_the_wait_by_half_at_most() {
        let mut backoff = Backoff::default();
        backoff.note_failure(&key(), NOW, Duration::ZERO, 0.0);
        assert_eq!(backoff.wait(&key(), NOW, false), Some(FIRST / 2));
    }

    #[test]
    fn the_next_attempt_waits_at_least_as_long_as_asked() {
        let mut backoff = Backoff::default();
        backoff.note_failure(&key(), NOW, Duration::from_secs(55), 0.0);
        assert_eq!(backoff.wait(&key(), NOW, false), Some(Duration::from_secs(55)));
        assert_eq!(backoff.wait(&key(), NOW + Duration::from_secs(55), false), None);
    }

    #[test]
    fn a_session_that_is_spared_waits_unless_its_token_is_refused() {
        let mut backoff = Backoff::default();
        backoff.note_failure(&key(), NOW, Duration::ZERO, 1.0);
        backoff.spare(&key(), NOW + Duration::from_secs(3000));
        assert_eq!(backoff.wait(&key(), NOW, false), Some(Duration::from_secs(3000)));
        assert_eq!(backoff.wait(&key(), NOW, true), Some(FIRST));
        backoff.note_failure(&key(), NOW, Duration::from_secs(40), 1.0);
        assert_eq!(backoff.wait(&key(), NOW, false), Some(Duration::from_secs(3000)));
        assert_eq!(backoff.wait(&key(), NOW, true), Some(Duration::from_secs(40)), "the issuer asked for it");
    }

    #[test]
    fn a_refused_token_is_replaced_once_in_a_while_unless_that_helped() {
        let mut backoff = Backoff::default();
        assert!(backoff.may_force(&key(), NOW));
        assert!(!backoff.may_force(&key(), NOW + BETWEEN_FORCED / 2));
        assert!(backoff.may_force(&key(), NOW + BETWEEN_FORCED));
        backoff.note_helped(&key());
        assert!(backoff.may_force(&key(), NOW + BETWEEN_FORCED));
    }

    #[test]
    fn a_refusal_is_remembered_for_as_long_as_its_back_off_or_until_something_else_comes() {
        let mut backoff = Backoff::default();
        backoff.note_failure(&key(), NOW, Duration::ZERO, 1.0);
        assert_eq!(backoff.refusal(&key(), NOW), None);
        backoff.note_refusal(&key(), &RefreshError::InvalidGrant);
        assert_eq!(backoff.refusal(&key(), NOW), Some(Denied::Wanted));
        assert_eq!(backoff.refusal(&named("b"), NOW), None);
        assert_eq!(backoff.refusal(&key(), NOW + FIRST), None, "an outage that comes later is one");
        backoff.note_failure(&key(), NOW, Duration::ZERO, 1.0);
        assert_eq!(backoff.refusal(&key(), NOW), None);
    }

    #[test]
    fn what_is_over_is_forgotten_and_what_is_not_is_kept() {
        let mut backoff = Backoff::default();
        for session in 0..1000 {
            backoff.note_failure(&named(&format!("old {session}")), NOW, Duration::ZERO, 1.0);
            backoff.may_force(&named(&format!("old {session}")), NOW);
        }
        assert!(backoff.wait(&named("old 0"), NOW, false).is_some());
        let later = NOW + Duration::from_secs(600);
        for session in 0..1000 {
            backoff.note_failure(&named(&format!("new {session}")), later, Duration::ZERO, 1.0);
        }
        assert!(backoff.failures.len() <= 1000 && backoff.forced.is_empty());
        assert!(backoff.wait(&named("new 0"), later, false).is_some());
    }
}
