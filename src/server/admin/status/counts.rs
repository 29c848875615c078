//! What the metrics say at one moment, as far as people are shown it. It is read from the very text that Prometheus gets,
//! so that the page and a dashboard never disagree.

use std::collections::BTreeMap;

/// Something that is counted, some of which failed.
pub(super) struct Family {
    pub(super) title: &'static str,
    metric: &'static str,
    /// Tells by its value what failed.
    label: &'static str,
    /// Values of it that are counted there, and are none of these.
    others: &'static [&'static str],
    is_failure: fn(&str) -> bool,
    /// What those that failed are called.
    pub(super) failed: &'static str,
    /// Whether there are many a second, or a few a minute.
    pub(super) is_frequent: bool,
}

/// Those that are shown, in this order.
pub(super) const FAMILIES: [Family; 7] = [
    Family {
        title: "Requests",
        metric: "cloakroom_requests_total",
        label: "status_class",
        others: &[],
        is_failure: |class| class == "5xx",
        failed: "status 5xx",
        is_frequent: true,
    },
    Family {
        title: "Logins",
        metric: "cloakroom_logins_total",
        label: "result",
        others: &[],
        is_failure: |result| matches!(result, "failed" | "unavailable"),
        failed: "failed",
        is_frequent: false,
    },
    Family {
        title: "Token refreshes",
        metric: "cloakroom_token_refreshes_total",
        label: "result",
        others: &[],
        is_failure: |result| result != "succeeded",
        failed: "failed",
        is_frequent: false,
    },
    Family {
        title: "Sessions ended",
        metric: "cloakroom_logouts_total",
        label: "cause",
        others: &[],
        is_failure: |cause| !matches!(cause, "logout" | "replaced"),
        failed: "not by their users",
        is_frequent: false,
    },
    Family {
        title: "Session look-ups",
        metric: "cloakroom_session_cache_total",
        label: "result",
        others: &["foreign_key"],
        is_failure: |result| result != "hit",
        failed: "not in memory",
        is_frequent: true,
    },
    Family {
        title: "Store operations",
        metric: "cloakroom_store_operation_seconds_count",
        label: "result",
        others: &[],
        is_failure: |result| result != "ok",
        failed: "failed",
        is_frequent: true,
    },
    Family {
        title: "Revocations",
        metric: "cloakroom_revocations_total",
        label: "result",
        others: &[],
        is_failure: |result| matches!(result, "postponed" | "refused" | "given_up"),
        failed: "put off or not done",
        is_frequent: false,
    },
];

/// Which of them the look-ups of sessions are.
pub(super) const LOOKUPS: usize = 4;

const REQUEST_BUCKETS: &str = "cloakroom_request_duration_seconds_bucket";
const STORE_BUCKETS: &str = "cloakroom_store_operation_seconds_bucket";

/// What was counted up to one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) outcomes: [Outcomes; FAMILIES.len()],
    pub(super) requests: Distribution,
    pub(super) store: Distribution,
    pub(super) connections: f64,
    pub(super) tunnels: f64,
    pub(super) sessions: f64,
    pub(super) outbox: f64,
    /// When a configuration was last found good, in seconds since 1970.
    pub(super) configured_at: f64,
    /// Whether the one that was read last was not.
    pub(super) is_refused: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcomes {
    pub(super) all: f64,
    pub(super) failed: f64,
}

/// How long things took: how many no longer than each bound, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution(Vec<(f64, f64)>);

/// What the requests to one place came to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Site {
    pub(super) outcomes: Outcomes,
    pub(super) requests: Distribution,
}

impl Counts {
    pub(super) fn read(metrics: &str) -> Self {
        let mut counts = Self::default();
        for line in lines(metrics) {
            for (family, outcomes) in FAMILIES.iter().zip(&mut counts.outcomes) {
                outcomes.add(family, &line);
            }
            match line.name {
                REQUEST_BUCKETS => counts.requests.add(&line),
                STORE_BUCKETS => counts.store.add(&line),
                "cloakroom_open_connections" => counts.connections = line.value,
                "cloakroom_open_tunnels" => counts.tunnels = line.value,
                "cloakroom_sessions_in_memory" => counts.sessions = line.value,
                "cloakroom_outbox_entries" => counts.outbox = line.value,
                "cloakroom_config_last_reload_success_timestamp_seconds" => counts.configured_at = line.value,
                "cloakroom_config_last_reload_successful" => counts.is_refused = line.value < 1.0,
                _ => {}
            }
        }
        counts
    }
}

impl Site {
    /// Each by its app and its route.
    pub(super) fn read_all(metrics: &str) -> BTreeMap<(String, String), Self> {
        let [requests, ..] = &FAMILIES;
        let mut sites = BTreeMap::<_, Self>::new();
        for line in lines(metrics).filter(|line| [requests.metric, REQUEST_BUCKETS].contains(&line.name)) {
            if let (Some(app), Some(route)) = (line.label("app"), line.label("route")) {
                let site = sites.entry((app, route)).or_default();
                site.outcomes.add(requests, &line);
                if line.name == REQUEST_BUCKETS {
                    site.requests.add(&line);
                }
            }
        }
        sites
    }
}

