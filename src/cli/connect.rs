//! `check --connect`: is everything there that the configuration names, and as it should be? One line each with a
//! verdict, and with a remedy where that is not `good`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, SharedSignals, Target};
use crate::oidc::Transmitter;
use crate::telemetry::chain;

mod certificate;
mod collector;
mod issuer;
mod store;
mod upstream;

/// How long each part may take to answer.
const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of trying one part.
pub(super) struct Finding {
    /// What was tried, and what is good about it.
    what: String,
    verdict: Verdict,
}

/// What is to be thought of it.
enum Verdict {
    Good,
    /// It works, and may not do so for long, or not as meant.
    Warning(Wrong),
    /// Users will be turned away.
    Fault(Wrong),
}

/// What is wrong, and what to do about it.
struct Wrong {
    what: String,
    remedy: &'static str,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Good }
    }

    fn warning(part: impl Into<String>, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: part.into(), verdict: Verdict::Warning(Wrong { what: what.into(), remedy }) }
    }

    fn fault(part: impl Into<String>, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: part.into(), verdict: Verdict::Fault(Wrong { what: what.into(), remedy }) }
    }

    /// Good, or a fault.
    fn new(part: impl Into<String>, outcome: Result<(), String>, remedy: &'static str) -> Self {
        match outcome {
            Ok(()) => Self::good(part),
            Err(what) => Self::fault(part, what, remedy),
        }
    }

    /// Whether nothing is to be said against it.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.verdict, Verdict::Good)
    }

    /// Whether users will be turned away.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.verdict, Verdict::Fault(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = &self.what;
        match &self.verdict {
            Verdict::Good => write!(formatter, "good     {part}"),
            Verdict::Warning(Wrong { what, remedy }) => {
                write!(formatter, "warning  {part}: {what}\n         {remedy}")
            }
            Verdict::Fault(Wrong { what, remedy }) => {
                write!(formatter, "fault    {part}: {what}\n         {remedy}")
            }
        }
    }
}

/// Tries the store, each issuer with what each app asks of it, each upstream once and the collector, and looks at our own
/// certificate.
pub(super) async fn try_all(config: &Config) -> Vec<Finding> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut findings = store::check(&config.store, &clock).await;
    let mut tried = HashSet::new();
    for app in &config.apps {
        findings.extend(issuer::check(app, &mut tried, &clock).await);
        if let Some(signals) = &app.shared_signals {
            findings.push(try_transmitter(signals, &clock).await);
        }
        for route in &app.routes {
            if let Target::Upstream(upstream) = &route.target
                && tried.insert(upstream.url.as_str())
            {
                findings.extend(upstream::check(upstream, clock.now()).await);
            }
        }
    }
    if let Some(otlp) = &config.telemetry.otlp {
        findings.push(collector::check(otlp).await);
    }
    if let Some(identity) = &config.server.tls {
        findings.extend(certificate::check(identity, &config.apps, clock.now()));
    }
    findings
}

async fn try_transmitter(signals: &SharedSignals, clock: &Arc<dyn Clock>) -> Finding {
    let outcome = match Transmitter::new(signals, Arc::clone(clock)) {
        Ok(transmitter) => in_time(transmitter.discover()).await.map(drop),
        Err(error) => Err(chain(&error)),
    };
    let remedy = "see that its /.well-known/ssf-configuration can be fetched from here, and names this very transmitter";
    Finding::new(format!("transmitter {}", signals.transmitter), outcome, remedy)
}

async fn in_time<T, E: std::error::Error + 'static>(
    attempt: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(PART_TIMEOUT, attempt).await {
        Ok(outcome) => outcome.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {PART_TIMEOUT:?}")),
    }
}
