//! The store in one Redis server.
//!
//! A record is a hash with the fields `sealed`, `version` and `expires_at`. Whether it has expired is
//! decided by the gateway's clock; Redis' own time only collects what nobody asked for again. What
//! depends on what lies there is one Lua script, for a script is not interrupted. All keys of a session
//! have its record key as their hash tag, so that a cluster keeps them on one node.
//!
//! Whatever Redis says that is no plain answer is [`Unavailable`]: an error of any kind, an answer of
//! another shape. A damaged record, a key of another type among them, counts as absent and is logged: no
//! retry would mend it, and the user would be shut out until it is collected. A replica may lack what its
//! primary has, so before anything is called absent a write that changes nothing is tried, which a replica
//! refuses. For a script it has one more use: Redis does not stop a script for want of memory once that has
//! written, so that tokens are still renewed where no new session fits in.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult, Script};

use self::connection::Connection;
use super::{COLLECTION_MARGIN, LeaseOwner, Record, RecordKey, Replaced, Store, Unavailable, Version};
use crate::clock::{Clock, Timestamp};
use crate::config;

mod connection;

/// For one operation, connecting included (R65).
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// A store in one Redis server.
pub struct RedisStore {
    connection: Connection,
    prefix: String,
    scripts: Scripts,
    clock: Arc<dyn Clock>,
}

/// The URL is none of a Redis server that can be connected to.
#[derive(Debug, thiserror::Error)]
#[error("not the URL of a Redis server: {0}")]
pub struct InvalidUrl(String);

/// `sealed`, `version` and `expires_at`, as far as they are there.
type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

struct Scripts {
    create: Script,
    replace: Script,
    touch: Script,
    take: Script,
    lease: Script,
    release: Script,
}

