//! Tells those who carry a tunnel or an event stream that its session has ended (R49).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Sessions;
use super::cookie::Ticket;
use super::store::RecordKey;

/// How often the store is asked whether a session is alive that nobody here has ended: it may have ended
/// at another gateway, of idleness or of age.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// What nobody waits for any more is forgotten once there is this much, and then whenever it has doubled.
const SWEEP_AT_LEAST: usize = 64;

/// The sessions of this process whose end somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Endings(Mutex<Awaited>);

#[derive(Debug, Default)]
struct Awaited {
    sessions: HashMap<RecordKey, Weak<CancellationToken>>,
    sweep_at: usize,
}

impl Endings {
    /// Wakes those who wait for the end of this session.
    pub(super) fn announce(&self, key: &RecordKey) {
        let awaited = self.lock().sessions.remove(key);
        if let Some(ended) = awaited.and_then(|ended| ended.upgrade()) {
            ended.cancel();
        }
    }

    fn await_end(&self, key: RecordKey) -> Arc<CancellationToken> {
        let mut awaited = self.lock();
        if let Some(ended) = awaited.sessions.get(&key).and_then(Weak::upgrade) {
            return ended;
        }
        if awaited.sessions.len() >= awaited.sweep_at.max(SWEEP_AT_LEAST) {
            awaited.sessions.retain(|_, ended| ended.strong_count() > 0);
            awaited.sweep_at = 2 * awaited.sessions.len();
        }
        let ended = Arc::new(CancellationToken::new());
        awaited.sessions.insert(key, Arc::downgrade(&ended));
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Awaited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Done when the session has ended: at once where it ends in this process, within half a minute where
    /// it ends elsewhere or by its time. A store that is away ends nothing. What passes through a tunnel
    /// does not put the idle timeout off: heartbeats go on when the user has long gone.
    pub async fn until_ended(&self, ticket: &Ticket) {
        let ended = self.endings.await_end(self.record_key(ticket));
        // The first tick comes at once: it may have ended before anybody waited.
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                _ = ticks.tick() => {
                    if let Ok(None) = self.load(ticket).await {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RecordKey {
        RecordKey(name.to_owned())
    }

    #[test]
    fn all_who_wait_for_one_session_are_woken_and_nobody_else() {
        let endings = Endings::default();
        let (one, same, other) =
            (endings.await_end(key("a")), endings.await_end(key("a")), endings.await_end(key("b")));
        endings.announce(&key("a"));
        assert!(one.is_cancelled() && same.is_cancelled() && !other.is_cancelled());
        assert!(!endings.await_end(key("a")).is_cancelled(), "a later wait is another one");
    }

    #[test]
    fn whom_nobody_waits_for_any_more_is_forgotten() {
        let endings = Endings::default();
        let kept = endings.await_end(key("kept"));
        for session in 0..1000 {
            drop(endings.await_end(key(&session.to_string())));
        }
        assert!(endings.lock().sessions.len() <= 2 * SWEEP_AT_LEAST);
        endings.announce(&key("kept"));
        assert!(kept.is_cancelled());
    }
}
