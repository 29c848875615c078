//! Logs, the audit trail, metrics and traces. No secret, token, code, cookie or session id is ever in one (R62).

use std::error::Error;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{LogFormat, Telemetry};

mod access;
mod access_log;
pub mod audit;
pub mod metrics;
pub mod otlp;
mod request;
pub mod trace;

pub use access::Access;
pub use request::{RequestId, comes_from, for_request};

use access_log::AccessLog;
use request::OfRequest;

/// Has other lines logged from here on.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Writes log lines to standard error and, where that is wanted, a line for each answer to standard output
/// from here on. What this gives is kept for as long as there is anything to log.
pub fn start(config: &Telemetry) -> Started {
    let is_terminal = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(&config.log_level)).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            let builder = builder.map_event_format(OfRequest).with_filter_reloading();
            let level = builder.reload_handle();
            builder.finish().try_init().map(|()| keep(move |filter| level.reload(filter)))
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(is_terminal);
            let builder = builder.map_event_format(|format| OfRequest(format.with_ansi(is_terminal)));
            let builder = builder.with_filter_reloading();
            let level = builder.reload_handle();
            builder.finish().try_init().map(|()| keep(move |filter| level.reload(filter)))
        }
    };
    // A program that embeds the gateway may have set a subscriber of its own.
    if started.is_err() {
        tracing::debug!(event = "telemetry.not_started", "logs go to the subscriber that was there before");
    }
    if config.access_log
        && let Err(error) = AccessLog::start(config.log_format)
    {
        tracing::error!(event = "access_log.not_started", %error);
    }
    Started(())
}

/// Logs as much as this level says from here on, where [`start`] has set the subscriber.
pub fn set_level(level: &str) {
    if let Some(set) = SET_FILTER.get()
        && let Err(error) = set(filter(level))
    {
        tracing::error!(event = "telemetry.level_not_set", %error);
    }
}

/// Logs are being written. What is left of them is written when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Started(());

impl Drop for Started {
    fn drop(&mut self) {
        AccessLog::stop();
    }
}

fn filter(level: &str) -> EnvFilter {
    // The libraries below us may log headers and bodies when asked for more; ours is the only voice.
    EnvFilter::new(format!("warn,cloakroom={level},h2=off,hyper=off,hyper_util=off"))
}

fn keep(set: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) {
    // A program that starts twice has one subscriber all the same.
    let _ = SET_FILTER.set(Box::new(set));
}

/// An error with all its causes, for a log line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
