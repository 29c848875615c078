//! The clock of the whole demo, which a visitor can put forward.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock, Timestamp};

/// The machine's clock, ahead by what was skipped. Gateway and issuer both go by it, so that a token which
/// expires does so for everybody.
#[derive(Debug, Default)]
pub struct SkippingClock(AtomicU64);

impl SkippingClock {
    /// Lets so much time pass at once.
    pub fn skip(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for SkippingClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}
