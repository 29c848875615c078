//! How many frames a client may send that cost it next to nothing (RFC 9113 §10.5).

use tokio::time::Instant;

/// Something that is used up by frames, and comes back with time and with useful work.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    most: u64,
    per_second: u64,
    earned_at: Instant,
}

impl Budget {
    /// A whole one.
    pub(super) fn new(most: u64, per_second: u64) -> Self {
        Self { left: most, most, per_second, earned_at: Instant::now() }
    }

    /// Takes this much; `false` where so much is not left.
    pub(super) fn spend(&mut self, cost: u64) -> bool {
        let now = Instant::now();
        let elapsed = u64::try_from((now - self.earned_at).as_millis()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_second) / 1000;
        if earned > 0 {
            self.earned_at = now;
            self.earn(earned);
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Gives this much back.
    pub(super) fn earn(&mut self, gain: u64) {
        self.left = self.left.saturating_add(gain).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_used_up_and_comes_back_with_time_but_never_beyond_its_most() {
        let mut budget = Budget::new(10, 2);
        assert!((0..10).all(|_| budget.spend(1)));
        assert!(!budget.spend(1));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert!(budget.spend(3) && !budget.spend(1));
        budget.earn(1000);
        assert!(budget.spend(10) && !budget.spend(1));
    }
}
