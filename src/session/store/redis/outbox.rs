//! The outbox: a sorted set of when each errand is due, and a hash of what is to be done. Nothing of it
//! expires by itself; both keys share a slot.

use async_trait::async_trait;

use super::{RedisStore, bounded, no_answer};
use crate::clock::Timestamp;
use crate::session::store::Unavailable;
use crate::session::store::outbox::{Errand, Outbox};

#[async_trait]
impl Outbox for RedisStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        let mut script = self.scripts.post.key(self.due_key());
        script.key(self.errands_key());
        script.arg(&errand.id).arg(&errand.sealed).arg(errand.due_at.as_millis());
        bounded::<u64>(script.invoke_async(&mut self.connection.clone())).await.map(drop)
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        let mut script = self.scripts.fetch_due.key(self.due_key());
        script.key(self.errands_key()).arg(now.as_millis()).arg(until.as_millis());
        let mut answer: Vec<Vec<u8>> = bounded(script.invoke_async(&mut self.connection.clone())).await?;
        match answer.as_mut_slice() {
            [] => Ok(None),
            [id, sealed, due_at] => {
                let id = String::from_utf8(std::mem::take(id)).map_err(|_| no_answer())?;
                let due_at = std::str::from_utf8(due_at).ok().and_then(|millis| millis.parse().ok());
                let due_at = Timestamp::from_millis(due_at.ok_or_else(no_answer)?);
                Ok(Some(Errand { id, sealed: std::mem::take(sealed), due_at }))
            }
            _ => Err(no_answer()),
        }
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        let mut command = redis::cmd("ZADD");
        command.arg(self.due_key()).arg("XX").arg(due_at.as_millis()).arg(id);
        bounded::<u64>(command.query_async(&mut self.connection.clone())).await.map(drop)
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        let mut script = self.scripts.strike.key(self.due_key());
        script.key(self.errands_key()).arg(id);
        bounded::<u64>(script.invoke_async(&mut self.connection.clone())).await.map(drop)
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        let script = self.scripts.count_errands.key(self.errands_key());
        bounded(script.invoke_async(&mut self.connection.clone())).await
    }
}

impl RedisStore {
    fn due_key(&self) -> String {
        format!("{}{{outbox}}:due", self.prefix)
    }

    fn errands_key(&self) -> String {
        format!("{}{{outbox}}:errands", self.prefix)
    }
}
