//! From a file to a configuration, and every fault on the way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use cloakroom::config::{
    Auth, ClientAuth, Config, Csrf, Diagnostic, Faults, Loaded, LogFormat, Origin, SameSite, Store, Target,
    Token, load, parse,
};

/// The least there can be.
const BASE: &str = "\
server:
  listen: 127.0.0.1:0
sessions:
  keys: [{env: KEY}]
  store: {memory: {}}
apps:
  - origin: https://shop.example.com
    oidc:
      issuer: https://id.example.com
      client_id: shop
      client_auth: none
    routes:
      - path: /api
        upstream: https://orders.internal:9000
";

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "-_EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "KEY" | "KEY_AGAIN" => KEY,
        "OTHER_KEY" => OTHER_KEY,
        "SHORT_KEY" => "MDEyMzQ1Njc4OWFiY2RlZg==",
        "LONG_KEY" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWZnaA==",
        "ZERO_KEY" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "WORDS" => "not base64 at all",
        "SECRET" => "hunter2\n",
        "EMPTY" => "",
        "NEWLINE" => "\n",
        "PORT" => "4711",
        "INJECTION" => "x\n  listen: 1.2.3.4:5\nadmin: {}",
        _ => return None,
    };
    Some(value.to_owned())
}

fn with(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "{old}");
    BASE.replacen(old, new, 1)
}

fn accepted(text: &str) -> Loaded {
    parse("test.yaml", text, &environment).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn config(text: &str) -> Config {
    accepted(text).config
}

fn faults(text: &str) -> Vec<Diagnostic> {
    match parse("test.yaml", text, &environment) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(faults) => {
            assert!(!faults.diagnostics().is_empty());
            faults.diagnostics().to_vec()
        }
    }
}

/// Replaces `old` and expects one fault at the place marked `«`, with this text and this problem.
#[track_caller]
fn refused(old: &str, new: &str, text: &str, problem: &str) {
    refused_in(&with(old, new), text, problem);
}

#[track_caller]
fn refused_in(marked: &str, text: &str, problem: &str) {
    let before = marked.split_once('«').expect("a place is marked").0;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let found = faults(&marked.replace('«', ""));
    let [fault] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((fault.position.line, fault.position.column), (line, column), "{fault}");
    assert_eq!(fault.text, text, "{fault}");
    assert!(fault.problem.contains(problem), "{fault}");
    assert!(!fault.remedy.is_empty());
    let shown = fault.to_string();
    assert!(
        shown.starts_with(&format!("test.yaml:{line}:{column}: ")) && shown.contains("\n  write instead: ")
    );
}

mod files {
    use super::*;

    #[test]
    fn the_annotated_and_the_minimal_file_load() {
        let folder = tempfile::tempdir().unwrap();
        let environment = |name: &str| match name {
            "CLOAKROOM_SESSION_KEY" => Some(KEY.to_owned()),
            "SHOP_CLIENT_SECRET" | "REDIS_PASSWORD" => Some("hunter2".to_owned()),
            "SPA_FOLDER" => Some(folder.path().display().to_string()),
            _ => None,
        };
        for file in ["config/cloakroom.yaml", "config/minimal.yaml"] {
            let loaded = load(Path::new(file), &environment).unwrap_or_else(|faults| panic!("{faults}"));
            assert_eq!(loaded.warnings, [], "{file}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told_from_one_with_faults() {
        let faults = load(Path::new("/nowhere/cloakroom.yaml"), &environment).unwrap_err();
        assert!(matches!(faults, Faults::Unreadable { .. }) && faults.diagnostics().is_empty());
        assert!(faults.to_string().starts_with("/nowhere/cloakroom.yaml: the configuration cannot be read"));
        assert!(matches!(load(Path::new("/"), &environment), Err(Faults::Unreadable { .. })));
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        assert!(matches!(load(Path::new("/dev/zero"), &environment), Err(Faults::Unreadable { .. })));
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_refused_at_its_first_wrong_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin1.yaml");
        fs::write(&path, b"server:\n  listen: caf\xe9\n").unwrap();
        let faults = load(&path, &environment).unwrap_err();
        let [fault] = faults.diagnostics() else { panic!("{faults}") };
        assert_eq!((fault.position.line, fault.position.column), (2, 14));
        assert_eq!(fault.text, "0xe9");
    }
}

mod defaults {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let config = config(BASE);
        let limits = &config.server.limits;
        assert_eq!(
            (limits.connections, limits.header_bytes, limits.body_bytes),
            (20_000, 64 << 10, 100 << 20)
        );
        assert_eq!(limits.header_timeout, Duration::from_secs(10));
        assert_eq!(limits.idle_timeout, Duration::from_secs(75));
        assert_eq!(limits.websocket_idle_timeout, Duration::from_secs(600));
        assert_eq!(config.server.shutdown_grace, Duration::from_secs(30));
        assert!(config.server.trusted_proxies.is_empty() && config.admin.is_none());
        assert_eq!(
            (config.telemetry.log_format, config.telemetry.log_level.as_str()),
            (LogFormat::Json, "info")
        );

        let app = &config.apps[0];
        assert_eq!(app.base_path, "/bff");
        assert_eq!(app.oidc.scopes, ["openid"]);
        assert_eq!((app.oidc.timeout, app.oidc.userinfo), (Duration::from_secs(30), false));
        assert_eq!(
            (app.session.cookie_name.as_str(), app.session.same_site),
            ("__Host-cloakroom", SameSite::Strict)
        );
        assert_eq!(app.session.idle_timeout, Duration::from_secs(30 * 60));
        assert_eq!(app.session.lifetime, Duration::from_secs(12 * 3600));
        assert_eq!(app.session.refresh_before_expiry, Duration::from_secs(60));

        let route = &app.routes[0];
        assert_eq!((route.auth, route.token, route.csrf), (Auth::Required, Token::AccessToken, Csrf::Header));
        assert!(!route.websocket && !route.allow_encoded_slash);
        assert!(route.methods.is_none() && route.required_scopes.is_empty());
        let seconds =
            [route.timeouts.connect, route.timeouts.response, route.timeouts.idle].map(|time| time.as_secs());
        assert_eq!(seconds, [5, 60, 75]);
    }

    #[test]
    fn files_need_no_session_and_no_guard_by_default() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            with("upstream: https://orders.internal:9000", &format!("files: {}", folder.path().display()));
        let config = config(&text);
        let route = &config.apps[0].routes[0];
        assert_eq!((route.auth, route.csrf), (Auth::None, Csrf::Off));
        assert!(matches!(&route.target, Target::Files(path) if path == folder.path()));
    }

