//! One connection to one Redis server, shared by all requests, and replaced when it fails.
//!
//! The library's own `ConnectionManager` is not used: it keeps a connection whose peer fell silent until
//! the kernel gives up, and where a handshake is refused (a password not yet known to the server, too many
//! clients) it repeats that answer for ever. Here an error costs the connection, whatever it says: a
//! primary that was demoted, a revoked permission and a vanished host all need a new one, and
//! requests that still wait on the old one keep it until they are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisFuture,
    RedisResult, ServerErrorKind, Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// For TCP, and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// For one answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(700);

/// How long a failure to connect answers for those who come next, so that a server in trouble is not
/// hammered, and those who queue behind the first do not wait for a time-out each.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that is made when it is first needed.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    link: Arc<Mutex<Link>>,
}

enum Link {
    /// Not tried yet.
    Untried,
    /// Made; perhaps broken since.
    Made(Live),
    /// Could not be made at this moment, for this reason.
    Failed(Instant, RedisError),
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    is_broken: Arc<AtomicBool>,
}

impl Connection {
    /// Connects to nothing yet. The client must speak RESP3.
    pub(super) fn new(client: Client) -> Self {
        Self { client, link: Arc::new(Mutex::new(Link::Untried)) }
    }

    async fn live(&self) -> RedisResult<Live> {
        let mut link = self.link.lock().await;
        match &*link {
            Link::Made(live) if !live.is_broken.load(Ordering::Relaxed) => return Ok(live.clone()),
            Link::Failed(at, error) if at.elapsed() < PAUSE => return Err(error.clone()),
            Link::Untried | Link::Made(_) | Link::Failed(..) => {}
        }
        let made = self.connect().await;
        *link = match &made {
            Ok(live) => Link::Made(live.clone()),
            Err(error) => Link::Failed(Instant::now(), error.clone()),
        };
        made
    }

    async fn connect(&self) -> RedisResult<Live> {
        let is_broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_broken);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            // Told at once that an idle connection was closed, the next request does not fail on it.
            .set_push_sender(move |push: PushInfo| {
                flag.fetch_or(push.kind == PushKind::Disconnection, Ordering::Relaxed);
                Ok::<(), RedisError>(())
            });
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Live { connection, is_broken })
    }
}

impl Live {
    /// `NOSCRIPT` is no failure: the script is sent then, over the same connection. Nor is `WRONGTYPE`, which
    /// tells of one key alone.
    fn observe<T>(&self, result: &RedisResult<T>) {
        if let Err(error) = result
            && error.kind() != ErrorKind::Server(ServerErrorKind::NoScript)
            && error.code() != Some("WRONGTYPE")
        {
            self.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut live = self.live().await?;
            let result = live.connection.send_packed_command(command).await.and_then(Value::extract_error);
            live.observe(&result);
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut live = self.live().await?;
            let result = live.connection.send_packed_commands(pipeline, offset, count).await;
            live.observe(&result);
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }
}
