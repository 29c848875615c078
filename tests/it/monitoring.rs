//! The dashboard and the alerts of `deploy` ask for what gateways tell: each expression is put to a real Prometheus that
//! watches real gateways.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::browser::metric;
use crate::support::certificates::Authority;
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::prometheus::Prometheus;
use crate::support::redis::Redis;
use crate::support::shop::Shop;
use crate::support::upstream::Upstream;
use crate::support::wait::until;

const DASHBOARD: &str = "deploy/grafana/cloakroom.json";
const ALERTS: &str = "deploy/prometheus/alerts.yaml";

/// What comes about only when something fails, or where it is configured: such a query may find nothing on a good day.
const SELDOM: [&str; 4] = [
    "result=\"unavailable\"",
    "changes(process_start_time_seconds",
    "cloakroom_overload_refusals_total",
    "cloakroom_token_introspections_total",
];

#[tokio::test]
async fn each_query_of_the_dashboard_finds_something_and_each_alert_can_be_judged() {
    let redis = Redis::start().await;
    let shop = Shop::open_with(|_, setup| setup.store_in(&redis)).await;
    work(&shop).await;
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let with_certificate = with_certificate(&authority, &upstream).await;
    let prometheus = Prometheus::watching(&[shop.gateway.admin, with_certificate.admin], ALERTS).await;

    let rules = prometheus.rules().await;
    assert!(rules.len() > 20, "{rules:?}");
    let judged = async || prometheus.rules().await.iter().all(|rule| rule["health"] != "unknown");
    until(judged).await;
    // A rule that was judged between the first scrape and the second found nothing then.
    let recorded = "cloakroom:request_errors:ratio_rate6h";
    until(async || !prometheus.query(recorded).await.unwrap().is_empty()).await;
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
    }

    let mut unanswered = Vec::new();
    let on_the_dashboard = dashboard();
    assert!(on_the_dashboard.len() > 40);
    for expression in &on_the_dashboard {
        let found =
            prometheus.query(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
        if found.is_empty() && !SELDOM.iter().any(|seldom| expression.contains(seldom)) {
            unanswered.push(expression.as_str());
        }
    }
    // An alert finds nothing on a good day, so what it looks at is asked for piece by piece.
    let in_rules = rules.iter().map(|rule| rule["query"].as_str().unwrap().to_owned());
    let expressions: Vec<_> = in_rules.chain(on_the_dashboard.iter().cloned()).collect();
    let mut asked = BTreeSet::new();
    for selector in expressions.iter().flat_map(|expression| selectors(expression)) {
        for (label, _) in &selector.matchers {
            asked.insert(format!("{}{{{label}!=\"\"}}", selector.metric));
        }
    }
    for expression in &asked {
        if prometheus.query(expression).await.unwrap().is_empty()
            && !SELDOM.iter().any(|seldom| expression.starts_with(seldom))
        {
            unanswered.push(expression);
        }
    }
    assert!(unanswered.is_empty(), "these find nothing:\n{}", unanswered.join("\n"));
}

#[test]
fn each_metric_label_and_word_that_is_asked_for_is_documented() {
    let documented = fs::read_to_string("docs/metrics.md").unwrap();
    let alerts = fs::read_to_string(ALERTS).unwrap();
    let mut chosen: Vec<_> = dashboard().iter().flat_map(|expression| selectors(expression)).collect();
    chosen.extend(selectors(&alerts));
    chosen.retain(|selector| selector.metric != "up" && !selector.metric.contains(':'));
    assert!(chosen.len() > 60);
    for Selector { metric, matchers } in chosen {
        let name = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|part| metric.strip_suffix(part))
            .unwrap_or(&metric);
        let row = documented.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        for (label, words) in matchers {
            if ["job", "instance"].contains(&label.as_str()) {
                continue;
            }
            assert!(row.contains(&format!("`{label}`")), "{name} has no label {label}");
            for word in words.split('|').filter(|word| *word != ".*" && *word != "5xx") {
                assert!(row.contains(&format!("`{word}`")), "{name} is not told with {label}=\"{word}\"");
            }
        }
    }
}

#[test]
fn each_alert_leads_to_a_section_that_says_what_to_do() {
    let (alerts, sections) =
        (fs::read_to_string(ALERTS).unwrap(), fs::read_to_string("docs/operations/failures.md").unwrap());
    let anchors: BTreeSet<_> = sections
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let alerts: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 15);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: ", "runbook_url: "] {
            assert_eq!(alert.matches(part).count(), 1, "{name}: {part}");
        }
        let (_, anchor) = alert.split_once("docs/operations/failures.md#").unwrap();
        assert!(anchors.contains(anchor.lines().next().unwrap()), "{name}");
    }
}

/// A user logs in, is served, has the token replaced, and logs out; an upstream fails.
async fn work(shop: &Shop) {
    let mut browser = shop.user().await;
    assert_eq!(browser.fetch("/api/orders").await.status, StatusCode::OK);
    shop.clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders").await.status, StatusCode::OK);
    let fields = [("x-csrf", "1"), ("accept", "application/json")];
    browser.script(Method::POST, "/bff/logout", &fields, "").await;
    for name in ["cloakroom_revocations_total", "cloakroom_issuer_up"] {
        until(async || metric(shop.gateway.admin, name, "").await > 0.0).await;
    }
}

async fn with_certificate(authority: &Authority, upstream: &Upstream) -> Gateway {
    let pair = authority.issue("gateway", "DNS:localhost", 30);
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = format!(
        "tls: {{certificate: \"{}\", private_key: \"{}\"}}",
        pair.certificate.display(),
        pair.key.display()
    );
    setup.start().await
}

/// The expressions of the dashboard, with its variables as they are chosen first.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| collect(member, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(&fs::read_to_string(DASHBOARD).unwrap()).unwrap(), &mut found);
    let chosen = [("$__rate_interval", "1m"), ("$job", "cloakroom"), ("$instance", ".*"), ("$app", ".*")];
    for (variable, value) in chosen {
        found = found.iter().map(|expression| expression.replace(variable, value)).collect();
    }
    found
}

/// A metric with the labels it is chosen by.
struct Selector {
    metric: String,
    matchers: Vec<(String, String)>,
}

/// Those of an expression, or of a file of them.
fn selectors(text: &str) -> Vec<Selector> {
    let parts: Vec<_> = text.split('{').collect();
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    parts
        .windows(2)
        .filter_map(|pair| {
            let metric = pair[0].rsplit(|letter| !in_name(letter)).next().unwrap();
            let (inside, _) = pair[1].split_once('}')?;
            let is_metric =
                metric == "up" || ["cloakroom", "process"].iter().any(|start| metric.starts_with(start));
            is_metric.then(|| Selector { metric: metric.to_owned(), matchers: matchers(inside) })
        })
        .collect()
}

fn matchers(inside: &str) -> Vec<(String, String)> {
    let split = |matcher: &str| {
        let (label, value) = matcher.split_once('=').unwrap();
        let value = value.trim_start_matches(['~', '=']).trim_matches('"').to_owned();
        (label.trim().trim_end_matches('!').to_owned(), value)
    };
    inside.split(',').filter(|matcher| !matcher.trim().is_empty()).map(split).collect()
}
