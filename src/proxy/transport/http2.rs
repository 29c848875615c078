//! HTTP/2: many requests at a time on few connections, each driven by a task (RFC 9113).

use std::error::Error;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connect::Stream;
use super::upload::Upload;
use super::{Failed, extended_connect};
use crate::body::{self, Body};
use crate::proxy::servers::ServerAddress;
use crate::proxy::{Answer, ForwardError, tunnel};
use crate::worker;

/// Requests at a time on one connection, where the server lets as many through.
const STREAMS: usize = 100;

/// The same before the server has said how many: it refuses those above its limit, and each can be sent once
/// more at most.
const FIRST_STREAMS: usize = 10;

/// Connections of one worker to one server. When all are full, requests wait in them.
const CONNECTIONS: usize = 8;

/// What may be on its way to us in one stream, in bytes. A connection has room for all of its streams, so
/// that one client that does not read stops nobody else's answer.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;

/// How much of a request's body waits in memory to be sent, in bytes.
const SEND_BUFFER: usize = 128 * 1024;

/// The largest head of an answer, in bytes.
const LARGEST_HEAD: u32 = 128 * 1024;

/// After so long without a frame, a server that owes an answer is asked whether it is there. Servers of
/// gRPC take more than one such question in five minutes for an attack, and hang up.
const PING_INTERVAL: Duration = Duration::from_secs(301);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests in a row that were given up without an answer, after which a connection gets no more: so a dead
/// one is left long before a PING would find it out.
const UNANSWERED: usize = 3;

/// A request that was given up sooner says nothing of its connection: clients come and go as they like.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a connection is kept that has nothing to do. Longer than in HTTP/1.1, since what a server that
/// closes has not processed is known here.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after a connection has begun a WebSocket waits for the server to say that it takes one. Its
/// SETTINGS are the first that it sends (RFC 9113 §3.4).
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked whether that has come: the client library tells nobody.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The connections of all workers.
#[derive(Default)]
pub(super) struct Connections(Mutex<Vec<Arc<Slot>>>);

/// The connections of one worker to one server.
pub(super) struct Slot {
    worker: usize,
    server: ServerAddress,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Whether the server has chosen HTTP/2 before, where it had a choice.
    is_spoken: AtomicBool,
    /// Held while one is opened, so that all who come meanwhile share it.
    pub(super) opening: tokio::sync::Mutex<()>,
}

/// A connection, kept open by whoever holds on to it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    streams: AtomicUsize,
    limit: AtomicUsize,
    unanswered: AtomicUsize,
    was_used: AtomicBool,
    begun: Instant,
    /// Whether the server has said that it takes extended CONNECT (RFC 8441 §3).
    takes_websockets: watch::Sender<bool>,
    /// Has the driver look whether it has.
    look: Arc<Notify>,
}

impl Connections {
    /// Those of this worker to this server.
    pub(super) fn slot(&self, server: &ServerAddress) -> Arc<Slot> {
        let worker = worker::current();
        let mut slots = lock(&self.0);
        if let Some(slot) = slots.iter().find(|slot| slot.worker == worker && slot.server == *server) {
            return Arc::clone(slot);
        }
        // Servers come and go with their names' addresses.
        slots.retain(|slot| Arc::strong_count(slot) > 1 || !lock(&slot.connections).is_empty());
        let slot = Arc::new(Slot {
            worker,
            server: server.clone(),
            connections: Mutex::default(),
            is_spoken: AtomicBool::new(false),
            opening: tokio::sync::Mutex::default(),
        });
        slots.push(Arc::clone(&slot));
        slot
    }
}

impl Slot {
    /// A connection that takes one more request; `None` where a new one had better be opened.
    pub(super) fn pick(&self) -> Option<Arc<Connection>> {
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.is_usable());
        let has_room = connections.iter().find(|connection| connection.has_room());
        let waits = || {
            let load = |connection: &&Arc<Connection>| connection.streams.load(Ordering::Relaxed);
            connections.iter().min_by_key(load).filter(|_| connections.len() >= CONNECTIONS)
        };
        has_room.or_else(waits).cloned()
    }

    /// Whether the server is known to choose HTTP/2.
    pub(super) fn is_spoken(&self) -> bool {
        self.is_spoken.load(Ordering::Relaxed)
    }

    /// Begins a connection.
    pub(super) async fn open(self: &Arc<Self>, stream: Stream) -> Result<Arc<Connection>, hyper::Error> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_header_list_size(LARGEST_HEAD)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let (sender, driven) = builder.handshake(TokioIo::new(stream)).await?;
        let connection = Arc::new(Connection {
            sender,
            streams: AtomicUsize::new(0),
            limit: AtomicUsize::new(STREAMS),
            unanswered: AtomicUsize::new(0),
            was_used: AtomicBool::new(true),
            begun: Instant::now(),
            takes_websockets: watch::Sender::new(false),
            look: Arc::default(),
        });
        self.is_spoken.store(true, Ordering::Relaxed);
        let mut connections = lock(&self.connections);
        // One too many, of a first burst that came before this was known, serves whoever has opened it.
        if connections.len() < CONNECTIONS {
            connections.push(Arc::clone(&connection));
        }
        drop(connections);
        let look = Arc::clone(&connection.look);
        tokio::spawn(drive(driven, look, Arc::downgrade(&connection), Arc::downgrade(self)));
        Ok(connection)
    }

    fn leave(&self, connection: &Arc<Connection>) {
        lock(&self.connections).retain(|other| !Arc::ptr_eq(other, connection));
    }
}

