//! The program itself on a file store, stopped, killed and started again.

use http::Method;
use tempfile::TempDir;

use crate::support::browser::Browser;
use crate::support::gateway::{GatewayProcess, SESSION_COOKIE, Setup, program};
use crate::support::issuer::Issuer;
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;

/// One folder, and who uses it.
struct World {
    _around: TempDir,
    issuer: Issuer,
    upstream: Upstream,
    setup: Setup,
}

impl World {
    async fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        let (issuer, upstream) = (Issuer::start().await, Upstream::start().await);
        let mut setup =
            Setup::new(&issuer.url()).for_users("/api", &upstream.url()).for_anybody("/", &upstream.url());
        setup.store = format!("file: {{path: \"{}\"}}", around.path().join("sessions").display());
        Self { _around: around, issuer, upstream, setup }
    }

    /// What a command of the program comes to, with this configuration.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloakroom.yaml");
        std::fs::write(&file, self.setup.yaml()).unwrap();
        let file = ["-c", file.to_str().unwrap()];
        let output = in_time(program(&[arguments, &file].concat()).output()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}

async fn end(process: GatewayProcess, signal: &str) {
    process.signal(signal);
    let (code, log) = process.ended().await;
    assert_eq!(code, if signal == "TERM" { Some(0) } else { None }, "{log:?}");
}

#[tokio::test]
async fn users_stay_logged_in_over_a_stop_and_a_kill_of_the_gateway_and_those_who_logged_out_do_not() {
    let world = World::new().await;
    let mut process = world.setup.start_process().await;
    let (mut stays, mut leaves) = (Browser::new(process.address), Browser::new(process.address));
    stays.log_in("/shop").await;
    leaves.log_in("/shop").await;
    let cookie = leaves.session_cookie().unwrap();
    let fields = [("x-csrf", "1"), ("accept", "application/json")];
    assert_eq!(leaves.script(Method::POST, "/bff/logout", &fields, "").await.status, 200);
    for signal in ["TERM", "KILL", "TERM"] {
        end(process, signal).await;
        process = world.setup.start_process().await;
        stays.switch_to(process.address);
        leaves.switch_to(process.address);
        let answer = stays.fetch("/api").await;
        assert_eq!(answer.status, 200, "after {signal}: {}", answer.text());
        assert!(world.issuer.is_alive(world.upstream.tokens().last().unwrap()));
        leaves.plant(SESSION_COOKIE, &cookie);
        assert_eq!(leaves.fetch("/api").await.problem(), "unauthenticated");
    }
    end(process, "TERM").await;
}

#[tokio::test]
async fn a_second_gateway_on_the_folder_is_refused_by_name_until_the_first_is_gone() {
    let world = World::new().await;
    let (code, text) = world.run(&["check", "--connect"]).await;
    assert_eq!(code, Some(0), "{text}");
    for signal in ["TERM", "KILL"] {
        let process = world.setup.start_process().await;
        for arguments in [&["serve"][..], &["check", "--connect"]] {
            let (code, text) = world.run(arguments).await;
            assert_eq!(code, Some(1), "{text}");
            assert!(text.contains("another gateway uses") && text.contains("/sessions"), "{text}");
        }
        end(process, signal).await;
        let (code, text) = world.run(&["check", "--connect"]).await;
        assert_eq!(code, Some(0), "{text}");
    }
}
