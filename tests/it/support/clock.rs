//! The time of day in tests, which stands still until it is moved.

use std::sync::Arc;

use cloakroom::clock::{ManualClock, Timestamp};

/// The second at which [`clock`] starts.
pub const NOW: u64 = 1_800_000_000;

/// A clock that stands at [`NOW`].
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::starting_at(Timestamp::from_secs(NOW)))
}