impl Outcomes {
    fn add(&mut self, family: &Family, line: &Line<'_>) {
        if line.name != family.metric {
            return;
        }
        let value = line.label(family.label).unwrap_or_default();
        if family.others.contains(&value.as_str()) {
            return;
        }
        self.all += line.value;
        if (family.is_failure)(&value) {
            self.failed += line.value;
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self { all: grown(earlier.all, self.all), failed: grown(earlier.failed, self.failed) }
    }
}

impl Distribution {
    fn add(&mut self, line: &Line<'_>) {
        let Some(bound) = line.label("le").and_then(|bound| bound.parse::<f64>().ok()) else { return };
        match self.0.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += line.value,
            None => self.0.push((bound, line.value)),
        }
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before =
            |bound| earlier.0.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
        Self(self.0.iter().map(|(bound, count)| (*bound, grown(before(*bound), *count))).collect())
    }

    /// In seconds, as Prometheus's `histogram_quantile` reckons; `None` where there was nothing.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        let (_, all) = *self.0.last().filter(|(_, all)| *all > 0.0)?;
        let rank = quantile * all;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && bound.is_finite() {
                return Some(lower + (bound - lower) * (rank - below) / (count - below).max(1.0));
            }
            if bound.is_finite() {
                (lower, below) = (*bound, *count);
            }
        }
        // Longer than all bounds: how much longer, nobody knows.
        Some(lower)
    }
}

/// By how much a count grew. One that shrank has begun anew.
fn grown(earlier: f64, later: f64) -> f64 {
    if later < earlier { later } else { later - earlier }
}

/// One line of the metrics.
struct Line<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

fn lines(metrics: &str) -> impl Iterator<Item = Line<'_>> {
    metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Line { name, labels, value: value.parse().ok()? })
    })
}

impl Line<'_> {
    fn label(&self, wanted: &str) -> Option<String> {
        let mut rest = self.labels;
        while let Some((name, after)) = rest.split_once("=\"") {
            let (mut value, mut signs) = (String::new(), after.chars());
            loop {
                match signs.next()? {
                    '"' => break,
                    '\\' => match signs.next()? {
                        'n' => value.push('\n'),
                        sign => value.push(sign),
                    },
                    sign => value.push(sign),
                }
            }
            if name.trim_start_matches(',') == wanted {
                return Some(value);
            }
            rest = signs.as_str();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP cloakroom_requests Requests.\n\
        cloakroom_requests_total{app=\"https://a.test\",route=\"/\",status_class=\"2xx\"} 7\n\
        cloakroom_requests_total{app=\"https://a.test\",route=\"/x\\\"y\",status_class=\"5xx\"} 3\n\
        cloakroom_request_duration_seconds_bucket{le=\"0.1\",app=\"https://a.test\",route=\"/\"} 8\n\
        cloakroom_request_duration_seconds_bucket{le=\"0.2\",app=\"https://a.test\",route=\"/\"} 9\n\
        cloakroom_request_duration_seconds_bucket{le=\"+Inf\",app=\"https://a.test\",route=\"/\"} 10\n\
        cloakroom_session_cache_total{result=\"hit\"} 6\n\
        cloakroom_session_cache_total{result=\"miss\"} 2\n\
        cloakroom_session_cache_total{result=\"foreign_key\"} 90\n\
        cloakroom_open_tunnels 2\n\
        cloakroom_config_last_reload_successful 0\n\
        # EOF\n";

    #[test]
    fn what_is_counted_is_read_as_prometheus_reads_it() {
        let counts = Counts::read(METRICS);
        assert_eq!(counts.outcomes[0], Outcomes { all: 10.0, failed: 3.0 });
        assert_eq!((counts.tunnels, counts.is_refused), (2.0, true));
        assert_eq!(counts.outcomes[1], Outcomes::default());
        let sites = Site::read_all(METRICS);
        let site = |route: &str| &sites[&("https://a.test".to_owned(), route.to_owned())];
        assert_eq!(site("/").outcomes, Outcomes { all: 7.0, failed: 0.0 });
        assert_eq!(site("/x\"y").outcomes, Outcomes { all: 3.0, failed: 3.0 });
        assert_eq!(site("/").requests.quantile(0.5), counts.requests.quantile(0.5));
    }

    #[test]
    fn a_cookie_under_a_foreign_key_looks_no_session_up() {
        assert_eq!(Counts::read(METRICS).outcomes[LOOKUPS], Outcomes { all: 8.0, failed: 2.0 });
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_and_never_beyond_the_last_bound() {
        let counts = Counts::read(METRICS).requests;
        let quantile = |quantile| counts.quantile(quantile).unwrap();
        assert!((quantile(0.5) - 0.0625).abs() < 1e-9 && (quantile(0.85) - 0.15).abs() < 1e-9);
        assert!((quantile(0.99) - 0.2).abs() < 1e-9, "nobody knows how much longer");
        assert_eq!(Distribution::default().quantile(0.5), None);
        assert_eq!(counts.since(&counts).quantile(0.5), None, "nothing since");
    }

    #[test]
    fn a_count_that_shrank_has_begun_anew() {
        let (before, now) = (Outcomes { all: 10.0, failed: 3.0 }, Outcomes { all: 4.0, failed: 3.0 });
        assert_eq!(now.since(before), Outcomes { all: 4.0, failed: 0.0 });
    }
}
