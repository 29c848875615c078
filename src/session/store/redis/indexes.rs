//! The indexes: one sorted set of record keys for each, scored by when the record will have been collected.
//!
//! An index lies in another slot than the records it lists, so that no script sees both. The order makes up
//! for it. An entry is made before the record, so that a record that lies there is listed; and whoever makes
//! an entry for a record that was there looks whether it still is, so that the entry of one that was taken
//! out meanwhile goes too. What a crash leaves behind goes by its score.

use redis::Cmd;
use tokio::task::JoinSet;

use super::{RedisStore, bounded, no_answer, unless_wrong_type};
use crate::clock::Timestamp;
use crate::session::store::{COLLECTION_MARGIN, IndexKey, RecordKey, Unavailable};

/// Whether the record is there already.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// Not yet: like itself, its entry may be refused for want of memory.
    First,
    /// It is, and stays listed where memory is short.
    Again,
}

impl RedisStore {
    /// Lists the record in each index until it will have been collected.
    pub(super) async fn enter(
        &self,
        key: &RecordKey,
        indexes: &[IndexKey],
        expires_at: Timestamp,
        entry: Entry,
    ) -> Result<(), Unavailable> {
        let now = self.clock.now().as_millis();
        let listed_until = (expires_at + COLLECTION_MARGIN).as_millis();
        let word = match entry {
            Entry::First => "first",
            Entry::Again => "again",
        };
        let mut entries = JoinSet::new();
        for index in indexes {
            let (name, member) = (self.index_key(index), key.0.clone());
            let (script, mut connection) = (self.scripts.enter.clone(), self.connection.clone());
            entries.spawn(async move {
                let mut script = script.key(name);
                script.arg(now).arg(member).arg(listed_until).arg(word);
                let (answer,): (String,) = bounded(script.invoke_async(&mut connection)).await?;
                match answer.as_str() {
                    "entered" => Ok(()),
                    "damaged" => {
                        report_damaged_index();
                        Ok(())
                    }
                    _ => Err(no_answer()),
                }
            });
        }
        all(entries).await
    }

    /// Takes the record out of each index.
    pub(super) async fn leave(&self, key: &RecordKey, indexes: &[IndexKey]) -> Result<(), Unavailable> {
        let mut departures = JoinSet::new();
        for index in indexes {
            let mut command = redis::cmd("ZREM");
            command.arg(self.index_key(index)).arg(&key.0);
            let mut connection = self.connection.clone();
            departures.spawn(async move {
                bounded(unless_wrong_type::<u64>(command.query_async(&mut connection))).await.map(drop)
            });
        }
        all(departures).await
    }

    /// Lists a record again that was there a moment ago.
    pub(super) async fn enter_again(
        &self,
        key: &RecordKey,
        indexes: &[IndexKey],
        expires_at: Timestamp,
    ) -> Result<(), Unavailable> {
        if indexes.is_empty() {
            return Ok(());
        }
        self.enter(key, indexes, expires_at, Entry::Again).await?;
        let command = Cmd::exists(self.session_key(key));
        let is_there: bool = bounded(command.query_async(&mut self.connection.clone())).await?;
        if is_there { Ok(()) } else { self.leave(key, indexes).await }
    }

    pub(super) async fn listed(&self, index: &IndexKey) -> Result<Vec<RecordKey>, Unavailable> {
        let mut script = self.scripts.list.key(self.index_key(index));
        script.arg(self.clock.now().as_millis());
        let mut answer: Vec<String> = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        if answer.is_empty() {
            return Err(no_answer());
        }
        let keys = answer.split_off(1).into_iter().map(RecordKey).collect();
        match answer[0].as_str() {
            "listed" => Ok(keys),
            "damaged" => {
                report_damaged_index();
                Ok(keys)
            }
            _ => Err(no_answer()),
        }
    }

    fn index_key(&self, index: &IndexKey) -> String {
        format!("{}index:{{{}}}", self.prefix, index.0)
    }
}

/// As they lie in a record's field.
pub(super) fn join(indexes: &[IndexKey]) -> String {
    indexes.iter().map(|index| index.0.as_str()).collect::<Vec<_>>().join(" ")
}

/// The reverse of [`join`]. A name that cannot be read names nothing, and costs no session.
pub(super) fn split(field: &[u8]) -> Vec<IndexKey> {
    String::from_utf8_lossy(field).split_ascii_whitespace().map(|name| IndexKey(name.to_owned())).collect()
}

/// Waits for all of them, also where one has failed.
async fn all(mut steps: JoinSet<Result<(), Unavailable>>) -> Result<(), Unavailable> {
    let mut outcome = Ok(());
    while let Some(step) = steps.join_next().await {
        let step = step.unwrap_or_else(|_| Err(Unavailable("a step did not end".to_owned())));
        outcome = outcome.and(step);
    }
    outcome
}

fn report_damaged_index() {
    tracing::error!(event = "store.index_damaged", "it is begun anew, and lists what is used from now on");
}