    #[test]
    fn an_app_overrides_what_all_share() {
        let text =
            with("    routes:", "    session: {idle_timeout: 20m, cookie: {same_site: lax}}\n    routes:");
        let session = config(&text).apps[0].session.clone();
        assert_eq!(
            (session.idle_timeout, session.lifetime),
            (Duration::from_secs(1200), Duration::from_secs(43_200))
        );
        assert_eq!(session.same_site, SameSite::Lax);
    }

    #[test]
    fn the_cookie_on_a_loopback_origin_over_http_has_no_prefix() {
        let config = config(&with("https://shop.example.com", "http://localhost:8080"));
        assert_eq!(config.apps[0].session.cookie_name, "cloakroom");
    }

    #[test]
    fn sessions_keys_and_the_store_have_no_default() {
        refused_in(
            &with("  keys: [{env: KEY}]\n  store", "  «store"),
            "sessions.keys",
            "required key is missing",
        );
        refused_in(
            &with("keys: [{env: KEY}]\n  store: {memory: {}}", "«keys: [{env: KEY}]"),
            "sessions.store",
            "required key is missing",
        );
        refused_in(
            &with("  listen: 127.0.0.1:0", "  «shutdown_grace: 1s"),
            "server.listen",
            "required key is missing",
        );
    }
}

mod faults_in_general {
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
  idle_timeout: 24h
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
            (9, 17, "24h"),
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
        refused("  listen:", "  «colour: red\n  listen:", "colour", "unknown key");
        refused("{memory: {}}", "{memory: {«size: 1}}", "size", "unknown key");
        refused("sessions:", "«telemetri: {}\nsessions:", "telemetri", "unknown key");
    }

    #[test]
    fn keys_of_later_versions_are_named_as_such() {
        for (old, new, key) in [
            ("  listen:", "  «tls: {}\n  listen:", "tls"),
            ("  store: {memory: {}}", "  store: {«file: {path: x}}", "file"),
            ("  store:", "  «store_outage_grace: 30s\n  store:", "store_outage_grace"),
            ("{memory: {}}", "{redis: {url: \"redis://localhost\", «cluster: []}}", "cluster"),
            ("{memory: {}}", "{redis: {url: \"redis://localhost\", «sentinel: {}}}", "sentinel"),
            ("{memory: {}}", "{redis: {url: \"redis://localhost\", «ca: x}}", "ca"),
            (
                "{memory: {}}",
                "{redis: {url: \"redis://localhost\", «wait_for_replicas: 1}}",
                "wait_for_replicas",
            ),
            ("{memory: {}}", "{redis: {url: «rediss://redis}}", "rediss://redis"),
            (
                "      client_id",
                "      «pushed_authorization_requests: auto\n      client_id",
                "pushed_authorization_requests",
            ),
            ("      client_id", "      «response_mode: query\n      client_id", "response_mode"),
            ("client_auth: none", "client_auth: {«private_key_jwt: {}}", "private_key_jwt"),
            ("client_auth: none", "client_auth: {«tls_client_auth: {}}", "tls_client_auth"),
            ("client_auth: none", "client_auth: «self_signed_tls_client_auth", "self_signed_tls_client_auth"),
            ("path: /api", "path: /api\n        token: «client_credentials", "client_credentials"),
            ("path: /api", "path: /api\n        «retry: {attempts: 2}", "retry"),
            ("sessions:", "telemetry: {«otlp: {}}\nsessions:", "otlp"),
        ] {
            refused(old, new, key, "not supported by this version yet");
        }
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
        refused(
            "client_id: shop",
            "client_id: shop\n      userinfo: «'true'",
            "true",
            "neither true nor false",
        );
        for count in ["0", "-1", "1.5", "1000001", "18446744073709551616", "'20000'", "many"] {
            let new = format!("limits: {{connections: «{count}}}\n  listen:");
            refused("listen:", &new, count.trim_matches('\''), "not a whole number");
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        refused(
            "    routes:",
            "    «origin: https://other.example.com\n    routes:",
            "origin",
            "duplicate key",
        );
        refused(
            "client_id: shop",
            "client_id: shop\n      \"«client_id\": shop".replace("\"«", "«\"").as_str(),
            "client_id",
            "duplicate key",
        );
    }

    #[test]
    fn long_and_hostile_texts_are_shown_on_one_short_line() {
        let found = faults(&with(
            "client_id: shop",
            &format!("\"\\e[2Jx\\n{}\": 1\n      client_id: shop", "y".repeat(500)),
        ));
        let shown = found[0].to_string();
        assert_eq!(shown.lines().count(), 2);
        assert!(!shown.contains('\u{1b}') && shown.len() < 400, "{shown}");
    }
}

