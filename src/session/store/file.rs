//! The store in a file of one machine: for a single gateway that keeps its sessions over a restart.
//!
//! A write is answered once it is safe on the disk, whatever becomes of the process or the machine then.
//! Reads do not wait for writes. They run on the worker that asks: one takes 8 µs, and by way of a thread that
//! may block it takes 22 (the median, measured), for what is read often is in memory.
//!
//! Leases are in memory alone, for a lease is held by a process, and no second one uses the file.
//!
//! The file grows with the number of sessions, at some kilobytes each, and what has ended makes room for what is
//! new. The end of the file is given back while it is free; all the rest when the store is opened and more
//! than half of it is free. A full disk makes everything [`Unavailable`] that would write, and what is read for as
//! long as it takes to open the database anew.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redb::{Error, ReadTransaction, ReadableDatabase};
use tokio::sync::oneshot;

use self::database::Folder;
use self::tables::Tables;
use self::writer::{Shared, Tell, Writer};
use super::changes::Changes;
use super::memory::{CAPACITY, Expiring};
use super::outbox::{Errand, Outbox};
use super::{IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use crate::clock::{Clock, Timestamp};

mod database;
mod encoding;
mod tables;
mod writer;

pub use database::OpenError;

/// For one write (R65): a disk that hangs is unavailable.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// A store in a file.
#[derive(Debug)]
pub struct FileStore {
    // First, so that it has ended when the database is closed.
    writer: Writer,
    shared: Arc<Shared>,
    leases: Mutex<Expiring<RecordKey, LeaseOwner>>,
}

impl FileStore {
    /// The store in this folder, which is made if only its parent is there.
    ///
    /// # Errors
    /// Where another process uses it, or it cannot be read and written, or is no store. What lies there is
    /// left as it is.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let leases = Mutex::new(Expiring::new(CAPACITY, clock.now()));
        let shared = Arc::new(Shared::open(Folder::take(path)?, clock)?);
        let writer = Writer::start(Arc::clone(&shared))
            .map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
        Ok(Self { writer, shared, leases })
    }

    /// Whether there is a store in this folder to be opened, or it would be made.
    pub fn is_made(path: &Path) -> bool {
        database::is_made(path)
    }

    fn read_with<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Error>,
    ) -> Result<T, Unavailable> {
        let database = self.shared.database()?;
        let result = database.begin_read().map_err(Error::from).and_then(|transaction| read(&transaction));
        result.map_err(|error| {
            let reason = error.to_string();
            // The database is of no use any more, and the writer is the one who opens it anew.
            let _ = self.writer.enqueue(Box::new(|_| Err(error)));
            Unavailable(reason)
        })
    }

    async fn write_with<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Tables<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.writer.enqueue(Box::new(move |tables| {
            let result = write(tables)?;
            let tell: Tell = Box::new(move || drop(answer.send(result)));
            Ok(tell)
        }))?;
        match tokio::time::timeout(WRITE_TIMEOUT, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(self.shared.unanswered()),
            Err(_) => Err(Unavailable("the disk gives no answer in time".to_owned())),
        }
    }

    fn leases(&self) -> (MutexGuard<'_, Expiring<RecordKey, LeaseOwner>>, Timestamp) {
        (self.leases.lock().unwrap_or_else(PoisonError::into_inner), self.shared.clock.now())
    }
}

#[async_trait]
impl Store for FileStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let record = self.read_with(|transaction| tables::read(transaction, key))?;
        Ok(record.filter(|record| self.shared.clock.now() < record.expires_at))
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        let (key, record) = (key.clone(), record.clone());
        self.write_with(move |tables| tables.create(&key, &record)).await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        let (key, sealed) = (key.clone(), sealed.to_vec());
        self.write_with(move |tables| tables.replace(&key, expected, sealed, version)).await
    }

    async fn touch(
        &self,
        key: &RecordKey,
        seen: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Unavailable> {
        let key = key.clone();
        self.write_with(move |tables| tables.touch(&key, seen, expires_at)).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let key = key.clone();
        self.write_with(move |tables| tables.take(&key, None)).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        let key = key.clone();
        self.write_with(move |tables| tables.take(&key, Some(version))).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        self.read_with(|transaction| tables::list(transaction, index))
    }

    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        let (mut leases, now) = self.leases();
        leases.lease(key, owner, time_to_live, now)
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        let (mut leases, now) = self.leases();
        leases.release(key, owner, now);
        Ok(())
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let (mark, expires_at) = (mark.to_owned(), self.shared.clock.now() + time_to_live);
        self.write_with(move |tables| tables.claim_once(&mark, expires_at)).await
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        self.write_with(tables::ping).await
    }

    fn changes(&self) -> &Changes {
        &self.shared.changes
    }
}

#[async_trait]
impl Outbox for FileStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        let errand = errand.clone();
        self.write_with(move |tables| tables.post(&errand)).await
    }

    /// Writes nothing where nothing is due, for it is asked again and again.
    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        if !self.read_with(|transaction| tables::has_errand_due(transaction, now))? {
            return Ok(None);
        }
        self.write_with(move |tables| tables.fetch_due(now, until)).await
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        let id = id.to_owned();
        self.write_with(move |tables| tables.postpone(&id, due_at)).await
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        let id = id.to_owned();
        self.write_with(move |tables| tables.strike(&id)).await
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        self.read_with(tables::count_errands)
    }
}
