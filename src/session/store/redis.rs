//! The store in Redis: one server, a master that sentinels look after, or a cluster.
//!
//! A record is a hash with the fields `sealed`, `version`, `expires_at` and `indexes`. Whether it has expired is
//! decided by the gateway's clock; Redis' own time only collects what nobody asked for again. What
//! depends on what lies there is one Lua script, for a script is not interrupted. All keys of a session
//! have its record key as their hash tag, so that a cluster keeps them on one node.
//!
//! Whatever Redis says that is no plain answer is [`Unavailable`]: an error of any kind, an answer of
//! another shape. A damaged record, a key of another type among them, counts as absent and is logged: no
//! retry would mend it, and the user would be shut out until it is collected. A replica may lack what its
//! primary has, so before anything is called absent a write that changes nothing is tried, which a replica
//! refuses. While Redis tells of no changes, what was found is confirmed likewise: a master that was replaced
//! and is cut off together with this gateway refuses it as well, if it has `min-replicas-to-write`. For a
//! script the write has one more use: Redis does not stop a script for want of memory once that has
//! written, so that tokens are still renewed where no new session fits in.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::connection::Connection;
use self::indexes::Entry;
use self::replicas::ReplicasWanted;
use self::scripts::Scripts;
use self::topology::Topology;
use self::tracking::Tracking;
use super::changes::Changes;
use super::{
    COLLECTION_MARGIN, CountKey, IndexKey, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable,
    Version,
};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::random::Random;
use crate::rate::{Rate, Standing};

pub use survey::{ServerReport, survey};

mod cluster;
mod connection;
mod indexes;
mod link;
mod outbox;
mod replicas;
mod scripts;
mod sentinels;
mod survey;
mod topology;
mod tracking;

/// For one operation with all that it asks, connecting included (R65).
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// With which, after the prefix, the names of all records begin, and no others.
const SESSION_NAMES: &str = "session:{";

/// With which, after the prefix, the names of all counts begin, and no others.
const COUNT_NAMES: &str = "count:";

/// A store in Redis.
pub struct RedisStore {
    connection: Connection,
    prefix: String,
    scripts: Scripts,
    clock: Arc<dyn Clock>,
    changes: Arc<Changes>,
    _tracking: AbortOnDropHandle<()>,
}

/// The URL is none of a Redis server that can be connected to.
#[derive(Debug, thiserror::Error)]
#[error("not the URL of a Redis server: {0}")]
pub struct InvalidUrl(String);

/// `sealed`, `version`, `expires_at` and `indexes`, as far as they are there.
type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