mod yaml {
    use super::*;

    #[test]
    fn broken_yaml_is_refused_where_it_breaks() {
        for (text, line, column) in [
            ("server:\n\tlisten: x\n", 2, 2),
            ("server:\n  listen: \"127.0.0.1\n", 2, 11),
            ("server:\n  listen: '127.0.0.1\n", 2, 11),
            ("server: {listen: x\n", 2, 1),
            ("apps: [a, b\n", 2, 1),
            ("server:\n    listen: x\n  limits: y\n", 3, 3),
            ("server: a: b\n", 1, 10),
            ("server: @x\n", 1, 9),
            ("server: *nobody\n", 1, 9),
            ("server: %x\n  - y: [\n", 1, 9),
        ] {
            let found = faults(text);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert!(found[0].problem.starts_with("this is not YAML: "), "{}", found[0]);
            assert_eq!(
                (found[0].position.line, found[0].position.column),
                (line, column),
                "{text}{}",
                found[0]
            );
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_refused() {
        for text in ["", "\n\n", "# only a comment\n", "---\n", "null", "\u{feff}"] {
            let found = faults(text);
            assert_eq!((found.len(), found[0].problem.as_str()), (1, "the file says nothing"), "{text:?}");
        }
    }

    #[test]
    fn only_a_map_can_be_a_configuration() {
        for text in ["- server\n", "[]", "hello", "42"] {
            assert!(faults(text)[0].problem.ends_with("not a map of keys and values"), "{text}");
        }
    }

    #[test]
    fn a_second_document_is_refused() {
        refused_in(&format!("---\n{BASE}«---\n{BASE}"), "---", "second YAML document");
        assert_eq!(config(&format!("---\n{BASE}...\n")).apps.len(), 1);
    }

    #[test]
    fn characters_that_yaml_does_not_allow_are_refused() {
        refused("client_id: shop", "client_id: sh«\0op", "\\u{0}", "does not allow");
        refused("client_id: shop", "client_id: sh«\u{1b}op", "\\u{1b}", "does not allow");
        refused("client_id: shop", "client_id: é«\u{7f}", "\\u{7f}", "does not allow");
        let junk: String = (0..8).flat_map(|_| (0..=u8::MAX).rev()).map(char::from).collect();
        assert_eq!(faults(&junk).len(), 1);
    }

    #[test]
    fn tags_and_merge_keys_are_refused() {
        refused("client_id: shop", "client_id: «!secret shop", "!secret", "tags");
        refused("client_id: shop", "client_id: «!!str shop", "tag:yaml.org,2002:!str", "tags");
        refused("    routes:", "    «<<: {}\n    routes:", "<<", "unknown key");
        assert!(faults(&with("    routes:", "    <<: {}\n    routes:"))[0].remedy.contains("no merge keys"));
    }

    #[test]
    fn keys_must_be_texts() {
        refused("sessions:", "? «[a]\n: 1\nsessions:", "[…]", "not a text");
    }

    #[test]
    fn an_alias_repeats_a_value() {
        let text = with("{env: KEY}]", "&key {env: KEY}]")
            .replace("client_auth: none", "client_auth: {client_secret_basic: *key}");
        assert!(
            matches!(&config(&text).apps[0].oidc.client_auth, ClientAuth::ClientSecretBasic(secret) if secret.expose() == KEY)
        );
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let alias = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
        }
        let found = faults(&bomb);
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.contains("aliases counted in full"), "{}", found[0]);
        refused_in("a: &a [«*a]\n", "*", "inside of what it stands for");
    }

    #[test]
    fn deep_nesting_is_refused() {
        for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)]
        {
            let found = faults(&deep);
            let problem = found[0].problem.as_str();
            assert!(
                problem == "nested more than 32 deep" || problem.ends_with("recursion limit exceeded"),
                "{problem}"
            );
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn no_damage_to_a_file_makes_the_reading_panic_or_lose_its_place() {
        let minimal = fs::read_to_string("config/minimal.yaml").unwrap();
        let lines = minimal.lines().count();
        let check = |text: &str| {
            if let Err(faults) = parse("test.yaml", text, &environment) {
                assert!(!faults.diagnostics().is_empty());
                for fault in faults.diagnostics() {
                    assert!(
                        (1..=lines + 2).contains(&fault.position.line) && fault.position.column > 0,
                        "{fault}"
                    );
                }
            }
        };
        for (index, character) in minimal.char_indices() {
            check(&minimal[..index]);
            for damage in ["", "\t", "\"", "{", "]", ":", "\n", "&a ", "*a", "\u{85}", "- ", "|"] {
                check(&format!("{}{damage}{}", &minimal[..index], &minimal[index + character.len_utf8()..]));
            }
        }
    }
}

mod environment {
    use super::*;

    #[test]
    fn values_come_from_the_environment() {
        assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${PORT}")).server.listen.port(), 4711);
        assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${UNSET:-4712}")).server.listen.port(), 4712);
        assert_eq!(config(&with("127.0.0.1:0", "127.0.0.1:${EMPTY:-4713}")).server.listen.port(), 4713);
        let limits =
            config(&with("  listen", "  limits: {connections: \"${PORT}\"}\n  listen")).server.limits;
        assert_eq!(limits.connections, 4711);
        assert_eq!(config(&with("client_id: shop", "client_id: ${PORT}")).apps[0].oidc.client_id, "4711");
        assert_eq!(
            config(&with("client_id: shop", "client_id: $${PORT}$")).apps[0].oidc.client_id,
            "${PORT}$"
        );
    }

