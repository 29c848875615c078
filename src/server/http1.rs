//! Connections in HTTP/1.1 (RFC 9112).

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FAREWELL;
use super::answer::answer;
use super::client::Client;
use super::connection::Listener;
use super::prefixed::Prefixed;
use super::timing::{Sending, TimedStream, Timing};
use crate::config::Limits;
use crate::gateway::{ClientConnection, Connection};
use crate::proxy::EarlyHints;
use crate::proxy::tunnel::{Duplex, End};
use crate::telemetry::chain;

/// How much of a connection is read ahead, in bytes, unless a head may be larger.
const BUFFER: usize = 64 * 1024;

/// How many fields the parser has room for without asking for memory on each request.
const FIELDS_ON_THE_STACK: usize = 100;

/// A request that is being answered. It is boxed, so that a connection between two requests has no room for one.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Sending>, Infallible>> + Send>>;

/// A connection of the public listener, and its time limits.
struct Http1Connection {
    timing: Arc<Timing>,
    client: Client,
    /// Who waits for it to become a tunnel.
    tunnel: Mutex<Option<oneshot::Sender<Box<dyn Duplex>>>>,
}

/// Serves a connection, whose first head must be there when it is `due`, until it ends or becomes a tunnel.
///
/// Between requests, most connections wait for minutes: hyper's state, and its buffers of 8 KiB in each
/// direction, are given back then, and there again with the first byte of the next request.
pub(super) async fn serve<S>(
    stream: Prefixed<S>,
    due: Instant,
    client: Client,
    limits: &Limits,
    listener: Arc<Listener>,
    stopping: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let timing = Arc::new(Timing::new(limits.header_timeout, limits.idle_timeout));
    let mut stream = TimedStream::new(stream, Arc::clone(&timing), due);
    let connection = Arc::new(Http1Connection { timing, client, tunnel: Mutex::default() });
    loop {
        let rests = Box::pin(take_requests(stream, &connection, limits, &listener, &stopping)).await;
        let Some(resting) = rests else { return };
        stream = resting;
        tokio::select! {
            asked = stream.is_asked() => match asked {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::debug!(event = "connection.ended", error = %chain(&error)),
            },
            () = stopping.cancelled() => {
                // It is as good as closed; how that ends is nothing to act on.
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

/// Answers requests until the connection ends, becomes a tunnel, or rests; only then is there a stream left.
async fn take_requests<S>(
    stream: TimedStream<Prefixed<S>>,
    connection: &Arc<Http1Connection>,
    limits: &Limits,
    listener: &Arc<Listener>,
    stopping: &CancellationToken,
) -> Option<TimedStream<Prefixed<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (its_own, its_listener) = (Arc::clone(connection), Arc::clone(listener));
    let service = service_fn(move |request| -> Answering {
        Box::pin(respond(request, Arc::clone(&its_own), Arc::clone(&its_listener)))
    });
    let mut served = protocol(limits).serve_connection(TokioIo::new(stream), service);
    let mut stopped = pin!(async {
        stopping.cancelled().await;
        // To a client that has just connected, an end without an answer is a fault: it does not send its request again.
        if !connection.timing.has_begun() {
            tokio::time::sleep(FAREWELL).await;
        }
    });
    let mut is_stopping = false;
    let ended = poll_fn(|context| {
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            Pin::new(&mut served).graceful_shutdown();
        }
        match Pin::new(&mut served).poll(context) {
            Poll::Pending if connection.timing.rests() => Poll::Ready(Ok(())),
            polled => polled,
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(event = "connection.ended", error = %chain(&error));
        return None;
    }
    let http1::Parts { io, read_buf, .. } = served.into_parts();
    let mut stream = io.into_inner();
    stream.put_back(&read_buf);
    if connection.timing.rests() {
        return Some(stream);
    }
    if connection.timing.is_tunnel()
        && let Some(tunnel) = connection.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        // Where nobody waits any more, the stream is closed.
        let _ = tunnel.send(Box::new(stream));
    }
    None
}

fn protocol(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The stream keeps this time itself: hyper's would cut idle connections off as well.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        // No `pipeline_flush`: it keeps whatever a slow reader does not take, without bound, and says
        // nothing while bytes of a faulty request are unread.
        .max_buf_size(limits.header_bytes.max(BUFFER));
    if limits.header_count != FIELDS_ON_THE_STACK {
        builder.max_headers(limits.header_count);
    }
    builder
}

async fn respond(
    request: Request<Incoming>,
    connection: Arc<Http1Connection>,
    listener: Arc<Listener>,
) -> Result<Response<Sending>, Infallible> {
    let under_way = connection.timing.begin_request();
    let connection = Connection { peer: connection.client.address, client: connection };
    let request = Box::new(request.map(|incoming| under_way.receives(incoming)));
    let mut response = answer(&listener, request, connection).await;
    // While a balancer has notice, who goes on asking takes the end of the connection with an answer, and does not
    // meet it with the next request.
    if listener.readiness.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| under_way.until_sent(body)))
}

impl ClientConnection for Http1Connection {
    fn tunnel_end(&self) -> End {
        let (opened, opens) = oneshot::channel();
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Box::pin(async move { Ok(opens.await?) })
    }

    fn becomes_tunnel(&self) {
        self.timing.becomes_tunnel();
    }

    fn early_hints(self: Arc<Self>) -> Option<EarlyHints> {
        None
    }
}

impl fmt::Debug for Http1Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Http1Connection({})", self.client.address)
    }
}
