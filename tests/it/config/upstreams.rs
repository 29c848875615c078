//! Where an upstream's servers are, how they are asked, and how often.

use cloakroom::config::{Address, Health, Protocol, RateLimit, RateLimitKey, Upstream};

use super::*;

fn route(value: &str) -> String {
    with(
        "      - path: /api\n        upstream: https://orders.internal:9000",
        &format!("      - {{path: /api, {value}}}"),
    )
}

fn upstream(value: &str) -> String {
    route(&format!("upstream: {{url: \"https://orders\", {value}}}"))
}

fn read(text: &str) -> Upstream {
    let Target::Upstream(upstream) = config(text).apps.remove(0).routes.remove(0).target else { panic!() };
    *upstream
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}

#[test]
fn addresses_are_hosts_with_a_port_or_unix_sockets() {
    let addresses = |value: &str| upstream(&format!("addresses: [{value}]"));
    let found =
        read(&addresses("10.0.0.7:9000, 'orders.internal:9000', '[2001:db8::7]:9000', 'unix:/run/o.sock'"));
    let wanted = [
        tcp("10.0.0.7", 9000),
        tcp("orders.internal", 9000),
        tcp("2001:db8::7", 9000),
        Address::Unix("/run/o.sock".into()),
    ];
    assert_eq!(found.addresses, wanted);
    let shown: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    assert_eq!(shown[1..], ["orders.internal:9000", "[2001:db8::7]:9000", "unix:/run/o.sock"]);

    for (text, problem) in [
        ("orders", "without a port"),
        ("orders:0", "not a port"),
        ("orders:99999", "not a port"),
        (":9000", "not a host"),
        ("a b:9000", "not a host"),
        ("*.internal:9000", "wildcard"),
        ("unix:run/o.sock", "not absolute"),
        ("https://orders:9000", "not a host"),
        ("2001:db8::7:9000", "not a host"),
    ] {
        refused_in(&addresses(&format!("«'{text}'")), text, problem);
    }
    refused_in(&addresses("'orders:1', «'orders:1'"), "orders:1", "twice");
    refused_in(&upstream("addresses: «[]"), "[…]", "empty list");
}

#[test]
fn an_upstream_without_tls_is_warned_of_by_where_its_servers_are() {
    let warnings = |addresses: &str| {
        let value = format!("upstream: {{url: \"http://orders\", addresses: [{addresses}]}}");
        accepted(&route(&value)).warnings.len()
    };
    assert_eq!(warnings("'10.0.0.7:9000'"), 1);
    assert_eq!(warnings("'127.0.0.1:9000', '10.0.0.7:9000'"), 1);
    assert_eq!(warnings("'unix:/run/o.sock', '127.0.0.1:9000', '[::1]:9000'"), 0);
}

#[test]
fn a_protocol_is_one_of_three() {
    for (text, protocol) in [("auto", Protocol::Auto), ("http1", Protocol::Http1), ("http2", Protocol::Http2)]
    {
        assert_eq!(read(&upstream(&format!("protocol: {text}"))).protocol, protocol);
    }
    assert_eq!(read(BASE).protocol, Protocol::Auto);
    refused_in(&upstream("protocol: «h3"), "h3", "unknown value");
}

#[test]
fn an_answer_has_a_hundred_fields_or_as_many_as_are_configured() {
    assert_eq!(read(BASE).header_count, 100);
    assert_eq!(read(&upstream("header_count: 250")).header_count, 250);
    refused_in(&upstream("header_count: «19"), "19", "not a whole number");
}

#[test]
fn health_is_asked_for_by_a_path() {
    let health = read(&upstream("health: {path: /healthz}")).health.unwrap();
    let seconds = Duration::from_secs;
    let wanted = Health {
        path: "/healthz".to_owned(),
        interval: seconds(10),
        timeout: seconds(2),
        unhealthy_after: 3,
        healthy_after: 2,
    };
    assert_eq!(health, wanted);
    assert!(read(BASE).health.is_none());
    refused_in(&upstream("health: «{}"), "apps[0].routes[0].upstream.health.path", "required key is missing");
    refused_in(&upstream("health: {path: «healthz}"), "healthz", "starts with a slash");
    refused_in(&upstream("health: {path: /, unhealthy_after: «0}"), "0", "not a whole number");
    refused_in(&upstream("health: {path: /, interval: «0s}"), "0s", "nothing");
}

#[test]
fn attempts_are_from_one_to_ten() {
    let attempts =
        |value: &str| route(&format!("upstream: \"https://orders\", retry: {{attempts: {value}}}"));
    assert_eq!(config(&attempts("1")).apps[0].routes[0].attempts, 1);
    assert_eq!(config(BASE).apps[0].routes[0].attempts, 2);
    refused_in(&attempts("«0"), "0", "not a whole number");
    refused_in(&attempts("«11"), "11", "not a whole number");
}

#[test]
fn a_rate_limit_has_a_number_and_a_time() {
    let limits = |value: &str| route(&format!("upstream: \"https://orders\", rate_limits: [{value}]"));
    let found =
        config(&limits("{requests: 5, per: 1s}, {requests: 100, per: 1m, by: session, shared: true}"));
    let wanted = [
        RateLimit { requests: 5, per: Duration::from_secs(1), by: RateLimitKey::Client, shared: false },
        RateLimit { requests: 100, per: Duration::from_secs(60), by: RateLimitKey::Session, shared: true },
    ];
    assert_eq!(found.apps[0].routes[0].rate_limits, wanted);
    let missing = "apps[0].routes[0].rate_limits[0]";
    refused_in(&limits("«{requests: 5}"), &format!("{missing}.per"), "required key is missing");
    refused_in(&limits("«{per: 1s}"), &format!("{missing}.requests"), "required key is missing");
    refused_in(&limits("{per: 1s, requests: «0}"), "0", "not a whole number");
    refused_in(&limits("{per: «0s, requests: 1}"), "0s", "nothing");
    refused_in(&limits("{per: 1s, requests: 1, by: «user}"), "user", "unknown value");
}

#[test]
fn logins_are_counted_by_client_alone() {
    let logins = |value: &str| with("    routes:", &format!("    login_rate_limits: [{value}]\n    routes:"));
    assert_eq!(config(&logins("{requests: 20, per: 1m}")).apps[0].login_rate_limits.len(), 1);
    refused_in(&logins("«{requests: 20, per: 1m, by: session}"), "{…}", "counted by session");
}

#[test]
fn files_have_nothing_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = |value: &str| route(&format!("files: {}, {value}", folder.path().display()));
    refused_in(&files("retry: «{attempts: 1}"), "{…}", "on a route of files");
    assert_eq!(
        config(&files("rate_limits: [{requests: 1, per: 1s}]")).apps[0].routes[0].rate_limits.len(),
        1
    );
}
