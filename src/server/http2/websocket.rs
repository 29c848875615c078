//! WebSockets over HTTP/2 (RFC 8441): to the gateway and the upstream a handshake as in HTTP/1.1, and behind
//! it a tunnel in one stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::{broken, response};
use crate::body::{self, Body};
use crate::error::{Reason, Refusal};
use crate::proxy::tunnel;
use crate::random::Random;

/// How much is written at a time, in bytes.
const PART: usize = 16 * 1024;

/// A handshake that the gateway has not answered yet.
pub(super) struct Handshake {
    incoming: RecvStream,
    /// What the upstream must answer to the key that it was sent.
    accept: String,
}

/// Whether this is an extended CONNECT for a WebSocket (RFC 8441 §4).
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

impl Handshake {
    /// The handshake as HTTP/1.1 has it (RFC 6455 §4.1). No client can send these fields in HTTP/2.
    pub(super) fn translate(request: Request<RecvStream>) -> (Request<Body>, Self) {
        let (mut head, incoming) = request.into_parts();
        let key = STANDARD.encode(Random::SYSTEM.bytes::<16>());
        head.method = Method::GET;
        head.extensions.remove::<Protocol>();
        // What comes on the stream is no body of this request, which has none: a length would have the upstream
        // take the next request on its connection for one.
        for framing in [header::CONTENT_LENGTH, header::TRAILER, header::EXPECT] {
            head.headers.remove(framing);
        }
        tunnel::write_handshake(&mut head.headers);
        if let Ok(key) = HeaderValue::from_str(&key) {
            head.headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        (Request::from_parts(head, body::full("")), Self { incoming, accept: tunnel::accept(key.as_bytes()) })
    }

    /// What the client is told where the upstream has switched protocols, with the stream that it sends; the
    /// answer to a handshake that some cache or another kind of server has granted is none.
    pub(super) fn grant(self, response: Response<Body>) -> Result<(Response<()>, RecvStream), Refusal> {
        let mut accepts = response.headers().get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        if accepts.next().is_none_or(|value| value != self.accept.as_str()) || accepts.next().is_some() {
            tracing::warn!(event = "upstream.handshake_faulty");
            return Err(Refusal::new(Reason::UpstreamUpgrade));
        }
        let (mut head, _) = response.into_parts();
        head.status = StatusCode::OK;
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        response::make_fit(&mut head.headers);
        Ok((Response::from_parts(head, ()), self.incoming))
    }
}

/// The client's end of a tunnel: its stream in both directions.
pub(super) struct Tunnelled {
    incoming: RecvStream,
    unread: Bytes,
    outgoing: SendStream<Bytes>,
    /// Tells by its end that the tunnel is closed.
    _closing: oneshot::Sender<()>,
}

impl Tunnelled {
    pub(super) fn new(
        incoming: RecvStream,
        outgoing: SendStream<Bytes>,
        closing: oneshot::Sender<()>,
    ) -> Self {
        Self { incoming, unread: Bytes::new(), outgoing, _closing: closing }
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.incoming.poll_data(context)) {
                Some(data) => self.unread = data.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(length));
        // Where the stream is over, nobody sends any more.
        let _ = self.incoming.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.outgoing.reserve_capacity(bytes.len().min(PART));
        loop {
            let capacity = ready!(self.outgoing.poll_capacity(context));
            let capacity = capacity.ok_or(io::ErrorKind::BrokenPipe)?.map_err(broken)?;
            if capacity > 0 {
                let part = Bytes::copy_from_slice(&bytes[..capacity.min(bytes.len())]);
                let length = part.len();
                self.outgoing.send_data(part, false).map_err(broken)?;
                return Poll::Ready(Ok(length));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outgoing.send_data(Bytes::new(), true).map_err(broken))
    }
}
