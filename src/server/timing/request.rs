//! One request of a connection, from its head to the end of its answer; its body tells when it has come whole.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

use super::{Coming, Phase, Timing};
use crate::body::{self, Body, BodyError, Watch, Watched};

/// An answer's body, while it is being sent.
pub(in crate::server) type Sending = Watched<Body, RequestUnderWay>;

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
        body::boxed(Watched::new(body, end))
    }

    /// The answer is there; keeps the mark until its body was sent.
    pub(in crate::server) fn until_sent(self, body: Body) -> Sending {
        let mut state = self.timing.state();
        state.has_waited = true;
        if matches!(state.phase, Phase::Request | Phase::Waiting) {
            state.phase = Phase::Answer;
        }
        drop(state);
        Watched::new(body, self)
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

impl<E> Watch<E> for RequestEnd {
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &E>>, is_last: bool) {
        match frame {
            // What follows it is no request.
            Some(Err(_)) => self.tell(Coming::Forsaken),
            Some(Ok(_)) if !is_last => {}
            Some(Ok(_)) | None => self.tell(Coming::Whole),
        }
    }
}

/// It is all about when the body is dropped.
impl Watch for RequestUnderWay {
    fn see(&mut self, _frame: Option<Result<&Frame<Bytes>, &BodyError>>, _is_last: bool) {}
}
