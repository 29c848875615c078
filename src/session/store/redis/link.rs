//! One connection to one primary, shared by all requests, and replaced when it fails.
//!
//! The library's own `ConnectionManager` is not used: it keeps a connection whose peer fell silent until
//! the kernel gives up, and where a handshake is refused (a password not yet known to the server, too many
//! clients) it repeats that answer for ever. Here an error costs the connection, but for a few that no other
//! would be spared: a primary that was demoted, a revoked permission and a vanished host all need a new one, and
//! requests that still wait on the old one keep it until they are done.
//!
//! A master that sentinels look after is looked up whenever a connection is made, and again before one is
//! used that was not looked after for a moment: a master that slept while another took its place takes
//! itself for one until the sentinels find it awake, and would know nothing of new sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::replicas::{Replicas, ReplicasWanted};
use super::sentinels::Sentinels;
use super::topology::{Address, address_of};

/// For TCP, TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// For one answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(700);

/// How long a failure to connect answers for those who come next, so that a server in trouble is not
/// hammered, and those who queue behind the first do not wait for a time-out each.
const PAUSE: Duration = Duration::from_millis(100);

/// For how long a master is trusted to be one still. Less than the second that the fastest sentinels wait
/// before they give a silent master up.
const TRUSTED_FOR: Duration = Duration::from_millis(500);

/// How long sentinels that did not answer are left alone. While they are away nobody promotes another master.
const SENTINELS_LEFT_ALONE: Duration = Duration::from_secs(5);

/// How long a request waits for word from the sentinels on a connection that stands.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection that is made when it is first needed.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    target: Target,
    replicas: ReplicasWanted,
    state: Mutex<State>,
}

/// What it leads to.
pub(super) enum Target {
    /// This server.
    Server(Arc<Client>),
    /// Whoever is the master.
    Master(Arc<Sentinels>),
}

/// A fresh connection, and the client that makes more of the kind.
pub(super) struct Made {
    pub(super) client: Client,
    pub(super) connection: MultiplexedConnection,
    is_broken: Arc<AtomicBool>,
}

enum State {
    /// Not tried yet.
    Untried,
    /// Made; perhaps broken since.
    Made(Live, Standing),
    /// Could not be made at this moment, for this reason.
    Failed(Instant, RedisError),
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    is_broken: Arc<AtomicBool>,
    replicas: Option<Replicas>,
}

/// Whether it leads where it should.
struct Standing {
    address: Option<Address>,
    /// Until when the server is trusted to be the master.
    trusted_until: Instant,
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(target: Target, replicas: ReplicasWanted) -> Self {
        Self(Arc::new(Shared { target, replicas, state: Mutex::new(State::Untried) }))
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let begun = Instant::now();
        let mut live = self.live().await?;
        let result = live.connection.send_packed_command(command).await.and_then(Value::extract_error);
        live.observe(&result);
        if result.is_ok()
            && let Some(replicas) = &live.replicas
        {
            replicas.acknowledge(command, begun).await;
        }
        result
    }

    /// Sends one command about a key of a slot that is on its way to this node.
    pub(super) async fn send_asking(&self, command: &Cmd) -> RedisResult<Value> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(redis::cmd("ASKING")).add_command(command.clone());
        let answers = self.send_all(&pipeline, 0, 2).await?;
        answers.into_iter().next_back().unwrap_or(Value::Nil).extract_error()
    }

    /// Sends commands one behind the other.
    pub(super) async fn send_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let begun = Instant::now();
        let mut live = self.live().await?;
        let result = live.connection.send_packed_commands(pipeline, offset, count).await;
        live.observe(&result);
        if result.is_ok()
            && let Some(replicas) = &live.replicas
            && let Some(write) = pipeline.cmd_iter().find(|command| Replicas::concern(command))
        {
            replicas.acknowledge(write, begun).await;
        }
        result
    }

    async fn live(&self) -> RedisResult<Live> {
        let Shared { target, replicas, state } = &*self.0;
        let mut state = state.lock().await;
        match &mut *state {
            State::Made(live, standing) => {
                if !live.is_broken.load(Ordering::Relaxed) && standing.is_good(target).await {
                    return Ok(live.clone());
                }
            }
            State::Failed(at, error) if at.elapsed() < PAUSE => return Err(error.clone()),
            State::Untried | State::Failed(..) => {}
        }
        let made = match target {
            Target::Server(client) => connect(Client::clone(client)).await,
            Target::Master(sentinels) => sentinels.connect().await,
        };
        match made {
            Ok(Made { client, connection, is_broken }) => {
                let live = Live { connection, is_broken, replicas: replicas.of(&client) };
                let trusted_until = Instant::now() + TRUSTED_FOR;
                let standing = Standing { address: address_of(&client), trusted_until };
                *state = State::Made(live.clone(), standing);
                Ok(live)
            }
            Err(error) => {
                *state = State::Failed(Instant::now(), error.clone());
                Err(error)
            }
        }
    }
}

impl Standing {
    async fn is_good(&mut self, target: &Target) -> bool {
        let Target::Master(sentinels) = target else { return true };
        if Instant::now() < self.trusted_until {
            return true;
        }
        match timeout(CHECK_TIMEOUT, sentinels.master()).await {
            Ok(Ok(master)) if self.address.as_ref() == Some(&master) => {
                self.trusted_until = Instant::now() + TRUSTED_FOR;
                true
            }
            Ok(Ok(_)) => false,
            Ok(Err(_)) | Err(_) => {
                self.trusted_until = Instant::now() + SENTINELS_LEFT_ALONE;
                true
            }
        }
    }
}

impl Live {
    /// Some errors are no failure of the connection. At `NOSCRIPT` the script is sent over the same one,
    /// `WRONGTYPE` tells of one key alone, and redirections of one slot. Without memory (`OOM`) or replicas
    /// (`NOREPLICAS`), and while a script runs for long (`BUSY`), a server refuses over any other as well.
    fn observe<T>(&self, result: &RedisResult<T>) {
        if let Err(error) = result
            && !matches!(
                error.kind(),
                ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::Moved | ServerErrorKind::Ask)
            )
            && !matches!(error.code(), Some("WRONGTYPE" | "OOM" | "NOREPLICAS" | "BUSY"))
        {
            self.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Connects to one server.
pub(super) async fn connect(client: Client) -> RedisResult<Made> {
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
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(Made { client, connection, is_broken })
}
