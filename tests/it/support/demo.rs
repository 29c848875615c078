//! The demo as a child process.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::node;

/// How long the demo may take until it says where it is.
const START: Duration = Duration::from_secs(60);

/// A running demo; dropping it stops it.
pub struct Demo {
    /// `http://localhost:…`
    pub origin: String,
    _child: Child,
}

impl Demo {
    /// Starts the demo on a free port.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        // Cargo puts examples beside the folder of the test programs.
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/demo");
        assert!(
            program.exists(),
            "{} is missing; tests/run builds it, and so does cargo build --example demo",
            program.display()
        );
        let mut child = Command::new(program)
            .arg("0")
            .args(arguments)
            // For the dev server that it may start. Debian's npm finds its own parts only so by another Node.js than Debian's.
            .env("PATH", node::search_path())
            .env("NODE_PATH", "/usr/share/nodejs")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let introduction = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the demo says where it is");
                if let Some((_, origin)) = line.split_once("Open  ") {
                    break origin.trim().to_owned();
                }
            }
        };
        let origin = tokio::time::timeout(START, introduction).await.expect("the demo starts in time");
        // It goes on telling what it does, and must not be stopped by a pipe that nobody empties.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { origin, _child: child }
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        let (_, port) = self.origin.rsplit_once(':').unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()))
    }
}