impl Connection {
    /// Sends a request.
    pub(super) async fn send(
        self: Arc<Self>,
        mut request: Box<Request<Body>>,
        upload: &Upload,
    ) -> Result<Answer, Failed> {
        let again = request.body().is_end_stream().then(|| copy(&request));
        let mut handshake = None;
        if tunnel::is_handshake(&request) {
            if !self.comes_to_take_websockets().await {
                let error = ForwardError::Exchange("the server takes no WebSocket over HTTP/2".into());
                return Err(Failed { error, unprocessed: again.map(Box::new) });
            }
            handshake = extended_connect::translate(&mut request);
            if handshake.is_none() {
                return Ok(Answer { response: extended_connect::refusal(), tunnel: None });
            }
        }
        prepare(&mut request);
        let mut sender = self.sender.clone();
        let mut stream = StreamGuard::new(self);
        let sent = sender.try_send_request(*request).await;
        stream.answered();
        match sent {
            Ok(response) => Ok(answer(response, handshake, stream)),
            Err(mut failed) => {
                let unsent = failed.take_message();
                let error = failed.into_error();
                // One that was translated comes back as it was before.
                let unprocessed =
                    if unsent.is_some() || was_not_processed(&error) { again.or(unsent) } else { None };
                Err(Failed { error: upload.explain(error), unprocessed: unprocessed.map(Box::new) })
            }
        }
    }

    async fn comes_to_take_websockets(&self) -> bool {
        let mut takes = self.takes_websockets.subscribe();
        let said = async {
            loop {
                self.look.notify_one();
                if tokio::time::timeout(LOOK_INTERVAL, takes.wait_for(|takes| *takes)).await.is_ok() {
                    return;
                }
            }
        };
        let deadline = (self.begun + SETTINGS_TIMEOUT).max(Instant::now() + LOOK_INTERVAL);
        tokio::time::timeout_at(deadline, said).await.is_ok()
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.unanswered.load(Ordering::Relaxed) < UNANSWERED
    }

    fn has_room(&self) -> bool {
        self.streams.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connections")
    }
}

/// Drives a connection to its end, which comes, too, when it has had nothing to do for long.
async fn drive(
    mut driven: http2::Connection<TokioIo<Stream>, Body, TokioExecutor>,
    look: Arc<Notify>,
    connection: Weak<Connection>,
    slot: Weak<Slot>,
) {
    let mut ended = pin!(std::future::poll_fn(|context| {
        let ended = Pin::new(&mut driven).poll(context);
        if let Some(connection) = connection.upgrade() {
            let limit = driven.current_max_send_streams();
            // As long as the server has not said: what waits to be sent until it does, waits for no time.
            let limit = if limit == FIRST_STREAMS { STREAMS } else { limit.min(STREAMS) };
            connection.limit.store(limit, Ordering::Relaxed);
            if driven.is_extended_connect_protocol_enabled() {
                connection.takes_websockets.send_if_modified(|takes| !std::mem::replace(takes, true));
            }
        }
        ended
    }));
    loop {
        tokio::select! {
            ended = &mut ended => {
                if let Err(error) = ended {
                    tracing::debug!(event = "upstream.connection_failed", %error);
                }
                return;
            }
            () = look.notified() => {}
            () = tokio::time::sleep(IDLE_TIMEOUT) => {
                let (Some(connection), Some(slot)) = (connection.upgrade(), slot.upgrade()) else { continue };
                let is_idle = connection.streams.load(Ordering::Relaxed) == 0;
                if is_idle && !connection.was_used.swap(false, Ordering::Relaxed) {
                    slot.leave(&connection);
                }
            }
        }
    }
}

fn answer(mut response: Response<Incoming>, handshake: Option<HeaderValue>, stream: StreamGuard) -> Answer {
    let granted = match handshake {
        Some(key) => extended_connect::grant(&mut response, &key, stream),
        None => Err(stream),
    };
    match granted {
        Ok(end) => Answer { response: response.map(body::boxed), tunnel: Some(end) },
        Err(stream) => {
            let guard = |incoming| body::boxed(Guarded { incoming, _stream: stream });
            Answer { response: response.map(guard), tunnel: None }
        }
    }
}

/// Takes out what has no place in HTTP/2 (RFC 9113 §8.2.2), and the host that the client has asked: the target names the
/// server's own.
fn prepare(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
}

fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(body::full(Bytes::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    *copy.version_mut() = request.version();
    copy
}

/// Whether the server says so: by refusing the stream, or by a GOAWAY with the number of an earlier one
/// (RFC 9113 §6.8, §8.7). To a stream within that number its end is told by another error.
fn was_not_processed(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request in progress.
struct StreamGuard {
    connection: Arc<Connection>,
    begun: Instant,
    is_answered: bool,
}

impl StreamGuard {
    fn new(connection: Arc<Connection>) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        connection.was_used.store(true, Ordering::Relaxed);
        Self { connection, begun: Instant::now(), is_answered: false }
    }

    fn answered(&mut self) {
        self.is_answered = true;
        self.connection.unanswered.store(0, Ordering::Relaxed);
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered && self.begun.elapsed() >= PATIENCE {
            self.connection.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A response's body, which counts as a stream of its connection.
struct Guarded {
    incoming: Incoming,
    _stream: StreamGuard,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
