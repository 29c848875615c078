//! A gateway in this process whose configuration lies in a file, and is read again when the test says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::config;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::gateway::{Gateway, Setup, environment};
use super::metrics::count;
use super::wait::until;

/// Longer than any test: what is read is read because somebody asked.
const NEVER: Duration = Duration::from_secs(3600);

pub struct Reloadable {
    pub gateway: Gateway,
    folder: TempDir,
    asked: Arc<Notify>,
}

impl Reloadable {
    pub async fn start(setup: &Setup) -> Self {
        Self::start_with(setup, &setup.yaml()).await
    }

    /// One that begins with this text.
    pub async fn start_with(setup: &Setup, yaml: &str) -> Self {
        let (folder, asked) = (TempDir::new().unwrap(), Arc::new(Notify::new()));
        let file = folder.path().join("cloakroom.yaml");
        std::fs::write(&file, yaml).unwrap();
        let server = setup.bind(yaml).await.reload_interval(NEVER);
        let server = server.reload_from(move || config::load(&file, &environment), Arc::clone(&asked));
        Self { gateway: Gateway::run(server), folder, asked }
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Serves by another text, once this is done.
    pub async fn serve_by(&self, yaml: &str) {
        self.read(yaml, "succeeded").await;
    }

    /// Finds another text wrong.
    pub async fn refuse(&self, yaml: &str) {
        self.read(yaml, "refused").await;
    }

    async fn read(&self, yaml: &str, result: &str) {
        std::fs::write(self.path("cloakroom.yaml"), yaml).unwrap();
        let before = self.reloads(result).await;
        self.asked.notify_one();
        until(async || self.reloads(result).await > before).await;
    }

    /// How often a configuration was read with this result.
    pub async fn reloads(&self, result: &str) -> u64 {
        let name = format!("cloakroom_config_reloads_total{{result=\"{result}\"}}");
        count(self.gateway.admin, &name).await
    }
}
