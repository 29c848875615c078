//! A request's body on its way to a server: whether all of it was taken, and how it broke off.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame};
use http_body_util::LengthLimitError;

use crate::body::{Body, BodyError, Watch, watched};
use crate::proxy::{ForwardError, body};

/// What is known of a request's body while it is sent; nothing where the request has none.
pub(super) struct Upload(Option<Arc<OnceLock<Broken>>>);

/// How a body broke off.
#[derive(Clone, Copy, Debug)]
enum Broken {
    TooLarge,
    Off,
}

impl Upload {
    /// Watches over a request's body.
    pub(super) fn watch(request: &mut Request<Body>) -> Self {
        if request.body().is_end_stream() {
            return Self(None);
        }
        let broken = Arc::new(OnceLock::new());
        let upload = Self(Some(Arc::clone(&broken)));
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = watched(body, broken);
        upload
    }

    /// Whether the body has not been sent whole, nor given up.
    pub(super) fn is_in_progress(&self) -> bool {
        self.0.as_ref().is_some_and(|broken| Arc::strong_count(broken) > 1)
    }

    /// Why an exchange failed: by the body, or by this.
    pub(super) fn explain(&self, error: hyper::Error) -> ForwardError {
        match self.0.as_ref().and_then(|broken| broken.get()) {
            Some(Broken::TooLarge) => ForwardError::BodyTooLarge,
            Some(Broken::Off) => ForwardError::RequestBody(error.into()),
            None => ForwardError::Exchange(error.into()),
        }
    }
}

impl Broken {
    fn by(error: &BodyError) -> Option<Self> {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return Some(Self::TooLarge);
            }
            if error.is::<body::BrokenOff>() {
                return Some(Self::Off);
            }
            cause = error.source();
        }
        None
    }
}

/// The body is dropped when it was sent.
impl Watch for Arc<OnceLock<Broken>> {
    fn see(&mut self, frame: Option<Result<&Frame<Bytes>, &BodyError>>, _is_last: bool) {
        if let Some(Err(error)) = frame
            && let Some(broken) = Broken::by(error)
        {
            let _ = self.set(broken);
        }
    }
}
