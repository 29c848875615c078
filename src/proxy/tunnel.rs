//! WebSockets: the handshake in both directions, then bytes in both directions (RFC 6455 §4, RFC 9110 §7.8).

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::fields::lists;
use crate::telemetry::chain;

mod frames;

use frames::Frames;

/// How long both ends have for their goodbyes once a tunnel is left.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a server adds to a key before it hashes it (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One end of a tunnel, there once the handshake has come to its end on this side.
pub type End = Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, Box<dyn Error + Send + Sync>>> + Send>>;

/// Both ends of a tunnel, not yet open.
pub struct Tunnel {
    /// The browser's end.
    pub client: End,
    /// The upstream's end.
    pub upstream: End,
}

/// The end of a tunnel that a connection in HTTP/1.1 becomes (RFC 9110 §7.8).
pub fn upgraded(upgrade: OnUpgrade) -> End {
    Box::pin(async move { Ok(Box::new(TokioIo::new(upgrade.await?)) as Box<dyn Duplex>) })
}

/// Whether a request asks for a WebSocket (RFC 6455 §4.1). The other fields of a handshake are the
/// upstream's to judge; these decide what the gateway makes of the connection (RFC 9110 §7.8). In HTTP/2 no
/// client can send them: they stand there where its extended CONNECT was translated (RFC 8441 §5).
pub fn is_handshake<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && matches!(request.version(), Version::HTTP_11 | Version::HTTP_2)
        && lists(request.headers(), &header::UPGRADE, "websocket")
        && lists(request.headers(), &header::CONNECTION, "upgrade")
}

/// Puts the fields in again that hop-by-hop rules take out of a handshake.
pub fn write_handshake(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// What a server answers to a key (RFC 6455 §4.2.2).
pub fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize())
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tunnel")
    }
}

thread_local! {
    /// Where bytes are read to first, for all tunnels of a thread: most are silent most of the time, and one
    /// that is has no room of its own.
    static ROOM: RefCell<[u8; 16 * 1024]> = const { RefCell::new([0; 16 * 1024]) };
}

impl Tunnel {
    /// Carries bytes until both ends have closed, or none came for `idle_timeout`. Once `departure` is done, both ends are
    /// told that this one goes away, in place of what they would say to each other, and have a moment to say goodbye.
    pub async fn run(self, idle_timeout: Duration, departure: impl Future<Output = ()>) {
        let opened = async { tokio::try_join!(self.client, self.upstream) };
        // A client that does not read even the answer to its handshake is not waited for without end.
        let (client, upstream) = match tokio::time::timeout(idle_timeout, opened).await {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => return tracing::debug!(event = "tunnel.not_opened", error = %chain(&*error)),
            Err(_) => return,
        };
        let (client_read, client_write) = tokio::io::split(client);
        let (upstream_read, upstream_write) = tokio::io::split(upstream);
        let (activity, leaving) = (Activity::default(), CancellationToken::new());
        let departed = async {
            departure.await;
            leaving.cancel();
            tokio::time::sleep(FAREWELL).await;
        };
        let ends = tokio::select! {
            ended = async { tokio::try_join!(
                copy(client_read, upstream_write, &activity, &leaving, frames::close_to_server),
                copy(upstream_read, client_write, &activity, &leaving, frames::close_to_client),
            ) } => ended.map(|_| ()),
            () = activity.ceases(idle_timeout) => Ok(()),
            () = departed => Ok(()),
        };
        if let Err(error) = ends {
            tracing::debug!(event = "tunnel.broken", error = %chain(&error));
        }
    }
}

/// Carries one direction to its end, or until it leaves: behind the frame under way it says so, and what comes after
/// that is read for the other side's goodbye alone.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
    leaving: &CancellationToken,
    close: fn() -> Vec<u8>,
) -> io::Result<()> {
    let (mut frames, mut uncarried) = (Frames::default(), Vec::new());
    while !(leaving.is_cancelled() && frames.is_between()) {
        let mut bytes = tokio::select! {
            bytes = read(&mut from) => bytes?,
            () = leaving.cancelled(), if !leaving.is_cancelled() => continue,
        };
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        let length = if leaving.is_cancelled() { frames.take(&bytes) } else { frames.take_all(&bytes) };
        to.write_all(&bytes[..length]).await?;
        to.flush().await?;
        activity.note();
        uncarried = bytes.split_off(length);
    }
    // Nothing may follow a goodbye that has passed.
    if !frames.is_closed() {
        to.write_all(&close()).await?;
        to.flush().await?;
    }
    frames.take_all(&uncarried);
    while !frames.is_closed() {
        let bytes = read(&mut from).await?;
        if bytes.is_empty() {
            break;
        }
        frames.take_all(&bytes);
    }
    to.shutdown().await
}

/// What has come; nothing at the end.
async fn read(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    poll_fn(|context| poll_bytes(&mut from, context)).await
}

fn poll_bytes(mut from: impl AsyncRead + Unpin, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
    ROOM.with_borrow_mut(|room| {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut from).poll_read(context, &mut room))?;
        Poll::Ready(Ok(room.filled().into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_rfc_6455() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