    #[test]
    fn a_value_never_injects_structure() {
        let injected = with("127.0.0.1:0", "«${INJECTION}");
        refused_in(&injected, "${INJECTION}", "once the environment is put in");
    }

    #[test]
    fn missing_variables_and_broken_placeholders_are_refused() {
        refused("client_id: shop", "client_id: «${UNSET}", "${UNSET}", "UNSET is not set");
        refused("client_id: shop", "client_id: «${EMPTY}", "${EMPTY}", "empty");
        refused("client_id: shop", "client_id: «a${PORT", "a${PORT", "without its `}`");
        refused("client_id: shop", "client_id: «${}", "${}", "not the name");
        refused("client_id: shop", "client_id: «${1A}", "${1A}", "not the name");
        refused("client_id: shop", "client_id: «${A-B}", "${A-B}", "not the name");
    }

    #[test]
    fn faults_show_the_placeholder_and_never_its_value() {
        for key in ["client_id: ${INJECTION}", "client_id: shop\n      timeout: ${SECRET}"] {
            let found = faults(&with("client_id: shop", key));
            assert!(!format!("{found:?}").contains("hunter2") && !format!("{found:?}").contains("1.2.3.4"));
        }
    }
}

mod secrets {
    use super::*;

    /// A file of this content and mode, named by `{file: …}`.
    fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> String {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        format!("{{file: {}}}", path.display())
    }

    fn client_secret(reference: &str) -> String {
        with("client_auth: none", &format!("client_auth: {{client_secret_post: {reference}}}"))
    }

    fn secret_of(text: &str) -> String {
        match &config(text).apps[0].oidc.client_auth {
            ClientAuth::ClientSecretPost(secret) => secret.expose().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment_without_its_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(secret_of(&client_secret("{env: SECRET}")), "hunter2");
        for (content, expected) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            ("hunter2\n\n", "hunter2\n"),
            (" hunter2 ", " hunter2 "),
        ] {
            let reference = file(folder.path(), "secret", content.as_bytes(), 0o640);
            assert_eq!(secret_of(&client_secret(&reference)), expected);
        }
    }

    #[test]
    fn r64_a_secret_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o604, 0o777] {
            let reference = file(folder.path(), "secret", b"hunter2", mode);
            let found = faults(&client_secret(&reference));
            assert!(found[0].problem.contains("can be read by others"), "{}", found[0]);
        }
    }

    #[test]
    fn r64_the_mode_is_that_of_the_file_behind_a_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink(folder.path().join("secret"), &link).unwrap();
        let reference = format!("{{file: {}}}", link.display());
        file(folder.path(), "secret", b"hunter2", 0o600);
        assert_eq!(secret_of(&client_secret(&reference)), "hunter2");
        file(folder.path(), "secret", b"hunter2", 0o604);
        assert!(faults(&client_secret(&reference))[0].problem.contains("can be read by others"));
    }

    #[test]
    fn secrets_that_cannot_be_read_are_refused_at_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, content: &[u8]| file(folder.path(), name, content, 0o600);
        for (reference, problem) in [
            ("{file: /nowhere/secret}".to_owned(), "cannot be read"),
            (format!("{{file: {}}}", folder.path().display()), "not a file"),
            ("{file: /dev/zero}".to_owned(), "not a file"),
            (of("empty", b""), "is empty"),
            (of("newline", b"\n"), "is empty"),
            (of("binary", b"\xff\xfe"), "cannot be read"),
            (of("large", &[b'x'; 70_000]), "more than 65536 bytes"),
            ("{env: UNSET}".to_owned(), "not set"),
            ("{env: EMPTY}".to_owned(), "is empty"),
            ("{env: NEWLINE}".to_owned(), "is empty"),
        ] {
            let found = faults(&client_secret(&reference));
            assert_eq!(found.len(), 1);
            assert!(found[0].problem.contains(problem), "{}", found[0]);
            assert!(reference.contains(&found[0].text) && found[0].position.line == 11, "{}", found[0]);
        }
    }

    #[test]
    fn a_secret_in_the_file_itself_is_refused_and_never_shown() {
        for (old, new) in [
            ("client_auth: none", "client_auth: {client_secret_basic: hunter2}"),
            ("client_auth: none", "client_auth: {client_secret_basic: [hunter2]}"),
            ("client_auth: none", "client_auth: {client_secret_post: \"hunter2\"}"),
            ("client_auth: none", "client_auth: {client_secret_post: {value: hunter2}}"),
            ("client_auth: none", "client_auth: {client_secret_post: {env: hunter2-with-dashes}}"),
            ("client_auth: none", "client_auth: hunter2"),
            ("client_auth: none", "client_auth: {client_secret_post: \"hunter2"),
            ("client_auth: none", "client_auth: {client_secret_post: \"hunter2\\q\"}"),
            ("client_auth: none", "client_auth: {client_secret_post: &a hunter2, <<: *a}"),
            ("[{env: KEY}]", "[hunter2]"),
            ("[{env: KEY}]", "hunter2"),
            ("[{env: KEY}]", "[hunter2"),
            ("{memory: {}}", "{redis: {url: \"redis://localhost\", password: hunter2}}"),
            ("{memory: {}}", "{redis: {url: \"redis://user:hunter2@localhost\"}}"),
            ("{memory: {}}", "{redis: {url: \"rediss://user:hunter2@localhost\"}}"),
            ("{memory: {}}", "{redis: \"redis://user:hunter2@localhost\"}"),
            ("https://orders.internal:9000", "https://user:hunter2@orders.internal"),
            ("https://orders.internal:9000", "{url: \"https://user:hunter2@orders.internal\"}"),
            ("https://id.example.com", "https://user:hunter2@id.example.com"),
            ("https://shop.example.com", "https://user:hunter2@shop.example.com"),
        ] {
            let found = faults(&with(old, new));
            let shown = format!("{found:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        refused(
            "client_auth: none",
            "client_auth: {client_secret_basic: «hunter2}",
            "[redacted]",
            "written in the file",
        );
        refused("[{env: KEY}]", "[«hunter2]", "[redacted]", "written in the file");
        refused(
            "{memory: {}}",
            "{redis: {url: «redis://u:hunter2@localhost}}",
            "[redacted]",
            "a password in the file",
        );
    }

    #[test]
    fn exactly_one_source_of_a_secret_is_named() {
        refused(
            "client_auth: none",
            "client_auth: {client_secret_basic: {env: SECRET, «file: x}}",
            "file",
            "only one of",
        );
        refused(
            "client_auth: none",
            "client_auth: {client_secret_basic: «{}}",
            "apps[0].oidc.client_auth.client_secret_basic",
            "is missing",
        );
    }

    #[test]
    fn session_keys_are_base64_of_either_alphabet_padded_or_not() {
        for key in [
            KEY,
            KEY.trim_end_matches('='),
            OTHER_KEY,
            "-_EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "+/EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
        ] {
            let loaded = parse("test.yaml", BASE, &|_| Some(format!("{key}\n"))).unwrap();
            assert_eq!(loaded.config.session_keys[0].expose()[2..], b"23456789abcdef0123456789abcdef"[..]);
        }
        assert_eq!(config(&with("[{env: KEY}]", "[{env: OTHER_KEY}, {env: KEY}]")).session_keys.len(), 2);
    }

    #[test]
    fn r64_short_long_zero_and_repeated_session_keys_are_refused() {
        refused("{env: KEY}", "{env: «SHORT_KEY}", "SHORT_KEY", "16 bytes, not 32");
        refused("{env: KEY}", "{env: «LONG_KEY}", "LONG_KEY", "34 bytes, not 32");
        refused("{env: KEY}", "{env: «ZERO_KEY}", "ZERO_KEY", "all zeros");
        refused("{env: KEY}", "{env: «WORDS}", "WORDS", "not base64");
        refused("{env: KEY}", "{env: KEY}, {env: «KEY_AGAIN}", "KEY_AGAIN", "twice");
        refused("[{env: KEY}]", "«[]", "[…]", "empty list");
    }

    #[test]
    fn r62_a_configuration_prints_no_secret() {
        let text = client_secret("{env: SECRET}")
            .replace("{memory: {}}", "{redis: {url: \"redis://localhost\", password: {env: SECRET}}}");
        let printed = format!("{:?}", config(&text));
        assert!(!printed.contains("hunter2") && printed.contains("[redacted]"));
        assert!(!printed.contains("48, 49, 50"), "the bytes of the key");
    }
}

