//! Has Redis tell of every change of a record, over a connection of its own to each primary.
//!
//! `CLIENT TRACKING` in its broadcast mode tells of all keys that begin with a prefix, whoever writes,
//! deletes, evicts or expires them; without the mode it would tell only of what this very connection has
//! read. Reads come over another connection, and need no order between the two: a mark is taken before
//! the read is sent, so that of a write which the read did not see it is always told later than that.
//! Changes count as told once each primary has said that it tells of them, and no longer as soon as any
//! connection ends, is silent, or turns out to lead to a server that is no primary any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, Value,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::reason;
use super::topology::Topology;
use crate::random::Random;
use crate::session::store::RecordKey;
use crate::session::store::changes::Changes;

/// Between one answer and the next question. With [`ANSWER_TIMEOUT`], a silent server is noticed within 2 s.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// For one answer, and for a connection to be made.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is asked which servers are primaries. For so long, one that was deposed and does not know it
/// yet may be listened to in place of the new one.
const CENSUS: Duration = Duration::from_secs(2);

/// How often in a row nobody may know, while the primaries known so far say that they are.
const UNANSWERED: u32 = 3;

/// After a failure, and doubled after each further one up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// After a refusal, which only an operator can mend.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Keeps [`Changes`] told. Who drops its future ends its connections.
pub(super) struct Tracking {
    topology: Topology,
    changes: Arc<Changes>,
    /// With which the names of all records begin, and no others.
    name_prefix: Arc<str>,
    random: Random,
}

/// A connection to one primary, which tells of changes.
struct Listener {
    connection: MultiplexedConnection,
    is_closed: Arc<Notify>,
}

/// Changes count as told for as long as it lives, and no longer, were its task to panic.
struct Told<'a>(&'a Changes);

/// Why changes may be missed.
#[derive(Debug, thiserror::Error)]
enum Loss {
    #[error("the connection was closed")]
    Closed,
    #[error("{}", reason(.0))]
    Failed(#[from] RedisError),
    #[error("CLIENT TRACKING is refused: {}", reason(.0))]
    Refused(RedisError),
    #[error("no primary")]
    NoPrimary,
    #[error("other servers are primaries now")]
    OtherPrimaries,
    #[error("no answer in time")]
    Silent,
    #[error("a task of the connection did not end")]
    Panicked,
}

/// What was said of the present break.
#[derive(Default)]
struct Said {
    loss: bool,
    refusal: bool,
}

impl Tracking {
    pub(super) fn new(
        topology: Topology,
        changes: Arc<Changes>,
        name_prefix: String,
        random: Random,
    ) -> Self {
        Self { topology, changes, name_prefix: name_prefix.into(), random }
    }

    /// Never ends.
    pub(super) async fn run(self) {
        let mut failures: u32 = 0;
        let mut said = Said::default();
        loop {
            let loss = match self.connect().await {
                Ok((listeners, addresses)) => {
                    let told = Told::from_now_on(&self.changes);
                    tracing::info!(event = "store.tracked", servers = ?addresses);
                    said = Said::default();
                    let since = Instant::now();
                    let loss = self.watch(listeners, &addresses).await;
                    drop(told);
                    // The first try is at once, except at a server that closes what it has just opened.
                    failures = if since.elapsed() < HEARTBEAT { failures.saturating_add(1) } else { 0 };
                    loss
                }
                Err(loss) => {
                    failures = failures.saturating_add(1);
                    loss
                }
            };
            said.tell(&loss);
            sleep(pause(&loss, failures, self.random)).await;
        }
    }

    /// Returns once every primary tells of changes.
    async fn connect(&self) -> Result<(Vec<Listener>, BTreeSet<String>), Loss> {
        let primaries = self.primaries().await?;
        let addresses = addresses(&primaries);
        let mut opened = JoinSet::new();
        for primary in primaries {
            let (changes, name_prefix) = (Arc::clone(&self.changes), Arc::clone(&self.name_prefix));
            opened.spawn(Listener::open(primary, changes, name_prefix));
        }
        let mut listeners = Vec::new();
        while let Some(listener) = opened.join_next().await {
            listeners.push(listener.map_err(|_| Loss::Panicked)??);
        }
        Ok((listeners, addresses))
    }

