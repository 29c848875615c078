//! What a proxy adds to the latency of requests that come at a fixed rate, half of what it could answer.

use std::rc::Rc;

use crate::Plan;
use crate::client::{Client, Protocol, Target, believers};
use crate::contestants::{Running, named};
use crate::load::{IN_FLIGHT, Taken, at_rate, saturate};
use crate::process::Process;
use crate::saturated::{Row, median};
use crate::world::World;

/// Those who are compared, besides the way without any proxy.
const COMPARED: [&str; 3] = ["nginx", "gateway", "gateway-none"];

/// How many turns' length one of these lasts: the slowest of a hundred requests are few.
const TURNS: u32 = 2;

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

    /// Microseconds that a proxy adds to this quantile: the median over the rounds.
    pub fn added(&self, key: &str, share: f64) -> f64 {
        let turns = self.of(key).iter().zip(&self.direct);
        median(turns.map(|(proxied, direct)| proxied.quantile(share) - direct.quantile(share)))
    }
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
        latency.direct.push(turn(round, "direct", &direct, None, plan, rate).await);
        for (running, (key, turns)) in running.iter().zip(&mut latency.proxied) {
            let client = running.usual_client().await;
            turns.push(turn(round, key, &client, Some(&running.process), plan, rate).await);
            running.empty_log();
        }
    }
    Some(latency)
}

async fn turn(
    round: usize,
    key: &str,
    client: &Rc<Client>,
    process: Option<&Process>,
    plan: &Plan,
    rate: f64,
) -> Taken {
    let taken = at_rate(client, process, rate, plan.warm_up, TURNS * plan.turn).await;
    println!(
        "round {round}: {key:<15} {:>6.0}/s, p50 {:>4.0} µs, p99 {:>5.0} µs, {} failed",
        taken.throughput(),
        taken.quantile(0.5),
        taken.quantile(0.99),
        taken.failures,
    );
    taken
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
