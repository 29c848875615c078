//! `sessions`.

use cloakroom::config::RedisServers;
use tempfile::TempDir;

use super::*;
use crate::support::certificates::Authority;

fn redis(value: &str) -> String {
    with("{memory: {}}", &format!("{{redis: {{{value}}}}}"))
}

#[test]
fn the_store_is_one_of_three() {
    assert!(matches!(config(BASE).store, Store::Memory));
    refused("{memory: {}}", "«{}", "sessions.store", "is missing");
    refused("{memory: {}}", "{memory: {}, «redis: {url: \"redis://localhost\"}}", "redis", "only one of");
}

#[test]
fn a_file_store_is_a_folder_there_or_to_be_made_in_one() {
    let file = |path: &str| with("{memory: {}}", &format!("{{file: {{path: «{path}}}}}"));
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().to_str().unwrap();
    for path in [there, &format!("{there}/new"), "target", "to-be-made-in-the-working-directory"] {
        let loaded = accepted(&file(path).replace('«', ""));
        assert!(matches!(loaded.config.store, Store::File { path: read } if read == Path::new(path)));
        assert_eq!(loaded.warnings, []);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made by reading the file");
    fs::write(folder.path().join("file"), "").unwrap();
    let (no_folder, far) = (format!("{there}/file"), format!("{there}/a/b"));
    refused_in(&file(&no_folder), &no_folder, "not a folder");
    refused_in(&file(&format!("{no_folder}/below")), &format!("{no_folder}/below"), "parent");
    refused_in(&file(&far), &far, "parent is not there");
    refused_in(&file("''"), "", "an empty text");
    refused("{memory: {}}", "{file: «{}}", "sessions.store.file.path", "is missing");
    refused("{memory: {}}", "{file: {path: target, «mode: 7}}", "mode", "");
}

#[test]
fn redis_is_named_by_host_port_and_database() {
    let tls = "rediss://redis.internal:6380/1";
    for url in
        ["redis://localhost", "redis://127.0.0.1:6380", "redis://[::1]:6379/3", "REDIS://localhost/", tls]
    {
        let loaded = accepted(&redis(&format!("url: \"{url}\", username: me, password: {{env: SECRET}}")));
        let Store::Redis(redis) = loaded.config.store else { panic!("{url}") };
        assert_eq!((redis.key_prefix.as_str(), redis.username.as_deref()), ("cloakroom:", Some("me")));
        assert_eq!(redis.password.unwrap().expose(), "hunter2");
        assert_eq!(redis.wait_for_replicas, 0);
        let RedisServers::Single(read) = redis.servers else { panic!("{url}") };
        assert_eq!(read.as_str(), url.to_lowercase());
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
    for prefix in ["a b", "é", "{a}", "a}", &"x".repeat(65)] {
        refused_in(&with_prefix(prefix), prefix, "not a prefix");
    }
}

#[test]
fn r61_redis_elsewhere_is_warned_of() {
    let warnings = accepted(&redis("url: \"redis://redis.internal\"")).warnings;
    assert_eq!((warnings.len(), warnings[0].problem.as_str()), (1, "Redis without TLS"));
    assert_eq!((warnings[0].position.line, warnings[0].text.as_str()), (5, "redis://redis.internal"));
    for servers in [
        "cluster: [\"redis://localhost\", \"redis://a.internal\", \"redis://b.internal\"]",
        "sentinel: {master: shop, urls: [\"redis://a.internal\", \"redis://localhost\", \"redis://b.internal\"]}",
    ] {
        let warnings = accepted(&redis(servers)).warnings;
        let texts: Vec<&str> = warnings.iter().map(|warning| warning.text.as_str()).collect();
        assert_eq!(texts, ["redis://a.internal", "redis://b.internal"], "{servers}");
        assert_eq!(accepted(&redis(&servers.replace("redis://", "rediss://"))).warnings, [], "{servers}");
    }
}

#[test]
fn redis_is_one_of_three() {
    refused("{memory: {}}", "{redis: «{username: me}}", "sessions.store.redis", "is missing");
    refused_in(
        &redis("url: \"redis://localhost\", «cluster: [\"redis://localhost\"]"),
        "cluster",
        "only one of",
    );
    refused_in(
        &redis("cluster: [\"redis://localhost\"], «sentinel: {master: x, urls: []}"),
        "sentinel",
        "only one of",
    );
    refused_in(&redis("«sentinels: {}"), "sentinels", "unknown key");
}

#[test]
fn a_cluster_is_named_by_some_nodes_of_one_scheme() {
    let cluster = |nodes: &str| redis(&format!("cluster: {nodes}"));
    let text = cluster("[\"rediss://[::1]:7000\", \"rediss://localhost/0\", \"rediss://b.internal:7000/\"]");
    let Store::Redis(read) = config(&text).store else { panic!("Redis") };
    let RedisServers::Cluster(nodes) = read.servers else { panic!("a cluster") };
    let nodes: Vec<&str> = nodes.iter().map(url::Url::as_str).collect();
    assert_eq!(nodes, ["rediss://[::1]:7000", "rediss://localhost/0", "rediss://b.internal:7000/"]);
    refused_in(&cluster("«[]"), "[…]", "an empty list");
    refused_in(&cluster("«redis://localhost"), "redis://localhost", "not a list");
    refused_in(&cluster("[«\"redis://localhost/1\"]"), "redis://localhost/1", "a database in a cluster");
    refused_in(&cluster("[«\"redis://me:hunter2@localhost\"]"), "[redacted]", "a password in the file");
    let mixed = "[\"rediss://localhost\", «\"redis://127.0.0.1\"]";
    refused_in(&cluster(mixed), "redis://127.0.0.1", "TLS for some");
    let twice = "[\"redis://localhost:7000\", «\"redis://localhost:7000/0\"]";
    refused_in(&cluster(twice), "redis://localhost:7000/0", "twice");
}

#[test]
fn a_master_is_named_by_its_name_and_its_sentinels() {
    let sentinel = |keys: &str| redis(&format!("sentinel: {{{keys}}}"));
    let text = sentinel("master: shop, urls: [\"redis://localhost\", \"redis://127.0.0.1:5000/\"]");
    let Store::Redis(read) = config(&text).store else { panic!("Redis") };
    let RedisServers::Sentinel { master, urls } = read.servers else { panic!("sentinels") };
    assert_eq!((master.as_str(), urls.len()), ("shop", 2));
    for (keys, text, problem) in [
        ("master: «'', urls: [\"redis://localhost\"]", "", "empty"),
        ("master: shop, urls: «[]", "[…]", "an empty list"),
        ("master: shop, urls: [«\"redis://localhost/0\"]", "redis://localhost/0", "a database of a sentinel"),
        ("master: shop, urls: [«\"http://localhost\"]", "http://localhost", "not the URL"),
        (
            "master: shop, urls: [\"redis://localhost\", «\"rediss://localhost:1\"]",
            "rediss://localhost:1",
            "TLS for some",
        ),
        ("master: shop, urls: [\"redis://localhost\", «\"redis://localhost\"]", "redis://localhost", "twice"),
    ] {
        refused_in(&sentinel(keys), text, problem);
    }
    refused_in(&redis("sentinel: «{master: shop}"), "sessions.store.redis.sentinel.urls", "is missing");
    let master = "sessions.store.redis.sentinel.master";
    refused_in(&redis("sentinel: «{urls: [\"redis://localhost\"]}"), master, "is missing");
}

#[test]
fn authorities_are_a_file_of_certificates_and_go_with_tls() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let with_ca = |url: &str, path: &str| redis(&format!("url: \"{url}\", ca: «\"{path}\""));
    let good = authority.pem().to_str().unwrap().to_owned();
    let Store::Redis(read) = config(&with_ca("rediss://redis", &good).replace('«', "")).store else {
        panic!("Redis")
    };
    let pem = fs::read(&good).unwrap();
    assert_eq!(read.ca.unwrap().pem(), pem);

    refused_in(&with_ca("redis://localhost", &good), &good, "where none is asked for");
    let damaged = String::from_utf8(pem.clone()).unwrap().replacen("MII", "AAA", 1);
    for (name, content, problem) in [
        ("empty", b"".to_vec(), "no certificate"),
        ("garbage", b"\0\xff".to_vec(), "no certificate"),
        ("cut", pem[..pem.len() / 2].to_vec(), "damaged"),
        ("damaged", damaged.clone().into_bytes(), "damaged"),
        ("one-of-two", [pem.clone(), damaged.into_bytes()].concat(), "damaged"),
        ("endless", vec![b'\n'; 1024 * 1024 + 1], "more than 1048576 bytes"),
    ] {
        let path = file(name, &content);
        refused_in(&with_ca("rediss://redis", &path), &path, problem);
    }
    refused_in(&with_ca("rediss://redis", "/nowhere.pem"), "/nowhere.pem", "cannot be read");
    let folder = folder.path().to_str().unwrap();
    refused_in(&with_ca("rediss://redis", folder), folder, "not a file");
}

#[test]
fn replicas_are_counted_up_to_a_hundred() {
    let waiting = |number: &str| redis(&format!("url: \"redis://localhost\", wait_for_replicas: «{number}"));
    for (written, number) in [("0", 0), ("2", 2), ("100", 100), ("\"${UNSET:-3}\"", 3)] {
        let Store::Redis(read) = config(&waiting(written).replace('«', "")).store else { panic!("Redis") };
        assert_eq!(read.wait_for_replicas, number);
    }
    for number in ["-1", "101", "1.5", "'1'", "all"] {
        refused_in(&waiting(number), number.trim_matches('\''), "not a whole number from 0 to 100");
    }
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
