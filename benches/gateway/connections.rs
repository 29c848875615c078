//! Ten thousand connections: what each takes of memory while it rests, be it for the next request or as an open
//! WebSocket, and what their number costs the requests.

use std::io::Result;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Plan;
use crate::client::{Buffers, Stream};
use crate::contestants::{Running, named};
use crate::load::{Taken, saturate};
use crate::machine;
use crate::process::Memory;
use crate::request::{FRAME, FRAME_BACK, head_end};
use crate::saturated::median;
use crate::world::World;

/// What was found of one contestant.
#[derive(Debug, Default)]
pub struct Connections {
    pub resting: Vec<Resting>,
    pub busy: Vec<Many>,
}

/// Connections that rest.
#[derive(Debug)]
pub struct Resting {
    pub key: &'static str,
    pub kind: Kind,
    pub count: usize,
    pub before: Memory,
    pub after: Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KeepAlive,
    WebSocket,
}

/// Turns with few connections and with many, the same number of requests under way.
#[derive(Debug)]
pub struct Many {
    pub key: &'static str,
    pub count: usize,
    pub turns: Vec<[Taken; 2]>,
}

impl Resting {
    /// Bytes that each has added.
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    pub fn bytes_each(&self) -> f64 {
        self.after.proportional.saturating_sub(self.before.proportional) as f64 / self.count as f64
    }
}

impl Many {
    /// What many cost for each that few cost.
    pub fn ratio(&self) -> f64 {
        median(self.turns.iter().map(|[few, many]| many.cpu_per_request() / few.cpu_per_request()))
    }
}

pub async fn measure(world: &World, plan: &Plan) -> Connections {
    let mut connections = Connections::default();
    if plan.includes("connections") {
        for key in ["gateway", "nginx"] {
            let (resting, many) = keep_alive(world, plan, key).await;
            connections.resting.push(resting);
            connections.busy.push(many);
        }
    }
    if plan.includes("websockets") {
        connections.resting.push(websockets(world, plan).await);
    }
    connections
}

async fn keep_alive(world: &World, plan: &Plan, key: &'static str) -> (Resting, Many) {
    let running = Running::start(world, named(key)).await;
    let few = running.usual_client().await;
    // So that what every process takes for its first requests is not counted.
    saturate(&few, Some(&running.process), plan.warm_up, plan.turn).await;
    let before = running.process.memory();
    let count = machine::connections(plan.connections, 1);
    let many = running.client(0).await;
    let mut buffers = Buffers::default();
    for number in 0..count {
        many.grow(number, 0, &mut buffers).await.expect("an answer on each connection");
    }
    let resting = Resting { key, kind: Kind::KeepAlive, count, before, after: at_rest(&running).await };
    println!("{key}: {:.0} bytes for each of {count} connections", resting.bytes_each());
    let mut turns = Vec::new();
    for round in 1..=plan.rounds {
        let mut pair = Vec::new();
        for client in [&few, &many] {
            let taken = saturate(client, Some(&running.process), plan.warm_up, plan.turn).await;
            println!("round {round}: {key}: {:.1} µs, {} failed", taken.cpu_per_request(), taken.failures);
            pair.push(taken);
            running.empty_log();
        }
        turns.push(pair.try_into().expect("two"));
    }
    (resting, Many { key, count, turns })
}

async fn websockets(world: &World, plan: &Plan) -> Resting {
    let key = "gateway";
    let running = Running::start(world, named(key)).await;
    // One to the client and one to the upstream.
    let count = machine::connections(plan.connections, 2);
    let handshake = running.requests.handshake(0);
    let mut open = Vec::new();
    // The first hundred and their end take what every process takes.
    for number in 0..100 {
        open.push(open_websocket(&running, number, &handshake).await.expect("a WebSocket"));
    }
    open.clear();
    let before = running.process.memory();
    for number in 0..count {
        open.push(open_websocket(&running, number, &handshake).await.expect("a WebSocket"));
    }
    let after = at_rest(&running).await;
    let resting = Resting { key, kind: Kind::WebSocket, count: open.len(), before, after };
    println!("{key}: {:.0} bytes for each of {count} WebSockets", resting.bytes_each());
    resting
}

/// The process's memory once it has not changed for twelve seconds, while one user goes on asking ten times a
/// second: what is given back for a connection that rests is given back some time after its last byte, and by
/// an allocator that is called.
async fn at_rest(running: &Running) -> Memory {
    let (user, mut buffers) = (running.client(1).await, Buffers::default());
    let mut memory = running.process.memory();
    let (begun, mut unchanged) = (Instant::now(), Instant::now());
    while unchanged.elapsed() < Duration::from_secs(12) && begun.elapsed() < Duration::from_secs(60) {
        user.exchange(0, 0, &mut buffers).await.expect("an answer");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = running.process.memory();
        if now.proportional.abs_diff(memory.proportional) > memory.proportional / 100 {
            (memory, unchanged) = (now, Instant::now());
        }
    }
    running.process.memory()
}

/// Through which one frame has gone there and one back.
async fn open_websocket(running: &Running, number: usize, handshake: &[u8]) -> Result<Box<dyn Stream>> {
    let mut stream = running.target.connect(number).await?;
    stream.write_all(handshake).await?;
    let mut answer = Vec::new();
    while head_end(&answer).is_none() {
        assert!(stream.read_buf(&mut answer).await? > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(FRAME).await?;
    let mut frame = [0; FRAME_BACK.len()];
    stream.read_exact(&mut frame).await?;
    assert_eq!(frame, FRAME_BACK);
    Ok(stream)
}