mod server {
    use super::*;

    fn limit(value: &str) -> String {
        with("  listen:", &format!("  limits: {{{value}}}\n  listen:"))
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
    fn sizes_are_bytes_or_have_a_binary_unit() {
        for (text, bytes) in
            [("65536", 65_536), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("'8192'", 8192)]
        {
            assert_eq!(config(&limit(&format!("body_bytes: {text}"))).server.limits.body_bytes, bytes);
        }
        for text in ["0", "0KiB", "64KB", "64k", "1.5MiB", "-1", "KiB", "64 KiB", "99999999999GiB"] {
            refused_in(&limit(&format!("body_bytes: «{text}")), text, "");
        }
        refused_in(&limit("header_bytes: «8191"), "8191", "too small");
        assert_eq!(config(&limit("header_bytes: 8KiB")).server.limits.header_bytes, 8192);
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
        refused_in(
            &format!("{text}admin: {{listen: «'127.0.0.1:8443'}}\n"),
            "127.0.0.1:8443",
            "public address",
        );
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
    fn logs_have_known_formats_and_levels() {
        let log = |value: &str| format!("{BASE}telemetry: {{log: {{{value}}}}}\n");
        for level in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(config(&log(&format!("level: {level}"))).telemetry.log_level, level);
        }
        assert_eq!(config(&log("format: text")).telemetry.log_format, LogFormat::Text);
        refused_in(&log("level: «verbose"), "verbose", "unknown value");
        refused_in(&log("format: «xml"), "xml", "unknown value");
    }
}

mod sessions {
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
        for url in
            ["redis://localhost", "redis://127.0.0.1:6380", "redis://[::1]:6379/3", "REDIS://localhost/"]
        {
            let loaded =
                accepted(&redis(&format!("url: \"{url}\", username: me, password: {{env: SECRET}}")));
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
        let with_prefix =
            |prefix: &str| redis(&format!("url: \"redis://localhost\", key_prefix: «'{prefix}'"));
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
    fn idling_takes_no_longer_than_the_lifetime() {
        let shared = |value: &str| with("  store:", &format!("  {value}\n  store:"));
        refused_in(&shared("idle_timeout: «13h"), "13h", "longer than the lifetime");
        refused_in(&shared("lifetime: «29m"), "29m", "longer than the lifetime");
        refused_in(
            &shared("{idle_timeout: 2h, lifetime: 1h}")
                .replace("{idle_timeout: 2h, lifetime: 1h}", "idle_timeout: 2h\n  lifetime: «1h"),
            "1h",
            "longer than the lifetime",
        );
        let own = |value: &str| with("    routes:", &format!("    session: {{{value}}}\n    routes:"));
        refused_in(&own("idle_timeout: «13h"), "13h", "longer than the lifetime");
        refused_in(&own("lifetime: «10m"), "10m", "longer than the lifetime");
        assert_eq!(config(&shared("idle_timeout: 12h")).apps.len(), 1);
    }
}

mod apps {
    use super::*;

