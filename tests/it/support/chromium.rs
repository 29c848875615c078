//! Scenarios in a real browser: the scripts of `tests/real` that have some, as child processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::node;

/// For a whole scenario; the script gives up earlier and says at what.
const DEADLINE: Duration = Duration::from_secs(330);

/// A browser is several processes: as many as there are tests would starve each other.
static BROWSERS: Semaphore = Semaphore::const_new(2);

/// Runs a scenario of `browser.mjs`, and panics with all it said if one of its checks fails.
pub async fn run(scenario: &str, arguments: &Value) {
    run_of("browser.mjs", scenario, arguments).await;
}

/// The same, of another script.
#[expect(clippy::print_stdout, reason = "cargo shows it where a test fails")]
pub async fn run_of(script: &str, scenario: &str, arguments: &Value) {
    assert!(
        Path::new("/usr/bin/chromium").exists(),
        "/usr/bin/chromium is missing; run tests/run, which installs what tests need"
    );
    let _place = BROWSERS.acquire().await.expect("nobody closes it");
    let child = node::script(script)
        .args([scenario, &arguments.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start node; tests/run installs it");
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output());
    let output = output.await.expect("the scenario ends in time").expect("the scenario's output");
    let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scenario {scenario}: {}\n{said}{faults}", output.status);
    print!("{said}");
}
