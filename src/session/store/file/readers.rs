//! The threads that read. A disk that hangs holds them up and no worker of the runtime, on which everything
//! else runs, `/livez` among it.
//!
//! They are our own and not the runtime's for blocking work: of those there are hundreds, and the runtime
//! does not end before each of them does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::oneshot;
use tracing::dispatcher;

use super::super::Unavailable;
use crate::telemetry::RequestId;

/// How many reads the disk may hold up at a time.
const READERS: usize = 4;

/// How many may wait; one more is refused at once (R65).
const QUEUE: usize = 1024;

/// For one read, its wait included (R65): a disk that hangs is unavailable.
const READ_TIMEOUT: Duration = Duration::from_millis(1500);

/// Reads, and answers whoever waits.
type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end after this is dropped, and nobody waits for one that the disk holds up.
#[derive(Debug)]
pub(super) struct Readers(SyncSender<Job>);

impl Readers {
    pub(super) fn start() -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..READERS {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name("session-reader".to_owned()).spawn(move || run(&jobs))?;
        }
        Ok(Self(queue))
    }

    /// What `read` gives, run on one of the threads; not at all where nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, answered) = oneshot::channel();
        // What is logged belongs to the request, whatever thread says it.
        let (log, request) = (dispatcher::get_default(Clone::clone), RequestId::current());
        let job: Job = Box::new(move || {
            if !answer.is_closed() {
                let read = || dispatcher::with_default(&log, read);
                drop(answer.send(match request {
                    Some(request) => request.within_blocking(read),
                    None => read(),
                }));
            }
        });
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Unavailable("too many reads wait for the disk".to_owned()),
            TrySendError::Disconnected(_) => stopped(),
        })?;
        match tokio::time::timeout(READ_TIMEOUT, answered).await {
            Ok(answer) => answer.map_err(|_| stopped()),
            Err(_) => Err(Unavailable("the disk gives no answer in time".to_owned())),
        }
    }
}

fn run(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever waits is told by the loss of the answer.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

fn stopped() -> Unavailable {
    Unavailable("the store has stopped".to_owned())
}
