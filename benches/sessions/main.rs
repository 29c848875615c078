//! What a session costs as their number grows: `cargo bench --bench sessions`. Writes its tables into
//! docs/sessions-at-scale.md. A store that takes longer to fill than [`PATIENCE`], or as many seconds as are
//! given, as in `cargo bench --bench sessions -- 60`, is measured no further.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and has an environment")]

use std::process::{Command, Stdio};
use std::time::Duration;

use fill::Filled;
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};
use tables::Table;

mod fill;
mod stores;
#[path = "../support/tables.rs"]
#[allow(dead_code, reason = "the other one uses the rest")]
mod tables;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const DOCUMENT: &str = "docs/sessions-at-scale.md";

const COUNTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Fewer are lost in what a process takes anyhow.
const FEWEST_WEIGHED: usize = 10_000;

/// Seconds for the filling of one store.
const PATIENCE: u64 = 300;

/// Each kind of store is measured in a process of its own, by this name.
const MEASURED: [&str; 3] = ["memory", "file", "redis"];

/// What one kind of store took with so many sessions.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    count: usize,
    /// Nanoseconds of a lookup that reads the store and opens the record: the median, and of 99 in 100.
    cold: [u64; 2],
    /// Nanoseconds of one that the process has in memory.
    warm: u64,
    /// Bytes for each session: in this process, and in Redis or on the disk.
    in_process: u64,
    in_store: u64,
}

/// All of one kind of store.
#[derive(Debug, Serialize, Deserialize)]
struct Measurements {
    by_count: Vec<Measured>,
    /// Bytes of a record.
    record: usize,
    opened: Opened,
}

/// What sessions take that the process has open.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    count: usize,
    /// In the process, for each.
    bytes: u64,
    /// Nanoseconds from a cookie to its session's token: the same time and again, and any of all.
    one: u64,
    at_random: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [measure, store, seconds] = arguments.as_slice()
        && measure == "--measure"
    {
        let patience = Duration::from_secs(seconds.parse().unwrap());
        println!("{}", serde_json::to_string(&measure_store(store, patience)).unwrap());
        return;
    }
    let patience = arguments.first().map_or(PATIENCE, |seconds| seconds.parse().expect("seconds"));
    let mut measurements = Vec::new();
    for store in MEASURED {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .args(["--measure", store, &patience.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .expect("this program again");
        assert!(child.status.success(), "{store} could not be measured");
        let measured: Measurements = serde_json::from_slice(&child.stdout).unwrap();
        println!("{store}: {measured:#?}");
        measurements.push((store, measured));
    }
    let (times, sizes) = written(&measurements);
    println!("{times}\n{sizes}");
    tables::put_into(DOCUMENT, "lookups", &times);
    tables::put_into(DOCUMENT, "sizes", &sizes);
}

fn measure_store(store: &str, patience: Duration) -> Measurements {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut filled = Filled::start(store).await;
        let mut by_count = Vec::new();
        for count in COUNTS {
            if !filled.grow_to(count, patience).await {
                break;
            }
            by_count.push(filled.measured().await);
        }
        Measurements { by_count, record: filled.record_length().await, opened: filled.opened().await }
    })
}

fn written(measurements: &[(&str, Measurements)]) -> (String, String) {
    let mut times = Table::new(&[
        "store",
        "sessions",
        "a lookup in the store",
        "99 of 100 within",
        "in the process's memory",
    ]);
    let mut sizes = Table::new(&["store", "sessions", "in the process", "in Redis, or on the disk"]);
    for (store, measured) in measurements {
        for one in &measured.by_count {
            let place = vec![(*store).to_owned(), grouped(one.count)];
            let [median, most] = one.cold.map(microseconds);
            times.row([place.clone(), vec![median, most, microseconds(one.warm)]].concat());
            let in_store = if one.in_store == 0 { "—".to_owned() } else { kibibytes(one.in_store) };
            // What the others leave behind in the process is lost in the noise.
            let in_process = if *store == "memory" { kibibytes(one.in_process) } else { "—".to_owned() };
            if one.count >= FEWEST_WEIGHED {
                sizes.row([place, vec![in_process, in_store]].concat());
            }
        }
        let skipped =
            COUNTS.into_iter().filter(|count| measured.by_count.iter().all(|one| one.count != *count));
        for count in skipped {
            let place = vec![(*store).to_owned(), grouped(count)];
            times
                .row([place, vec!["not filled in time".to_owned(), "—".to_owned(), "—".to_owned()]].concat());
        }
    }
    let (_, last) = measurements.last().expect("a store");
    let sizes = format!(
        "{}\nA record is {} bytes long, sealed. A session that a gateway has open takes {} of its memory. From its cookie to \
         its token it takes {}\nwhere it is the same time and again, and {} where it is any of {}.\n",
        sizes.markdown(),
        last.record,
        kibibytes(last.opened.bytes),
        microseconds(last.opened.one),
        microseconds(last.opened.at_random),
        grouped(last.opened.count),
    );
    (times.markdown(), sizes)
}

fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn microseconds(nanoseconds: u64) -> String {
    format!("{:.1} µs", nanoseconds as f64 / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn kibibytes(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
