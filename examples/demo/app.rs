//! An app in place of the demo's page: a folder of files, or a dev server, which is started here or runs already.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::free_port;
use crate::issuer::grants::USERS;

/// The package of `client.js`, which the samples use; no registry has it yet.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/client");

/// Runs the script `dev`, and ends all that it has begun once either has come to its end: the script, or the input, which
/// closes with the demo, however that ends.
const DEV_SERVER: &str = r#"(npm run dev -- "$@" </dev/null; kill 0) & cat; kill 0"#;

/// Where the app's pages come from.
#[derive(Debug)]
pub enum App {
    /// This folder, whose files the gateway serves.
    Files(String),
    /// A server of its own, which knows how to replace modules in a page that is open.
    DevServer {
        /// Where it listens.
        url: String,
        /// Where it was started here.
        _child: Option<Child>,
    },
}

impl App {
    /// The app in a folder, or at a URL. A dev server that is started here listens once this is done.
    ///
    /// # Errors
    /// Where there is no such folder, or its dev server does not start.
    pub async fn start(place: &str) -> Result<Self, Box<dyn Error>> {
        if place.starts_with("http://") || place.starts_with("https://") {
            return Ok(Self::DevServer { url: place.to_owned(), _child: None });
        }
        let folder = fs::canonicalize(place).map_err(|error| format!("--app {place}: {error}"))?;
        if !folder.join("package.json").exists() {
            return Ok(Self::Files(folder.display().to_string()));
        }
        for folder in [Path::new(CLIENT), &folder] {
            install(folder).await?;
        }
        let port = free_port(0).await?;
        let mut child = Command::new("sh")
            .args(["-c", DEV_SERVER, "sh", "--strictPort", "--port", &port.to_string()])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        // Whichever of its addresses the server takes `localhost` for.
        while TcpStream::connect(("localhost", port)).await.is_err() {
            if child.try_wait()?.is_some() {
                return Err(format!("the dev server of {place} has ended; what it said is above").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self::DevServer { url: format!("http://localhost:{port}"), _child: Some(child) })
    }

    /// Tells where the app is, and who can log in.
    pub fn introduce(&self, port: u16) {
        let [alice, bob] = &USERS;
        let source = match self {
            Self::Files(folder) => format!("the files in {folder}"),
            Self::DevServer { url, .. } => {
                format!("the dev server at {url}; don't open that itself, for it has no login")
            }
        };
        println!(
            "
Your app is behind Cloakroom. Open  http://localhost:{port}

  log in as {} with password {}, or as {} with password {}

Its pages are {source}.
The API is at /api/hello. Ctrl-C ends it all.
",
            alice.name, alice.password, bob.name, bob.password
        );
    }
}

/// Installs what the package in a folder needs, unless somebody has.
async fn install(folder: &Path) -> Result<(), Box<dyn Error>> {
    if folder.join("node_modules").exists() {
        return Ok(());
    }
    println!("npm ci, in {}", folder.display());
    let status = Command::new("npm").arg("ci").current_dir(folder).status().await;
    match status.map_err(|error| format!("npm: {error}"))?.success() {
        true => Ok(()),
        false => Err(format!("npm ci failed in {}", folder.display()).into()),
    }
}
