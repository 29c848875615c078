//! What was counted during the last hour, in a memory of fixed size. It belongs to the process, whatever
//! configuration is in force.

use std::collections::VecDeque;
use std::time::Duration;

use super::counts::Counts;
use crate::clock::Timestamp;

/// How far apart samples are, at least.
const INTERVAL: Duration = Duration::from_secs(5);

/// An hour of them.
const MOST_SAMPLES: usize = 720;

/// How many points a plot has.
pub(super) const POINTS: u64 = 60;

/// How many seconds a point may stand for. With the first, a plot shows five minutes.
const WIDTHS: [u64; 4] = [5, 10, 20, 60];

/// What was counted up to a moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) counts: Counts,
}

/// The samples of the last hour.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

/// What happened between two samples.
pub(super) struct Step<'a> {
    pub(super) before: &'a Counts,
    pub(super) after: &'a Counts,
    pub(super) seconds: f64,
}

/// The samples up to now, as a plot shows them.
pub(super) struct View {
    samples: Vec<Sample>,
    /// How many seconds a point stands for.
    width: u64,
}

impl History {
    /// Whether it is time for another sample.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.0.back().is_none_or(|last| now < last.at || now.since(last.at) >= INTERVAL)
    }

    /// Keeps a sample, if it is time for one.
    pub(super) fn note(&mut self, sample: &Sample) {
        if !self.is_due(sample.at) {
            return;
        }
        // The clock was set back, and what was noted lies in the future.
        if self.0.back().is_some_and(|last| sample.at < last.at) {
            self.0.clear();
        }
        if self.0.len() == MOST_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample.clone());
    }

    /// What there is, with the moment that it is now.
    pub(super) fn view(&self, now: Sample) -> View {
        let mut samples: Vec<_> = self.0.iter().filter(|sample| sample.at < now.at).cloned().collect();
        let age = samples.first().map_or(0, |first| now.at.since(first.at).as_secs());
        let width =
            WIDTHS.into_iter().find(|width| width * POINTS >= age).unwrap_or(WIDTHS[WIDTHS.len() - 1]);
        samples.push(now);
        View { samples, width }
    }
}

impl View {
    /// How many minutes it shows.
    pub(super) fn minutes(&self) -> u64 {
        self.width * POINTS / 60
    }

    /// A value for each point, the last of which is now; `None` where nothing is known.
    pub(super) fn points(&self, value: impl Fn(&Step<'_>) -> Option<f64>) -> Vec<Option<f64>> {
        let last = self.now().at.as_secs() / self.width;
        let step = |point| self.step(point * self.width, (point + 1) * self.width).as_ref().and_then(&value);
        (0..POINTS).map(|point| step((last + point + 1).checked_sub(POINTS)?)).collect()
    }

    /// What happened in the last minute.
    pub(super) fn last_minute(&self) -> Option<Step<'_>> {
        let end = self.now().at.as_secs();
        let from = self.index_at(end.saturating_sub(60)).unwrap_or(0);
        self.between(from, self.samples.len() - 1)
    }

    fn now(&self) -> &Sample {
        // There is one at least, for the view is made with it.
        &self.samples[self.samples.len() - 1]
    }

    /// What happened from one second to another, as far as samples tell.
    fn step(&self, from: u64, to: u64) -> Option<Step<'_>> {
        let before = self.index_at(from).or_else(|| self.index_at(to - 1).map(|_| 0))?;
        // Where none was taken meanwhile, the next one tells.
        let after = self.index_at(to)?.max(before + 1);
        self.between(before, after)
    }

    fn between(&self, before: usize, after: usize) -> Option<Step<'_>> {
        let (before, after) = (self.samples.get(before)?, self.samples.get(after)?);
        let seconds = after.at.since(before.at).as_secs_f64();
        (seconds > 0.0).then_some(Step { before: &before.counts, after: &after.counts, seconds })
    }

    /// The last sample up to a second.
    fn index_at(&self, second: u64) -> Option<usize> {
        self.samples.partition_point(|sample| sample.at <= Timestamp::from_secs(second)).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Outcomes;
    use super::*;

    /// So many requests so far.
    fn sample(second: u64, requests: u32) -> Sample {
        let mut counts = Counts::default();
        counts.outcomes[0] = Outcomes { all: requests.into(), failed: 0.0 };
        Sample { at: Timestamp::from_secs(second), counts }
    }

    fn rate(step: &Step<'_>) -> Option<f64> {
        Some(step.after.outcomes[0].since(step.before.outcomes[0]).all / step.seconds)
    }

    #[test]
    fn it_has_a_bound_and_forgets_the_oldest() {
        let mut history = History::default();
        for second in 0..10_000 {
            history.note(&sample(second, 0));
        }
        assert_eq!(history.0.len(), MOST_SAMPLES);
        assert_eq!(history.0.front().unwrap().at, Timestamp::from_secs(9_995 - 5 * 719));
        let capacity = history.0.capacity();
        (10_000..90_000).for_each(|second| history.note(&sample(second, 0)));
        assert_eq!(history.0.capacity(), capacity);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_it_anew() {
        let mut history = History::default();
        history.note(&sample(1000, 5));
        history.note(&sample(1010, 9));
        history.note(&sample(500, 9));
        assert_eq!(history.0.len(), 1);
        history.note(&sample(505, 14));
        let points = history.view(sample(506, 14)).points(rate);
        assert!(points.iter().flatten().all(|rate| *rate >= 0.0), "{points:?}");
    }

    #[test]
    fn each_point_is_the_rate_of_its_time() {
        let mut history = History::default();
        let requests = |second: u64| if second < 950 { 0 } else { u32::try_from(second - 950).unwrap() * 3 };
        (900..=1000).for_each(|second| history.note(&sample(second, requests(second))));
        let view = history.view(sample(1003, requests(1003)));
        assert_eq!(view.minutes(), 5);
        let points = view.points(rate);
        assert_eq!(points.len(), 60);
        let known: Vec<_> = points.iter().flatten().copied().collect();
        assert_eq!(known, [[0.0; 10].as_slice(), &[3.0; 11]].concat(), "{points:?}");
        assert!(points[..39].iter().all(Option::is_none));
        let minute = view.last_minute().unwrap();
        assert!((rate(&minute).unwrap() - 159.0 / 63.0).abs() < 1e-9, "{}", minute.seconds);
    }

    #[test]
    fn the_plot_grows_from_five_minutes_to_an_hour() {
        for (age, minutes) in [
            (0, 5),
            (300, 5),
            (301, 10),
            (600, 10),
            (601, 20),
            (1200, 20),
            (1201, 60),
            (3600, 60),
            (9000, 60),
        ] {
            let mut history = History::default();
            (0..=age).for_each(|second| history.note(&sample(10_000 + second, 0)));
            assert_eq!(history.view(sample(10_000 + age, 0)).minutes(), minutes, "{age}");
        }
    }

    #[test]
    fn a_lone_sample_tells_nothing() {
        let view = History::default().view(sample(1000, 7));
        assert!(view.points(rate).iter().all(Option::is_none) && view.last_minute().is_none());
    }
}
