//! How many of something there may be in a time: the generic cell rate algorithm (ITU-T I.371).
//!
//! All that is kept of somebody is one moment, the *arrival*: when the next one would come, had all that were
//! let through come evenly. As long as it is not too far ahead of the clock, one more is let through.

use std::time::Duration;

use crate::clock::Timestamp;

/// Microseconds of the longest time: 35 years, which with the time of day is exact in floating point, too.
const LONGEST: u64 = 1 << 50;

/// So many in so long, at once or spread out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    most: u32,
    /// Microseconds between two that come evenly.
    interval: u64,
}

/// Where somebody stands once one more has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is let through, and counted.
    pub is_within: bool,
    /// How many more would be let through at this moment.
    pub remaining: u32,
    /// When it is one more than that.
    pub one_more_in: Duration,
    /// How far the arrival is ahead, in microseconds.
    pub(crate) ahead: u64,
}

impl Rate {
    /// At most `most`, of which there is at least one, in this time; no more than one each microsecond.
    pub fn new(most: u32, per: Duration) -> Self {
        let most = most.max(1);
        let per = u64::try_from(per.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
        let interval = per.div_ceil(u64::from(most)).max(1);
        Self { most, interval }
    }

    /// Microseconds between two that come evenly.
    pub(crate) const fn interval(self) -> u64 {
        self.interval
    }

    /// How far ahead an arrival may be, in microseconds.
    pub(crate) const fn window(self) -> u64 {
        self.interval * self.most as u64
    }

    /// Counts one that comes now. Takes the arrival, in microseconds since 1970 and 0 for the first time, and gives
    /// the one to be kept.
    pub(crate) fn step(self, arrival: u64, now: Timestamp) -> (Standing, u64) {
        let now = micros_since_epoch(now);
        // No further than the window: a clock that was set back shuts nobody out for longer than that.
        let ahead = arrival.saturating_sub(now).min(self.window());
        let is_within = ahead + self.interval <= self.window();
        let ahead = if is_within { ahead + self.interval } else { ahead };
        (self.standing(is_within, ahead), now.saturating_add(ahead))
    }

    /// The standing of somebody whose arrival is so far ahead, in microseconds.
    pub(crate) fn standing(self, is_within: bool, ahead: u64) -> Standing {
        let room = self.window().saturating_sub(ahead);
        Standing {
            is_within,
            remaining: u32::try_from(room / self.interval).unwrap_or(self.most),
            one_more_in: Duration::from_micros(self.interval - room % self.interval),
            ahead,
        }
    }
}

/// A moment as arrivals count.
pub(crate) fn micros_since_epoch(moment: Timestamp) -> u64 {
    moment.as_millis().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of those that come at these milliseconds is let through.
    fn let_through(rate: Rate, times: &[u64]) -> Vec<bool> {
        let mut arrival = 0;
        let step = |at: &u64| {
            let (standing, kept) = rate.step(arrival, Timestamp::from_millis(1_000_000 + at));
            arrival = kept;
            standing.is_within
        };
        times.iter().map(step).collect()
    }

    #[test]
    fn so_many_come_at_once_and_then_one_in_each_interval() {
        let rate = Rate::new(3, Duration::from_secs(3));
        assert_eq!(
            let_through(rate, &[0, 0, 0, 0, 999, 1000, 1001]),
            [true, true, true, false, false, true, false]
        );
        assert_eq!(
            let_through(rate, &[0, 0, 0, 3000, 3000, 3000, 3000]),
            [true, true, true, true, true, true, false]
        );
    }

    #[test]
    fn those_that_come_evenly_are_let_through_for_ever() {
        let rate = Rate::new(10, Duration::from_secs(1));
        let evenly: Vec<u64> = (0..1000).map(|turn| turn * 100).collect();
        assert!(let_through(rate, &evenly).into_iter().all(|one| one));
    }

    #[test]
    fn refused_ones_count_for_nothing() {
        let rate = Rate::new(1, Duration::from_secs(1));
        let hammering: Vec<u64> = (0..=20).map(|turn| turn * 100).collect();
        assert_eq!(let_through(rate, &hammering).into_iter().filter(|one| *one).count(), 3);
    }

    #[test]
    fn what_is_left_and_when_there_is_more_are_told() {
        let rate = Rate::new(4, Duration::from_secs(10));
        let now = Timestamp::from_secs(1000);
        let (first, arrival) = rate.step(0, now);
        assert_eq!((first.remaining, first.one_more_in), (3, Duration::from_millis(2500)));
        let (second, _) = rate.step(arrival, now + Duration::from_secs(1));
        assert_eq!((second.remaining, second.one_more_in), (2, Duration::from_millis(1500)));
        let refused = rate.standing(false, rate.window());
        assert_eq!((refused.remaining, refused.one_more_in), (0, Duration::from_millis(2500)));
    }

    #[test]
    fn a_clock_that_was_set_back_shuts_nobody_out_for_longer_than_the_window() {
        let rate = Rate::new(2, Duration::from_secs(2));
        let (_, arrival) = rate.step(0, Timestamp::from_secs(100_000));
        let (standing, arrival) = rate.step(arrival, Timestamp::from_secs(1000));
        assert!(!standing.is_within);
        assert!(rate.step(arrival, Timestamp::from_secs(1001)).0.is_within);
    }

    #[test]
    fn extremes_do_not_overflow() {
        for (most, per) in [(u32::MAX, Duration::MAX), (u32::MAX, Duration::ZERO), (0, Duration::MAX)] {
            let rate = Rate::new(most, per);
            let (standing, arrival) = rate.step(u64::MAX, Timestamp::from_secs(u64::MAX));
            assert!(standing.is_within);
            rate.step(arrival, Timestamp::from_millis(0));
        }
    }
}
