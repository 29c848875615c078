//! Another configuration takes the place of the one in force while the gateway runs: whole, or not at all.
//!
//! All files are read again every few seconds, and at once where that is asked for. They are compared by what they
//! say: in Kubernetes they are links whose folder is replaced under them. What was changed is taken once it
//! was read twice alike, for a file that is being written may look whole.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::connection::{InForce, Listener};
use super::tls::InvalidTls;
use crate::config::{Config, Faults, Loaded, Server, Telemetry};
use crate::gateway;
use crate::telemetry::{self, chain};

/// Reads the configuration.
#[derive(Clone)]
pub(super) struct Source(Arc<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>);

/// Reads all files again and again, and serves by what they say.
#[derive(Debug)]
pub(super) struct Reloading {
    listener: Arc<Listener>,
    source: Option<Source>,
    asked: Arc<Notify>,
    in_force: Config,
    /// What was read last.
    last: Option<Said>,
    /// What was read when it was last acted upon.
    settled: Said,
}

/// What the files said, or what was wrong with them.
type Said = Result<Config, String>;

/// Why a configuration is not served by.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{} cannot change without a restart", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    #[error("TLS cannot be set up")]
    Tls(#[from] InvalidTls),
    #[error(transparent)]
    Gateway(#[from] gateway::BuildError),
}

impl Source {
    pub(super) fn new(read: impl Fn() -> Result<Loaded, Faults> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Files may be slow, and requests are not to wait for them.
    #[expect(clippy::disallowed_methods, reason = "no request waits for it")]
    async fn read(&self) -> Option<Result<Loaded, Faults>> {
        let read = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || read()).await.ok()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Source")
    }
}

impl Reloading {
    /// Of certificates and keys alone, until it is told where the configuration comes from.
    pub(super) fn new(listener: Arc<Listener>, in_force: Config) -> Self {
        let settled = Ok(in_force.clone());
        Self { listener, source: None, asked: Arc::default(), in_force, last: None, settled }
    }

    pub(super) fn read_from(&mut self, source: Source, asked: Arc<Notify>) {
        (self.source, self.asked) = (Some(source), asked);
    }

    /// For as long as it is awaited.
    pub(super) async fn run(mut self, interval: Duration) {
        loop {
            let is_asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(interval) => false,
            };
            self.listener.in_force.load_full().reload();
            let Some(source) = &self.source else { continue };
            if let Some(read) = source.read().await {
                self.consider(read, is_asked);
            }
        }
    }

    fn consider(&mut self, read: Result<Loaded, Faults>, is_asked: bool) {
        let said = match &read {
            Ok(loaded) => Ok(loaded.config.clone()),
            Err(faults) => Err(faults.to_string()),
        };
        let is_written = self.last.as_ref() == Some(&said);
        let is_new = self.settled != said;
        self.last = Some(said.clone());
        // What is wrong is said once, not each time that it is read.
        let is_due = is_asked || is_new && is_written;
        if !is_due {
            return;
        }
        self.settled = said;
        let is_done = match read {
            Ok(loaded) => self.serve_by(loaded),
            Err(faults) => {
                refuse(&faults);
                false
            }
        };
        self.listener.in_force.load().gateway.note_reload(is_done);
    }

    fn serve_by(&mut self, loaded: Loaded) -> bool {
        let Loaded { config, warnings } = loaded;
        for warning in &warnings {
            tracing::warn!(event = "config.warning", %warning);
        }
        if let Err(error) = self.replace(&config) {
            tracing::error!(event = "config.refused", error = %chain(&error), "what was in force stays in force");
            return false;
        }
        tracing::info!(event = "config.reloaded", has_changed = config != self.in_force);
        self.in_force = config;
        true
    }

    fn replace(&self, config: &Config) -> Result<(), Refused> {
        if *config == self.in_force {
            return Ok(());
        }
        let fixed = changed_for_good(&self.in_force, config);
        if !fixed.is_empty() {
            return Err(Refused::NeedsRestart(fixed));
        }
        let before = self.listener.in_force.load_full();
        let gateway = before.gateway.succeeded_by(config.clone())?;
        let now = Arc::new(InForce::new(&config.server, gateway, Some(&before))?);
        self.listener.in_force.store(Arc::clone(&now));
        telemetry::set_level(&config.telemetry.log_level);
        now.gateway.look_for_new_issuers();
        Ok(())
    }
}

/// Each fault by itself, as at the start.
fn refuse(faults: &Faults) {
    for fault in faults.diagnostics() {
        tracing::error!(event = "config.refused", %fault, "what was in force stays in force");
    }
    if faults.diagnostics().is_empty() {
        tracing::error!(event = "config.refused", fault = %faults, "what was in force stays in force");
    }
}

/// What was changed that this process has taken up once for as long as it runs: sockets, threads, the store, and the
/// writers of its logs.
fn changed_for_good(before: &Config, now: &Config) -> Vec<&'static str> {
    // In full, so that whoever adds a key says here what becomes of it.
    let Config { server, admin, session_keys: _, store, store_outage_grace: _, apps, telemetry, settings: _ } =
        before;
    let Server {
        listen,
        tls: _,
        h2c: _,
        trusted_proxies: _,
        proxy_protocol: _,
        workers,
        limits: _,
        shutdown_grace: _,
    } = server;
    let Telemetry { log_format, log_level: _, access_log, otlp, audit: _ } = telemetry;
    // What an old cookie is called is forgotten at once: it would go to upstreams.
    let renames_cookie = apps.iter().any(|app| {
        let now = now.apps.iter().find(|now| now.origin == app.origin);
        now.is_some_and(|now| now.session.cookie_name != app.session.cookie_name)
    });
    let keys = [
        ("session.cookie.name", renames_cookie),
        ("server.listen", *listen != now.server.listen),
        ("server.workers", *workers != now.server.workers),
        ("admin.listen", *admin != now.admin),
        ("sessions.store", *store != now.store),
        ("telemetry.log.format", *log_format != now.telemetry.log_format),
        ("telemetry.access_log", *access_log != now.telemetry.access_log),
        ("telemetry.otlp", *otlp != now.telemetry.otlp),
    ];
    keys.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}
