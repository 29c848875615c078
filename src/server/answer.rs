//! The answer to one request, whatever its protocol.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::{Request, Response};

use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::gateway::{Connection, Gateway};
use crate::respond::{self, Audience};

/// The gateway's answer. A panic is a fault of ours; it ends one request and nothing more.
pub(super) async fn answer(
    gateway: &Gateway,
    request: Box<Request<Body>>,
    connection: Connection,
) -> Response<Body> {
    AssertUnwindSafe(gateway.handle(request, connection)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(event = "request.panicked");
        let refusal = Refusal::new(Code::Internal, "The gateway failed. This is not your fault.");
        respond::refusal(&refusal, Audience::Script)
    })
}
