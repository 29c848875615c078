//! A gateway under mixed load for as long as one likes: `cargo bench --bench soak -- 3600`, in seconds. Writes its
//! table into docs/soak.md. It needs a quarter of a core, and ends with a failure where an error was not caused,
//! or where memory or file descriptors grow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement fails by them")]
#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time, and has an environment")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use journal::{Causes, Minute};
use tables::{Table, quantile, spelled};
use tokio::time::sleep;
use world::World;

mod client;
mod faults;
mod journal;
#[path = "../support/tables.rs"]
#[allow(dead_code, reason = "the others use the rest")]
mod tables;
mod users;
mod world;

#[allow(dead_code, unused_imports, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it"]
mod tests_of_the_gateway {
    pub mod support;
}
use tests_of_the_gateway::support;

const DOCUMENT: &str = "docs/soak.md";

/// Of how long each row tells.
const MINUTE: Duration = Duration::from_secs(60);

/// Memory may grow by no more than this share of itself from the end of the first quarter to the end: caches and
/// the allocator's own pages fill until then.
const MOST_GROWTH: f64 = 0.05;

/// What one minute was like.
struct Row {
    minute: Minute,
    refreshes: usize,
    memory: u64,
    descriptors: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3600);
    let minutes = (Duration::from_secs(seconds).as_secs() / MINUTE.as_secs()).max(4);
    let world = Arc::new(World::start().await);
    let _faults = faults::start(&world);
    let _users = users::start(&world).await;
    let mut rows = Vec::new();
    let mut refreshes = world.refreshes();
    world.journal.take();
    for number in 1..=minutes {
        sleep(MINUTE).await;
        let row = Row {
            minute: world.journal.take(),
            refreshes: world.refreshes() - refreshes,
            memory: world.gateway.memory(),
            descriptors: world.gateway.descriptors(),
        };
        refreshes += row.refreshes;
        println!("{number}: {}", cells(number, &row).join(" | "));
        rows.push(row);
    }
    let (verdict, is_good) = verdict(&rows, world.gateway.has_logged("panicked"));
    println!("{verdict}");
    tables::put_into(DOCUMENT, "soak", &format!("{verdict}\n\n{}", table(&rows)));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "minute",
        "requests",
        "p99",
        "refreshes",
        "errors that were caused",
        "errors that were not",
        "memory",
        "descriptors",
    ]);
    for (row, number) in rows.iter().zip(1..) {
        table.row(cells(number, row));
    }
    table.markdown()
}

fn cells(number: u64, row: &Row) -> Vec<String> {
    let mut waits = row.minute.waits.clone();
    waits.sort();
    vec![
        number.to_string(),
        row.minute.answered.to_string(),
        if waits.is_empty() { "–".to_owned() } else { spelled(quantile(&waits, 0.99)) },
        row.refreshes.to_string(),
        listed(&row.minute.caused),
        listed(&row.minute.uncaused),
        format!("{:.1} MiB", mebibytes(row.memory)),
        row.descriptors.to_string(),
    ]
}

fn listed(causes: &Causes) -> String {
    if causes.is_empty() {
        return "0".to_owned();
    }
    causes.iter().map(|(cause, count)| format!("{count} × {cause}")).collect::<Vec<_>>().join("; ")
}

/// What is to be said of it all, and whether that is good.
fn verdict(rows: &[Row], has_panicked: bool) -> (String, bool) {
    let uncaused: usize = rows.iter().map(|row| row.minute.uncaused.values().sum::<usize>()).sum();
    let caused: usize = rows.iter().map(|row| row.minute.caused.values().sum::<usize>()).sum();
    let requests: usize = rows.iter().map(|row| row.minute.answered).sum();
    let refreshes: usize = rows.iter().map(|row| row.refreshes).sum();
    let settled = &rows[rows.len() / 4..];
    let (memory, share) = growth(&settled.iter().map(|row| row.memory).collect::<Vec<_>>());
    let descriptors = |rows: &[Row]| rows.iter().map(|row| row.descriptors).max().unwrap_or_default();
    let (first, second) = settled.split_at(settled.len() / 2);
    let (before, after) = (descriptors(first), descriptors(second));
    let is_good = uncaused == 0 && !has_panicked && share < MOST_GROWTH && after <= before + before / 4 + 8;
    let text = format!(
        "{} minutes, {requests} requests, {refreshes} refreshes: {uncaused} errors that were not caused, {caused} that \
         were. From minute {} on memory grew by {:.2} MiB an hour, {:.1} % in that time; at most {before} file \
         descriptors in the first half of it, {after} in the second. {}",
        rows.len(),
        rows.len() - settled.len() + 1,
        mebibytes_of(memory * 60.0),
        share * 100.0,
        if is_good { "All is well." } else { "**That is not well.**" },
    );
    (text, is_good)
}

/// By how many bytes this grows from one value to the next, by the least squares, and by what share of itself it
/// does in all.
#[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
fn growth(values: &[u64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<u64>() as f64 / count;
    let middle = (count - 1.0) / 2.0;
    let (mut together, mut squares) = (0.0, 0.0);
    for (place, value) in values.iter().enumerate() {
        let distance = place as f64 - middle;
        together += distance * (*value as f64 - mean);
        squares += distance * distance;
    }
    let slope = together / squares;
    (slope, slope * (count - 1.0) / mean)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
fn mebibytes(bytes: u64) -> f64 {
    mebibytes_of(bytes as f64)
}

fn mebibytes_of(bytes: f64) -> f64 {
    bytes / (1024.0 * 1024.0)
}
