//! The threads that serve connections, each with a runtime of its own.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::worker;

/// How many tasks run before the operating system is asked for what has happened meanwhile. The more, the
/// fewer system calls a request costs under load.
const EVENT_INTERVAL: u32 = 256;

/// Threads that serve connections.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) runtime: Handle,
    /// Held once more by each of its connections.
    load: Load,
    thread: JoinHandle<()>,
}

/// Counts a connection as one of a worker's, until it is dropped.
pub(super) type Load = Arc<()>;

/// A runtime that serves alone in its thread: no work moves from one thread to another.
///
/// # Errors
/// Where the operating system refuses what it needs.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()
}

impl Workers {
    /// No threads: connections are served where the gateway runs.
    pub fn none() -> Self {
        Self { workers: Vec::new(), stop: CancellationToken::new() }
    }

    /// So many threads; for one alone none, for the gateway's own thread can as well serve.
    ///
    /// # Errors
    /// Where the operating system refuses them.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut workers = Self::none();
        for number in 0..if count > 1 { count } else { 0 } {
            let runtime = runtime()?;
            let handle = runtime.handle().clone();
            let stop = workers.stop.clone();
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                worker::enter(number);
                runtime.block_on(stop.cancelled());
                // A file that is being read must not hold up the end.
                runtime.shutdown_background();
            })?;
            workers.workers.push(Worker { runtime: handle, load: Load::default(), thread });
        }
        if !workers.workers.is_empty() {
            // What this thread goes on doing besides, such as asking servers whether they are well, is not to
            // leave connections of its own runtime among those of a worker's.
            worker::enter(count);
        }
        Ok(workers)
    }

    /// Where connections are served: by each of the threads, or by this one alone.
    pub(super) fn runtimes(&self) -> impl Iterator<Item = Handle> {
        let alone = self.workers.is_empty().then(Handle::current);
        self.workers.iter().map(|worker| worker.runtime.clone()).chain(alone)
    }

    /// The worker with the fewest connections, and one more on its count. One whose thread has died would
    /// have none, and is not asked.
    pub(super) fn least_busy(&self) -> Option<(&Worker, Load)> {
        let alive = self.workers.iter().filter(|worker| !worker.thread.is_finished());
        let least = alive.min_by_key(|worker| Arc::strong_count(&worker.load))?;
        Some((least, Arc::clone(&least.load)))
    }
}

impl Drop for Workers {
    /// Ends the threads, and what still runs on them.
    fn drop(&mut self) {
        self.stop.cancel();
        for worker in self.workers.drain(..) {
            // It has panicked, or it has ended: in both cases it is gone.
            let _ = worker.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    async fn number(worker: &Worker) -> usize {
        worker.runtime.spawn(async { worker::current() }).await.unwrap()
    }

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_that_has_the_fewest() {
        let workers = Workers::start(3).unwrap();
        let mut loads = Vec::new();
        for expected in [0, 1, 2, 0, 1, 2] {
            let (worker, load) = workers.least_busy().unwrap();
            assert_eq!(number(worker).await, expected);
            loads.push(load);
        }
        loads.remove(1);
        assert_eq!(number(workers.least_busy().unwrap().0).await, 1);
    }

    #[tokio::test]
    async fn a_panic_ends_one_connection_and_neither_its_worker_nor_the_others() {
        let workers = Workers::start(2).unwrap();
        let (worker, load) = workers.least_busy().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let neighbour = worker.runtime.spawn(async move { ended.await.is_ok() });
        let panicked = worker.runtime.spawn(async move {
            let _load = load;
            panic!("on purpose");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        end.send(()).unwrap();
        assert!(neighbour.await.unwrap());
        assert_eq!(number(workers.least_busy().unwrap().0).await, 0, "which counts it no more");
    }

    #[test]
    fn one_worker_alone_is_the_gateways_own_thread() {
        assert!(Workers::start(1).unwrap().least_busy().is_none());
        assert!(Workers::none().least_busy().is_none());
    }
}
