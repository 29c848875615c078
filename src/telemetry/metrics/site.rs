//! What the requests to one place come to: a route, an endpoint, or what is neither.
//!
//! Every request is counted here, so the numbers of each thread that serves lie apart: threads that wrote the same ones
//! would wait for each other. They are added up when somebody asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::worker;

/// Up to where the buckets go, in microseconds: from an answer out of memory to one that nobody waits for.
const BOUNDS: [u64; 13] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Threads beyond share numbers.
const SHARDS: usize = 16;

/// What answers a request, as metrics and the access log name it, and what its requests came to.
#[derive(Clone, Debug)]
pub struct Site(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    app: String,
    route: String,
    shards: [Shard; SHARDS],
}

/// What one thread has counted. It shares no cache line with another's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    statuses: [AtomicU64; STATUS_CLASSES.len()],
    requests: Durations,
    exchanges: Durations,
}

#[derive(Debug, Default)]
struct Durations {
    /// By bucket; the last is for what took longer than all bounds.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What the requests to one site came to so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The app's origin; empty where no app has the host that was asked for.
    pub app: String,
    /// The path of the route or the endpoint; empty where nothing is there.
    pub route: String,
    /// Answers by the first digit of their status, from 1 to 5.
    pub statuses: [u64; STATUS_CLASSES.len()],
    /// How long requests took, from their head to the end of the answer's body.
    pub requests: Distribution,
    /// How long upstreams took, from when they were given a request to the head of the answer, or to their failure.
    pub exchanges: Distribution,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many took no longer than each of the bounds, and longer than the one before; the last is for the rest.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All of it together.
    pub sum: Duration,
}

/// All sites of a gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites(Arc<Mutex<Vec<Site>>>);

impl Site {
    /// The app's origin; empty where no app has the host that was asked for.
    pub fn app(&self) -> &str {
        &self.0.app
    }

    /// The path of the route or the endpoint; empty where nothing is there.
    pub fn route(&self) -> &str {
        &self.0.route
    }

    /// A request was answered, to the end of the body.
    pub fn count_request(&self, status: StatusCode, took: Duration) {
        let shard = self.shard();
        // Whatever is no class counts as an error of the server (RFC 9110 §15).
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        shard.statuses[class].fetch_add(1, Ordering::Relaxed);
        shard.requests.observe(took);
    }

    /// An upstream has answered, or has failed to.
    pub fn count_exchange(&self, took: Duration) {
        self.shard().exchanges.observe(took);
    }

    fn shard(&self) -> &Shard {
        &self.0.shards[worker::current() % SHARDS]
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            app: self.0.app.clone(),
            route: self.0.route.clone(),
            statuses: <[u64; STATUS_CLASSES.len()]>::default(),
            requests: Distribution::default(),
            exchanges: Distribution::default(),
        };
        for shard in &self.0.shards {
            add(&mut totals.statuses, &shard.statuses);
            totals.requests.add(&shard.requests);
            totals.exchanges.add(&shard.exchanges);
        }
        totals
    }
}

impl Durations {
    fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, counted: &Durations) {
        add(&mut self.counts, &counted.counts);
        self.sum += Duration::from_micros(counted.micros.load(Ordering::Relaxed));
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|micros| Duration::from_micros(*micros).as_secs_f64());
        let buckets: Vec<_> = bounds.chain([f64::INFINITY]).zip(self.counts).collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum.as_secs_f64(), self.count(), &buckets, None)
    }
}

impl Sites {
    /// The one of this name.
    pub(super) fn get(&self, app: &str, route: &str) -> Site {
        let mut sites = self.lock();
        if let Some(site) = sites.iter().find(|site| site.app() == app && site.route() == route) {
            return site.clone();
        }
        let inner = Inner { app: app.to_owned(), route: route.to_owned(), shards: Default::default() };
        let site = Site(Arc::new(inner));
        sites.push(site.clone());
        site
    }

    pub(super) fn totals(&self) -> Vec<Totals> {
        self.lock().iter().map(Site::totals).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Site>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Sites {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.totals();
        let mut requests = encoder.encode_descriptor(
            "cloakroom_requests",
            "Requests that were answered",
            None,
            MetricType::Counter,
        )?;
        for site in &totals {
            for (class, count) in STATUS_CLASSES.iter().zip(site.statuses) {
                let labels =
                    [("app", site.app.as_str()), ("route", site.route.as_str()), ("status_class", class)];
                requests.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
            }
        }
        let mut distributions = |name, help, of: fn(&Totals) -> &Distribution| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            // Most endpoints are seldom asked for, and files ask no upstream.
            for site in totals.iter().filter(|site| of(site).count() > 0) {
                let labels = [("app", site.app.as_str()), ("route", site.route.as_str())];
                of(site).encode(&mut family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        distributions(
            "cloakroom_request_duration_seconds",
            "Requests, to the end of their answers",
            |site| &site.requests,
        )?;
        distributions(
            "cloakroom_upstream_duration_seconds",
            "What upstreams took until they answered",
            |site| &site.exchanges,
        )
    }
}

fn add<const N: usize>(totals: &mut [u64; N], counted: &[AtomicU64; N]) {
    for (total, counted) in totals.iter_mut().zip(counted) {
        *total += counted.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_apart_is_one_total() {
        let sites = Sites::default();
        let threads: Vec<_> = (0..2 * SHARDS)
            .map(|number| {
                let site = sites.get("https://shop.test", "/api");
                std::thread::spawn(move || {
                    worker::enter(number);
                    for _ in 0..1000 {
                        site.count_request(StatusCode::OK, Duration::from_millis(3));
                        site.count_exchange(Duration::from_millis(1));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let [totals] = sites.totals().try_into().unwrap();
        let all = 2 * SHARDS as u64 * 1000;
        assert_eq!(totals.statuses, [0, all, 0, 0, 0]);
        assert_eq!((totals.requests.count(), totals.requests.counts[2]), (all, all));
        assert_eq!(totals.requests.sum, Duration::from_millis(3 * all));
        assert_eq!((totals.exchanges.counts[0], totals.exchanges.sum), (all, Duration::from_millis(all)));
    }

    #[test]
    fn a_bound_is_within_its_bucket_and_what_no_bound_holds_in_the_last() {
        let durations = Durations::default();
        for micros in [0, 1_000, 1_001, 10_000_000, 10_000_001, u64::MAX / 2] {
            durations.observe(Duration::from_micros(micros));
        }
        let mut distribution = Distribution::default();
        distribution.add(&durations);
        assert_eq!(distribution.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn rfc9110_a_status_of_no_class_is_an_error_of_the_server() {
        let site = Sites::default().get("", "");
        for status in [100, 101, 204, 399, 404, 599, 600, 999] {
            site.count_request(StatusCode::from_u16(status).unwrap(), Duration::ZERO);
        }
        assert_eq!(site.totals().statuses, [2, 1, 1, 1, 3]);
    }
}
