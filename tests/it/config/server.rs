//! `server`, `admin` and `telemetry`.

use super::*;

fn limit(value: &str) -> String {
    with("  listen:", &format!("  limits: {{{value}}}\n  listen:"))
}

#[test]
fn a_collector_has_an_address_and_secrets_that_stand_elsewhere() {
    let file = |keys: &str| with("sessions:", &format!("telemetry: {{otlp: {{{keys}}}}}\nsessions:"));
    let otlp = |keys: &str| config(&file(keys)).telemetry.otlp.unwrap();
    let plain = otlp("endpoint: http://localhost:4317");
    assert_eq!(plain.endpoint.as_str(), "http://localhost:4317/");
    assert_eq!((plain.protocol, plain.sample_ratio), (OtlpProtocol::Grpc, 1.0));
    assert!(plain.headers.is_empty() && plain.ca.is_none());
    let keys = "endpoint: https://otlp.example.com/x, protocol: http/protobuf, sample_ratio: 0.25, headers: {Api-Key: {env: SECRET}}";
    let full = otlp(keys);
    assert_eq!((full.protocol, full.sample_ratio), (OtlpProtocol::HttpProtobuf, 0.25));
    assert_eq!(full.headers["api-key"], "hunter2");
    assert!(!format!("{full:?}").contains("hunter2"));
    for ratio in ["1.1", "-0.1", "NaN", "'0.5'", "half", ".inf"] {
        let keys = format!("endpoint: http://localhost:4317, sample_ratio: «{ratio}");
        refused_in(&file(&keys), ratio.trim_matches('\''), "not a number from 0 to 1");
    }
    let nowhere = with("sessions:", "telemetry: {otlp: «{sample_ratio: 1}}\nsessions:");
    refused_in(&nowhere, "telemetry.otlp.endpoint", "a required key is missing");
    refused_in(
        &file("endpoint: «grpc://collector:4317"),
        "grpc://collector:4317",
        "not an http or https URL",
    );
    refused_in(&file("endpoint: http://localhost:4317, protocol: «http"), "http", "");
    let with_headers = |headers: &str| file(&format!("endpoint: http://localhost:4317, headers: {headers}"));
    refused_in(&with_headers("{a: «hunter2}"), "[redacted]", "a secret written in the file itself");
    refused_in(&with_headers("{«te: {env: SECRET}}"), "te", "the protocol itself");
    refused_in(&with_headers("{«'a b': {env: SECRET}}"), "a b", "not the name of a field");
    refused_in(&with_headers("«[a]"), "[redacted]", "not a map");
    let ca = "endpoint: http://localhost:4317, ca: «/nowhere";
    refused_in(&file(ca), "/nowhere", "where none is asked for");
}

#[test]
fn durations_have_a_number_and_a_unit() {
    for (text, milliseconds) in
        [("500ms", 500), ("90s", 90_000), ("30m", 1_800_000), ("12h", 43_200_000), ("7d", 604_800_000)]
    {
        let limits = config(&limit(&format!("header_timeout: {text}"))).server.limits;
        assert_eq!(limits.header_timeout, Duration::from_millis(milliseconds));
    }
    for text in [
        "90",
        "s",
        "9 s",
        "1h30m",
        "1.5h",
        "-1s",
        "0s",
        "0h",
        "90S",
        "1w",
        "99999999999999999999s",
        "9999999999999999h",
        "3651d",
    ] {
        refused_in(&limit(&format!("header_timeout: «{text}")), text, "");
    }
}

#[test]
fn a_duration_is_nothing_only_where_that_means_not_at_all() {
    let server = config(&with("  listen:", "  shutdown_grace: 0s\n  listen:")).server;
    assert_eq!(server.shutdown_grace, Duration::ZERO);
    let shared = |value: &str| with("  store:", &format!("  {value}\n  store:"));
    let own = |value: &str| with("    routes:", &format!("    session: {{{value}}}\n    routes:"));
    assert_eq!(config(&shared("store_outage_grace: 0s")).store_outage_grace, Duration::ZERO);
    for file in [shared, own] {
        let session = &config(&file("refresh_before_expiry: 0s")).apps[0].session;
        assert_eq!(session.refresh_before_expiry, Duration::ZERO);
        refused_in(&file("idle_timeout: «0s"), "0s", "nothing");
        refused_in(&file("lifetime: «0s"), "0s", "nothing");
    }
    for key in ["idle_timeout", "websocket_idle_timeout"] {
        refused_in(&limit(&format!("{key}: «0s")), "0s", "nothing");
    }
    for key in ["connect", "response", "idle"] {
        refused(
            "        upstream:",
            &format!("        timeouts: {{{key}: «0s}}\n        upstream:"),
            "0s",
            "nothing",
        );
    }
}

#[test]
fn sizes_are_bytes_or_have_a_binary_unit() {
    for (text, bytes) in
        [("65536", 65_536), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("'8192'", 8192)]
    {
        assert_eq!(config(&limit(&format!("body_bytes: {text}"))).server.limits.body_bytes, bytes);
    }
    for text in ["0", "0KiB", "64KB", "64k", "1.5MiB", "-1", "KiB", "64 KiB", "99999999999GiB"] {
        refused_in(&limit(&format!("body_bytes: «{text}")), text, "");
    }
    refused_in(&limit("header_bytes: «1023"), "1023", "too small");
    assert_eq!(config(&limit("header_bytes: 1KiB")).server.limits.header_bytes, 1024);
}

