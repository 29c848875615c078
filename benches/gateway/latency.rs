//! What a proxy adds to the latency of requests that come at a fixed rate, half of what it could answer.

use std::rc::Rc;
use std::time::Duration;

use crate::Plan;
use crate::client::{Client, Protocol, Target, believers};
use crate::contestants::{Running, named};
use crate::load::{IN_FLIGHT, Taken, at_rate, count, saturate};
use crate::saturated::{Row, median};
use crate::world::World;

/// Those who are compared, besides the way without any proxy.
const COMPARED: [&str; 3] = ["nginx", "gateway", "gateway-none"];

/// Turns of each in a round. They are short: the kernel's own threads take a core away for milliseconds a few
/// times a second, and in a long turn that alone is the slowest hundredth of whoever it comes upon.
const TURNS: usize = 60;

/// How long one of them lasts, after the time it takes to get into its stride.
const TURN: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_millis(25);

/// The turns of each at one rate.
#[derive(Debug)]
pub struct Latency {
    /// Requests a second.
    pub rate: f64,
    pub direct: Vec<Taken>,
    pub proxied: Vec<(&'static str, Vec<Taken>)>,
}

impl Latency {
    /// The turns of one of them.
    pub fn of(&self, key: &str) -> &[Taken] {
        let (_, turns) = self.proxied.iter().find(|(name, _)| *name == key).expect("one of them");
        turns
    }

    /// Microseconds that a proxy adds to this quantile: the median over the turns.
    pub fn added(&self, key: &str, share: f64) -> f64 {
        let turns = self.of(key).iter().zip(&self.direct);
        median(turns.map(|(proxied, direct)| proxied.quantile(share) - direct.quantile(share)))
    }
}

/// The latency, in microseconds, that this share of all requests does not exceed, whichever turn they were in.
pub fn quantile_of_all(turns: &[Taken], share: f64) -> f64 {
    let mut all = turns[0].latencies.clone();
    for turn in &turns[1..] {
        all.add(&turn.latencies).expect("the same range");
    }
    count(all.value_at_quantile(share)) / 1e3
}

pub async fn measure(world: &World, plan: &Plan, rows: &[Row]) -> Option<Latency> {
    if !plan.includes("latency") {
        return None;
    }
    let mut running = Vec::new();
    for key in COMPARED {
        running.push(Running::start(world, named(key)).await);
    }
    let rate = half_of_saturation(plan, rows, &running).await;
    println!("half of saturation: {rate:.0}/s");
    let authority = believers(&world.authority.pem());
    let target = Target { address: world.upstream.address, protocol: Protocol::Http1, authority };
    let requests = running[0].requests.clone();
    let direct = Rc::new(Client::connect(target, requests, IN_FLIGHT).await);
    let proxied = COMPARED.map(|key| (key, Vec::new())).into();
    let mut latency = Latency { rate, direct: Vec::new(), proxied };
    for round in 1..=plan.rounds {
        let mut clients = Vec::new();
        for running in &running {
            clients.push(running.usual_client().await);
        }
        for _ in 0..TURNS {
            latency.direct.push(at_rate(&direct, None, rate, WARM_UP, TURN).await);
            let contestants = running.iter().zip(&clients).zip(&mut latency.proxied);
            for ((running, client), (_, turns)) in contestants {
                turns.push(at_rate(client, Some(&running.process), rate, WARM_UP, TURN).await);
            }
        }
        print(round, "direct", &latency.direct);
        for (running, (key, turns)) in running.iter().zip(&latency.proxied) {
            print(round, key, turns);
            running.empty_log();
        }
    }
    Some(latency)
}

fn print(round: usize, key: &str, turns: &[Taken]) {
    let turns = &turns[turns.len() - TURNS..];
    println!(
        "round {round}: {key:<15} {:>6.0}/s, p50 {:>4.0} µs, p99 {:>5.0} µs, p99 of all {:>5.0} µs, {} failed",
        median(turns.iter().map(Taken::throughput)),
        median(turns.iter().map(|taken| taken.quantile(0.5))),
        median(turns.iter().map(|taken| taken.quantile(0.99))),
        quantile_of_all(turns, 0.99),
        turns.iter().map(|taken| taken.failures).sum::<u64>(),
    );
}

/// Of the slower of the two that the goal compares.
async fn half_of_saturation(plan: &Plan, rows: &[Row], running: &[Running]) -> f64 {
    let mut slowest = f64::INFINITY;
    for running in &running[..2] {
        let known = rows.iter().find(|row| row.contestant.key == running.contestant.key);
        let throughput = match known {
            Some(row) => row.median(Taken::throughput),
            None => {
                let client = running.usual_client().await;
                saturate(&client, Some(&running.process), plan.warm_up, plan.turn).await.throughput()
            }
        };
        slowest = slowest.min(throughput);
    }
    slowest / 2.0
}
