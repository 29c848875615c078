//! As many requests as each answers: what one costs its processor.

use std::time::Duration;

use crate::Plan;
use crate::contestants::{ALL, Contestant, Running, Users};
use crate::load::{Taken, once_for_each_user, saturate};
use crate::process::Memory;
use crate::tables::quantile;
use crate::world::World;

/// The gateway reads a session anew once it has used it for 20 s. A turn with many sessions lasts as long as all
/// of them take for that, so that it has as many such reads as there are on average.
const FULL_TURN: Duration = Duration::from_secs(23);

/// One contestant's turns.
#[derive(Debug)]
pub struct Row {
    pub contestant: &'static Contestant,
    pub turns: Vec<Taken>,
    /// After the last turn.
    pub memory: Memory,
}

impl Row {
    /// The median over all turns.
    pub fn median(&self, value: impl Fn(&Taken) -> f64) -> f64 {
        median(self.turns.iter().map(value))
    }

    /// The median of the quotients with another's turns of the same rounds.
    pub fn cpu_against(&self, other: &Self) -> f64 {
        let pairs = self.turns.iter().zip(&other.turns);
        median(pairs.map(|(own, other)| own.cpu_per_request() / other.cpu_per_request()))
    }
}

pub async fn measure(world: &World, plan: &Plan) -> Vec<Row> {
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for contestant in &ALL {
        if plan.includes(contestant.key) {
            let running = Running::start(world, contestant).await;
            if contestant.users == Users::AllAtRandom {
                once_for_each_user(&running.usual_client().await).await;
            }
            all.push(running);
            rows.push(Row { contestant, turns: Vec::new(), memory: Memory::default() });
        }
    }
    for round in 1..=plan.rounds {
        for (running, row) in all.iter().zip(&mut rows) {
            let taken = turn(running, plan).await;
            println!(
                "round {round}: {:<15} {:>6.1} µs, {:>6.0}/s, p99 {:>5.0} µs, {} failed, core busy {:.0} %",
                row.contestant.key,
                taken.cpu_per_request(),
                taken.throughput(),
                taken.quantile(0.99),
                taken.failures,
                taken.busy * 100.0,
            );
            row.turns.push(taken);
            row.memory = running.process.memory();
            running.empty_log();
        }
    }
    rows
}

async fn turn(running: &Running, plan: &Plan) -> Taken {
    let client = running.usual_client().await;
    let (warm_up, time) = match running.contestant.users {
        Users::One => (plan.warm_up, plan.turn),
        // As much shorter as all turns are, where they are tried out.
        Users::AllAtRandom => (10 * plan.warm_up, FULL_TURN.min(8 * plan.turn)),
    };
    saturate(&client, Some(&running.process), warm_up, time).await
}

/// The one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    quantile(&values, 0.5)
}
