//! The commands: `serve`, `check`, `schema`, `keygen`, and what each leaves as its exit code.

use std::io::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Loaded};
use crate::random::Random;
use crate::server::workers::{self, Workers};
use crate::server::{HandedOver, Server};
use crate::telemetry::{self, chain};

mod connect;
mod service;

use connect::Finding;

/// The configuration is wrong: `EX_CONFIG` of sysexits.
const CONFIGURATION_IS_WRONG: u8 = 78;

const EXIT_CODES: &str = "Exit codes: 0 good; 78 the configuration is wrong; 1 anything else.";

/// A token handler (backend for frontend) for single-page apps: the browser holds a sealed cookie, the
/// tokens stay on the server.
#[derive(Debug, Parser)]
#[command(name = "cloakroom", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(ConfigurationFile),
    /// Validate the configuration; list every fault with file, line, column and remedy
    Check {
        #[command(flatten)]
        configuration: ConfigurationFile,
        /// Try the issuers, the store and the upstreams as well
        #[arg(long)]
        connect: bool,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a fresh session key: 32 random bytes in base64
    Keygen,
}

#[derive(Debug, clap::Args)]
struct ConfigurationFile {
    /// The configuration
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "config/cloakroom.yaml")]
    file: PathBuf,
}

/// Runs the command that the program's arguments name. Exit codes: 0 good, 78 the configuration is wrong,
/// 1 anything else.
pub fn run() -> ExitCode {
    let command = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) => {
            let asked_for_help = !error.use_stderr();
            let _ = error.print();
            return if asked_for_help { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    match command {
        Command::Serve(configuration) => {
            with_configuration(&configuration, |loaded| serve(loaded, configuration.file.clone()))
        }
        Command::Check { configuration, connect } => with_configuration(&configuration, |loaded| {
            let good = say(&format!("{}: good", configuration.file.display()));
            if connect { try_to_connect(&loaded.config) } else { good }
        }),
        Command::Schema => say(&format!("{:#}", config::schema())),
        Command::Keygen => say(&STANDARD.encode(Random::SYSTEM.bytes::<32>())),
    }
}

fn with_configuration(
    configuration: &ConfigurationFile,
    action: impl FnOnce(Loaded) -> ExitCode,
) -> ExitCode {
    match config::load(&configuration.file, &environment) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain(&format!("warning: {warning}"));
            }
            action(loaded)
        }
        Err(faults) => {
            complain(&faults.to_string());
            ExitCode::from(CONFIGURATION_IS_WRONG)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn try_to_connect(config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let findings = runtime.block_on(connect::try_all(config));
    for finding in &findings {
        if finding.is_good() {
            say(&finding.to_string());
        } else {
            complain(&finding.to_string());
        }
    }
    if findings.iter().any(Finding::is_fault) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn serve(loaded: Loaded, file: PathBuf) -> ExitCode {
    // Before there is any other thread: the environment is changed.
    let sockets = match service::sockets(&environment) {
        Ok(sockets) => sockets,
        Err(error) => return fail(&error),
    };
    let _logs = telemetry::start(&loaded.config.telemetry);
    forbid_core_dumps();
    raise_file_limit();
    let count =
        loaded.config.server.workers.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get));
    let started = workers::runtime().and_then(|runtime| Ok((runtime, Workers::start(count)?)));
    let (runtime, workers) = match started {
        Ok(started) => started,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(run_gateway(loaded.config, file, sockets, &workers));
    drop(workers);
    // A file that is being read must not hold up the end.
    runtime.shutdown_background();
    code
}

/// Runs the gateway until it has stopped, or is not to be waited for any longer.
async fn run_gateway(config: Config, file: PathBuf, sockets: HandedOver, workers: &Workers) -> ExitCode {
    let signals = StopSignals::new().and_then(|signals| Ok((signals, reload_signal()?)));
    let (mut signals, asked) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let server = match Server::bind_to(sockets, config).await {
        Ok(server) => server.reload_from(move || config::load(&file, &environment), asked),
        Err(error) => return fail(&error),
    };
    if let Ok(address) = server.address() {
        let admin = server.admin_address().and_then(Result::ok).map(tracing::field::display);
        tracing::info!(event = "server.listening", %address, admin);
    }
    let grace = server.shutdown_grace();
    service::tell_ready();
    let stop = CancellationToken::new();
    let cut_off = async {
        signals.next().await;
        service::tell_stopping(grace());
        stop.cancel();
        signals.next().await;
    };
    tokio::select! {
        () = server.run_on(workers, stop.cancelled()) => ExitCode::SUCCESS,
        () = cut_off => {
            tracing::warn!(event = "server.cut_off", "a second signal came; what was under way is cut off");
            ExitCode::FAILURE
        }
    }
}

/// What asks the process to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Notified each time the process is asked to read its configuration again.
fn reload_signal() -> std::io::Result<Arc<Notify>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let asked = Arc::new(Notify::new());
    let notified = Arc::clone(&asked);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notified.notify_one();
        }
    });
    Ok(asked)
}

/// A core dump would hold every key and token of the process (R64).
fn forbid_core_dumps() {
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let protected = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if limited.and(protected).is_err() {
        tracing::warn!(event = "server.core_dumps", "core dumps could not be switched off");
    }
}

/// Each connection is a file to the operating system, which by default lets a process have few of them and lets it
/// have more where it asks.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!(event = "server.file_limit", "the limit of open files could not be raised");
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    complain(&format!("cloakroom: {}", chain(error)));
    ExitCode::FAILURE
}

/// What a command was asked for. A reader that has gone away, as in `cloakroom schema | head`, is no crash.
fn say(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::print_stderr, reason = "what went wrong before there are logs goes to standard error")]
fn complain(text: &str) {
    eprintln!("{text}");
}