#[test]
fn counts_have_bounds() {
    let limits =
        config(&limit("connections: 7, requests: 8, http2_streams: 9, header_count: 20")).server.limits;
    assert_eq!(
        (limits.connections, limits.connections_per_client),
        (7, 7),
        "of one client as many as in all"
    );
    assert_eq!((limits.requests, limits.http2_streams, limits.header_count), (8, 9, 20));
    assert_eq!(config(&limit("connections_per_client: 3")).server.limits.connections_per_client, 3);
    for key in ["connections_per_client", "requests", "http2_streams"] {
        refused_in(&limit(&format!("{key}: «0")), "0", "not a whole number");
    }
    refused_in(&limit("header_count: «19"), "19", "not a whole number");
    let server = |value: &str| with("  listen:", &format!("  {value}\n  listen:"));
    assert_eq!(config(&server("workers: 3")).server.workers, Some(3));
    refused_in(&server("workers: «0"), "0", "not a whole number");
}

#[test]
fn what_proxies_say_of_a_connection_is_believed_of_trusted_ones() {
    let server = |value: &str| with("  listen:", &format!("  {value}\n  listen:"));
    assert!(config(&server("proxy_protocol: true\n  trusted_proxies: [10.0.0.7]")).server.proxy_protocol);
    refused_in(&server("proxy_protocol: «true"), "true", "no proxy is trusted");
    assert!(!config(BASE).server.proxy_protocol && !config(BASE).server.h2c);
}

#[test]
fn listeners_are_an_address_and_a_port() {
    for text in ["localhost:8443", ":8443", "8443", "0.0.0.0", "0.0.0.0:65536", "1.2.3:80"] {
        refused("listen: 127.0.0.1:0", &format!("listen: «'{text}'"), text, "not an address");
    }
    assert!(config(&with("127.0.0.1:0", "'[::1]:0'")).server.listen.is_ipv6());
}

#[test]
fn the_operators_listener_is_another_one() {
    let text = BASE.replace("127.0.0.1:0", "127.0.0.1:8443");
    refused_in(&format!("{text}admin: {{listen: «'127.0.0.1:8443'}}\n"), "127.0.0.1:8443", "public address");
    assert!(config(&format!("{text}admin: {{listen: '127.0.0.1:9090'}}\n")).admin.is_some());
    assert!(config(&format!("{BASE}admin: {{listen: '127.0.0.1:0'}}\n")).admin.is_some());
}

#[test]
fn trusted_proxies_are_networks_or_addresses() {
    let proxies = |value: &str| with("  listen:", &format!("  trusted_proxies: {value}\n  listen:"));
    let networks = config(&proxies("[10.0.0.0/8, 192.0.2.7, '2001:db8::/32']")).server.trusted_proxies;
    assert_eq!(
        networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
    );
    refused_in(&proxies("[«10.1.2.3/8]"), "10.1.2.3/8", "which of the two");
    refused_in(&proxies("[10.0.0.0/8, «proxy.internal]"), "proxy.internal", "not a network");
    refused_in(&proxies("[«10.0.0.0/33]"), "10.0.0.0/33", "not a network");
}

#[test]
fn the_audit_trail_has_a_key_of_its_own_and_a_folder_that_is_there() {
    let audit = |value: &str| format!("{BASE}telemetry: {{audit: {{{value}}}}}\n");
    let kept = config(&audit("key: {env: OTHER_KEY}")).telemetry.audit.unwrap();
    assert_eq!((kept.file, format!("{:?}", kept.key).as_str()), (None, "[redacted]"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let text = audit(&format!("key: {{env: OTHER_KEY}}, file: {}", file.display()));
    assert_eq!(config(&text).telemetry.audit.unwrap().file, Some(file));
    refused_in(&audit("key: {env: «KEY}"), "KEY", "one of the session keys");
    refused_in(&audit("key: {env: «SHORT_KEY}"), "SHORT_KEY", "this audit key has 16 bytes, not 32");
    refused_in(&audit("key: «secret"), "[redacted]", "in the file itself");
    let nowhere = audit("key: {env: OTHER_KEY}, file: «/nowhere/audit.log");
    refused_in(&nowhere, "/nowhere/audit.log", "a folder that is not there");
    assert!(faults(&audit("file: audit.log"))[0].problem.contains("key"));
}

#[test]
fn logs_have_known_formats_and_levels() {
    let log = |value: &str| format!("{BASE}telemetry: {{log: {{{value}}}}}\n");
    for level in ["error", "warn", "info", "debug", "trace"] {
        assert_eq!(config(&log(&format!("level: {level}"))).telemetry.log_level, level);
    }
    assert_eq!(config(&log("format: text")).telemetry.log_format, LogFormat::Text);
    refused_in(&log("level: «verbose"), "verbose", "unknown value");
    refused_in(&log("format: «xml"), "xml", "unknown value");
    assert!(!config(&format!("{BASE}telemetry: {{access_log: false}}\n")).telemetry.access_log);
}
