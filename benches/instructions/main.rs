//! How many instructions a request takes in the gateway, outside the kernel: `cargo bench --bench instructions`.
//! They are counted by valgrind's callgrind, and so come out the same on a busy machine. Each kind of request is
//! counted twice, with few and with many of them; the difference is what the requests took.
//!
//! A profile is left beside the program, for `callgrind_annotate`. With `CARGO_PROFILE_BENCH_DEBUG=1` it names lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

#[path = "../support/sessions.rs"]
#[allow(dead_code, reason = "the other one uses the rest")]
mod sessions;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

use support::browser::Browser;
use support::gateway::{SESSION_COOKIE, Setup, program};
use support::issuer::Issuer;
use support::redis::Redis;
use support::upstream::{Upstream, full};

const FEW: u64 = 400;
const MANY: u64 = 2400;
const CONNECTIONS: u64 = 8;

/// How long the first answer with 200 may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// As a script of an app sends it through a browser, with the session's cookie or another one.
fn request(path: &str, cookie: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n\
         Accept-Encoding: gzip, br\r\nX-CSRF: 1\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
         Cookie: theme=dark; {cookie}\r\n\r\n"
    )
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let program = std::env::args().skip(1).find(|word| word != "--bench");
    let program = program.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_cloakroom")), PathBuf::from);
    let (issuer, upstream) =
        (Issuer::start().await, Upstream::raw(|_| async { full("x".repeat(1024)) }).await);
    for log in [false, true] {
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .for_anybody("/public", &upstream.url())
            .for_anybody("/", &upstream.url());
        setup.telemetry = format!("telemetry: {{access_log: {log}}}\n");
        for (kind, path) in [("nobody", "/public/orders?page=2"), ("a user", "/api/orders?page=2")] {
            count(&program, &setup, &format!("{kind}, access log {log}"), path, None).await;
        }
    }
    let redis = Redis::start().await;
    let mut setup = Setup::new(&issuer.url()).for_users("/api", &upstream.url());
    setup.store_in(&redis);
    setup.telemetry = "telemetry: {access_log: false}\n".to_owned();
    let cookies = sessions::begin(&setup.yaml(), &redis, 1, Duration::from_hours(1)).await;
    for (kind, grace) in [("once", "30s"), ("on each request", "0s")] {
        setup.sessions = format!("store_outage_grace: {grace}");
        let kind = format!("a user with long tokens, Redis asked {kind}");
        count(&program, &setup, &kind, "/api/orders?page=2", Some(&cookies[0])).await;
    }
}

/// Says what a request takes. It has this session, or one of a user who has just logged in.
async fn count(program: &Path, setup: &Setup, kind: &str, path: &str, session: Option<&str>) {
    let profile = program.with_file_name(format!("callgrind.{}", kind.replace(", ", ".").replace(' ', "-")));
    let mut counted = Vec::new();
    for count in [FEW, MANY] {
        counted.push(count_instructions(program, setup, path, session, count, &profile).await);
    }
    println!("{kind}: {} instructions a request", (counted[1] - counted[0]) / (MANY - FEW));
}

async fn count_instructions(
    gateway: &Path,
    setup: &Setup,
    path: &str,
    session: Option<&str>,
    count: u64,
    profile: &Path,
) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cloakroom.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    let serving = program(&["serve", "-c", file.to_str().unwrap()]);
    let secrets =
        serving.as_std().get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()));
    let mut running = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", profile.display())])
        .arg(gateway)
        .args(["serve", "-c", file.to_str().unwrap()])
        .envs(secrets)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("valgrind");
    let address = address(&mut running).await;
    let session = match session {
        Some(session) => session.to_owned(),
        None => {
            let mut browser = Browser::new(address);
            browser.log_in("/").await;
            browser.session_cookie().unwrap()
        }
    };
    let request = request(path, &format!("{SESSION_COOKIE}={session}"));
    // So slow as it is here, it may not have reached its store yet.
    let ready = async { while !ask_once(&mut connect(address).await, &request).await {} };
    tokio::time::timeout(PATIENCE, ready).await.expect("it answers with 200");
    let clients = (0..CONNECTIONS).map(|_| tokio::spawn(ask(address, request.clone(), count / CONNECTIONS)));
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let pid = running.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    running.wait().await.unwrap();
    total(profile)
}

/// Where the gateway says that it listens.
async fn address(running: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the gateway says where it listens");
        if let Some((_, behind)) = line.split_once("\"address\":\"") {
            break behind.split('"').next().unwrap().parse().unwrap();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    address
}

async fn ask(address: SocketAddr, request: String, count: u64) {
    let mut stream = connect(address).await;
    for _ in 0..count {
        assert!(ask_once(&mut stream, &request).await, "not answered with 200");
    }
}

async fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(address).await.unwrap())
}

/// Whether it is answered with 200.
async fn ask_once(stream: &mut BufReader<TcpStream>, request: &str) -> bool {
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).await.unwrap();
    let is_well = line.starts_with("HTTP/1.1 200");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    is_well
}

/// All instructions in a profile.
fn total(profile: &Path) -> u64 {
    let text = std::fs::read_to_string(profile).unwrap();
    let line =
        text.lines().rev().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.expect("a profile").trim().parse().unwrap()
}
