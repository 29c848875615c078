//! What a request costs, beside the neighbours, in one run: `cargo bench --bench gateway`, at most twenty minutes. It
//! builds the gateway as it is released, starts everybody, and measures in turns: the program under test on the
//! first core, all others on the second. Writes its tables and plots into docs/performance.md. With `--quick` it
//! tries everything out in a minute or two, and with `--only` the parts that are named; neither writes anything.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and has an environment")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::{Builder, Handle};
use tokio::task::LocalSet;

use report::Report;
use upstream::Upstream;
use world::World;

mod client;
mod connections;
mod contestants;
mod goals;
mod latency;
mod load;
mod machine;
mod neighbours;
mod plot;
mod process;
mod report;
mod request;
mod saturated;
#[path = "../support/sessions.rs"]
mod sessions;
mod storm;
#[path = "../support/tables.rs"]
#[allow(dead_code, reason = "the others use the rest")]
mod tables;
mod upstream;
mod world;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

#[derive(Debug, Parser)]
struct Arguments {
    /// How often everybody has a turn; the medians are taken.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a turn lasts.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rows and sections whose name has one of these words; writes nothing.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// One short round with the program as `cargo bench` builds it; writes nothing.
    #[arg(long)]
    quick: bool,
    /// Another program than the one that is built for it; writes nothing.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
#[derive(Debug)]
pub struct Plan {
    /// How often everybody has a turn.
    pub rounds: usize,
    /// How long a load goes on before a turn.
    pub warm_up: Duration,
    /// How long a turn lasts.
    pub turn: Duration,
    /// How many sessions there are.
    pub sessions: usize,
    /// How many connections are many.
    pub connections: usize,
    /// How many sessions' tokens are due at once.
    pub storm: usize,
    only: Vec<String>,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        let only = arguments.only.clone();
        if arguments.quick {
            let (warm_up, turn) = (Duration::from_millis(200), Duration::from_millis(500));
            return Self { rounds: 1, warm_up, turn, sessions: 2_000, connections: 500, storm: 100, only };
        }
        Self {
            rounds: arguments.rounds,
            warm_up: Duration::from_millis(500),
            turn: Duration::from_secs_f64(arguments.seconds),
            sessions: 100_000,
            connections: 10_000,
            storm: 1_000,
            only,
        }
    }

    /// Whether a row or a section is asked for.
    pub fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

fn main() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    machine::raise_limits();
    if std::env::args().nth(1).as_deref() == Some(upstream::ARGUMENT) {
        return runtime().block_on(LocalSet::new().run_until(upstream::serve()));
    }
    let arguments = Arguments::parse();
    let plan = Plan::of(&arguments);
    neighbours::install();
    let program = match (&arguments.program, arguments.quick) {
        (Some(program), _) => program.clone(),
        (None, true) => PathBuf::from(env!("CARGO_BIN_EXE_cloakroom")),
        (None, false) => released(),
    };
    machine::pin();
    // On a thread of its own, so that the issuer's work holds up nothing that is timed.
    let issuer = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let report = runtime().block_on(LocalSet::new().run_until(run(program, issuer.handle(), &plan)));
    println!("{report}");
    if !arguments.quick && arguments.only.is_empty() && arguments.program.is_none() {
        report.write();
    }
}

/// Builds the gateway as it is released: `cargo bench` would take half of the time, and measure another program.
fn released() -> PathBuf {
    let status =
        Command::new(env!("CARGO")).args(["build", "--release", "--locked", "--bin", "cloakroom"]).status();
    assert!(status.unwrap().success(), "the gateway can be built");
    PathBuf::from(env!("CARGO_BIN_EXE_cloakroom"))
}

async fn run(program: PathBuf, issuer: &Handle, plan: &Plan) -> Report {
    let mut world = World::start(program, issuer, plan.sessions).await;
    println!("{} sessions have begun", world.sessions.len());
    let rows = saturated::measure(&world, plan).await;
    let latency = latency::measure(&world, plan, &rows).await;
    world.upstream = Upstream::apart().await;
    let connections = connections::measure(&world, plan).await;
    let storm = match plan.includes("storm") {
        true => Some(storm::measure(&world, plan).await),
        false => None,
    };
    Report::new(plan, &rows, latency.as_ref(), &connections, storm.as_ref())
}
