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

use super::super::changes::Changes;
use super::super::{RecordKey, Unavailable};
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

/// How many times as long as it took to open the database, if that is longer. All of the file is read then, and
/// while a disk stays full this is not to happen most of the time: nobody can read meanwhile.
const PAUSE_PER_OPENING: u32 = 4;

/// Between two looks at whether somebody still reads.
const MOMENT: Duration = Duration::from_millis(1);

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

    /// Closes the database, once the last reader has let go of it: after moments, except where the disk hangs.
    /// Nobody else writes the file, so of what is in it all is as it was but for what is in doubt.
    fn close(&self, reason: String, in_doubt: &[RecordKey]) {
        tracing::error!(event = "store.file_failed", reason);
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&reason);
        let closed = std::mem::replace(&mut *self.lock(), Err(reason));
        let Ok(mut database) = closed else { return };
        while let Err(shared) = Arc::try_unwrap(database) {
            database = shared;
            thread::park_timeout(MOMENT);
        }
        // Once more: until here, what was there before could be read.
        self.note(in_doubt);
    }

    fn open_again(&self) -> bool {
        match self.folder.open_database(self.clock.now()) {
            Ok(database) => {
                *self.lock() = Ok(Arc::new(database));
                tracing::info!(event = "store.file_opened", "the database is open again");
                true
            }
            Err(error) => {
                self.close(chain(&error), &[]);
                false
            }
        }
    }

    fn note(&self, changed: &[RecordKey]) {
        for key in changed {
            self.changes.note(key);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Result<Arc<Database>, String>> {
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
        if shared.database().is_err() && !open_again(shared, &mut paused_until) {
            continue;
        }
        paused_until = None;
        let mut in_doubt = Vec::new();
        // A panic is a fault of the database's, mostly of one that is damaged.
        let outcome = catch_unwind(AssertUnwindSafe(|| write(shared, jobs, &mut in_doubt)));
        if let Err(reason) = outcome.unwrap_or_else(|_| Err("the database has panicked".to_owned())) {
            shared.close(reason, &in_doubt);
            // At once, for those who read.
            open_again(shared, &mut paused_until);
        }
    }
}

fn open_again(shared: &Shared, paused_until: &mut Option<Instant>) -> bool {
    let begun = Instant::now();
    let is_open = shared.open_again();
    *paused_until = Some(Instant::now() + PAUSE.max(begun.elapsed() * PAUSE_PER_OPENING));
    is_open
}

fn write(shared: &Shared, jobs: Vec<Job>, in_doubt: &mut Vec<RecordKey>) -> Result<(), String> {
    let Ok(database) = shared.database() else { return Ok(()) };
    let outcome = if jobs.is_empty() {
        collect(shared, &database, in_doubt)
    } else {
        commit(shared, &database, jobs, in_doubt)
    };
    outcome.map_err(|error| chain(&error))
}

/// Leaves in doubt what has been written or not where this fails. Nothing is, before it is committed.
fn commit(
    shared: &Shared,
    database: &Database,
    jobs: Vec<Job>,
    in_doubt: &mut Vec<RecordKey>,
) -> Result<(), Error> {
    let transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction, shared.clock.now())?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        answers.push(job(&mut tables)?);
    }
    tables.collect(MOST_COLLECTED)?;
    *in_doubt = tables.into_changed();
    let committed = transaction.commit();
    shared.note(in_doubt);
    committed?;
    in_doubt.clear();
    for answer in answers {
        answer();
    }
    Ok(())
}

/// Without a transaction where nothing is to be thrown away: a disk may sleep.
fn collect(shared: &Shared, database: &Database, in_doubt: &mut Vec<RecordKey>) -> Result<(), Error> {
    while tables::has_waste(database, shared.clock.now())? {
        commit(shared, database, Vec::new(), in_doubt)?;
    }
    Ok(())
}
