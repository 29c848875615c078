//! The program: its commands, its exit codes, and what its log never holds (R62).

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::gateway::{NO_ISSUER, Setup, program};
use crate::support::issuer::Issuer;
use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_sentinel::{MASTER, RedisSentinel};
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;
use crate::support::wire::{ask, head};

async fn run(arguments: &[&str]) -> Output {
    in_time(program(arguments).output()).await.unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A file with this text, in a folder that goes with it.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[tokio::test]
async fn help_explains_the_program_and_its_exit_codes() {
    let (code, output, _) = said(&run(&["--help"]).await);
    assert_eq!(code, Some(0));
    for word in ["serve", "check", "schema", "keygen", "78"] {
        assert!(output.contains(word), "{word}: {output}");
    }
    for command in ["serve", "check"] {
        let (code, output, _) = said(&run(&[command, "--help"]).await);
        assert_eq!(code, Some(0));
        assert!(output.contains("-c") && output.contains("config/cloakroom.yaml"), "{output}");
    }
    let (code, output, _) = said(&run(&["--version"]).await);
    assert_eq!((code, output.trim()), (Some(0), concat!("cloakroom ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn what_is_no_command_is_1_and_says_what_is() {
    for arguments in [&[][..], &["sreve"], &["serve", "--port", "80"], &["check", "-c"], &["keygen", "now"]] {
        let (code, output, faults) = said(&run(arguments).await);
        assert_eq!((code, output.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(faults.contains("--help"), "{faults}");
    }
}

#[tokio::test]
async fn keygen_prints_32_fresh_bytes_each_time() {
    let mut keys = HashSet::new();
    for _ in 0..5 {
        let (code, output, faults) = said(&run(&["keygen"]).await);
        assert_eq!((code, faults.as_str(), output.lines().count()), (Some(0), "", 1));
        assert_eq!(STANDARD.decode(output.trim()).unwrap().len(), 32);
        keys.insert(output);
    }
    assert_eq!(keys.len(), 5);
}

#[tokio::test]
async fn schema_is_a_json_schema_of_the_file() {
    let (code, output, _) = said(&run(&["schema"]).await);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&output).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    for key in ["server", "admin", "sessions", "apps", "telemetry"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[tokio::test]
async fn check_of_a_good_file_is_0_and_its_warnings_go_to_standard_error() {
    let setup = Setup::new("https://id.test").for_anybody("/", "http://127.0.0.1:9");
    let (_folder, path) = file(&setup.yaml());
    let (code, output, faults) = said(&run(&["check", "-c", &path]).await);
    assert_eq!((code, faults.as_str()), (Some(0), ""), "{output}");
    assert!(output.contains(&path), "{output}");

    let setup = setup.for_users("/far", "http://orders.test:9000");
    let (_folder, path) = file(&setup.yaml());
    let (code, output, faults) = said(&run(&["check", "-c", &path]).await);
    assert_eq!(code, Some(0), "{faults}");
    assert!(faults.contains("warning") && faults.contains("http://orders.test:9000"), "{faults}");
    assert!(!output.contains("warning"), "{output}");
}

#[tokio::test]
async fn check_can_try_what_the_file_points_to() {
    let (mut issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let setup =
        Setup::new(&issuer.url()).for_users("/", &upstream.url()).for_users("/again", &upstream.url());
    let (_folder, path) = file(&setup.yaml());
    let (code, output, faults) = said(&run(&["check", "-c", &path, "--connect"]).await);
    assert_eq!((code, faults.as_str()), (Some(0), ""));
    for what in [format!("issuer {}: metadata", issuer.url()), upstream.url(), "store".to_owned()] {
        assert_eq!(output.matches(&what).count(), 1, "{what}: {output}");
    }
    assert!(upstream.arrived().is_empty());

    issuer.stop().await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = setup.route(&format!("path: /away, upstream: \"http://{closed}\""));
    let some =
        format!("addresses: [\"{}\", \"unix:/nowhere.sock\"]", upstream.url().trim_start_matches("http://"));
    let setup = setup.route(&format!("path: /some, upstream: {{url: \"http://localhost\", {some}}}"));
    let setup = setup.redis(&url::Url::parse(&format!("redis://{closed}")).unwrap());
    let (_folder, path) = file(&setup.yaml());
    let (code, output, faults) = said(&run(&["check", "-c", &path, "--connect"]).await);
    assert_eq!(code, Some(1), "{faults}");
    let socket = "http://localhost/ at unix:/nowhere.sock".to_owned();
    for what in [issuer.url(), format!("http://{closed}"), socket, "store".to_owned()] {
        assert!(faults.contains(&what), "{what}: {faults}");
    }
    assert!(output.contains(&upstream.url()), "what is well is said too: {output}");
    assert!(
        output.contains(&format!("http://localhost/ at {}", upstream.url().trim_start_matches("http://"))),
        "{output}"
    );
    let (code, _, _) = said(&run(&["check", "-c", &path]).await);
    assert_eq!(code, Some(0), "nobody is asked without --connect");
}

#[tokio::test]
async fn check_tries_what_each_app_asks_of_an_issuer_that_they_share() {
    let issuer = Issuer::start().await;
    let mut setup = Setup::new(&issuer.url()).for_users("/", "http://127.0.0.1:9");
    setup.further_apps = format!(
        "  - origin: https://desk.test\n    oidc: {{issuer: \"{}\", client_id: desk, client_auth: none, pushed_authorization_requests: required}}\n    routes: [{{path: /, upstream: \"http://127.0.0.1:9\"}}]\n",
        issuer.url()
    );
    let (_folder, path) = file(&setup.yaml());
    let (code, output, faults) = said(&run(&["check", "-c", &path, "--connect"]).await);
    assert_eq!(code, Some(1), "{output}");
    let of_issuer = format!("issuer {}", issuer.url());
    assert!(output.contains(&format!("good     {of_issuer}: metadata\n")), "{output}");
    assert!(
        faults.contains(&format!("fault    {of_issuer}, for https://desk.test too: metadata: ")),
        "{faults}"
    );
}

#[tokio::test]
async fn check_finds_the_store_by_whatever_names_it() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
    let (mut cluster, mut sentinel) = (RedisCluster::start().await, RedisSentinel::start().await);
    let yaml = Setup::new(&issuer.url()).for_users("/", &upstream.url()).yaml();
    let with = |redis: &str| {
        let memory = "store: {memory: {}}";
        assert!(yaml.contains(memory), "{yaml}");
        yaml.replace(memory, &format!("store: {{redis: {{{redis}}}}}"))
    };
    let by_nodes = with(&format!("cluster: [\"{}\", \"{}\"]", cluster.node(2).url(), cluster.node(3).url()));
    let (first, last) = (sentinel.sentinel(0).url(), sentinel.sentinel(2).url());
    let by_name = with(&format!("sentinel: {{master: {MASTER}, urls: [\"{first}\", \"{last}\"]}}"));
    let (_folder, by_nodes) = file(&by_nodes);
    let (_folder_too, by_name) = file(&by_name);
    for path in [&by_nodes, &by_name] {
        let (code, output, faults) = said(&run(&["check", "-c", path, "--connect"]).await);
        assert_eq!((code, faults.contains("fault ")), (Some(0), false), "{faults}");
        assert!(output.contains("good     store "), "{output}");
    }
    sentinel.kill(0);
    sentinel.kill(1);
    cluster.kill(2);
    cluster.kill(3);
    for path in [&by_nodes, &by_name] {
        let (code, _, faults) = said(&run(&["check", "-c", path, "--connect"]).await);
        assert_eq!((code, faults.contains("fault    store ")), (Some(1), true), "{faults}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_78_and_every_fault_is_listed_with_its_place() {
    let yaml = Setup::new("http://id.test").route("path: /, upstream: \"ftp://x\", auth: sometimes").yaml()
        + "telemetri: {}\n";
    let (_folder, path) = file(&yaml);
    for command in ["check", "serve"] {
        let (code, output, faults) = said(&run(&[command, "-c", &path]).await);
        assert_eq!((code, output.as_str()), (Some(78), ""), "{faults}");
        for text in ["http://id.test", "ftp://x", "sometimes", "telemetri"] {
            assert!(faults.contains(text), "{text}: {faults}");
        }
        assert!(faults.matches(&format!("{path}:")).count() >= 4, "{faults}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_78_by_name() {
    for command in ["check", "serve"] {
        let (code, output, faults) = said(&run(&[command, "-c", "/nowhere/cloakroom.yaml"]).await);
        assert_eq!((code, output.as_str()), (Some(78), ""));
        assert!(faults.contains("/nowhere/cloakroom.yaml"), "{faults}");
        let folder = tempfile::tempdir().unwrap();
        let output = program(&[command]).current_dir(folder.path()).output().await.unwrap();
        let (code, _, faults) = said(&output);
        assert_eq!(code, Some(78));
        assert!(faults.contains("config/cloakroom.yaml"), "the default's name: {faults}");
    }
}

#[tokio::test]
async fn r62_no_secret_is_ever_printed_whatever_is_wrong() {
    let secret = "c3VwZXItc2VjcmV0LWtleS10aGF0LWlzLXRvby1sb25nLXRvLWJlLW9uZQ==";
    let yaml = Setup::new("https://id.test").route("path: /, upstream: \"ftp://x\"").yaml();
    for yaml in [
        yaml.clone(),
        yaml.replace("{env: SESSION_KEY}", secret),
        yaml.replace("{env: CLIENT_SECRET}", "inline-secret"),
    ] {
        let (_folder, path) = file(&yaml);
        let output = program(&["check", "-c", &path])
            .env("SESSION_KEY", secret)
            .env("CLIENT_SECRET", "another-secret")
            .output()
            .await
            .unwrap();
        let (code, output, faults) = said(&output);
        assert_eq!(code, Some(78), "{faults}");
        for kept in [secret, "another-secret", "inline-secret"] {
            assert!(!output.contains(kept) && !faults.contains(kept), "{faults}");
        }
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = Setup::new("https://id.test").for_anybody("/", "http://127.0.0.1:9");
    for (ours, what) in [("listen: 127.0.0.1:0", "server"), ("listen: \"127.0.0.1:0\"", "admin")] {
        let (_folder, path) = file(&setup.yaml().replacen(ours, &format!("listen: \"{address}\""), 1));
        let (code, _, faults) = said(&run(&["serve", "-c", &path]).await);
        assert_eq!(code, Some(1), "{what}: {faults}");
        assert!(faults.contains(&address), "{faults}");
    }
}

#[tokio::test]
async fn log_lines_are_json_unless_text_is_wanted() {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", "http://127.0.0.1:9");
    for (telemetry, is_json) in [
        ("", true),
        ("telemetry: {log: {format: json, level: debug}}\n", true),
        ("telemetry: {log: {format: text}}\n", false),
    ] {
        telemetry.clone_into(&mut setup.telemetry);
        let running = setup.start_process().await;
        assert_eq!(ask(running.address, head("GET //", "")).await.status, 400);
        assert_eq!(ask(running.admin, head("GET /livez", "")).await.status, 200);
        running.signal("TERM");
        let (code, lines) = running.ended().await;
        assert_eq!(code, Some(0));
        for event in ["server.listening", "request.refused", "server.draining"] {
            assert!(lines.iter().any(|line| line.contains(event)), "{event}: {lines:?}");
        }
        for line in lines {
            assert_eq!(
                serde_json::from_str::<Value>(&line).is_ok_and(|line| line["level"].is_string()),
                is_json,
                "{line}"
            );
        }
    }
}