    fn session(value: &str) -> String {
        with("    routes:", &format!("    session: {{cookie: {{{value}}}}}\n    routes:"))
    }

    #[test]
    fn origins_are_normalised() {
        for (text, origin, authority) in [
            ("https://SHOP.Example.com:443", "https://shop.example.com", "shop.example.com"),
            ("HTTPS://shop.example.com:8443", "https://shop.example.com:8443", "shop.example.com:8443"),
            ("http://localhost:8080", "http://localhost:8080", "localhost:8080"),
            ("http://127.8.9.1:80", "http://127.8.9.1", "127.8.9.1"),
            ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
        ] {
            let parsed = Origin::parse(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.authority()), (origin, authority));
            assert_eq!(
                config(&with("https://shop.example.com", &format!("\"{text}\""))).apps[0].origin,
                parsed
            );
        }
    }

    #[test]
    fn r61_an_origin_is_https_unless_loopback() {
        for text in [
            "http://shop.example.com",
            "http://app.localhost",
            "http://10.0.0.1",
            "http://[::ffff:127.0.0.1]",
            "http://localhost.example.com",
            "http://0.0.0.0",
        ] {
            refused("origin: https://shop.example.com", &format!("origin: «{text}"), text, "plain http");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for text in [
            "https://shop.example.com/",
            "https://shop.example.com/app",
            "https://shop.example.com?x",
            "https://shop.example.com#x",
            "https://shop.example.com:0",
            "https://shop.example.com:99999",
            "https:\\\\shop.example.com",
            "https:shop.example.com",
            "https:///shop.example.com",
            "https://",
            "https://shop example.com",
            "https://shöp.example.com",
            "ftp://shop.example.com",
            "shop.example.com",
            "null",
        ] {
            let new = format!("origin: «'{text}'");
            refused("origin: https://shop.example.com", &new, text, "");
        }
        refused(
            "origin: https://shop.example.com",
            "origin: «https://me@shop.example.com",
            "[redacted]",
            "user information",
        );
        refused(
            "origin: https://shop.example.com",
            "origin: «https://@shop.example.com",
            "[redacted]",
            "user information",
        );
    }

    #[test]
    fn no_two_apps_have_one_host() {
        let app = BASE.split_once("apps:\n").unwrap().1;
        for (first, second) in [
            ("https://shop.example.com", "https://SHOP.example.com:443"),
            ("https://localhost", "http://localhost"),
        ] {
            let text = with("https://shop.example.com", first);
            let second_app = app.replace("origin: https://shop.example.com", &format!("origin: «{second}"));
            refused_in(&format!("{text}{second_app}"), second, "another app has this host");
        }
        let other = app.replace("https://shop.example.com", "https://other.example.com");
        assert_eq!(accepted(&format!("{BASE}{other}")).warnings, []);
    }

    #[test]
    fn apps_that_share_a_cookie_are_warned_of() {
        let app = BASE.split_once("apps:\n").unwrap().1;
        let text = format!("{BASE}{}", app.replace("shop.example.com", "shop.example.com:8443"));
        let warnings = accepted(&text).warnings;
        assert_eq!((warnings.len(), warnings[0].position.line), (1, 15));
        assert!(warnings[0].problem.contains("cookies ignore ports"));
    }

    #[test]
    fn base_paths_are_canonical_and_below_the_root() {
        let base_path = |value: &str| with("    oidc:", &format!("    base_path: «'{value}'\n    oidc:"));
        assert_eq!(config(&base_path("/auth/bff").replace('«', "")).apps[0].base_path, "/auth/bff");
        for path in ["/", "bff", "/bff/", "//bff", "/a/../bff", "/b%66f", "/bff?x", "/bff#x", "/b f", "/b\\f"]
        {
            refused_in(&base_path(path), path, "");
        }
    }

    #[test]
    fn issuers_are_kept_as_written() {
        for issuer in
            ["https://ID.example.com/realms/shop/", "http://LOCALHOST:9000", "https://id.example.com:443"]
        {
            assert_eq!(config(&with("https://id.example.com", issuer)).apps[0].oidc.issuer.as_str(), issuer);
        }
        for issuer in [
            "http://id.example.com",
            "https://id.example.com?tenant=1",
            "https://id.example.com#x",
            "https:///id.example.com",
            "id.example.com",
            "ftp://id.example.com",
            "https://id.example.com/a b",
            "https://id.example.com/<realm>",
            "https://i{d}.example.com",
        ] {
            refused("issuer: https://id.example.com", &format!("issuer: «'{issuer}'"), issuer, "");
        }
    }

    #[test]
    fn an_issuer_whose_scheme_is_in_capitals_is_refused() {
        for issuer in ["HTTPS://id.example.com", "Http://127.0.0.1:9000"] {
            refused("issuer: https://id.example.com", &format!("issuer: «{issuer}"), issuer, "in capitals");
        }
    }

    #[test]
    fn client_authentication_is_one_of_three() {
        assert!(matches!(config(BASE).apps[0].oidc.client_auth, ClientAuth::None));
        refused(
            "client_auth: none",
            "client_auth: «client_secret_basic",
            "client_secret_basic",
            "not `none`",
        );
        refused("client_auth: none", "client_auth: {«none: {}}", "none", "unknown key");
        refused("client_auth: none", "client_auth: «[]", "[redacted]", "a list");
        refused(
            "client_auth: none",
            "client_auth: {client_secret_basic: {env: SECRET}, «client_secret_post: {env: SECRET}}",
            "client_secret_post",
            "only one of",
        );
        refused("client_id: shop", "client_id: «shöp", "shöp", "not a client_id");
    }

    #[test]
    fn scopes_hold_openid_and_nothing_twice() {
        let scopes =
            |value: &str| with("      client_id", &format!("      scopes: {value}\n      client_id"));
        assert_eq!(config(&scopes("[openid, 'api:read']")).apps[0].oidc.scopes, ["openid", "api:read"]);
        refused_in(&scopes("«[profile]"), "[…]", "`openid` is missing");
        refused_in(&scopes("«[]"), "[…]", "empty list");
        refused_in(&scopes("[openid, «openid]"), "openid", "twice");
        refused_in(&scopes("[openid, «profile email]"), "profile email", "not a scope");
        refused_in(&scopes("[openid, «'a\"b']"), "a\"b", "not a scope");
        refused_in(&scopes("«openid profile"), "openid profile", "not a list");
    }

    #[test]
    fn authorization_parameters_are_not_the_gateways_own() {
        let parameters = |value: &str| {
            with("      client_id", &format!("      authorization_parameters: {{{value}}}\n      client_id"))
        };
        let config = config(&parameters("audience: https://api.example.com, max_age: '3600'"));
        let oidc = &config.apps[0].oidc;
        assert_eq!(
            oidc.authorization_parameters,
            [("audience".to_owned(), "https://api.example.com".to_owned())].into()
        );
        assert_eq!(oidc.max_age, Some(3600));
        for name in [
            "client_id",
            "response_type",
            "redirect_uri",
            "state",
            "nonce",
            "code_challenge",
            "code_challenge_method",
            "scope",
            "response_mode",
            "request",
            "request_uri",
        ] {
            refused_in(&parameters(&format!("«{name}: x")), name, "sets itself");
        }
        refused_in(&parameters("max_age: «3600"), "3600", "takes this for a number");
        for max_age in ["soon", "-1", "1.5", "60s"] {
            refused_in(&parameters(&format!("max_age: «'{max_age}'")), max_age, "not a number of seconds");
        }
    }

    #[test]
    fn cookie_names_fit_their_origin() {
        assert_eq!(config(&session("name: __Host-shop")).apps[0].session.cookie_name, "__Host-shop");
        for name in ["shop", "__Secure-shop", "__host-shop", "__Host-"] {
            refused_in(&session(&format!("name: «{name}")), name, "`__Host-`");
        }
        let on_http = |name: &str| {
            session(&format!("name: «{name}")).replace("https://shop.example.com", "http://localhost:8080")
        };
        assert_eq!(config(&on_http("shop").replace('«', "")).apps[0].session.cookie_name, "shop");
        for name in ["__Host-shop", "__host-shop", "__Secure-shop"] {
            refused_in(&on_http(name), name, "asks for TLS");
        }
    }

    #[test]
    fn cookie_names_are_short_tokens() {
        let long = format!("__Host-{}", "x".repeat(58));
        for name in ["__Host-a b", "__Host-a;b", "__Host-a=b", "__Host-é", "__Host-\"", &long] {
            refused_in(&session(&format!("name: «'{name}'")), name, "not a cookie's name");
        }
        assert_eq!(config(&session(&format!("name: {}", &long[..64]))).apps[0].session.cookie_name.len(), 64);
        refused_in(&session("same_site: «none"), "none", "unknown value");
    }
}

mod routes {
    use super::*;

