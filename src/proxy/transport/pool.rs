//! Connections in HTTP/1.1 between two requests: nobody polls them there, and a worker finds its own again.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::http1::Link;
use crate::connector::POOL_IDLE_TIMEOUT;
use crate::proxy::servers::ServerAddress;
use crate::worker;

/// How many connections of one worker are kept while idle; one above them takes the place of the oldest.
const CAPACITY: usize = 1024;

/// Workers above these share a lock with another one, though no connection.
const SHARDS: usize = 32;

/// In how many rounds of the sweep a connection has been idle for too long.
const ROUNDS: u32 = 4;

/// The idle connections of all workers.
#[derive(Default)]
pub(super) struct Pool([Mutex<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    /// The one used last is the last.
    idle: VecDeque<Idle>,
    /// Whether a task looks after those that are never asked for again.
    is_swept: bool,
    /// How many rounds it has made. They are the time here: a request would have to look at the clock twice.
    round: u32,
}

struct Idle {
    link: Box<Link>,
    /// To whose runtime the connection's socket belongs.
    worker: usize,
    since_round: u32,
}

impl Pool {
    /// The connection of this worker to a server that was used last: so those that are not needed grow old.
    pub(super) fn take(&self, server: &ServerAddress) -> Option<Box<Link>> {
        let worker = worker::current();
        let mut shard = self.shard(worker);
        let matches = |idle: &Idle| idle.worker == worker && idle.link.server() == server;
        let position = shard.idle.iter().rposition(matches)?;
        let idle = shard.idle.remove(position)?;
        (!shard.is_expired(&idle)).then_some(idle.link)
    }

    /// Keeps a connection that waits for its next request.
    pub(super) fn put(self: &Arc<Self>, link: Box<Link>) {
        let worker = worker::current();
        let mut shard = self.shard(worker);
        let since_round = shard.round;
        shard.idle.push_back(Idle { link, worker, since_round });
        let surplus = if shard.idle.len() > CAPACITY { shard.idle.pop_front() } else { None };
        if !std::mem::replace(&mut shard.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), worker));
        }
        drop(shard);
        drop(surplus);
    }

    fn shard(&self, worker: usize) -> MutexGuard<'_, Shard> {
        self.0[worker % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn is_expired(&self, idle: &Idle) -> bool {
        self.round.wrapping_sub(idle.since_round) >= ROUNDS
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pool")
    }
}

/// Closes what has been idle for too long, until nothing is idle: one timer for all.
async fn sweep(pool: Weak<Pool>, worker: usize) {
    loop {
        tokio::time::sleep(POOL_IDLE_TIMEOUT / ROUNDS).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut shard = pool.shard(worker);
        shard.round = shard.round.wrapping_add(1);
        let young = shard.idle.partition_point(|idle| shard.is_expired(idle));
        let expired: Vec<Idle> = shard.idle.drain(..young).collect();
        shard.is_swept = !shard.idle.is_empty();
        let is_done = !shard.is_swept;
        drop(shard);
        drop(expired);
        if is_done {
            return;
        }
    }
}
