//! When bytes last moved: what stands still is given up, what moves may take its time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Notes that bytes have passed, in whatever direction.
#[derive(Debug)]
pub struct Activity(Mutex<Instant>);

impl Activity {
    /// Notes the present moment.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Done once nothing was noted for this long.
    pub async fn ceases(&self, limit: Duration) {
        loop {
            let due = self.last() + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_may_take_its_time_and_what_stands_still_may_not() {
        let (activity, limit) = (Activity::default(), Duration::from_secs(60));
        let started = Instant::now();
        let moving = async {
            for _ in 0..10 {
                tokio::time::sleep(limit / 2).await;
                activity.note();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { () = activity.ceases(limit) => {}, () = moving => {} }
        assert_eq!(started.elapsed().as_secs(), 10 * 30 + 60);
    }
}
