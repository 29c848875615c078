//! What happens to the world meanwhile: certificates that change, and servers that stop and start.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::world::{Server, World, put};

/// How often the certificate changes.
const SWAP: Duration = Duration::from_secs(45);

/// How often a server stops, one and the other in turn, and for how long.
const STOP: Duration = Duration::from_secs(60);
const OUTAGE: Duration = Duration::from_secs(5);

/// Goes on until it is dropped.
pub fn start(world: &Arc<World>) -> JoinSet<()> {
    let mut faults = JoinSet::new();
    faults.spawn(swap_certificates(Arc::clone(world)));
    faults.spawn(stop_servers(Arc::clone(world)));
    faults
}

/// No error may come of this.
async fn swap_certificates(world: Arc<World>) {
    let mut ticks = interval(SWAP);
    for number in 0.. {
        ticks.tick().await;
        put(world.served(), &world.certificates[number % 2]);
    }
}

/// What a server was answering when it stopped is lost, and nothing else.
async fn stop_servers(world: Arc<World>) {
    let mut servers =
        [Some(Server::start(world.servers[0]).await), Some(Server::start(world.servers[1]).await)];
    let mut ticks = interval(STOP);
    ticks.tick().await;
    for number in 0.. {
        ticks.tick().await;
        let place = number % 2;
        world.journal.fault_begins();
        servers[place] = None;
        sleep(OUTAGE).await;
        servers[place] = Some(Server::start(world.servers[place]).await);
        world.journal.fault_ends();
    }
}
