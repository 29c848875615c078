//! How what has no end of its own, tunnels and event streams, comes to one when the gateway stops.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::random::Random;

/// Says when each of them has to go: spread at random, so that those who open them again elsewhere do not come all at
/// once.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    begun: CancellationToken,
    /// From when on, and over how long.
    times: Arc<OnceLock<(Instant, Duration)>>,
    random: Random,
}

impl Departure {
    pub(super) fn new(random: Random) -> Self {
        Self { begun: CancellationToken::new(), times: Arc::default(), random }
    }

    /// From now on they go, the last of them after this long.
    pub(super) fn begin(&self, over: Duration) {
        self.times.get_or_init(|| (Instant::now(), over));
        self.begun.cancel();
    }

    /// Done when it is the turn of who asks.
    pub(super) fn turn(&self) -> impl Future<Output = ()> + Send + use<> {
        let Self { begun, times, random } = self.clone();
        async move {
            begun.cancelled().await;
            if let Some((from, over)) = times.get() {
                sleep_until(*from + over.mul_f64(random.fraction())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_goes_before_it_begins_and_then_not_all_at_once_but_all_in_time() {
        let departure = Departure::new(Random::SYSTEM);
        let turns: Vec<_> = (0..100).map(|_| tokio::spawn(departure.turn())).collect();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(turns.iter().all(|turn| !turn.is_finished()));
        departure.begin(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let gone = turns.iter().filter(|turn| turn.is_finished()).count();
        assert!((20..80).contains(&gone), "{gone} of 100 in the first half");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(turns.iter().all(tokio::task::JoinHandle::is_finished));
    }
}
