//! Bodies on their way through: bounded, streamed, their trailers filtered, and small ones kept for one
//! more try.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::activity::Activity;
use super::headers;
use crate::body::{self, Body, BodyError, Watch};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Sleep, sleep};

/// What is kept of a body for a second try, in bytes; a larger one is sent once.
const REPLAY_LIMIT: usize = 64 * 1024;

/// The client's body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the client's body broke off")]
pub struct BrokenOff(#[source] BodyError);

/// Nothing came of a body for too long.
#[derive(Debug, thiserror::Error)]
#[error("the body stood still")]
pub struct StoodStill;

/// A client's body, of at most `limit` bytes.
pub fn bounded(body: Body, limit: u64) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    filter_trailers(Limited::new(body.map_err(BrokenOff), limit))
}

/// Takes out of a body's trailers what may not come in behind it.
pub fn filter_trailers<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    body::boxed(body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            headers::prepare_trailers(trailers);
        }
        frame
    }))
}

/// An upstream's body, which breaks off where nothing comes of it for this long.
pub fn answered(body: Body, idle_timeout: Duration) -> Body {
    if body.is_here() {
        return body;
    }
    filter_trailers(Timed { body, idle_timeout, alarm: None })
}

/// A body that must not stand still while it is waited for.
struct Timed {
    body: Body,
    idle_timeout: Duration,
    /// Set by the first wait for a frame: most answers are here before anybody waits.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.alarm = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle_timeout = self.idle_timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(idle_timeout)));
        alarm.as_mut().poll(context).map(|()| Some(Err(StoodStill.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notes each part of a body as it passes.
pub fn noting(body: Body, activity: Arc<Activity>) -> Body {
    body::watched(body, activity)
}

impl Watch for Arc<Activity> {
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &BodyError>>, _is_last: bool) {
        if let Some(Ok(_)) = frame {
            self.note();
        }
    }
}

/// A body that ends early once `end` is done.
pub fn until(body: Body, end: impl Future<Output = ()> + Send + 'static) -> Body {
    body::boxed(Until { body, end: Some(Box::pin(end)) })
}

/// A body that has an end besides its own.
struct Until {
    body: Body,
    /// `None` once it is done.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        if end.as_mut().poll(context).is_ready() {
            self.end = None;
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

/// A request's head and, once it was sent, its body, for one more try.
#[derive(Debug)]
pub struct Replay {
    method: Method,
    headers: HeaderMap,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
enum Seen {
    Part(Vec<Bytes>, usize),
    Whole(Vec<Bytes>),
    TooMuch,
}

impl Replay {
    /// Keeps what passes of this request.
    pub fn record(request: &mut Request<Body>) -> Self {
        let has_body = !request.body().is_end_stream();
        let seen = if has_body { Seen::Part(Vec::new(), 0) } else { Seen::Whole(Vec::new()) };
        let seen = Arc::new(Mutex::new(seen));
        if has_body {
            let (body, seen) = (std::mem::take(request.body_mut()), Arc::clone(&seen));
            *request.body_mut() = body::watched(body, seen);
        }
        Self { method: request.method().clone(), headers: request.headers().clone(), seen }
    }

    /// The request again; `None` where its body was too large, or did not pass whole.
    pub fn again(&self) -> Option<Request<Body>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen::Whole(parts) = &*seen else { return None };
        let mut request = Request::new(body::full(parts.concat()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

/// The body is remembered while it streams.
impl Watch for Arc<Mutex<Seen>> {
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &BodyError>>, is_last: bool) {
        let mut seen = self.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(frame.and_then(Result::ok), is_last);
    }
}

impl Seen {
    fn push(&mut self, frame: Option<&Frame<Bytes>>, ended: bool) {
        let Self::Part(parts, length) = self else { return };
        match frame.map(Frame::data_ref) {
            Some(Some(data)) if *length + data.len() <= REPLAY_LIMIT => {
                *length += data.len();
                parts.push(data.clone());
            }
            // Trailers are not kept: a request that has them is sent once.
            Some(Some(_) | None) => *self = Self::TooMuch,
            None => {}
        }
        if let (true, Self::Part(parts, _)) = (ended, &mut *self) {
            *self = Self::Whole(std::mem::take(parts));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn request(parts: Vec<&'static [u8]>) -> Request<Body> {
        let frames =
            parts.into_iter().map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(part))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Request::builder().method("POST").header("x-kept", "1").body(filter_trailers(body)).unwrap()
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_as_it_was() {
        let mut first = request(vec![b"one ", b"two"]);
        let replay = Replay::record(&mut first);
        assert!(replay.again().is_none(), "nothing was sent so far");
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "one two");
        let second = replay.again().unwrap();
        assert_eq!((second.method(), &second.headers()["x-kept"]), (&Method::POST, &"1".parse().unwrap()));
        assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), "one two");
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        static LARGE: [u8; REPLAY_LIMIT] = [0; REPLAY_LIMIT];
        let mut first = request(vec![&LARGE, b"x"]);
        let replay = Replay::record(&mut first);
        first.into_body().collect().await.unwrap();
        assert!(replay.again().is_none());
    }
}