impl RedisStore {
    /// A store in these servers. Connects when it is first asked; servers that are down stop nothing.
    ///
    /// # Errors
    /// Where the URLs are none of Redis servers.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(config: &config::Redis, clock: Arc<dyn Clock>) -> Result<Self, InvalidUrl> {
        let topology = Topology::new(config).map_err(|error| InvalidUrl(reason(&error)))?;
        let prefix = config.key_prefix.clone();
        let replicas = ReplicasWanted { number: config.wait_for_replicas, prefix: prefix.as_str().into() };
        let changes = Arc::new(Changes::missed());
        let connection = Connection::new(&topology, replicas);
        let names = format!("{prefix}{SESSION_NAMES}");
        let tracking = Tracking::new(topology, Arc::clone(&changes), names, Random::SYSTEM);
        Ok(Self {
            connection,
            prefix,
            scripts: Scripts::new(),
            clock,
            changes,
            _tracking: AbortOnDropHandle::new(tokio::spawn(tracking.run())),
        })
    }

    fn session_key(&self, key: &RecordKey) -> String {
        format!("{}{SESSION_NAMES}{}}}", self.prefix, key.0)
    }

    /// Does not begin as a record's name does: of leases nobody is to be told.
    fn lease_key(&self, key: &RecordKey) -> String {
        format!("{}lease:{{{}}}", self.prefix, key.0)
    }

    /// For how long Redis keeps a record that dies at this moment.
    fn keep_for(&self, expires_at: Timestamp) -> u64 {
        milliseconds(expires_at.since(self.clock.now()) + COLLECTION_MARGIN)
    }

    /// Whether a primary said it: see the module's own text.
    async fn confirm_primary(&self, key: &RecordKey) -> Result<(), Unavailable> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.session_key(key)).arg("");
        bounded(unless_wrong_type::<u64>(command.query_async(&mut self.connection.clone()))).await.map(drop)
    }

    async fn take_if(
        &self,
        key: &RecordKey,
        version: Option<Version>,
    ) -> Result<Option<Record>, Unavailable> {
        let version = version.map_or_else(String::new, |version| version.0.to_string());
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let mut script = self.scripts.take.key(self.session_key(key));
        script.arg(version);
        let answer: Vec<Vec<u8>> = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        let (taken, indexes) = match answer.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [b"taken", sealed, version, expires_at, indexes] => {
                let record = record(sealed.to_vec(), version, expires_at, indexes).ok_or_else(no_answer)?;
                (Some(record), *indexes)
            }
            [b"absent" | b"conflict"] => return Ok(None),
            [b"damaged", indexes] => {
                report_damage();
                (None, *indexes)
            }
            _ => return Err(no_answer()),
        };
        let left = timeout_at(deadline, self.leave(key, &indexes::split(indexes))).await;
        if let Err(error) = left.unwrap_or_else(|_| Err(no_answer_in_time())) {
            // The record is gone, and its tokens are to be revoked: it is not kept back for an entry.
            tracing::warn!(event = "store.listed_too_long", %error, "an index lists what has ended");
        }
        Ok(taken)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.session_key(key)).arg(&["sealed", "version", "expires_at", "indexes"]);
        in_time(async {
            let mut connection = self.connection.clone();
            let fields = unless_wrong_type::<Fields>(command.query_async(&mut connection)).await;
            let fields = fields.map_err(|error| Unavailable(reason(&error)))?;
            let is_absent = fields == Some((None, None, None, None));
            let found = match fields {
                Some((Some(sealed), Some(version), Some(expires_at), indexes)) => {
                    record(sealed, &version, &expires_at, &indexes.unwrap_or_default())
                }
                Some(_) | None => None,
            };
            let is_damaged = found.is_none() && !is_absent;
            let now = self.clock.now();
            let alive = found.filter(|record| now < record.expires_at);
            if alive.is_none() || !self.changes.tells() {
                self.confirm_primary(key).await?;
            }
            if is_damaged {
                report_damage();
            }
            Ok(alive)
        })
        .await
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        in_time(async {
            self.enter(key, &record.indexes, record.expires_at, Entry::First).await?;
            let mut script = self.scripts.create.key(self.session_key(key));
            script
                .arg(&record.sealed)
                .arg(record.version.0)
                .arg(record.expires_at.as_millis())
                .arg(self.keep_for(record.expires_at))
                .arg(indexes::join(&record.indexes));
            bounded::<u64>(script.invoke_async(&mut self.connection.clone())).await.map(drop)
        })
        .await
    }

    async fn replace(
        &self,
        key: &RecordKey,
        expected: Version,
        sealed: &[u8],
        version: Version,
    ) -> Result<Replaced, Unavailable> {
        let mut script = self.scripts.replace.key(self.session_key(key));
        script.arg(self.clock.now().as_millis()).arg(expected.0).arg(sealed).arg(version.0);
        let (answer,): (String,) = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        match answer.as_str() {
            "written" => Ok(Replaced::Written),
            "conflict" => Ok(Replaced::Conflict),
            "absent" => Ok(Replaced::Absent),
            "damaged" => {
                report_damage();
                Ok(Replaced::Absent)
            }
            _ => Err(no_answer()),
        }
    }

    async fn touch(
        &self,
        key: &RecordKey,
        seen: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Unavailable> {
        if seen <= self.clock.now() || expires_at <= seen {
            return Ok(());
        }
        let mut script = self.scripts.touch.key(self.session_key(key));
        script.arg(seen.as_millis()).arg(expires_at.as_millis()).arg(self.keep_for(expires_at));
        in_time(async {
            let answer: Vec<Vec<u8>> = bounded(script.invoke_async(&mut self.connection.clone())).await?;
            match answer.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
                [b"written", indexes] => self.enter_again(key, &indexes::split(indexes), expires_at).await,
                [b"conflict" | b"absent"] => Ok(()),
                [b"damaged"] => {
                    report_damage();
                    Ok(())
                }
                _ => Err(no_answer()),
            }
        })
        .await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.take_if(key, None).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.take_if(key, Some(version)).await
    }

    async fn list(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        self.listed(index).await
    }

    async fn lease(
        &self,
        key: &RecordKey,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        let mut script = self.scripts.lease.key(self.lease_key(key));
        script.arg(&owner.0).arg(milliseconds(time_to_live));
        bounded(script.invoke_async(&mut self.connection.clone())).await
    }

    async fn release(&self, key: &RecordKey, owner: &LeaseOwner) -> Result<(), Unavailable> {
        let mut script = self.scripts.release.key(self.lease_key(key));
        script.arg(&owner.0);
        bounded::<u64>(script.invoke_async(&mut self.connection.clone())).await.map(drop)
    }

    async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let mut command = redis::cmd("SET");
        command.arg(format!("{}once:{mark}", self.prefix)).arg("");
        command.arg("NX").arg("PX").arg(milliseconds(time_to_live));
        let set: Option<String> = bounded(command.query_async(&mut self.connection.clone())).await?;
        Ok(set.is_some())
    }

    async fn is_claimed(&self, mark: &str) -> Result<bool, Unavailable> {
        let mut command = redis::cmd("EXISTS");
        command.arg(format!("{}once:{mark}", self.prefix));
        bounded(command.query_async(&mut self.connection.clone())).await
    }

    async fn count(&self, key: &CountKey, rate: Rate) -> Result<Standing, Unavailable> {
        let mut script = self.scripts.count.key(format!("{}{COUNT_NAMES}{}", self.prefix, key.0));
        script.arg(rate.interval()).arg(rate.window());
        let (is_within, ahead) = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        Ok(rate.standing(is_within, ahead))
    }

    async fn ping(&self) -> Result<(), Unavailable> {
        let mut command = redis::cmd("SET");
        command.arg(format!("{}ping", self.prefix)).arg("").arg("PX").arg(milliseconds(COLLECTION_MARGIN));
        bounded::<String>(command.query_async(&mut self.connection.clone())).await.map(drop)
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A record of its fields, unless they are damaged. Numbers are as the scripts take them.
fn record(sealed: Vec<u8>, version: &[u8], expires_at: &[u8], indexes: &[u8]) -> Option<Record> {
    let number = |digits: &[u8]| {
        let is_number =
            digits.len() < 20 && digits.iter().all(u8::is_ascii_digit) && !matches!(digits, [] | [b'0', ..]);
        std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
    };
    Some(Record {
        sealed,
        version: Version(number(version)?),
        expires_at: Timestamp::from_millis(number(expires_at)?),
        indexes: indexes::split(indexes),
    })
}

/// The same event as of a record that cannot be opened: to the session it makes no difference.
fn report_damage() {
    tracing::error!(event = "session.record_unreadable", reason = "the record in Redis is damaged");
}

fn no_answer() -> Unavailable {
    Unavailable("the answer is none of the script's".to_owned())
}

fn no_answer_in_time() -> Unavailable {
    Unavailable("no answer in time".to_owned())
}

/// `None` where the key is of another type.
async fn unless_wrong_type<T>(answer: impl Future<Output = RedisResult<T>> + Send) -> RedisResult<Option<T>> {
    match answer.await {
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
        answer => answer.map(Some),
    }
}

async fn bounded<T>(answer: impl Future<Output = RedisResult<T>> + Send) -> Result<T, Unavailable> {
    in_time(async { answer.await.map_err(|error| Unavailable(reason(&error))) }).await
}

async fn in_time<T>(
    operation: impl Future<Output = Result<T, Unavailable>> + Send,
) -> Result<T, Unavailable> {
    let in_time = tokio::time::timeout(OPERATION_TIMEOUT, operation).await;
    in_time.unwrap_or_else(|_| Err(no_answer_in_time()))
}

/// What an error is, without what it says: a server that does not know a command repeats its arguments,
/// and those of the first one are the user and the password.
fn reason(error: &RedisError) -> String {
    let category = error.code().unwrap_or_else(|| error.category());
    match error.source() {
        Some(source) if error.is_io_error() => format!("{category}: {source}"),
        Some(_) | None => category.to_owned(),
    }
}

/// Within what Redis takes for a time to live: not nothing, nor what it cannot add to the time of day.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 53)
}
