//! The answer to one request, whatever its protocol.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::{Request, Response};

use super::connection::Listener;
use crate::body::Body;
use crate::error::{Reason, Refusal};
use crate::gateway::Connection;
use crate::respond;

/// The answer of the gateway that is in force now. A panic is a fault of ours; it ends one request and nothing more.
pub(super) async fn answer(
    listener: &Listener,
    request: Box<Request<Body>>,
    connection: Connection,
) -> Response<Body> {
    let in_force = listener.in_force.load();
    AssertUnwindSafe(in_force.gateway.handle(request, connection)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(event = "request.panicked");
        in_force.gateway.note_panic();
        let refusal = Refusal::new(Reason::GatewayFailed);
        respond::problem(&refusal)
    })
}
