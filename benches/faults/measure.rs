//! One fault under load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::between;
use crate::load::{Load, Sample};
use crate::world::{WARM_UP, World};

/// So long without a failure, and it is over.
const QUIET: Duration = Duration::from_secs(5);

/// No longer is waited for that.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the users of one fault.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// How many users were told that they have no session, though nobody had ended it.
    pub logged_out: usize,
    /// Of how many.
    pub others: usize,
    pub requests: usize,
    /// Those that were not answered with 200, but for the rightly refused ones, by the status of their
    /// answers; 0 is none.
    pub statuses: BTreeMap<u16, usize>,
    pub refreshes: usize,
    pub lasted: Duration,
    /// From the begin of the fault to the end of the last request that failed.
    pub last_failure: Option<Duration>,
    /// From the end of the fault on.
    pub last_failure_after: Option<Duration>,
}

/// Has users go on, and lets something happen to the store. What it gives is who lost their session by it
/// rightly; it is done when the store is whole again.
pub async fn measure(name: &'static str, world: &World, fault: impl AsyncFnOnce() -> Vec<usize>) -> Row {
    let load = Load::start(world);
    sleep(WARM_UP).await;
    let before = load.samples();
    assert!(before.iter().all(|sample| sample.status == 200), "all is well before {name}");
    let refreshes = world.refreshes();
    let begin = Instant::now();
    let victims = fault().await;
    let end = Instant::now();
    let is_failure = |sample: &Sample| sample.status != 200 && !victims.contains(&sample.user);
    loop {
        sleep(Duration::from_millis(500)).await;
        let last = load.samples().iter().filter(|sample| is_failure(sample)).map(|sample| sample.ended).max();
        let quiet_since = last.map_or(end, |last| last.max(end));
        if quiet_since.elapsed() > QUIET || end.elapsed() > PATIENCE {
            break;
        }
    }
    let samples: Vec<Sample> = load.samples().into_iter().filter(|sample| sample.ended > begin).collect();
    let failures: Vec<&Sample> = samples.iter().filter(|sample| is_failure(sample)).collect();
    let logged_out: BTreeSet<usize> =
        failures.iter().filter(|sample| sample.status == 401).map(|sample| sample.user).collect();
    let mut statuses = BTreeMap::new();
    for failure in &failures {
        *statuses.entry(failure.status).or_default() += 1;
    }
    let last = failures.iter().map(|failure| failure.ended).max();
    Row {
        name,
        logged_out: logged_out.len(),
        others: world.users.len() - victims.len(),
        requests: samples.iter().filter(|sample| !victims.contains(&sample.user)).count(),
        statuses,
        refreshes: world.refreshes() - refreshes,
        lasted: between(begin, end),
        last_failure: last.map(|last| between(begin, last)),
        last_failure_after: last.filter(|last| *last > end).map(|last| between(end, last)),
    }
}