impl RedisStore {
    /// A store in the server at this URL. Connects when it is first asked; a server that is down stops
    /// nothing.
    ///
    /// # Errors
    /// Where the URL is none of a Redis server.
    pub fn new(config: &config::Redis, clock: Arc<dyn Clock>) -> Result<Self, InvalidUrl> {
        let info = config.url.as_str().into_connection_info().map_err(|error| InvalidUrl(reason(&error)))?;
        let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose());
        }
        let info =
            info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(|error| InvalidUrl(reason(&error)))?;
        Ok(Self {
            connection: Connection::new(client),
            prefix: config.key_prefix.clone(),
            scripts: Scripts::new(),
            clock,
        })
    }

    fn session_key(&self, key: &RecordKey) -> String {
        format!("{}session:{{{}}}", self.prefix, key.0)
    }

    fn lease_key(&self, key: &RecordKey) -> String {
        format!("{}session:{{{}}}:lease", self.prefix, key.0)
    }

    /// For how long Redis keeps a record that dies at this moment.
    fn keep_for(&self, expires_at: Timestamp) -> u64 {
        milliseconds(expires_at.since(self.clock.now()) + COLLECTION_MARGIN)
    }

    /// Called only where a primary knows of nothing: see the module's own text.
    async fn confirm_absence(&self, key: &RecordKey) -> Result<(), Unavailable> {
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
        let mut script = self.scripts.take.key(self.session_key(key));
        script.arg(version);
        let answer: Vec<Vec<u8>> = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        match answer.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [b"taken", sealed, version, expires_at] => {
                record(sealed, version, expires_at).map(Some).ok_or_else(no_answer)
            }
            [b"absent" | b"conflict"] => Ok(None),
            [b"damaged"] => {
                report_damage();
                Ok(None)
            }
            _ => Err(no_answer()),
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.session_key(key)).arg(&["sealed", "version", "expires_at"]);
        let mut connection = self.connection.clone();
        let fields = bounded(unless_wrong_type::<Fields>(command.query_async(&mut connection))).await?;
        let is_absent = fields == Some((None, None, None));
        let found = match fields {
            Some((Some(sealed), Some(version), Some(expires_at))) => record(&sealed, &version, &expires_at),
            Some(_) | None => None,
        };
        let is_damaged = found.is_none() && !is_absent;
        let now = self.clock.now();
        let alive = found.filter(|record| now < record.expires_at);
        if alive.is_none() {
            self.confirm_absence(key).await?;
        }
        if is_damaged {
            report_damage();
        }
        Ok(alive)
    }

    async fn create(&self, key: &RecordKey, record: &Record) -> Result<(), Unavailable> {
        let mut script = self.scripts.create.key(self.session_key(key));
        script
            .arg(&record.sealed)
            .arg(record.version.0)
            .arg(record.expires_at.as_millis())
            .arg(self.keep_for(record.expires_at));
        bounded::<u64>(script.invoke_async(&mut self.connection.clone())).await.map(drop)
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
        let (answer,): (String,) = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        match answer.as_str() {
            "written" | "conflict" | "absent" => Ok(()),
            "damaged" => {
                report_damage();
                Ok(())
            }
            _ => Err(no_answer()),
        }
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Record>, Unavailable> {
        self.take_if(key, None).await
    }

    async fn take_version(&self, key: &RecordKey, version: Version) -> Result<Option<Record>, Unavailable> {
        self.take_if(key, Some(version)).await
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

    async fn ping(&self) -> Result<(), Unavailable> {
        let mut command = redis::cmd("SET");
        command.arg(format!("{}ping", self.prefix)).arg("").arg("PX").arg(milliseconds(COLLECTION_MARGIN));
        bounded::<String>(command.query_async(&mut self.connection.clone())).await.map(drop)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Scripts {
    fn new() -> Self {
        // Starts with the write that changes nothing (see the module's text), and goes on with a whole
        // record of KEYS[1]. Lua's `tonumber` would take `0x10` and `nan` as well.
        let record = "
            local probe = redis.pcall('HDEL', KEYS[1], '')
            local is_hash = type(probe) == 'number'
            if not is_hash and string.sub(probe.err, 1, 9) ~= 'WRONGTYPE' then return probe end
            local record = is_hash and redis.call('HMGET', KEYS[1], 'sealed', 'version', 'expires_at')
            if record and not (record[1] or record[2] or record[3]) then return {'absent'} end
            local function is_number(text)
                return text and #text < 20 and string.find(text, '^[1-9]%d*$')
            end
            local is_damaged = not (record and record[1] and is_number(record[2]) and is_number(record[3]))";
        Self {
            create: Script::new(
                "redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'version', ARGV[2], 'expires_at', ARGV[3])
                return redis.call('PEXPIRE', KEYS[1], ARGV[4])",
            ),
            replace: Script::new(&format!(
                "{record}
                if is_damaged then return {{'damaged'}} end
                if tonumber(record[3]) <= tonumber(ARGV[1]) then return {{'absent'}} end
                if record[2] ~= ARGV[2] then return {{'conflict'}} end
                redis.call('HSET', KEYS[1], 'sealed', ARGV[3], 'version', ARGV[4])
                return {{'written'}}"
            )),
            touch: Script::new(&format!(
                "{record}
                if is_damaged then return {{'damaged'}} end
                if record[3] ~= ARGV[1] then return {{'conflict'}} end
                redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
                redis.call('PEXPIRE', KEYS[1], ARGV[3])
                return {{'written'}}"
            )),
            take: Script::new(&format!(
                "{record}
                if not is_damaged and ARGV[1] ~= '' and ARGV[1] ~= record[2] then return {{'conflict'}} end
                if not is_damaged or ARGV[1] == '' then redis.call('DEL', KEYS[1]) end
                if is_damaged then return {{'damaged'}} end
                return {{'taken', record[1], record[2], record[3]}}"
            )),
            lease: Script::new(
                "local owner = redis.call('GET', KEYS[1])
                if owner and owner ~= ARGV[1] then return 0 end
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                return 1",
            ),
            release: Script::new(
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                return redis.call('DEL', KEYS[1])",
            ),
        }
    }
}

/// A record of its fields, unless they are damaged. Numbers are as the scripts take them.
fn record(sealed: &[u8], version: &[u8], expires_at: &[u8]) -> Option<Record> {
    let number = |digits: &[u8]| {
        let is_number =
            digits.len() < 20 && digits.iter().all(u8::is_ascii_digit) && !matches!(digits, [] | [b'0', ..]);
        std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
    };
    Some(Record {
        sealed: sealed.to_vec(),
        version: Version(number(version)?),
        expires_at: Timestamp::from_millis(number(expires_at)?),
    })
}

/// The same event as of a record that cannot be opened: to the session it makes no difference.
fn report_damage() {
    tracing::error!(event = "session.record_unreadable", reason = "the record in Redis is damaged");
}

fn no_answer() -> Unavailable {
    Unavailable("the answer is none of the script's".to_owned())
}

/// `None` where the key is of another type.
async fn unless_wrong_type<T>(answer: impl Future<Output = RedisResult<T>> + Send) -> RedisResult<Option<T>> {
    match answer.await {
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
        answer => answer.map(Some),
    }
}

async fn bounded<T>(answer: impl Future<Output = RedisResult<T>> + Send) -> Result<T, Unavailable> {
    match tokio::time::timeout(OPERATION_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Unavailable(reason(&error))),
        Err(_) => Err(Unavailable("no answer in time".to_owned())),
    }
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
