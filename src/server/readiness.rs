//! What `/readyz` tells those who send connections here, and what a shutdown gives them time for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a balancer has, at most, to see that this gateway drains, before nobody can connect any more.
const LONGEST_NOTICE: Duration = Duration::from_secs(5);

/// Over how long tunnels and event streams end where nobody serves in the meantime.
const BRIEF: Duration = Duration::from_secs(1);

/// What `/readyz` needs to know, and has been asked.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    is_draining: AtomicBool,
    is_watched: AtomicBool,
    /// Who comes while this gateway stops waits in a queue for the next one.
    has_queue: bool,
}

impl Readiness {
    pub(super) fn new(has_queue: bool) -> Self {
        Self { has_queue, ..Self::default() }
    }

    /// The gateway stops, and is ready no more.
    pub(super) fn begin_to_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Somebody looks at it.
    pub(super) fn note_watcher(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// How long the listener stays open once draining has begun: a balancer sends new connections until it
    /// has looked again. Where nobody ever looked, there is nobody to wait for.
    pub(super) fn notice(&self, grace: Duration) -> Duration {
        if self.is_watched() { LONGEST_NOTICE.min(grace / 6) } else { Duration::ZERO }
    }

    /// Over how long tunnels and event streams are ended, of the time that is left once nobody can connect. Where a
    /// balancer looks, others serve meanwhile, and each may have its share of nearly all of it. Where none does, or a
    /// queue holds up those who come, everybody waits for the last of them.
    pub(super) fn tunnels_end_over(&self, left: Duration) -> Duration {
        let most = left * 5 / 6;
        if self.is_watched() && !self.has_queue { most } else { most.min(BRIEF) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn notice_is_given_to_those_who_look_and_tunnels_have_the_grace_where_others_serve() {
        let unwatched = Readiness::new(false);
        assert_eq!((unwatched.notice(GRACE), unwatched.tunnels_end_over(GRACE)), (Duration::ZERO, BRIEF));
        let watched = Readiness::new(false);
        watched.note_watcher();
        assert_eq!((watched.notice(GRACE), watched.tunnels_end_over(GRACE)), (LONGEST_NOTICE, GRACE * 5 / 6));
        assert_eq!(watched.notice(Duration::from_secs(6)), Duration::from_secs(1));
        let queued = Readiness::new(true);
        queued.note_watcher();
        assert_eq!((queued.notice(GRACE), queued.tunnels_end_over(GRACE)), (LONGEST_NOTICE, BRIEF));
        assert!(queued.tunnels_end_over(Duration::from_millis(60)) < Duration::from_millis(60));
    }
}
