//! Logs and metrics. No secret, token, code, cookie or session id is ever in one (R62).

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Telemetry};

pub mod metrics;

/// Writes log lines to standard error from here on, as configured.
pub fn start(config: &Telemetry) {
    // The libraries below us may log headers and bodies when asked for more; ours is the only voice.
    let filter = EnvFilter::new(format!("warn,cloakroom={},hyper=off,hyper_util=off", config.log_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => builder.finish().try_init(),
    };
    // A program that embeds the gateway may have set a subscriber of its own.
    if started.is_err() {
        tracing::debug!(event = "telemetry.not_started", "logs go to the subscriber that was there before");
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
