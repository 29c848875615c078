//! WebSockets: the handshake in both directions, then bytes in both directions (RFC 6455 §4, RFC 9110 §7.8).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::activity::Activity;
use crate::fields::lists;
use crate::telemetry::chain;

/// Both ends of a tunnel, not yet open.
#[derive(Debug)]
pub struct Tunnel {
    /// The browser's end.
    pub client: OnUpgrade,
    /// The upstream's end.
    pub upstream: OnUpgrade,
}

/// Whether a request asks for a WebSocket (RFC 6455 §4.1). The other fields of a handshake are the
/// upstream's to judge; these decide what the gateway makes of the connection (RFC 9110 §7.8).
pub fn is_handshake<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(request.headers(), &header::UPGRADE, "websocket")
        && lists(request.headers(), &header::CONNECTION, "upgrade")
}

/// Puts the fields in again that hop-by-hop rules take out of a handshake.
pub fn write_handshake(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

impl Tunnel {
    /// Carries bytes until both ends have closed, or none came for `idle_timeout`.
    pub async fn run(self, idle_timeout: Duration) {
        let opened = async { tokio::try_join!(self.client, self.upstream) };
        // A client that does not read even the answer to its handshake is not waited for without end.
        let (client, upstream) = match tokio::time::timeout(idle_timeout, opened).await {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => return tracing::debug!(event = "tunnel.not_opened", error = %chain(&error)),
            Err(_) => return,
        };
        let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
        let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
        let activity = Activity::default();
        let ends = tokio::select! {
            ended = async { tokio::try_join!(
                copy(client_read, upstream_write, &activity),
                copy(upstream_read, client_write, &activity),
            ) } => ended.map(|_| ()),
            () = activity.ceases(idle_timeout) => Ok(()),
        };
        if let Err(error) = ends {
            tracing::debug!(event = "tunnel.broken", error = %chain(&error));
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        activity.note();
    }
}