    /// Returns as soon as any primary may no longer tell of changes.
    async fn watch(&self, listeners: Vec<Listener>, addresses: &BTreeSet<String>) -> Loss {
        let mut watched = JoinSet::new();
        for listener in listeners {
            watched.spawn(listener.watch());
        }
        tokio::select! {
            loss = watched.join_next() => match loss {
                Some(Ok(loss)) => loss,
                Some(Err(_)) | None => Loss::Panicked,
            },
            loss = self.until_others_are_primaries(addresses) => loss,
        }
    }

    async fn until_others_are_primaries(&self, known: &BTreeSet<String>) -> Loss {
        let mut unanswered = 0;
        loop {
            sleep(CENSUS).await;
            match self.primaries().await {
                Ok(primaries) if addresses(&primaries) == *known => unanswered = 0,
                Ok(_) => return Loss::OtherPrimaries,
                Err(_) if unanswered < UNANSWERED => unanswered += 1,
                Err(loss) => return loss,
            }
        }
    }

    async fn primaries(&self) -> Result<Vec<Client>, Loss> {
        let primaries = timeout(2 * ANSWER_TIMEOUT, self.topology.primaries());
        let primaries = primaries.await.map_err(|_| Loss::Silent)??;
        if primaries.is_empty() { Err(Loss::NoPrimary) } else { Ok(primaries) }
    }
}

impl Listener {
    async fn open(client: Client, changes: Arc<Changes>, name_prefix: Arc<str>) -> Result<Self, Loss> {
        let is_closed = Arc::new(Notify::new());
        let (closing, tracked_prefix) = (Arc::clone(&is_closed), Arc::clone(&name_prefix));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(move |push: PushInfo| {
                match push.kind {
                    PushKind::Invalidate => note(&changes, &tracked_prefix, &push.data),
                    PushKind::Disconnection => closing.notify_one(),
                    _ => {}
                }
                Ok::<(), RedisError>(())
            });
        let made = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut listener = Self { connection: made.map_err(without_resp3)?, is_closed };
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(&*name_prefix);
        command.exec_async(&mut listener.connection).await.map_err(refusal)?;
        listener.check().await?;
        Ok(listener)
    }

    async fn watch(mut self) -> Loss {
        let is_closed = Arc::clone(&self.is_closed);
        let failed = async {
            loop {
                sleep(HEARTBEAT).await;
                if let Err(loss) = self.check().await {
                    return loss;
                }
            }
        };
        tokio::select! {
            () = is_closed.notified() => Loss::Closed,
            loss = failed => loss,
        }
    }

