//! The one thread that writes. It runs as many operations as wait in one transaction, so that many writers
//! share the wait for the disk, and answers each once the transaction is safe there.
//!
//! After an error of the disk the database is closed and opened anew, for it says itself that it is of no
//! use any more. Until then, and for a moment after, everything is unavailable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use redb::{Database, Error};
use tokio::time::Instant;

use super::super::Unavailable;
use super::super::changes::Changes;
use super::database::{Folder, OpenError};
use super::tables::{self, Tables};
use crate::clock::Clock;
use crate::telemetry::chain;

/// How many operations may wait; one more is refused at once (R65).
const QUEUE: usize = 4096;

/// How many operations share a transaction.
const MOST_AT_ONCE: usize = 512;

/// How often an idle writer looks for what is to be thrown away, and for a database that is open again.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much is thrown away in one transaction.
const MOST_COLLECTED: usize = 128;

/// How long nothing is written after an error, so that a full disk is not hammered.
const PAUSE: Duration = Duration::from_secs(1);

/// Does its part of a transaction, and gives what tells of it once that is safe.
pub(super) type Job = Box<dyn FnOnce(&mut Tables<'_>) -> Result<Tell, Error> + Send>;

/// Answers whoever waits.
pub(super) type Tell = Box<dyn FnOnce() + Send>;

/// What readers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Open, or why not. It is dropped before the folder is given up.
    database: Mutex<Result<Arc<Database>, String>>,
    folder: Folder,
    last_failure: Mutex<String>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) changes: Changes,
}

/// The thread. Dropping this ends it, once what waits is written.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    pub(super) fn open(folder: Folder, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = folder.open_or_make_database(clock.now())?;
        Ok(Self {
            database: Mutex::new(Ok(Arc::new(database))),
            folder,
            last_failure: Mutex::default(),
            clock,
            changes: Changes::told(),
        })
    }

    pub(super) fn database(&self) -> Result<Arc<Database>, Unavailable> {
        self.lock().clone().map_err(Unavailable)
    }

    /// Why an operation that went into the queue was not answered.
    pub(super) fn unanswered(&self) -> Unavailable {
        let reason = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Unavailable(if reason.is_empty() { "the store has stopped".to_owned() } else { reason })
    }

    /// Closes the database. Readers hold it for moments alone, and it is closed once the last has let go.
    fn close(&self, reason: String) {
        tracing::error!(event = "store.file_failed", reason);
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&reason);
        let closed = std::mem::replace(&mut *self.lock(), Err(reason));
        let Ok(mut database) = closed else { return };
        while let Err(shared) = Arc::try_unwrap(database) {
            database = shared;
            thread::yield_now();
        }
        // What was under way may have been written or not.
        self.changes.note_all();
    }

    fn open_again(&self) -> bool {
        match self.folder.open_database(self.clock.now()) {
            Ok(database) => {
                *self.lock() = Ok(Arc::new(database));
                tracing::info!(event = "store.file_opened", "the database is open again");
                true
            }
            Err(error) => {
                self.close(chain(&error));
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Result<Arc<Database>, String>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread =
            thread::Builder::new().name("session-store".to_owned()).spawn(move || run(&shared, &jobs))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) fn enqueue(&self, job: Job) -> Result<(), Unavailable> {
        let sent = self.queue.as_ref().map(|queue| queue.try_send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(Unavailable("too much waits for the disk".to_owned())),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(Unavailable("the store has stopped".to_owned()))
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, queue: &Receiver<Job>) {
    let mut paused_until = None;
    loop {
        let first = match queue.recv_timeout(INTERVAL) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let jobs: Vec<Job> = first.into_iter().chain(queue.try_iter()).take(MOST_AT_ONCE).collect();
        if paused_until.is_some_and(|until| Instant::now() < until) {
            continue;
        }
        if shared.database().is_err() && !shared.open_again() {
            paused_until = Some(Instant::now() + PAUSE);
            continue;
        }
        // A panic is a fault of the database's, mostly of one that is damaged.
        let outcome = catch_unwind(AssertUnwindSafe(|| write(shared, jobs)));
        if let Err(reason) = outcome.unwrap_or_else(|_| Err("the database has panicked".to_owned())) {
            shared.close(reason);
            // At once, for those who read.
            shared.open_again();
            paused_until = Some(Instant::now() + PAUSE);
        }
    }
}

fn write(shared: &Shared, jobs: Vec<Job>) -> Result<(), String> {
    let Ok(database) = shared.database() else { return Ok(()) };
    let outcome = if jobs.is_empty() { collect(shared, &database) } else { commit(shared, &database, jobs) };
    outcome.map_err(|error| chain(&error))
}

fn commit(shared: &Shared, database: &Database, jobs: Vec<Job>) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction, shared.clock.now())?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        answers.push(job(&mut tables)?);
    }
    tables.collect(MOST_COLLECTED)?;
    let changed = tables.into_changed();
    transaction.commit()?;
    for key in &changed {
        shared.changes.note(key);
    }
    for answer in answers {
        answer();
    }
    Ok(())
}

/// Without a transaction where nothing is to be thrown away: a disk may sleep.
fn collect(shared: &Shared, database: &Database) -> Result<(), Error> {
    while tables::has_waste(database, shared.clock.now())? {
        commit(shared, database, Vec::new())?;
    }
    Ok(())
}
