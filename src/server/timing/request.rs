//! One request of a connection, from its head to the end of its answer; its body tells when it has come whole.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Coming, Phase, Timing};
use crate::body::{self, Body, BodyError};

/// Marks that a request is being answered, until it is dropped.
pub(in crate::server) struct RequestUnderWay {
    pub(super) timing: Arc<Timing>,
    pub(super) request: u64,
}

impl RequestUnderWay {
    /// The request's body, which tells when it has come whole.
    pub(in crate::server) fn receives<B>(&self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut end = RequestEnd { timing: Arc::clone(&self.timing), request: self.request, is_told: false };
        if body.is_end_stream() {
            end.tell(Coming::Whole);
            return body::full("");
        }
        body::boxed(Receiving { body, end })
    }

    /// The answer is there; keeps the mark until its body was sent.
    pub(in crate::server) fn until_sent(self, body: Body) -> Sending {
        let mut state = self.timing.state();
        state.has_waited = true;
        if matches!(state.phase, Phase::Request | Phase::Waiting) {
            state.phase = Phase::Answer;
        }
        drop(state);
        Sending { body, _under_way: self }
    }
}

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        let mut state = self.timing.state();
        if state.request == self.request
            && matches!(state.phase, Phase::Request | Phase::Waiting | Phase::Answer)
        {
            state.phase = if state.coming == Coming::Part { Phase::Answered } else { Phase::Between };
        }
    }
}

/// Tells, once, how a request's body has ended.
struct RequestEnd {
    timing: Arc<Timing>,
    request: u64,
    is_told: bool,
}

impl RequestEnd {
    fn tell(&mut self, coming: Coming) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.timing.request_ended(self.request, coming);
        }
    }
}

impl Drop for RequestEnd {
    fn drop(&mut self) {
        self.tell(Coming::Forsaken);
    }
}

/// A request's body, while it comes in.
struct Receiving<B> {
    body: B,
    end: RequestEnd,
}

impl<B: HttpBody + Unpin> HttpBody for Receiving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            // What follows it is no request.
            Some(Err(_)) => self.end.tell(Coming::Forsaken),
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.end.tell(Coming::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, while it is being sent.
pub(in crate::server) struct Sending {
    body: Body,
    _under_way: RequestUnderWay,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
