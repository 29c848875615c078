//! HTTP/2 from clients (RFC 9113): the same gateway as in HTTP/1.1, and its own ways to be misused.

mod alike;
mod bodies;
mod conformance;
mod floods;
mod grpc;
mod times;
mod websocket;

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::upstream::Upstream;

/// A gateway that speaks HTTP/2 without TLS, with one open route to this upstream.
async fn open(upstream: &Upstream, limits: &str) -> Gateway {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = "h2c: true".to_owned();
    limits.clone_into(&mut setup.limits);
    setup.start().await
}
