//! Connections in HTTP/2 (RFC 9113): their streams, and what a client may use up on one of them (R65).
//!
//! One connection holds at most [`CONNECTION_WINDOW`] bytes of bodies that nobody has read yet, and
//! [`SEND_BUFFER`] bytes of each answer that the client has not taken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FAREWELL;
use super::client::Client;
use super::connection::Listener;
use crate::config::Limits;
use crate::telemetry::chain;

mod budget;
mod frames;
mod request;
mod response;
mod stream;
mod websocket;

use frames::{Verdict, WatchedFrames};
use stream::Stream;

/// How much of one request's body may be under way, in bytes: 50 MB/s at 5 ms of round trip.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same of all requests of a connection.
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How much of an answer waits for the client, in bytes.
const SEND_BUFFER: usize = 32 * 1024;

/// How many streams a client may have ended for its faults. Each costs an answer that it need not wait for.
const MOST_FAULTY_STREAMS: usize = 256;

/// What the streams of one connection share.
#[derive(Debug)]
struct Shared {
    listener: Arc<Listener>,
    peer: SocketAddr,
    idle_timeout: Duration,
    header_count: usize,
}

/// One connection, its preface read.
struct Connection<S> {
    frames: h2::server::Connection<WatchedFrames<S>, Bytes>,
    verdict: Arc<Verdict>,
    streams: JoinSet<()>,
    shared: Arc<Shared>,
    /// Since when no request was under way, or the clock was last looked at.
    idle_since: Instant,
    is_stopping: bool,
}

/// Serves a connection whose preface is the first that `stream` gives. No further request is taken once
/// `stopping` is cancelled.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    client: Client,
    limits: &Limits,
    listener: Arc<Listener>,
    stopping: CancellationToken,
) {
    let verdict = Arc::new(Verdict::default());
    let frames = WatchedFrames::new(stream, limits, Arc::clone(&verdict));
    let shared = Arc::new(Shared {
        listener,
        peer: client.address,
        idle_timeout: limits.idle_timeout,
        header_count: limits.header_count,
    });
    let ended = async {
        let frames = settings(limits).handshake(frames).await?;
        let (streams, idle_since) = (JoinSet::new(), Instant::now());
        let connection = Connection { frames, verdict, streams, shared, idle_since, is_stopping: false };
        connection.run(stopping).await
    };
    if let Err(error) = ended.await {
        tracing::debug!(event = "connection.ended", error = %chain(&error));
    }
    // The connection has its place until here, and so have the tunnels in it.
    drop(client);
}

fn settings(limits: &Limits) -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(MOST_FAULTY_STREAMS))
        .enable_connect_protocol();
    settings
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(mut self, stopping: CancellationToken) -> Result<(), h2::Error> {
        loop {
            let due = self.idle_since + if self.is_stopping { FAREWELL } else { self.shared.idle_timeout };
            tokio::select! {
                accepted = next(&mut self.frames, &self.verdict) => match accepted {
                    Some(accepted) => {
                        let (request, respond) = accepted?;
                        self.streams.spawn(Stream::serve(request, respond, Arc::clone(&self.shared)));
                    }
                    None => return Ok(()),
                },
                Some(ended) = self.streams.join_next() => {
                    note(ended);
                    self.idle_since = Instant::now();
                }
                () = tokio::time::sleep_until(due) => {
                    self.idle_since = Instant::now();
                    if self.is_idle() {
                        // What comes from now on is named as not processed, and sent again elsewhere.
                        self.frames.abrupt_shutdown(Reason::NO_ERROR);
                    }
                }
                () = stopping.cancelled(), if !self.is_stopping => {
                    self.is_stopping = true;
                    self.idle_since = Instant::now();
                    self.frames.graceful_shutdown();
                }
            }
        }
    }

    /// Whether nothing is under way, nor what was answered still on its way to a slow reader.
    fn is_idle(&self) -> bool {
        self.streams.is_empty() && !self.frames.has_streams()
    }
}

/// The next request; on the way there, whoever was found to misuse the connection is told to go.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut h2::server::Connection<WatchedFrames<S>, Bytes>,
    verdict: &Verdict,
) -> Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>> {
    std::future::poll_fn(|context| {
        let accepted = frames.poll_accept(context);
        if accepted.is_pending() && verdict.take() {
            tracing::debug!(event = "connection.misused");
            frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            return frames.poll_accept(context);
        }
        accepted
    })
    .await
}

fn note(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!(event = "request.panicked");
    }
}

/// What a stream that was reset is to those who read it.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}