    fn route(value: &str) -> String {
        with(
            "      - path: /api\n        upstream: https://orders.internal:9000",
            &format!("      - {{{value}}}"),
        )
    }

    fn upstream(value: &str) -> String {
        route(&format!("path: /api, upstream: \"https://orders\", {value}"))
    }

    #[test]
    fn every_key_of_a_route_is_read() {
        let text = upstream(
            "auth: required, token: none, csrf: same_origin, required_scopes: [read], methods: [GET, M-SEARCH], \
             timeouts: {connect: 1s, response: 2s, idle: 3s}, websocket: true, allow_encoded_slash: true",
        );
        let config = config(&text);
        let route = &config.apps[0].routes[0];
        assert_eq!((route.auth, route.token, route.csrf), (Auth::Required, Token::None, Csrf::SameOrigin));
        assert_eq!(route.required_scopes, ["read"]);
        assert_eq!(
            route.methods.as_ref().unwrap().iter().map(http::Method::as_str).collect::<Vec<_>>(),
            ["GET", "M-SEARCH"]
        );
        assert_eq!(route.timeouts.response, Duration::from_secs(2));
        assert!(route.websocket && route.allow_encoded_slash);
    }

    #[test]
    fn paths_are_canonical() {
        for path in ["/", "/api", "/api/v1.0/a~b", "/@me", "/a.b/..c"] {
            assert_eq!(
                config(&route(&format!("path: '{path}', upstream: \"https://orders\""))).apps[0].routes[0]
                    .path,
                path
            );
        }
        for path in [
            "api", "/api/", "//api", "/a//b", "/a/./b", "/a/../b", "/..", "/.", "/%61pi", "/a%2fb", "/a?b",
            "/a#b", "/a\\b", "/a b", "/é", "*",
        ] {
            refused_in(&route(&format!("path: «'{path}', upstream: \"https://orders\"")), path, "a path");
        }
    }

