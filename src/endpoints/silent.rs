//! Silent login: an app asks the issuer whether its user is logged in there, and the issuer may ask the user nothing
//! (`prompt=none`, OpenID Connect Core §3.1.2.1).
//!
//! Either the whole page goes there and comes back, or a frame does, which then tells the page it is in. A frame is
//! let in only where the app's own page made it, and what it shows only the app's own pages may frame.

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Parameters;
use crate::body::Body;
use crate::error::Refusal;
use crate::respond;
use crate::telemetry::chain;

/// Where a silent login goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Silent {
    /// In the whole page.
    Page,
    /// In a frame of the app's own page.
    Frame,
}

impl Silent {
    /// Whether, and where, this login is a silent one.
    pub(super) fn of(head: &Parts, parameters: &Parameters) -> Option<Self> {
        let is_silent = parameters.get("prompt") == Some("none");
        is_silent.then(|| if is_in_frame(&head.headers) { Self::Frame } else { Self::Page })
    }
}

/// Whether the answer is shown in a frame.
pub(super) fn is_in_frame(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-dest").is_some_and(|destination| destination == "iframe")
}

/// What the page around a frame is told: whether somebody is logged in now. Whatever went wrong, this login has
/// brought nobody in; why, the log says.
pub(super) fn tell(refusal: Refusal) -> Response<Body> {
    let code = refusal.code().name().unwrap_or("internal");
    let (reason, detail) = (refusal.reason.name(), &*refusal.detail());
    let cause = refusal.cause.as_deref().map(|cause| chain(cause));
    let status = refusal.code().status();
    if status.is_server_error() {
        tracing::warn!(event = "login.silent_failed", code, cause, reason, detail);
    } else {
        tracing::info!(event = "login.silent_failed", code, cause, reason, detail);
    }
    let mut response = told(false);
    *response.status_mut() = status;
    for (name, value) in refusal.headers {
        response.headers_mut().append(name, value);
    }
    response
}

/// The same, where nothing went wrong.
pub(super) fn told(authenticated: bool) -> Response<Body> {
    respond::told_parent(StatusCode::OK, authenticated)
}
