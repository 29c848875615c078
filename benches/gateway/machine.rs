//! The machine: its cores, what a process may have open, and what is said of it beside the numbers.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the program under test.
pub const UNDER_TEST: usize = 0;

/// The core of all others: the load, the upstream, Redis and the issuer.
pub const OTHERS: usize = 1;

/// What is left of the limit of open files beside the connections.
const OTHER_FILES: usize = 200;

/// Keeps this thread, and all that it starts, to the core of the others.
pub fn pin() {
    let cores = available_parallelism().map_or(1, usize::from);
    assert!(cores >= 2, "two cores are needed, one of them for what is measured");
    let mut cores = CpuSet::new();
    cores.set(OTHERS);
    sched_setaffinity(None, &cores).expect("the second core may be used");
}

/// Lets this process, and all that it starts, open as many files as is allowed at all.
pub fn raise_limits() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the soft limit may be raised to the hard one");
}

/// How many connections of so many sockets each one process can have, up to those that are wanted.
pub fn connections(wanted: usize, sockets_each: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(wanted, |limit| wanted.min(limit.saturating_sub(OTHER_FILES) / sockets_each))
}

/// How a core has passed its time so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime {
    idle: u64,
    stolen: u64,
    all: u64,
}

impl CoreTime {
    /// Of the core for what is measured.
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let name = format!("cpu{UNDER_TEST} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name)).expect("the core is there");
        let ticks: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap()).collect();
        // user nice system idle iowait irq softirq steal; guests are counted among the users (proc_stat(5)).
        Self { idle: ticks[3] + ticks[4], stolen: ticks[7], all: ticks[..8].iter().sum() }
    }

    /// The shares of the time since then in which the core was not idle, and in which the machine below had
    /// taken it away.
    pub fn shares_since(&self, before: &Self) -> [f64; 2] {
        #[expect(clippy::cast_precision_loss, reason = "some hundred ticks")]
        let share = |part: u64| part as f64 / (self.all - before.all).max(1) as f64;
        [1.0 - share(self.idle - before.idle), share(self.stolen - before.stolen)]
    }
}

/// What these measurements ran on, each with its name.
pub fn facts(programs: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = information.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let hypervisor = if information.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let files = getrlimit(Resource::Nofile).current.map_or("unlimited".to_owned(), |files| files.to_string());
    let mut facts = vec![
        ("processor", format!("{}, {cores} cores{hypervisor}", model.trim_start_matches(['\t', ' ', ':']))),
        ("memory", format!("{} GiB", kibibytes.unwrap_or_default() >> 20)),
        ("system", format!("{}, Linux {}", system.trim_matches('"'), kernel.trim())),
        ("open files a process may have", files),
    ];
    facts.extend(programs.iter().cloned());
    facts
}

/// The first line that a program says of its version.
pub fn version(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().expect("it is installed");
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}
