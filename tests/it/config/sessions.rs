//! `sessions`.

use super::*;

fn redis(value: &str) -> String {
    with("{memory: {}}", &format!("{{redis: {{{value}}}}}"))
}

#[test]
fn the_store_is_one_of_two() {
    assert!(matches!(config(BASE).store, Store::Memory));
    refused("{memory: {}}", "«{}", "sessions.store", "is missing");
    refused("{memory: {}}", "{memory: {}, «redis: {url: \"redis://localhost\"}}", "redis", "only one of");
}

#[test]
fn redis_is_named_by_host_port_and_database() {
    for url in ["redis://localhost", "redis://127.0.0.1:6380", "redis://[::1]:6379/3", "REDIS://localhost/"] {
        let loaded = accepted(&redis(&format!("url: \"{url}\", username: me, password: {{env: SECRET}}")));
        let Store::Redis(redis) = loaded.config.store else { panic!("{url}") };
        assert_eq!((redis.key_prefix.as_str(), redis.username.as_deref()), ("cloakroom:", Some("me")));
        assert_eq!(redis.password.unwrap().expose(), "hunter2");
        assert_eq!(loaded.warnings, []);
    }
    for url in [
        "http://localhost",
        "redis:///0",
        "redis://localhost/x",
        "redis://localhost/0/1",
        "redis://localhost?protocol=resp3",
        "localhost:6379",
        "redis://localhost#x",
    ] {
        refused_in(&redis(&format!("url: «\"{url}\"")), url, "");
    }
    refused_in(&redis("url: «redis://me@localhost"), "[redacted]", "a user in the URL");
    refused_in(&redis("url: «redis://:hunter2@localhost"), "[redacted]", "a password in the file");
}

#[test]
fn key_prefixes_are_short_visible_texts() {
    let with_prefix = |prefix: &str| redis(&format!("url: \"redis://localhost\", key_prefix: «'{prefix}'"));
    for prefix in ["a b", "é", &"x".repeat(65)] {
        refused_in(&with_prefix(prefix), prefix, "not a prefix");
    }
}

#[test]
fn r61_redis_elsewhere_is_warned_of() {
    let warnings = accepted(&redis("url: \"redis://redis.internal\"")).warnings;
    assert_eq!((warnings.len(), warnings[0].problem.as_str()), (1, "Redis without TLS"));
    assert_eq!((warnings[0].position.line, warnings[0].text.as_str()), (5, "redis://redis.internal"));
}

#[test]
fn an_idle_timeout_longer_than_the_lifetime_is_warned_of_where_both_are_written() {
    let file = |shared: &str, own: &str| {
        with("  store:", &format!("{shared}  store:"))
            .replace("    routes:", &format!("    session: {{{own}}}\n    routes:"))
    };
    for (shared, own) in [
        ("", ""),
        ("  lifetime: 4s\n", ""),
        ("  idle_timeout: 24h\n", ""),
        ("", "lifetime: 4s"),
        ("", "idle_timeout: 24h"),
        ("  idle_timeout: 1h\n  lifetime: 1h\n", ""),
        ("  idle_timeout: 1h\n", "lifetime: 1h"),
    ] {
        assert_eq!(accepted(&file(shared, own)).warnings, [], "{shared}{own}");
    }
    for (shared, own, line, lifetime) in [
        ("  idle_timeout: 2h\n  lifetime: 1h\n", "", 5, 6),
        ("  lifetime: 1h\n  idle_timeout: 2h\n", "", 6, 5),
        ("", "idle_timeout: 2h, lifetime: 1h", 12, 12),
        ("  idle_timeout: 2h\n", "lifetime: 1h", 5, 13),
        ("  lifetime: 1h\n", "idle_timeout: 2h", 13, 5),
    ] {
        let warnings = accepted(&file(shared, own)).warnings;
        let [warning] = warnings.as_slice() else { panic!("{shared}{own}: {warnings:#?}") };
        assert_eq!((warning.position.line, warning.text.as_str()), (line, "2h"), "{shared}{own}");
        assert!(warning.problem.contains(&format!("the lifetime of line {lifetime},")), "{warning}");
    }
    let session = &config(&file("  lifetime: 4s\n", "")).apps[0].session;
    assert_eq!(session.lifetime, Duration::from_secs(4));
}
