//! What every fault tells.

use super::*;

#[test]
fn all_faults_of_a_file_are_reported_in_one_run_each_at_its_place() {
    let text = "\
server:
  listn: 127.0.0.1:0
  limits: {header_bytes: 64KB, connections: many}
  shutdown_grace: 30
sessions:
  keys: [{env: SHORT_KEY}, hunter2]
  store: {memory: {}}
  store: {memory: {}}
  idle_timeout: 0s
apps:
  - origin: http://shop.example.com
    oidc:
      issuer: https://id.example.com?x=1
      client_auth: {client_secret_basic: {env: NOWHERE}}
    routes:
      - {path: /bff/x, upstream: ftp://orders}
";
    let found: Vec<_> = faults(text)
        .into_iter()
        .map(|fault| (fault.position.line, fault.position.column, fault.text))
        .collect();
    let expected = [
        (2, 3, "server.listen"),
        (2, 3, "listn"),
        (3, 26, "64KB"),
        (3, 45, "many"),
        (4, 19, "30"),
        (6, 16, "SHORT_KEY"),
        (6, 28, "[redacted]"),
        (8, 3, "store"),
        (9, 17, "0s"),
        (11, 13, "http://shop.example.com"),
        (13, 7, "apps[0].oidc.client_id"),
        (13, 15, "https://id.example.com?x=1"),
        (14, 48, "NOWHERE"),
        (16, 16, "/bff/x"),
        (16, 34, "ftp://orders"),
    ];
    assert_eq!(found, expected.map(|(line, column, text)| (line, column, text.to_owned())));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    for (old, new, key, nearest) in [
        ("listen:", "lisen:", "lisen", "`listen`"),
        ("client_id:", "clientid:", "clientid", "`client_id`"),
        ("upstream:", "upstrem:", "upstrem", "`upstream`"),
        ("store: {memory: {}}", "store: {memry: {}}", "memry", "`memory`"),
    ] {
        let found = faults(&with(old, new));
        let fault = found.iter().find(|fault| fault.problem == "unknown key").unwrap();
        assert_eq!((fault.text.as_str(), fault.remedy.as_str()), (key, nearest));
    }
    // What is misspelt once is not what the next could have been.
    let found = faults(&with("{memory: {}}", "{\"red\\tis\": {}, e: 1}"));
    let shown: Vec<_> = found.iter().map(|fault| (fault.text.as_str(), fault.remedy.as_str())).collect();
    assert_eq!(shown, [("red\tis", "`redis`"), ("e", "one of `memory`, `file`, `redis`")]);
    refused("  listen:", "  «colour: red\n  listen:", "colour", "unknown key");
    refused("{memory: {}}", "{memory: {«size: 1}}", "size", "unknown key");
    refused("sessions:", "«telemetri: {}\nsessions:", "telemetri", "unknown key");
}

#[test]
fn wrong_types_are_refused() {
    refused("keys: [{env: KEY}]", "keys: «{env: KEY}", "[redacted]", "not a list");
    refused("store: {memory: {}}", "store: «memory", "memory", "not a map");
    refused("store: {memory: {}}", "store: {memory«: }", "", "nothing stands here");
    refused("client_id: shop", "client_id: «[shop]", "[…]", "not a text");
    refused("client_id: shop", "client_id: «4711", "4711", "takes this for a number");
    refused("client_id: shop", "client_id: «true", "true", "takes this for a number or a truth value");
    refused("client_id: shop", "client_id: «''", "", "empty");
    refused("client_id: shop", "client_id: «~", "~", "nothing stands here");
    refused("client_id: shop", "client_id: shop\n      userinfo: «yes", "yes", "neither true nor false");
    refused("client_id: shop", "client_id: shop\n      userinfo: «'true'", "true", "neither true nor false");
    for count in ["0", "-1", "1.5", "1000001", "18446744073709551616", "'20000'", "many"] {
        let new = format!("limits: {{connections: «{count}}}\n  listen:");
        refused("listen:", &new, count.trim_matches('\''), "not a whole number");
    }
}

#[test]
fn duplicate_keys_are_refused() {
    refused("    routes:", "    «origin: https://other.example.com\n    routes:", "origin", "duplicate key");
    refused(
        "client_id: shop",
        "client_id: shop\n      \"«client_id\": shop".replace("\"«", "«\"").as_str(),
        "client_id",
        "duplicate key",
    );
}

#[test]
fn long_and_hostile_texts_are_shown_on_one_short_line() {
    let found = faults(&with("  store:", &format!("  \"\\e[2Jx\\n{}\": 1\n  store:", "y".repeat(500))));
    let shown = found[0].to_string();
    assert_eq!(shown.lines().count(), 2);
    let fault = shown.lines().next().unwrap();
    assert!(!shown.contains('\u{1b}') && fault.len() < 200, "{shown}");
}
