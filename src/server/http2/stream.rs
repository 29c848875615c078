//! One stream: a request on its way to the gateway, and what comes back (RFC 9113 §8.1).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::sync::oneshot;

use super::request::{self, RequestBody, Unfit};
use super::websocket::{self, Handshake};
use super::{Shared, response};
use crate::body::{self, Body};
use crate::gateway::{ClientConnection, Connection};
use crate::proxy::EarlyHints;
use crate::proxy::tunnel::{Duplex, End};
use crate::respond;
use crate::server::answer::answer;
use crate::telemetry::chain;

/// A stream while it is served. Once it no longer is, a tunnel that waits for it is not opened: the tunnel
/// itself keeps the stream.
struct Served(Arc<Stream>);

/// A stream as the gateway sees it.
pub(super) struct Stream {
    respond: Mutex<SendResponse<Bytes>>,
    /// The final answer was sent: nothing but its body may follow (RFC 9113 §8.1).
    is_answered: AtomicBool,
    /// The client has stopped in the midst of its request.
    stands_still: AtomicBool,
    /// Where the client's end of a tunnel is waited for.
    tunnel: Mutex<Option<oneshot::Sender<Box<dyn Duplex>>>>,
}

impl Stream {
    /// Answers a request. A client that resets its stream takes the request back.
    pub(super) async fn serve(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        shared: Arc<Shared>,
    ) {
        let stream = Served(Arc::new(Self {
            respond: Mutex::new(respond),
            is_answered: AtomicBool::new(false),
            stands_still: AtomicBool::new(false),
            tunnel: Mutex::new(None),
        }));
        if let Err(error) = stream.0.answer(request, &shared).await {
            tracing::debug!(event = "stream.ended", error = %chain(&error));
        }
    }

