//! Traces and metrics that are handed to a collector (OpenTelemetry, W3C Trace Context).

use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;

use crate::support::browser::metric;
use crate::support::certificates::Authority;
use crate::support::collector::{Collector, attribute, hex};
use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::port::Reserved;
use crate::support::shop::Shop;
use crate::support::tls_door::Door;
use crate::support::upstream::Upstream;
use crate::support::wait::{in_time, until};
use crate::support::wire::{ask, head};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
const NOT_SAMPLED: &str = "traceparent: 00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";

async fn open(collector: &Collector, upstream: &str, keys: &str) -> Gateway {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/api", upstream);
    setup.telemetry = collector.keys(keys);
    setup.start().await
}

fn of(span: &Span, key: &str) -> String {
    attribute(&span.attributes, key)
}

/// The parts of the `traceparent` that came last.
fn carried(upstream: &Upstream) -> (String, String, String) {
    let last = upstream.last();
    let parts: Vec<&str> = last.headers["traceparent"].to_str().unwrap().split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[tokio::test]
async fn a_request_and_its_call_upstream_are_spans_of_the_caller_s_trace() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let gateway = open(&collector, &upstream.url(), "").await;
    let fields = format!("{SAMPLED}tracestate: a=b\r\nUser-Agent: canary\r\n");
    let reply = ask(gateway.address, head("GET /api/orders?code=canary", &fields)).await;
    assert_eq!(reply.status, 200);
    let spans = collector.trace(TRACE, 2).await;
    let [server, client] = spans.as_slice() else { panic!("{spans:?}") };

    assert_eq!((server.kind(), server.name.as_str()), (SpanKind::Server, "GET /api"));
    assert_eq!(
        (hex(&server.parent_span_id), server.trace_state.as_str()),
        ("b7ad6b7169203331".to_owned(), "a=b")
    );
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api"),
        ("url.path", "/api/orders"),
        ("url.scheme", "https"),
        ("server.address", "shop.test"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("error.type", ""),
        ("cloakroom.request_id", reply.field("x-request-id").unwrap()),
    ] {
        assert_eq!(of(server, key), value, "{key}");
    }

    assert_eq!((client.kind(), client.name.as_str()), (SpanKind::Client, "GET"));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(of(client, "url.full"), format!("{}/api/orders", upstream.url()));
    assert_eq!(of(client, "server.port"), upstream.address.port().to_string());
    assert_eq!(of(client, "http.response.status_code"), "200");
    assert!(client.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!(carried(&upstream), (TRACE.to_owned(), hex(&client.span_id), "01".to_owned()));
    assert_eq!(upstream.last().headers["tracestate"], "a=b");
    assert!(!format!("{spans:?}").contains("canary"), "{spans:?}");
}

#[tokio::test]
async fn a_trace_begins_here_where_nobody_has_begun_one() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let gateway = open(&collector, &upstream.url(), "").await;
    ask(gateway.address, head("BREW /api/a", "tracestate: a=b\r\n")).await;
    let (trace, parent, flags) = carried(&upstream);
    let spans = collector.trace(&trace, 2).await;
    assert_eq!((hex(&spans[1].span_id), flags.as_str()), (parent, "01"));
    assert!(spans[0].parent_span_id.is_empty() && spans[0].trace_state.is_empty());
    assert!(!upstream.last().headers.contains_key("tracestate"));
    assert_eq!(spans[0].name, "_OTHER /api", "clients can make methods up");
}

#[tokio::test]
async fn what_is_not_sampled_is_not_recorded_and_says_so_upstream() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let gateway = open(&collector, &upstream.url(), ", sample_ratio: 0.0").await;
    ask(gateway.address, head("GET /api/a", NOT_SAMPLED)).await;
    let (trace, _, flags) = carried(&upstream);
    assert_eq!((trace.as_str(), flags.as_str()), ("1af7651916cd43dd8448eb211c80319c", "00"));
    ask(gateway.address, head("GET /api/b", "")).await;
    assert_eq!(carried(&upstream).2, "00");
    ask(gateway.address, head("GET /api/c", SAMPLED)).await;
    collector.trace(TRACE, 2).await;
    gateway.stop().await;
    assert_eq!(collector.spans().len(), 2, "whoever has begun a trace decides");
}

#[tokio::test]
async fn a_failure_is_the_server_s_where_its_status_says_so() {
    let (collector, nobody) = (Collector::start().await, Reserved::new());
    let gateway = open(&collector, &format!("http://{}", nobody.address()), "").await;
    assert_eq!(ask(gateway.address, head("GET /api/a", SAMPLED)).await.status, 502);
    let spans = collector.trace(TRACE, 2).await;
    let error = |span: &Span| {
        (span.status.clone().map(|status| status.code() == StatusCode::Error), of(span, "error.type"))
    };
    assert_eq!(error(&spans[0]), (Some(true), "502".to_owned()));
    assert_eq!(error(&spans[1]), (Some(true), "connect".to_owned()));

    let other = "2af7651916cd43dd8448eb211c80319c";
    ask(gateway.address, head("GET /elsewhere", &SAMPLED.replace(TRACE, other))).await;
    let spans = collector.trace(other, 1).await;
    assert_eq!((spans[0].name.as_str(), error(&spans[0])), ("GET", (None, String::new())));
    assert_eq!(of(&spans[0], "http.response.status_code"), "404");
}

