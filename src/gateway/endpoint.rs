//! The way of a request to one of the gateway's own endpoints.

use std::net::IpAddr;

use http::{Request, Response};

use super::app::App;
use super::client_address::client_address;
use super::guard;
use super::load::{Place, may_be_of_a_session};
use super::rate_limit::Whose;
use crate::body::Body;
use crate::config::RateLimitKey;
use crate::endpoints::Endpoint;
use crate::error::Refusal;
use crate::proxy::body::bounded;

/// What may be posted to an endpoint, in bytes: a form with a token in it.
const LARGEST_FORM: u64 = 128 * 1024;

/// A login is limited by client, and is no request of a live session; all else that is ours is one, or ends one.
pub(super) async fn answer(
    app: &App,
    endpoint: Endpoint,
    request: Box<Request<Body>>,
    peer: IpAddr,
    place: &Place<'_>,
) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let body = bounded(body, LARGEST_FORM);
    // What an issuer calls, anybody can: it has no claim to the places of live sessions.
    let is_for_users = matches!(endpoint, Endpoint::Session | Endpoint::Logout);
    if place.is_reserved() && !(is_for_users && may_be_of_a_session(app, &head.headers)) {
        place.take_for_anybody()?;
    }
    if !matches!(endpoint, Endpoint::Login | Endpoint::Device) {
        return app.endpoints.answer(endpoint, &head, body).await;
    }
    let mut quota = app.login_rate_limits.quota();
    let client = || Whose::client(client_address(&head.headers, peer, &app.trusted_proxies));
    let answered = async {
        quota.count(RateLimitKey::Client, client).await?;
        app.endpoints.answer(endpoint, &head, body).await
    };
    let answered = answered.await;
    quota.tell(answered)
}

/// Whether a request may come to it.
pub(super) fn admit<B>(app: &App, endpoint: Endpoint, request: &Request<B>) -> Result<(), Refusal> {
    let path = request.uri().path();
    if !app.endpoints.allows(endpoint, path, request.method()) {
        return Err(Refusal::method_not_allowed(app.endpoints.methods(endpoint, path)));
    }
    match endpoint {
        Endpoint::Login => guard::login(request),
        Endpoint::Session | Endpoint::Device | Endpoint::DevicePoll => {
            guard::session(request.headers(), &app.origin)
        }
        Endpoint::Logout => guard::logout(request, &app.origin),
        // Anybody may read it. The issuer sends the browser, or calls by itself, as a transmitter does.
        Endpoint::Client
        | Endpoint::Callback
        | Endpoint::LogoutCallback
        | Endpoint::BackchannelLogout
        | Endpoint::FrontchannelLogout
        | Endpoint::SecurityEvents => Ok(()),
    }
}
