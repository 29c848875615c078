//! Logs and metrics. No secret, token, code, cookie or session id is ever in one (R62).

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Telemetry};

pub mod access_log;
pub mod metrics;
mod request;

pub use request::RequestId;

use access_log::AccessLog;
use request::OfRequest;

/// Writes log lines to standard error and, where that is wanted, a line for each answer to standard output
/// from here on. What this gives is kept for as long as there is anything to log.
pub fn start(config: &Telemetry) -> Started {
    // The libraries below us may log headers and bodies when asked for more; ours is the only voice.
    let filter =
        EnvFilter::new(format!("warn,cloakroom={},h2=off,hyper=off,hyper_util=off", config.log_level));
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder.map_event_format(OfRequest).finish().try_init()
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(is_terminal);
            builder.map_event_format(|format| OfRequest(format.with_ansi(is_terminal))).finish().try_init()
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

/// Logs are being written. What is left of them is written when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Started(());

impl Drop for Started {
    fn drop(&mut self) {
        AccessLog::stop();
    }
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