    /// That the server answers and is a primary: one that was demoted goes on to tell of changes, but late.
    /// Unlike `PING`, `HELLO` says so, and no permission is needed for it.
    async fn check(&mut self) -> Result<(), Loss> {
        let mut command = redis::cmd("HELLO");
        let answer: HashMap<String, Value> = command.arg(3).query_async(&mut self.connection).await?;
        let role = answer.get("role").map(String::from_redis_value_ref).transpose();
        match role.map_err(RedisError::from)?.as_deref() {
            Some("master") | None => Ok(()),
            Some(_) => Err(Loss::NoPrimary),
        }
    }
}

impl<'a> Told<'a> {
    fn from_now_on(changes: &'a Changes) -> Self {
        changes.connected();
        Self(changes)
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

impl Said {
    /// Once for each break, and once more where it turns out to be one that stays.
    fn tell(&mut self, loss: &Loss) {
        let is_refusal = matches!(loss, Loss::Refused(_));
        if is_refusal && !self.refusal {
            tracing::error!(
                event = "store.tracking_refused",
                error = %loss,
                "every request asks the store; permit `CLIENT TRACKING` (Redis 6 or newer)"
            );
        } else if !is_refusal && !self.loss {
            tracing::warn!(event = "store.tracking_lost", error = %loss, "every request asks the store");
        }
        self.refusal |= is_refusal;
        self.loss = true;
    }
}

/// What an invalidation tells of: the names of keys, or nothing at all where all keys were thrown away.
fn note(changes: &Changes, name_prefix: &str, data: &[Value]) {
    let [Value::Array(names)] = data else {
        changes.note_all();
        return;
    };
    for name in names {
        let Value::BulkString(name) = name else {
            changes.note_all();
            continue;
        };
        let key = name.strip_prefix(name_prefix.as_bytes()).and_then(|rest| rest.strip_suffix(b"}"));
        if let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) {
            changes.note(&RecordKey(key.to_owned()));
        }
    }
}

/// A connection that cannot be pushed to. Whatever else goes wrong at this stage, a further try may mend.
fn without_resp3(error: RedisError) -> Loss {
    let is_refused = matches!(error.kind(), ErrorKind::RESP3NotSupported | ErrorKind::InvalidClientConfig)
        || error.code() == Some("NOPROTO");
    if is_refused { Loss::Refused(error) } else { Loss::Failed(error) }
}

/// What the server says of a command that it does not know, or that this user may not run.
fn refusal(error: RedisError) -> Loss {
    if matches!(error.code(), Some("NOPERM" | "ERR")) { Loss::Refused(error) } else { Loss::Failed(error) }
}

/// How long to wait before the next try. Gateways that lost one server do not come back to it all at once.
fn pause(loss: &Loss, failures: u32, random: Random) -> Duration {
    let pause = match loss {
        Loss::Refused(_) => PAUSE_AFTER_REFUSAL,
        Loss::Closed
        | Loss::Failed(_)
        | Loss::NoPrimary
        | Loss::OtherPrimaries
        | Loss::Silent
        | Loss::Panicked => match failures.checked_sub(1) {
            Some(further) => FIRST_PAUSE.saturating_mul(1 << further.min(8)).min(LONGEST_PAUSE),
            None => Duration::ZERO,
        },
    };
    pause.mul_f64(0.5 + random.fraction() / 2.0)
}

fn addresses(clients: &[Client]) -> BTreeSet<String> {
    clients.iter().map(|client| client.get_connection_info().addr().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "cloakroom:session:{";

    fn name(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn an_invalidation_tells_of_its_records_and_of_everything_where_it_names_nothing() {
        let changes = Changes::told();
        let [one, two, other] = ["a1", "b2", "c3"].map(|key| RecordKey(key.to_owned()));
        let marks = [&one, &two, &other].map(|key| changes.mark(key));
        let names = ["cloakroom:session:{a1}", "cloakroom:session:{c3}:lease", "cloakroom:session:{b2}"];
        note(&changes, PREFIX, &[Value::Array(names.map(name).to_vec())]);
        assert_eq!(marks.map(|mark| changes.is_current(&mark)), [false, false, true]);
        for data in [vec![Value::Nil], vec![], vec![name("a1")], vec![Value::Array(vec![Value::Int(1)])]] {
            let mark = changes.mark(&other);
            note(&changes, PREFIX, &data);
            assert!(!changes.is_current(&mark) && *changes.are_told().borrow(), "{data:?}");
        }
    }

    #[test]
    fn pauses_are_none_after_a_loss_short_after_a_failure_and_long_after_a_refusal() {
        assert_eq!(pause(&Loss::Closed, 0, Random::SYSTEM), Duration::ZERO);
        for failures in [1, 2, 5, 100, u32::MAX] {
            let pause = pause(&Loss::Silent, failures, Random::SYSTEM);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
        }
        let refused = Loss::Refused((ErrorKind::Client, "").into());
        assert!(pause(&refused, 1, Random::SYSTEM) >= PAUSE_AFTER_REFUSAL / 2);
    }
}
