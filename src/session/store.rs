//! Where sealed session records are kept: the trait, and its three answers.
//!
//! A store sees sealed bytes alone. It answers found (`Some`), absent (`None`) or [`Unavailable`], and
//! the three never mix: absent ends a session, unavailable is a 503 that keeps the cookie.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::rate::{Rate, Standing};

pub mod changes;
pub mod file;
pub mod memory;
pub mod observed;
pub mod outbox;
pub mod redis;

use changes::Changes;
use outbox::Outbox;

/// How long an expired record is kept before it is thrown away.
pub const COLLECTION_MARGIN: Duration = Duration::from_secs(300);

/// The name of a record: a hash of the session's id, in hexadecimal. Knowing it opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(pub String);

/// The name of an index, the list of one user's sessions: a keyed hash in hexadecimal, which tells nobody
/// whose they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKey(pub String);

/// Counts the writes of one record from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// A record as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The sealed session.
    pub sealed: Vec<u8>,
    /// Which write this is.
    pub version: Version,
    /// When it dies of idleness or of age; past this moment it counts as absent.
    pub expires_at: Timestamp,
    /// The indexes that list it.
    pub indexes: Vec<IndexKey>,
}

impl RecordKey {
    /// Its first 64 bits, to look something up by that has the whole of it; 0 where it is no such hash.
    pub(super) fn prefix(&self) -> u64 {
        self.0.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }
}

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new record lies there.
    Written,
    /// Another version lies there; nothing was written.
    Conflict,
    /// No record lies there; nothing was written.
    Absent,
}

/// The owner of a lease: a random token, so that nobody releases another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOwner(pub String);

/// The name of a count: a keyed hash in hexadecimal, which tells nobody whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountKey(pub String);

/// The store could not be asked, or gave an answer that makes no sense. What was asked may or may not
/// have been done.
#[derive(Debug, thiserror::Error)]
#[error("the session store is unavailable: {0}")]
pub struct Unavailable(pub String);

/// A store of sealed records. To each of its methods a record past its `expires_at` is absent; what moment it
/// is, the gateway's clock says. A damaged record is absent as well, and an error in the log.
#[async_trait]
pub trait Store: Outbox + fmt::Debug + Send + Sync {
    /// The record of this key.
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable>;

    /// Writes a new record, once each of its indexes lists it: a session that lies there is always found.
    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable>;

    /// Puts `sealed` and `version` in the place of the record of version `expected`, and leaves its
    /// `expires_at` and its indexes alone. Never creates a record.
    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable>;

    /// Moves the record's `expires_at` forward, where it still is as it was `seen`: of many who saw the same
    /// one, in this process and in others, the first writes. Its indexes list it for as long, and again
    /// where they had lost it. Never creates a record.
    async fn touch(&self, key: &RecordKey, seen: Timestamp, expires_at: Timestamp)
    -> Result<(), Unavailable>;

    /// Takes the record out, and then from its indexes, whatever its version, and throws a damaged one away.
    /// One that has expired counts as long as it lies there, for at least [`COLLECTION_MARGIN`]: its tokens
    /// are still to be revoked.
    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable>;

    /// The same, if the record is of this version.
    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable>;

    /// The keys of the records that an index lists, in no order. One of them may name nothing: a record that
    /// ended a moment ago or is about to be written, or one that died unseen, which stays listed until its
    /// time would have come.
    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable>;

    /// Takes or renews the lease on this record for `time_to_live`; `false` where another owner holds it.
    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable>;

    /// Gives the lease up, if it is this owner's.
    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable>;

    /// `true` the first time a mark is set, `false` while it is remembered: for what may be used only once.
    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable>;

    /// Whether a mark is set.
    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable>;

    /// Counts one more under this key, if that is within the rate, by the store's own time: those of all
    /// gateways are one count. What nobody adds to is forgotten once it makes no difference.
    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable>;

    /// Whether the store answers and takes writes.
    async fn ping(&self) -> Result<(), Unavailable>;

    /// What the store tells of writes to its records, by whomever.
    fn changes(&self) -> &Changes;
}
