//! The samples, each started by its own command, and a Vite dev server behind the gateway, in a real Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::chromium;
use crate::support::demo::Demo;
use crate::support::node;
use crate::support::port::Reserved;

/// Short enough that its end is warned of soon, and not before a call can put it off: a tenth of it has to pass.
const IDLE: [&str; 2] = ["--idle-timeout", "70s"];

#[tokio::test]
async fn the_sample_in_plain_html_does_what_a_user_wants() {
    tries("plain", "examples/plain").await;
}

#[tokio::test]
async fn the_sample_with_react_does_what_a_user_wants() {
    assert!(react().join("node_modules").exists(), "run tests/run, which installs what tests need");
    tries("react", "examples/react").await;
}

#[tokio::test]
async fn the_sample_with_react_is_built_and_served_as_files() {
    let copy = copy_of_react();
    let build = node::program().args(["--run", "build"]).current_dir(copy.path()).status().await.unwrap();
    assert!(build.success());
    tries("built", copy.path().join("dist").to_str().unwrap()).await;
}

#[tokio::test]
async fn a_vite_dev_server_behind_the_gateway_updates_pages_that_are_open() {
    let (copy, port) = (copy_of_react(), Reserved::new());
    let demo = Demo::start_with(&["--app", &format!("http://{}", port.address())]).await;
    let (folder, port) = (copy.path(), port.address().port().to_string());
    let arguments = json!({"gateway": demo.origin, "folder": folder, "port": port});
    chromium::run_of("samples.mjs", "development", &arguments).await;
}

async fn tries(name: &str, app: &str) {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("samples").join(name);
    fs::create_dir_all(&pictures).unwrap();
    let demo = Demo::start_with(&[&["--app", app], &IDLE[..]].concat()).await;
    let arguments = json!({"gateway": demo.origin, "pictures": pictures});
    chromium::run_of("samples.mjs", "sample", &arguments).await;
}

fn react() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/react")
}

/// A copy that may be changed. Its packages are the same files, but for what Vite makes of them.
fn copy_of_react() -> TempDir {
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copies("-a", &react(), copy.path(), |name| !matches!(name, "node_modules" | "dist"));
    let packages = copy.path().join("node_modules");
    fs::create_dir(&packages).unwrap();
    copies("-al", &react().join("node_modules"), &packages, |name| !name.starts_with(".vite"));
    copy
}

fn copies(how: &str, from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) {
    let entries = fs::read_dir(from).expect("run tests/run, which installs what tests need");
    let entries =
        entries.map(|entry| entry.unwrap()).filter(|entry| wanted(entry.file_name().to_str().unwrap()));
    let copied =
        Command::new("cp").arg(how).args(entries.map(|entry| entry.path())).arg(to).status().unwrap();
    assert!(copied.success());
}