    async fn answer(
        self: &Arc<Self>,
        mut request: Request<RecvStream>,
        shared: &Shared,
    ) -> Result<(), h2::Error> {
        let is_head = request.method() == Method::HEAD;
        match request::make_fit(request.headers_mut(), shared.header_count) {
            Ok(()) => {}
            Err(Unfit::Malformed) => return self.reset(Reason::PROTOCOL_ERROR),
            Err(Unfit::TooManyFields) => {
                let mut refused = Response::new(body::full(""));
                *refused.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return self.send(refused, is_head, shared.idle_timeout).await;
            }
        }
        let (request, handshake) = if websocket::is_asked_for(&request) {
            let (request, handshake) = Handshake::translate(request);
            (request, Some(handshake))
        } else {
            (self.readable(request, shared), None)
        };
        let connection = Connection { peer: shared.peer, client: Arc::clone(self) as Arc<_> };
        let response = tokio::select! {
            response = answer(&shared.listener, Box::new(request), connection) => response,
            reset = std::future::poll_fn(|context| self.respond().poll_reset(context)) => return reset.map(drop),
        };
        if self.stands_still.load(Ordering::Relaxed) {
            return self.reset(Reason::CANCEL);
        }
        let response = match handshake {
            Some(handshake) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                match handshake.grant(response) {
                    Ok((granted, incoming)) => return self.open_tunnel(granted, incoming).await,
                    Err(refusal) => respond::problem(&refusal),
                }
            }
            Some(_) | None => response,
        };
        self.send(response, is_head, shared.idle_timeout).await
    }

    async fn send(
        &self,
        response: Response<Body>,
        is_head: bool,
        idle_timeout: Duration,
    ) -> Result<(), h2::Error> {
        self.is_answered.store(true, Ordering::Relaxed);
        response::send(&self.respond, response, is_head, idle_timeout).await
    }

    fn readable(self: &Arc<Self>, request: Request<RecvStream>, shared: &Shared) -> Request<Body> {
        let expects_continue =
            request.headers().get(header::EXPECT).is_some_and(|expected| expected == "100-continue");
        request.map(|incoming| {
            let stream = Arc::clone(self);
            body::boxed(RequestBody::new(incoming, shared.idle_timeout, expects_continue, stream))
        })
    }

    /// Hands the client's end of a tunnel over, and waits until it is closed.
    async fn open_tunnel(&self, granted: Response<()>, incoming: RecvStream) -> Result<(), h2::Error> {
        self.is_answered.store(true, Ordering::Relaxed);
        let outgoing = self.respond().send_response(granted, false)?;
        let (closing, closed) = oneshot::channel();
        if let Some(awaited) = self.take_tunnel() {
            let _ = awaited.send(Box::new(websocket::Tunnelled::new(incoming, outgoing, closing)));
            let _ = closed.await;
        }
        Ok(())
    }

    fn take_tunnel(&self) -> Option<oneshot::Sender<Box<dyn Duplex>>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells a client that waits for it to send its body (RFC 9110 §15.2.1).
    pub(super) fn ask_for_body(&self) {
        self.inform(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// The client has stopped in the midst of its body.
    pub(super) fn note_standstill(&self) {
        self.stands_still.store(true, Ordering::Relaxed);
    }

    fn inform(&self, status: StatusCode, headers: HeaderMap) {
        let mut interim = Response::new(());
        *interim.status_mut() = status;
        *interim.headers_mut() = headers;
        // Locked before it is asked: whoever answers has to wait.
        let mut respond = self.respond();
        if !self.is_answered.load(Ordering::Relaxed) {
            // Whether the client still is there shows elsewhere.
            let _ = respond.send_informational(interim);
        }
    }

    fn reset(&self, reason: Reason) -> Result<(), h2::Error> {
        self.respond().send_reset(reason);
        Ok(())
    }

    fn respond(&self) -> MutexGuard<'_, SendResponse<Bytes>> {
        self.respond.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientConnection for Stream {
    // Its times are kept where it is read and written, and nobody does so while the gateway has its turn.
    fn becomes_tunnel(&self) {}

    fn tunnel_end(&self) -> End {
        let (opened, opens) = oneshot::channel();
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Box::pin(async move { Ok(opens.await?) })
    }

    fn early_hints(self: Arc<Self>) -> Option<EarlyHints> {
        Some(EarlyHints(Arc::new(move |links| {
            if !links.is_empty() {
                self.inform(StatusCode::EARLY_HINTS, links);
            }
        })))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.take_tunnel();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stream")
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn nothing_is_said_between_an_answer_and_its_body() {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let client = tokio::spawn(async move {
            let (mut requests, connection) = h2::client::handshake(theirs).await.unwrap();
            tokio::spawn(connection);
            let request = Request::post("http://shop.test/").body(()).unwrap();
            let (response, _upload) = requests.send_request(request, false).unwrap();
            let mut incoming = response.await.unwrap().into_body();
            let mut received = Vec::new();
            while let Some(part) = incoming.data().await {
                received.extend_from_slice(&part.unwrap());
            }
            received
        });
        let mut connection = h2::server::handshake(ours).await.unwrap();
        let (_request, respond) = connection.accept().await.unwrap().unwrap();
        let stream = Stream {
            respond: Mutex::new(respond),
            is_answered: AtomicBool::new(false),
            stands_still: AtomicBool::new(false),
            tunnel: Mutex::new(None),
        };
        stream.ask_for_body();
        let (parts, mut sent) = mpsc::channel::<Result<_, std::io::Error>>(1);
        let frames = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
        let response = Response::new(body::boxed(StreamBody::new(frames)));
        let answering = stream.send(response, false, Duration::from_secs(10));
        let talking = async {
            // The answer's head is out by now: the other is polled first.
            stream.ask_for_body();
            parts.send(Ok(http_body::Frame::data(Bytes::from_static(b"whole")))).await.unwrap();
            drop(parts);
        };
        let answered = async {
            let (answered, ()) = tokio::join!(answering, talking);
            answered.unwrap();
        };
        tokio::pin!(answered);
        let mut is_answered = false;
        let driven = async {
            loop {
                tokio::select! {
                    () = &mut answered, if !is_answered => is_answered = true,
                    accepted = connection.accept() => if accepted.is_none() { break },
                }
            }
            client.await.unwrap()
        };
        assert_eq!(driven.await, b"whole");
    }
}
