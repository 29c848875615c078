//! The folder, and the database in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database};

use super::tables::Tables;
use crate::clock::Timestamp;

/// The database, within the folder.
const DATABASE: &str = "sessions.redb";

/// A database that is being made.
const UNFINISHED: &str = "sessions.redb.new";

/// Locked for as long as a gateway uses the folder.
const LOCK: &str = "lock";

/// Bytes of the file that are kept in memory; the system keeps more of them.
const CACHE: usize = 64 * 1024 * 1024;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is not there, or nothing can be written there.
    #[error("the folder {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One gateway at a time.
    #[error("another gateway uses {}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// What lies there is no database, or a damaged one. It is left as it is.
    #[error("{} is damaged or no database of sessions; restore it, or move it away to begin anew", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<redb::Error>,
    },
    /// The system does not let us at it.
    #[error("{} cannot be read and written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The folder of one store, which is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Makes the folder where only that is missing, and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder { path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            Ok(()) | Err(_) => {}
        }
        let lock = private().truncate(false).open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Opens the database, and makes it where none is.
    pub(super) fn open_or_make_database(&self, now: Timestamp) -> Result<Database, OpenError> {
        let path = self.path.join(DATABASE);
        match fs::exists(&path) {
            Ok(true) => {}
            Ok(false) => self.make_database(now)?,
            Err(source) => return Err(OpenError::File { path, source }),
        }
        self.open_database(now)
    }

    /// Opens the database that was there: one that has gone is not made anew, for then all sessions would be
    /// absent.
    pub(super) fn open_database(&self, now: Timestamp) -> Result<Database, OpenError> {
        let path = self.path.join(DATABASE);
        // All of it is read, as after a crash in any case: what the disk has lost is noticed here, with
        // somebody watching, and not in the middle of a request.
        let mut database = builder()
            .set_check_integrity_on_open(true)
            .open(&path)
            .map_err(|error| self.cannot_open(DATABASE, error))?;
        make_tables(&database, now).map_err(|error| self.cannot_open(DATABASE, error))?;
        self.compact(&mut database).map_err(|error| self.cannot_open(DATABASE, error))?;
        Ok(database)
    }

    /// Under another name first: a start that is cut off must not leave half a database.
    fn make_database(&self, now: Timestamp) -> Result<(), OpenError> {
        let unfinished = self.path.join(UNFINISHED);
        private()
            .truncate(true)
            .open(&unfinished)
            .map_err(|source| OpenError::File { path: unfinished.clone(), source })?;
        let database = builder().create(&unfinished).map_err(|error| self.cannot_open(UNFINISHED, error))?;
        make_tables(&database, now).map_err(|error| self.cannot_open(UNFINISHED, error))?;
        database.close().map_err(|error| self.cannot_open(UNFINISHED, error))?;
        let renamed = fs::rename(&unfinished, self.path.join(DATABASE));
        renamed
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|source| OpenError::Folder { path: self.path.clone(), source })
    }

    /// Pages that are free are used again, but what was once the largest number of sessions stays on the disk
    /// until here.
    fn compact(&self, database: &mut Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let statistics = transaction.stats()?;
        transaction.abort()?;
        let used = statistics.allocated_pages() * statistics.page_size() as u64;
        let length = fs::metadata(self.path.join(DATABASE))?.len();
        if used < length / 2 {
            database.compact()?;
        }
        Ok(())
    }

    fn cannot_open(&self, name: &str, error: impl Into<redb::Error>) -> OpenError {
        let path = self.path.join(name);
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                OpenError::InUse { path: self.path.clone() }
            }
            redb::Error::Io(source) if !tells_of_damage(&source) => OpenError::File { path, source },
            source => OpenError::Database { path, source: Box::new(source) },
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing it is not enough where a child process is being made at this moment, and has it too.
        let _ = self.lock.unlock();
    }
}

/// Not the disk's fault, nor that of who runs this.
fn tells_of_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Whether a store has been made in this folder.
pub(super) fn is_made(folder: &Path) -> bool {
    folder.join(DATABASE).exists()
}

fn make_tables(database: &Database, now: Timestamp) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    drop(Tables::open(&transaction, now)?);
    Ok(transaction.commit()?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// For the owner alone: what lies there is sealed, and nobody's business all the same.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}
