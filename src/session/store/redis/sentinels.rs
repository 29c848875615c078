//! The sentinels of one master: who is it at this moment?
//!
//! They are asked in turn, beginning with the one that answered last, and what they say is confirmed by the
//! server itself, which may know of its demotion or promotion before or after them. They are given the
//! servers' user and password only if they want one: many have none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisResult};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::link::{Made, connect};
use super::topology::{Access, Address, failed};

/// For one sentinel, connecting included. They are there to be fast, and there are others.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// The sentinels of one master.
pub(super) struct Sentinels {
    master: String,
    sentinels: Vec<Address>,
    access: Access,
    /// Which of them to ask first.
    next: AtomicUsize,
    /// The connection to the one that answered last.
    open: Mutex<Option<(usize, MultiplexedConnection)>>,
}

impl Sentinels {
    pub(super) fn new(master: &str, sentinels: Vec<Address>, access: Access) -> Self {
        let (next, open) = (AtomicUsize::new(0), Mutex::new(None));
        Self { master: master.to_owned(), sentinels, access, next, open }
    }

    /// A connection to the master, which says itself that it is one.
    pub(super) async fn connect(&self) -> RedisResult<Made> {
        let mut refused: Vec<Address> = Vec::new();
        let mut last = failed(ErrorKind::MasterNameNotFoundBySentinel, "no sentinel names a master");
        for index in self.in_turn() {
            let address = match self.ask(index).await {
                Ok(address) => address,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            if !refused.contains(&address) {
                match self.confirmed(&address).await {
                    Ok(made) => return Ok(made),
                    Err(error) => last = error,
                }
                refused.push(address);
            }
            self.begin_behind(index);
        }
        Err(last)
    }

    /// Where the sentinels see the master.
    pub(super) async fn master(&self) -> RedisResult<Address> {
        let mut last = failed(ErrorKind::EmptySentinelList, "no sentinel");
        for index in self.in_turn() {
            match self.ask(index).await {
                Ok(address) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Each sentinel once, the one that answered last first.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (next, count) = (self.next.load(Ordering::Relaxed), self.sentinels.len());
        (0..count).map(move |further| (next + further) % count)
    }

    /// Asks one; the next time another first, should this one not answer, even if nobody waits for it any longer.
    async fn ask(&self, index: usize) -> RedisResult<Address> {
        let mut open = self.open.lock().await;
        let connection = open.take().filter(|(of, _)| *of == index).map(|(_, connection)| connection);
        self.begin_behind(index);
        let silent = |_| failed(ErrorKind::Io, "the sentinel is silent");
        let (address, connection) =
            timeout(SENTINEL_TIMEOUT, self.ask_over(connection, &self.sentinels[index]))
                .await
                .map_err(silent)??;
        self.next.store(index, Ordering::Relaxed);
        *open = Some((index, connection));
        Ok(address)
    }

    fn begin_behind(&self, index: usize) {
        self.next.store((index + 1) % self.sentinels.len(), Ordering::Relaxed);
    }

    async fn ask_over(
        &self,
        connection: Option<MultiplexedConnection>,
        sentinel: &Address,
    ) -> RedisResult<(Address, MultiplexedConnection)> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => open(&self.access.client_of_sentinel(sentinel, false)?).await?,
        };
        let mut answer = self.question().query_async(&mut connection).await;
        if self.access.has_password()
            && answer.as_ref().is_err_and(|error: &redis::RedisError| error.code() == Some("NOAUTH"))
        {
            connection = open(&self.access.client_of_sentinel(sentinel, true)?).await?;
            answer = self.question().query_async(&mut connection).await;
        }
        let answer: Option<(String, u16)> = answer?;
        let unknown = || failed(ErrorKind::MasterNameNotFoundBySentinel, "the sentinel knows no such master");
        let (host, port) = answer.ok_or_else(unknown)?;
        Ok((Address { host, port }, connection))
    }

    fn question(&self) -> redis::Cmd {
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.master);
        question
    }

    async fn confirmed(&self, address: &Address) -> RedisResult<Made> {
        let mut made = connect(self.access.client(address)?).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut made.connection).await?;
        let role = role.into_iter().next().map(redis::from_redis_value::<String>).transpose()?;
        if role.as_deref() == Some("master") {
            return Ok(made);
        }
        Err(failed(ErrorKind::MasterNameNotFoundBySentinel, "the server named is no master"))
    }
}

async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SENTINEL_TIMEOUT))
        .set_response_timeout(Some(SENTINEL_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await
}
