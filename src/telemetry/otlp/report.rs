//! Metrics as OTLP has them, out of the text that Prometheus reads: so both say the same, in the same names.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use super::text;
use crate::clock::Timestamp;

/// When the process began: what all counts are counted from.
const START: &str = "process_start_time_seconds ";

/// One line that is no comment.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

/// What was told at this moment, in our own exposition.
pub(super) fn metrics(exposition: &str, now: Timestamp) -> Vec<Metric> {
    let nanos = now.as_millis().saturating_mul(1_000_000);
    let start = exposition.lines().find_map(|line| line.strip_prefix(START)?.parse().ok());
    let start = start.map_or(nanos, in_nanos);
    let mut metrics: Vec<Metric> = Vec::new();
    let mut help = "";
    for line in exposition.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' '))
        {
            let data = data(kind);
            let suffix = if kind == "counter" { "_total" } else { "" };
            let (name, description) = (format!("{name}{suffix}"), help.to_owned());
            metrics.push(Metric { name, description, data, ..Metric::default() });
        } else if let (Some(sample), Some(metric)) = (Sample::parse(line), metrics.last_mut()) {
            add(metric, sample, start, nanos);
        }
    }
    metrics
}

fn data(kind: &str) -> Option<Data> {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Some(match kind {
        "counter" => Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality, is_monotonic: true }),
        "histogram" => Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality }),
        _ => Data::Gauge(Gauge::default()),
    })
}

fn add(metric: &mut Metric, mut sample: Sample<'_>, start: u64, now: u64) {
    let point = |sample: Sample<'_>, start: u64| NumberDataPoint {
        attributes: attributes(sample.labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    match &mut metric.data {
        Some(Data::Sum(sum)) => sum.data_points.push(point(sample, start)),
        Some(Data::Gauge(gauge)) => gauge.data_points.push(point(sample, 0)),
        Some(Data::Histogram(histogram)) => {
            let bound = sample.labels.iter().position(|(label, _)| *label == "le");
            let bound = bound.map(|at| sample.labels.remove(at).1);
            // Its sum comes first.
            if sample.name.ends_with("_sum") {
                histogram.data_points.push(HistogramDataPoint {
                    attributes: attributes(sample.labels),
                    start_time_unix_nano: start,
                    time_unix_nano: now,
                    sum: Some(sample.value),
                    ..HistogramDataPoint::default()
                });
                return;
            }
            let Some(point) = histogram.data_points.last_mut() else { return };
            match bound {
                None => point.count = whole(sample.value),
                Some(bound) => {
                    // Prometheus counts each bucket into all that are wider.
                    let before: u64 = point.bucket_counts.iter().sum();
                    point.bucket_counts.push(whole(sample.value).saturating_sub(before));
                    point.explicit_bounds.extend(bound.parse().ok().filter(|bound: &f64| bound.is_finite()));
                }
            }
        }
        Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => {}
    }
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (named, value) = line.rsplit_once(' ')?;
        if line.starts_with('#') {
            return None;
        }
        let (name, labels) = named.split_once('{').unwrap_or((named, "}"));
        Some(Self { name, labels: labels_of(labels.strip_suffix('}')?), value: value.parse().ok()? })
    }
}

/// `a="1",b="2"`, in which a backslash stands before each quote, backslash and line break of a value.
fn labels_of(mut rest: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let (mut value, mut end) = (String::new(), quoted.len());
        let mut signs = quoted.char_indices();
        while let Some((at, sign)) = signs.next() {
            match sign {
                '"' => {
                    end = at;
                    break;
                }
                '\\' => value.extend(signs.next().map(|(_, sign)| if sign == 'n' { '\n' } else { sign })),
                sign => value.push(sign),
            }
        }
        labels.push((name, value));
        rest = quoted.get(end + 1..).unwrap_or_default().trim_start_matches(',');
    }
    labels
}

fn attributes(labels: Vec<(&str, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| text(name, value)).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates where it becomes an integer"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

fn in_nanos(seconds: f64) -> u64 {
    whole(seconds * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Metrics, Readings};

    #[test]
    fn what_prometheus_reads_is_what_a_collector_gets() {
        let metrics = Metrics::new();
        metrics.set_start(Timestamp::from_secs(1000));
        metrics.count_login("a\"b\\c\nd,e=f", "succeeded");
        let site = metrics.site("https://shop.test", "/api");
        for millis in [1, 4, 4, 20_000] {
            site.count_request(http::StatusCode::OK, std::time::Duration::from_millis(millis));
        }
        let found = super::metrics(&metrics.encode(&Readings::new()), Timestamp::from_secs(2000));
        let data = |name: &str| {
            let metric = found.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}"));
            assert!(!metric.description.is_empty());
            metric.data.clone().unwrap()
        };

        let Data::Sum(logins) = data("cloakroom_logins_total") else { panic!("a counter is a sum") };
        assert!(logins.is_monotonic);
        let [login] = logins.data_points.as_slice() else { panic!("{logins:?}") };
        let login_labels =
            attributes(vec![("app", "a\"b\\c\nd,e=f".to_owned()), ("result", "succeeded".to_owned())]);
        assert_eq!((&login.attributes, login.value), (&login_labels, Some(Value::AsDouble(1.0))));
        assert_eq!(login.start_time_unix_nano, 1_000_000_000_000);
        assert_eq!(login.time_unix_nano, 2_000_000_000_000);

        let Data::Histogram(durations) = data("cloakroom_request_duration_seconds") else {
            panic!("a histogram is one")
        };
        let [point] = durations.data_points.as_slice() else { panic!("{durations:?}") };
        assert_eq!((point.count, point.explicit_bounds.len(), point.bucket_counts.len()), (4, 13, 14));
        assert_eq!(point.bucket_counts, [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((point.explicit_bounds[0], point.explicit_bounds[12]), (0.001, 10.0));
        assert!((point.sum.unwrap() - 20.009).abs() < 1e-6);
        assert_eq!(point.attributes.len(), 2, "{:?}", point.attributes);

        let Data::Gauge(build) = data("cloakroom_build_info") else { panic!("a gauge is one") };
        assert_eq!(build.data_points[0].value, Some(Value::AsDouble(1.0)));
    }
}
