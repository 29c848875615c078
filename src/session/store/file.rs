//! The store in a file of one machine: for a single gateway that keeps its sessions over a restart.
//!
//! A write is answered once it is safe on the disk, whatever becomes of the process or the machine then.
//! Reads do not wait for writes. They run on threads of their own, for a disk may hang: one takes 8 µs on the
//! worker that asks, and some 20 by way of another thread, which sessions that the process has open are spared.
//!
//! Leases and counts are in memory alone, for a lease is held by a process, and no second one uses the file.
//!
//! The file grows with the number of sessions, at some kilobytes each, and what has ended makes room for what
//! is new. The end of the file is given back while it is free; all the rest when the store is opened and more
//! than half of it is free. A full disk makes everything [`Unavailable`] that would write, and what is read for
//! as long as it takes to open the database anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redb::{Error, ReadTransaction, ReadableDatabase};
use tokio::sync::oneshot;

use self::database::Folder;
use self::readers::Readers;
use self::tables::Tables;
use self::writer::{Shared, Tell, Writer};
use super::changes::Changes;
use super::memory::{CAPACITY, Counts, Expiring};
use super::outbox::{Errand, Outbox};
use super::{CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use crate::clock::{Clock, Timestamp};
use crate::rate::{Rate, Standing};

mod database;
mod encoding;
mod readers;
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
    readers: Readers,
    shared: Arc<Shared>,
    leases: Mutex<Expiring<RecordKey, LeaseOwner>>,
    counts: Mutex<Counts>,
}

