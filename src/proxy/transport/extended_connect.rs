//! WebSockets in a stream of HTTP/2 to a server: a handshake as HTTP/1.1 has it goes out as an extended CONNECT,
//! and its answer comes back as HTTP/1.1 has it (RFC 8441 §5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{self, Body};
use crate::proxy::tunnel::{self, Duplex, End};

/// Makes an extended CONNECT of a handshake, and gives its key, which HTTP/2 does not have; `None` where it
/// has none.
pub(super) fn translate(request: &mut Request<Body>) -> Option<HeaderValue> {
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    headers.remove(header::SEC_WEBSOCKET_KEY)
}

/// What a server of HTTP/1.1 says to a handshake without a key (RFC 6455 §4.2.1). One of HTTP/2 could not.
pub(super) fn refusal() -> Response<Body> {
    let mut refusal = Response::new(body::full(""));
    *refusal.status_mut() = StatusCode::BAD_REQUEST;
    refusal
}

/// The server's end of the tunnel, where it has granted one: then its answer is made that to the key. The
/// end keeps `guard`.
pub(super) fn grant<G>(response: &mut Response<Incoming>, key: &HeaderValue, guard: G) -> Result<End, G>
where
    G: Send + Unpin + 'static,
{
    if response.status() != StatusCode::OK {
        return Err(guard);
    }
    let Ok(accept) = HeaderValue::try_from(tunnel::accept(key.as_bytes())) else { return Err(guard) };
    let opens = tunnel::upgraded(hyper::upgrade::on(&mut *response));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(Box::pin(async move {
        let tunnelled = Tunnelled { stream: opens.await?, _guard: guard };
        Ok(Box::new(tunnelled) as Box<dyn Duplex>)
    }))
}

/// The server's end of a tunnel.
struct Tunnelled<G> {
    stream: Box<dyn Duplex>,
    _guard: G,
}

impl<G: Unpin> AsyncRead for Tunnelled<G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<G: Unpin> AsyncWrite for Tunnelled<G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
