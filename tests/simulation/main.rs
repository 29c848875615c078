//! A simulation of the heart: several gateways, one store and one issuer, in one thread and without real
//! time. What happens, and when, follows from a seed, so that a schedule that breaks a rule can be had again.
//!
//! `rules` has the rules and their excuses, `schedule` what may happen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

use std::collections::BTreeMap;

use run::{Simulation, Verdict};
use schedule::WITH_ROUTE_TOKENS;

mod chance;
mod endings;
mod failover;
mod gateway;
mod issuer;
mod links;
mod outbox;
mod rules;
mod run;
mod schedule;
mod store;
mod world;

/// How many schedules each run of the tests goes through.
const SCHEDULES: u64 = 2000;

/// How many of those in which sessions have further tokens.
const SCHEDULES_WITH_ROUTE_TOKENS: u64 = 1000;

/// Seeds past those that alone find one of the mutants (`tests/mutants`).
const FURTHER: [u64; 2] = [2823, 3522];

#[test]
fn every_schedule_keeps_the_promises() {
    let seed = number("CLOAKROOM_SIMULATION_SEED");
    let count =
        number("CLOAKROOM_SIMULATION_SCHEDULES").unwrap_or(if seed.is_some() { 1 } else { SCHEDULES });
    let first = seed.unwrap_or(0);
    let survey = std::env::var_os("CLOAKROOM_SIMULATION_SURVEY").is_some();
    let mut simulation = Simulation::new();
    let mut kinds = BTreeMap::<String, (u64, u64)>::new();
    let further = (WITH_ROUTE_TOKENS..WITH_ROUTE_TOKENS + SCHEDULES_WITH_ROUTE_TOKENS).chain(FURTHER);
    let further = further.filter(|_| seed.is_none());
    for seed in (first..first + count).chain(further) {
        let verdict = simulation.run(seed);
        if survey {
            for fault in &verdict.faults {
                let kind: String = fault.chars().filter(|character| !character.is_ascii_digit()).collect();
                kinds.entry(kind).or_insert((0, seed)).0 += 1;
            }
        } else if !verdict.faults.is_empty() {
            panic!("{}", report(seed, &verdict));
        } else if count == 1 {
            println!("{}", report(seed, &verdict));
        }
    }
    for (kind, (count, seed)) in &kinds {
        println!("{count:6}  first with seed {seed}: {kind}");
    }
    println!("{count} schedules, seeds {first} to {}", first + count - 1);
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    let mut simulation = Simulation::new();
    let with_route_tokens = WITH_ROUTE_TOKENS..WITH_ROUTE_TOKENS + SCHEDULES_WITH_ROUTE_TOKENS;
    for seed in (0..SCHEDULES).chain(with_route_tokens).step_by(40) {
        let (one, other) = (simulation.run(seed), simulation.run(seed));
        let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(line) = differs {
            let before = one.trace[line.saturating_sub(20)..line].join("\n");
            panic!("seed {seed}\n{before}\n{}\nor\n{}", one.trace[line], other.trace[line]);
        }
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}

fn report(seed: u64, Verdict { schedule, trace, faults }: &Verdict) -> String {
    format!(
        "{schedule:#?}\n{}\n\nseed {seed}: {}\n\nTo see it again:\n  \
         CLOAKROOM_SIMULATION_SEED={seed} cargo test --test simulation every -- --nocapture\n",
        trace.join("\n"),
        if faults.is_empty() { "no rule was broken".to_owned() } else { faults.join("\n") },
    )
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says which schedules")]
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value}")))
}
