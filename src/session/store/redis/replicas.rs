//! Waiting for replicas, where that is wanted: `WAIT`, once for many writes.
//!
//! `WAIT` holds up its connection until the replicas have answered or the time is up, and on the connection
//! that all requests share everybody would stand behind it: measured with the one replica frozen and 200 ms
//! allowed, a read of 0.02 ms took 227 ms behind one writer, and 2.3 s behind ten. So a second connection to the
//! same server asks, and must have written something itself, for `WAIT` is about nothing else. What replicas
//! are sent is one stream: who has a write that came later has the earlier ones. All who have written while
//! one question was under way share the next, and each waits for two of them at most.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Arg, Client, Cmd, Pipeline, RedisResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::COUNT_NAMES;
use super::link::connect;
use super::topology::address_of;

/// How long `WAIT` waits.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(200);

/// How long a request waits at most: for the question under way and its own.
const WAIT_TIMEOUT: Duration = Duration::from_millis(450);

/// When a request stops waiting, counted from its beginning: within its time-out, for it has succeeded.
const STOP_AFTER: Duration = Duration::from_millis(1300);

/// How often it is said that replicas lag behind, while they do.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How many replicas are wanted, if any.
#[derive(Clone)]
pub(super) struct ReplicasWanted {
    pub(super) number: usize,
    /// Put before each key.
    pub(super) prefix: Arc<str>,
}

/// The replicas of one server. Asks as long as there is a clone of it.
#[derive(Clone)]
pub(super) struct Replicas {
    asked: mpsc::UnboundedSender<Question>,
    /// With what the names begin of what may be lost.
    expendable: Arc<str>,
}

struct Question {
    /// What was written.
    key: Vec<u8>,
    /// Dropped when they have answered.
    _answer: oneshot::Sender<()>,
}

struct Asking {
    client: Client,
    wanted: ReplicasWanted,
    connection: Option<MultiplexedConnection>,
    said_at: Option<Instant>,
}

impl ReplicasWanted {
    /// For connections that write nothing.
    pub(super) fn none() -> Self {
        Self { number: 0, prefix: "".into() }
    }

    /// The replicas of a server, where some are wanted.
    pub(super) fn of(&self, client: &Client) -> Option<Replicas> {
        (self.number > 0).then(|| {
            let (questions, asked) = mpsc::unbounded_channel();
            let (client, wanted) = (client.clone(), self.clone());
            tokio::spawn(Asking { client, wanted, connection: None, said_at: None }.run(asked));
            Replicas { asked: questions, expendable: format!("{}{COUNT_NAMES}", self.prefix).into() }
        })
    }
}

impl Replicas {
    /// Whether a command is of those that write what must not be lost.
    pub(super) fn concern(command: &Cmd) -> bool {
        const WRITES: [&str; 10] =
            ["DEL", "EVAL", "EVALSHA", "HSET", "PEXPIRE", "SADD", "SET", "SREM", "ZADD", "ZREM"];
        matches!(command.args_iter().next(), Some(Arg::Simple(name))
            if WRITES.iter().any(|write| name.eq_ignore_ascii_case(write.as_bytes())))
    }

    /// Waits until the replicas have what this command has just written, or for a moment. A request that
    /// `begun` long ago waits for less.
    pub(super) async fn acknowledge(&self, command: &Cmd, begun: Instant) {
        let Some(key) = key_of(command).filter(|_| Self::concern(command)) else { return };
        if key.starts_with(self.expendable.as_bytes()) {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if self.asked.send(Question { key: key.to_vec(), _answer: answer }).is_ok() {
            let _ = timeout_at((Instant::now() + WAIT_TIMEOUT).min(begun + STOP_AFTER), answered).await;
        }
    }
}

impl Asking {
    async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Question>) {
        while let Some(question) = asked.recv().await {
            let mut together = vec![question];
            while let Ok(question) = asked.try_recv() {
                together.push(question);
            }
            let key = &together[0].key;
            let acknowledged = self.ask(key).await;
            if acknowledged.as_ref().is_ok_and(|replicas| *replicas >= self.wanted.number) {
                continue;
            }
            self.say(acknowledged.ok());
        }
    }

    async fn ask(&mut self, key: &[u8]) -> RedisResult<usize> {
        if let Some(connection) = self.connection.take()
            && let Ok(acknowledged) = self.ask_over(connection, key).await
        {
            return Ok(acknowledged);
        }
        // None yet, or one that was closed because nobody wrote for long.
        let connection = connect(self.client.clone()).await?.connection;
        self.ask_over(connection, key).await
    }

    async fn ask_over(&mut self, mut connection: MultiplexedConnection, key: &[u8]) -> RedisResult<usize> {
        // WAIT is about what this very connection has written: a key in the same slot.
        let mut mark = redis::cmd("SET");
        mark.arg(mark_beside(&self.wanted.prefix, key)).arg("").arg("PX").arg(1000);
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.wanted.number).arg(u64::try_from(ACKNOWLEDGED_WITHIN.as_millis()).unwrap_or(1));
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(mark).ignore().add_command(wait);
        let (acknowledged,) = pipeline.query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(acknowledged)
    }

    fn say(&mut self, acknowledged: Option<usize>) {
        if self.said_at.is_some_and(|at| at.elapsed() < SAID_EVERY) {
            return;
        }
        self.said_at = Some(Instant::now());
        let server = address_of(&self.client).map(|address| address.to_string());
        let wanted = self.wanted.number;
        tracing::warn!(
            event = "store.replicas_behind",
            server,
            wanted,
            acknowledged,
            "what was written stands"
        );
    }
}

/// The key that a command is about: a script's first, or what comes after the command's name. `None` where it
/// is about none.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => Some(word),
        Arg::Cursor | _ => None,
    });
    let name = words.next()??.to_ascii_uppercase();
    match name.as_slice() {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" => {
            let number = words.nth(1)??;
            if number == b"0" { None } else { words.next()? }
        }
        b"SCRIPT" | b"PING" | b"CLUSTER" | b"ROLE" | b"INFO" | b"WAIT" | b"TIME" => None,
        _ => words.next()?,
    }
}

/// A key of the same slot: slots go by what stands between the first braces, or by all of a key that has none.
fn mark_beside(prefix: &str, key: &[u8]) -> Vec<u8> {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0).map(|close| &rest[..close])
    });
    [prefix.as_bytes(), b"written:{", tag.unwrap_or(key), b"}"].concat()
}

#[cfg(test)]
mod tests {
    use redis::cluster_routing::Slot;

    use super::*;

    fn command(words: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg(words);
        command
    }

    #[test]
    fn a_command_s_key_is_found() {
        for (words, key) in [
            (vec!["HMGET", "k", "a", "b"], Some("k")),
            (vec!["evalsha", "sha", "1", "k", "argument"], Some("k")),
            (vec!["EVALSHA", "sha", "0", "argument"], None),
            (vec!["SCRIPT", "LOAD", "return 1"], None),
            (vec!["PING"], None),
            (vec![], None),
        ] {
            assert_eq!(key_of(&command(&words)), key.map(str::as_bytes), "{words:?}");
        }
    }

    #[test]
    fn a_mark_lies_in_the_slot_of_what_was_written() {
        for key in ["cloakroom:session:{0a1b}", "cloakroom:once:mark", "a{b", "a}b{c}d{e}"] {
            let mark = mark_beside("cloakroom:", key.as_bytes());
            assert_eq!(Slot::for_key(&mark), Slot::for_key(key), "{key}");
        }
    }
}
