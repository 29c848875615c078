//! The one type of all bodies that pass: streamed, of unknown length, unless there is nothing to wait for.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// A body.
#[derive(Debug)]
pub struct Body(Content);

#[derive(Debug)]
enum Content {
    /// Here already; nothing once it was taken.
    Here(Bytes),
    Streamed(UnsyncBoxBody<Bytes, BodyError>),
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub struct BodyError(#[source] Box<dyn Error + Send + Sync>);

/// Sees a body pass, and is dropped with it: when it was sent, or given up.
pub trait Watch<E = BodyError> {
    /// What comes of it: a part, its failure, or nothing any more. `is_last` where nothing comes behind that.
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &E>>, is_last: bool);
}

/// A body that is watched while it streams.
#[derive(Debug)]
pub struct Watched<B, W> {
    body: B,
    watch: W,
}

impl<B, W> Watched<B, W> {
    /// Has this body watched.
    pub fn new(body: B, watch: W) -> Self {
        Self { body, watch }
    }
}

impl<B, W> HttpBody for Watched<B, W>
where
    B: HttpBody<Data = Bytes> + Unpin,
    W: Watch<B::Error> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, watch } = &mut *self;
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        watch.see(frame.as_ref().map(Result::as_ref), frame.is_none() || body.is_end_stream());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Nothing.
impl Default for Body {
    fn default() -> Self {
        full(Bytes::new())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Content::Here(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Here(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Here(bytes) => bytes.is_empty(),
            Content::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Here(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}

impl Body {
    /// Whether all of it is here: there is nothing to wait for, and no trailers will come.
    pub fn is_here(&self) -> bool {
        match self.0 {
            Content::Here(_) => true,
            Content::Streamed(_) => false,
        }
    }
}

/// Any other body as this type. One that has ended already is dropped.
pub fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if body.is_end_stream() {
        return full(Bytes::new());
    }
    streamed(body.map_err(|error| BodyError(error.into())))
}

/// The same of a body that does more than stream: it is kept until nobody needs it, though it may have ended.
pub fn streamed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
{
    Body(Content::Streamed(body.boxed_unsync()))
}

/// A body that is watched, to its end.
pub fn watched(body: Body, watch: impl Watch + Send + Unpin + 'static) -> Body {
    streamed(Watched::new(body, watch))
}

/// A body that is already here.
pub fn full(content: impl Into<Bytes>) -> Body {
    Body(Content::Here(content.into()))
}