    #[test]
    fn each_path_has_one_route_and_none_takes_the_gateways_own() {
        let second = format!("{BASE}      - {{path: «/api, upstream: \"https://orders\"}}\n");
        refused_in(&second, "/api", "another route has this path");
        for path in ["/bff", "/bff/x"] {
            refused_in(
                &route(&format!("path: «{path}, upstream: \"https://orders\"")),
                path,
                "own endpoints",
            );
        }
        assert_eq!(config(&route("path: /bffx, upstream: \"https://orders\"")).apps[0].routes.len(), 1);
        refused(
            "routes:\n      - path: /api\n        upstream: https://orders.internal:9000",
            "routes: «[]",
            "[…]",
            "empty list",
        );
    }

    #[test]
    fn a_route_has_an_upstream_or_files() {
        refused_in(&route("path: /api").replace("{path", "«{path"), "apps[0].routes[0]", "is missing");
        refused_in(&upstream("«files: /"), "files", "only one of");
    }

    #[test]
    fn upstreams_are_http_urls() {
        for url in [
            "ftp://orders",
            "orders:9000",
            "https://orders?x",
            "https://orders#x",
            "https://",
            "https://orders:0",
            "https://a b",
        ] {
            refused_in(&route(&format!("path: /api, upstream: «'{url}'")), url, "");
            refused_in(&route(&format!("path: /api, upstream: {{url: «'{url}'}}")), url, "");
        }
        refused_in(
            &route("path: /api, upstream: «'https://me:hunter2@orders'"),
            "[redacted]",
            "user information",
        );
        refused_in(&route("path: /api, upstream: «[]"), "[…]", "not a map");
    }

    #[test]
    fn r61_an_upstream_elsewhere_without_tls_is_warned_of() {
        let warnings = accepted(&route("path: /api, upstream: \"http://orders.internal:9000\"")).warnings;
        assert_eq!((warnings.len(), warnings[0].text.as_str()), (1, "http://orders.internal:9000"));
        for url in ["https://orders.internal", "http://localhost:9000", "http://127.0.0.1", "http://[::1]:9"]
        {
            assert_eq!(accepted(&route(&format!("path: /api, upstream: \"{url}\""))).warnings, []);
        }
    }

    #[test]
    fn a_stripped_prefix_is_one_that_every_path_of_the_route_has() {
        let strip = |path: &str, prefix: &str| {
            route(&format!("path: {path}, upstream: {{url: \"https://orders\", strip_prefix: «{prefix}}}"))
        };
        for (path, prefix) in [("/api", "/api"), ("/api/v1", "/api")] {
            let config = config(&strip(path, prefix).replace('«', ""));
            let Target::Upstream { strip_prefix, .. } = &config.apps[0].routes[0].target else { panic!() };
            assert_eq!(strip_prefix.as_deref(), Some(prefix));
        }
        for (path, prefix) in [("/", "/api"), ("/api", "/api/v1"), ("/apix", "/api"), ("/api", "/other")] {
            refused_in(&strip(path, prefix), prefix, "not every path");
        }
        refused_in(&strip("/api", "/"), "/", "the root itself");
        refused_in(&strip("/api", "/api/"), "/api/", "empty segment");
    }

    #[test]
    fn methods_are_in_capitals_and_can_be_let_through() {
        for method in ["get", "Get", "CONNECT", "TRACE", "G ET", "GÉT"] {
            refused_in(&upstream(&format!("methods: [«{method}]")), method, "not a method");
        }
        refused_in(&upstream("methods: [GET, «GET]"), "GET", "twice");
        refused_in(&upstream("methods: «[]"), "[…]", "empty list");
    }

    #[test]
    fn words_are_known_ones() {
        for key in ["auth", "token", "csrf"] {
            refused_in(&upstream(&format!("{key}: «maybe")), "maybe", "unknown value");
        }
    }

    #[test]
    fn scopes_cannot_be_required_where_no_session_is() {
        refused_in(&upstream("auth: none, required_scopes: «[read]"), "[…]", "looks at no session");
        refused_in(&upstream("auth: optional, required_scopes: «[read]"), "[…]", "`auth: optional`");
        let none_required = config(&upstream("auth: optional, required_scopes: []"));
        assert_eq!(none_required.apps[0].routes[0].auth, Auth::Optional);
        refused_in(&upstream("required_scopes: [read, «read]"), "read", "twice");
    }

    #[test]
    fn a_folder_of_files_is_there_and_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let (file, missing) =
            (file.display().to_string(), folder.path().join("missing").display().to_string());
        refused_in(&route(&format!("path: /, files: «{file}")), &file, "not a folder");
        refused_in(&route(&format!("path: /, files: «{missing}")), &missing, "cannot be read");
    }

    #[test]
    fn what_only_upstreams_have_is_refused_on_files() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().display();
        for (value, text) in [
            ("token: «none", "none"),
            ("websocket: «false", "false"),
            ("timeouts: «{}", "{…}"),
            ("allow_encoded_slash: «true", "true"),
        ] {
            let key = value.split(':').next().unwrap_or_default();
            let problem = format!("{key} on a route of files");
            refused_in(&route(&format!("path: /, files: {folder}, {value}")), text, &problem);
        }
        let both = "auth: required, csrf: same_origin, required_scopes: [read], methods: [GET]";
        let config = config(&route(&format!("path: /, files: {folder}, {both}")));
        assert_eq!(config.apps[0].routes[0].methods, Some(vec![http::Method::GET]));
    }
}