#[tokio::test]
async fn calls_to_the_issuer_and_to_the_store_belong_to_their_request_and_tell_no_secret() {
    let collector = Collector::start().await;
    let shop = Shop::open_with(|_, setup| setup.telemetry = collector.keys("")).await;
    let mut browser = shop.user().await;
    shop.clock.advance(Duration::from_secs(301));
    assert_eq!(browser.fetch("/api/orders?q=canary").await.status, 200);
    let issuer = format!("{}/token", shop.issuer.url());
    let has = |route: &str, is_wanted: &dyn Fn(&Span) -> bool| {
        let spans = collector.spans();
        let servers = spans.iter().filter(|span| of(span, "http.route") == route);
        let wanted: Vec<_> = spans.iter().filter(|span| is_wanted(span)).collect();
        servers.clone().any(|server| wanted.iter().any(|span| span.parent_span_id == server.span_id))
    };
    for route in ["/bff/callback", "/api"] {
        until(async || has(route, &|span| of(span, "url.full") == issuer && span.name == "POST")).await;
        until(async || has(route, &|span| span.name.starts_with("session store "))).await;
    }
    let (cookie, spans) = (browser.session_cookie().unwrap(), format!("{:?}", collector.spans()));
    for secret in upstream_tokens(&shop).iter().chain([&cookie]) {
        assert!(!spans.contains(secret.as_str()), "{secret}");
    }
    assert!(!spans.contains("canary") && !spans.contains("code=") && !spans.contains('?'), "{spans}");
}

fn upstream_tokens(shop: &Shop) -> Vec<String> {
    let tokens = shop.upstream.tokens();
    assert!(!tokens.is_empty());
    tokens
}

#[tokio::test]
async fn what_is_counted_is_told_in_the_same_names_and_for_the_last_time_at_the_end() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let gateway = open(&collector, &upstream.url(), ", sample_ratio: 0").await;
    ask(gateway.address, head("GET /api/a", "")).await;
    until(async || metric(gateway.admin, "cloakroom_requests_total", "\"2xx\"").await == 1.0).await;
    assert!(collector.metrics().is_empty());
    gateway.stop().await;
    let metrics = collector.metrics();
    let requests = metrics.iter().find(|metric| metric.name == "cloakroom_requests_total").unwrap();
    let Some(Data::Sum(sum)) = &requests.data else { panic!("{requests:?}") };
    let point = sum.data_points.iter().find(|point| {
        attribute(&point.attributes, "route") == "/api"
            && attribute(&point.attributes, "status_class") == "2xx"
    });
    let value = opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsDouble(1.0);
    assert_eq!(point.unwrap().value, Some(value));
    assert!(metrics.iter().any(|metric| metric.name == "cloakroom_upstream_duration_seconds"));
}

#[tokio::test]
async fn a_collector_that_is_away_or_silent_holds_nobody_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, nobody) = (Upstream::start().await, Reserved::new());
    for address in [nobody.address(), silent.local_addr().unwrap()] {
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
        setup.server = "shutdown_grace: 6s".to_owned();
        setup.telemetry = format!("telemetry: {{otlp: {{endpoint: \"http://{address}\"}}}}\n");
        let running = setup.start_process().await;
        for _ in 0..20 {
            assert_eq!(ask(running.address, head("GET /", "")).await.status, 200);
        }
        if address == nobody.address() {
            until(async || running.has_logged("otlp.lost")).await;
            ask(running.address, head("GET /", "")).await;
        }
        running.signal("TERM");
        let (code, lines) = in_time(running.ended()).await;
        assert_eq!(code, Some(0));
        assert!(lines.iter().filter(|line| line.contains("otlp.lost")).count() <= 1, "{lines:?}");
    }
}

#[tokio::test]
async fn a_collector_is_spoken_to_over_http_or_tls_with_the_fields_it_wants() {
    let upstream = Upstream::start().await;
    let headers = ", headers: {api-key: {env: CLIENT_SECRET}}";
    let plain = Collector::start_http().await;
    let gateway = open(&plain, &upstream.url(), &format!(", protocol: http/protobuf{headers}")).await;
    ask(gateway.address, head("GET /api/a", SAMPLED)).await;
    plain.trace(TRACE, 2).await;
    assert_eq!(plain.headers()[0]["content-type"], "application/x-protobuf");

    let (behind, authority) = (Collector::start().await, Authority::new());
    let door = Door::build(&authority.issue("collector", "DNS:localhost", 1), None).await;
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/api", &upstream.url());
    setup.telemetry = format!(
        "telemetry: {{otlp: {{endpoint: \"{}\", ca: \"{}\"{headers}}}}}\n",
        door.url(),
        authority.pem().display()
    );
    door.lead_to(behind.address);
    let gateway = setup.start().await;
    ask(gateway.address, head("GET /api/a", SAMPLED)).await;
    behind.trace(TRACE, 2).await;
    for collector in [plain, behind] {
        let secret = crate::support::issuer::CLIENT_SECRET;
        assert!(collector.headers().iter().all(|headers| headers["api-key"] == secret));
    }
}