impl FileStore {
    /// The store in this folder, which is made if only its parent is there.
    ///
    /// # Errors
    /// Where another process uses it, or it cannot be read and written, or is no store. What lies there is
    /// left as it is.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let leases = Mutex::new(Expiring::new(CAPACITY, clock.now()));
        let counts = Mutex::new(Counts::new(CAPACITY, clock.now()));
        let shared = Arc::new(Shared::open(Folder::take(path)?, clock)?);
        let no_thread = |source| OpenError::Folder { path: path.to_owned(), source };
        let writer = Writer::start(Arc::clone(&shared)).map_err(no_thread)?;
        let readers = Readers::start().map_err(no_thread)?;
        Ok(Self { writer, readers, shared, leases, counts })
    }

    /// Whether there is a store in this folder to be opened, or it would be made.
    pub fn is_made(path: &Path) -> bool {
        database::is_made(path)
    }

    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let shared = Arc::clone(&self.shared);
        let result = self.readers.run(move || {
            let database = shared.database()?;
            // A panic is a fault of the database's, mostly of one that is damaged.
            let result = catch_unwind(AssertUnwindSafe(|| read(&database.begin_read()?)));
            Ok(result.unwrap_or_else(|_| Err(Error::Corrupted("the database has panicked".to_owned()))))
        });
        result.await??.map_err(|error| {
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
        let key = key.clone();
        let record = self.read_with(move |transaction| tables::read(transaction, &key)).await?;
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
        let index = index.clone();
        self.read_with(move |transaction| tables::list(transaction, &index)).await
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

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        let (mark, now) = (mark.to_owned(), self.shared.clock.now());
        self.read_with(move |transaction| tables::is_claimed(transaction, &mark, now)).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.count(key, rate, self.shared.clock.now())
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
        if !self.read_with(move |transaction| tables::has_errand_due(transaction, now)).await? {
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
        self.read_with(tables::count_errands).await
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Condvar;

    use futures_util::future::join_all;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, StorageBackend};
    use tempfile::TempDir;
    use tokio::task::yield_now;

    use super::*;
    use crate::clock::ManualClock;

    /// A disk that hangs or fails when it is told to.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<(InMemoryBackend, Mutex<Condition>, Condvar)>);

    #[derive(Debug, Default)]
    struct Condition {
        hangs: bool,
        held: usize,
        fails: Option<Operation>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Operation {
        Read,
        Sync,
        Other,
    }

    impl Disk {
        fn condition(&self) -> MutexGuard<'_, Condition> {
            self.0.1.lock().unwrap()
        }

        fn hang(&self) {
            self.condition().hangs = true;
        }

        fn go_on(&self) {
            self.condition().hangs = false;
            self.0.2.notify_all();
        }

        fn fail(&self, operation: Operation) {
            self.condition().fails = Some(operation);
        }

        fn operate(&self, operation: Operation) -> io::Result<&InMemoryBackend> {
            let mut condition = self.condition();
            condition.held += 1;
            while condition.hangs {
                condition = self.0.2.wait(condition).unwrap();
            }
            condition.held -= 1;
            if condition.fails == Some(operation) { Err(io::Error::other("failed")) } else { Ok(&self.0.0) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.operate(Operation::Other)?.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.operate(Operation::Read)?.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.operate(Operation::Other)?.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.operate(Operation::Sync)?.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.operate(Operation::Other)?.write(offset, data)
        }
    }

    /// A store that keeps its records on this disk, until it opens its file anew.
    fn store_on(disk: &Disk) -> (FileStore, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(1)));
        let store = FileStore::open(folder.path(), clock).unwrap();
        let database = Builder::new().set_cache_size(0).create_with_backend(disk.clone()).unwrap();
        let transaction = database.begin_write().unwrap();
        drop(Tables::open(&transaction, Timestamp::from_millis(1)).unwrap());
        transaction.commit().unwrap();
        *store.shared.lock() = Ok(Arc::new(database));
        (store, folder)
    }

    fn key(name: &str) -> RecordKey {
        RecordKey(name.to_owned())
    }

    fn record() -> Record {
        let expires_at = Timestamp::from_millis(1_000_000);
        Record { sealed: b"sealed".to_vec(), version: Version(1), expires_at, indexes: Vec::new() }
    }

    async fn until(holds: impl AsyncFn() -> bool) {
        let held = async {
            while !holds().await {
                yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("it holds at last");
    }

    async fn read_once_available(store: &FileStore, name: &str) -> Option<Record> {
        let read = Mutex::new(None);
        until(async || {
            *read.lock().unwrap() = store.read(&key(name)).await.ok();
            read.lock().unwrap().is_some()
        })
        .await;
        read.into_inner().unwrap().flatten()
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_unavailable_and_holds_up_nothing_but_some_threads() {
        let disk = Disk::default();
        let (store, _folder) = store_on(&disk);
        store.create(&key("a"), &record()).await.unwrap();
        disk.hang();
        // On this one worker, their time-outs run out.
        let many = key("a");
        let reads = join_all((0..5000).map(|_| store.read(&many))).await;
        assert!(reads.iter().all(Result::is_err));
        let refused = reads
            .iter()
            .filter(|read| matches!(read, Err(Unavailable(reason)) if reason.contains("too many")))
            .count();
        assert!((1..5000).contains(&refused), "{refused}");
        assert!(store.list(&IndexKey("i".to_owned())).await.is_err());
        assert!(store.count_errands().await.is_err());
        assert!(disk.condition().held <= 8, "{}", disk.condition().held);
        disk.go_on();
        assert_eq!(read_once_available(&store, "a").await, Some(record()));
    }

    #[tokio::test]
    async fn a_write_that_fails_puts_in_doubt_what_it_was_about_and_nothing_else() {
        let disk = Disk::default();
        let (store, _folder) = store_on(&disk);
        let marks = ["a", "b"].map(|name| store.changes().mark(&key(name)));
        disk.fail(Operation::Sync);
        assert!(store.create(&key("a"), &record()).await.is_err());
        assert!(!store.changes().is_untouched(&marks[0]), "before it is answered");
        assert!(store.changes().is_untouched(&marks[1]));
        // Its file is open now, in place of the disk.
        assert_eq!(read_once_available(&store, "a").await, None);
        assert!(store.changes().is_untouched(&marks[1]));
    }

    #[tokio::test]
    async fn what_could_be_read_while_a_write_was_in_doubt_is_in_doubt_as_well() {
        let disk = Disk::default();
        let (store, _folder) = store_on(&disk);
        let held = store.shared.database().unwrap();
        disk.fail(Operation::Sync);
        assert!(store.create(&key("a"), &record()).await.is_err());
        let marks = ["a", "b"].map(|name| store.changes().mark(&key(name)));
        drop(held);
        until(async || !store.changes().is_untouched(&marks[0])).await;
        assert!(store.changes().is_untouched(&marks[1]));
    }

    #[tokio::test]
    async fn a_read_that_fails_puts_nothing_in_doubt_and_has_the_file_opened_anew() {
        let disk = Disk::default();
        let (store, _folder) = store_on(&disk);
        store.create(&key("a"), &record()).await.unwrap();
        let mark = store.changes().mark(&key("a"));
        disk.fail(Operation::Read);
        assert!(store.read(&key("a")).await.is_err());
        assert_eq!(read_once_available(&store, "a").await, None, "another database");
        assert!(store.changes().is_untouched(&mark));
    }
}
