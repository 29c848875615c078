//! The operators' listener: `/`, `/livez`, `/readyz`, `/metrics` and `/sessions`. Never on the public one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::ACCEPT_PAUSE;
use super::connection::Listener;
use super::readiness::Readiness;
use crate::body::{self, Body};
use crate::error::{Reason, Refusal};
use crate::fields;
use crate::gateway::Gateway;
use crate::oidc::Availability;
use crate::random::Random;
use crate::respond;
use crate::telemetry::metrics::{OPENMETRICS, PROMETHEUS_TEXT};
use crate::telemetry::{RequestId, chain, comes_from};

mod caller;
mod sessions;
mod status;

pub(super) use status::Status;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Probes are few.
const MOST_CONNECTIONS: usize = 64;

/// How long a connection may be silent, and the head of a request take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves, and takes samples for the status page, until it is aborted.
pub(super) async fn run(socket: TcpListener, listener: Arc<Listener>, status: Status) {
    let status = Arc::new(status);
    tokio::join!(accept(socket, &listener, &status), status.watch(&listener));
}

async fn accept(socket: TcpListener, listener: &Arc<Listener>, status: &Arc<Status>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(event = "admin.accept_failed", error = %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (listener, status) = (Arc::clone(listener), Arc::clone(status));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answered = async {
                    comes_from(peer.ip());
                    answer(request, &listener, &status).await
                };
                RequestId::generate(Random::SYSTEM).within(None, answered)
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(event = "admin.connection_ended", error = %chain(&error));
            }
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    listener: &Listener,
    status: &Status,
) -> Result<Response<Body>, Infallible> {
    let answered = choose(&request, listener, status).await;
    let mut response = answered.unwrap_or_else(|refusal| respond::problem(&refusal));
    // No page of another origin, and no document in its process, gets hold of it (Fetch §3.7).
    response.headers_mut().insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    Ok(response)
}

async fn choose(
    request: &Request<Incoming>,
    listener: &Listener,
    status: &Status,
) -> Result<Response<Body>, Refusal> {
    let (in_force, readiness) = (listener.in_force.load_full(), &listener.readiness);
    let gateway = &in_force.gateway;
    let path = request.uri().path();
    if path == "/sessions" {
        caller::check(request)?;
        return sessions::answer(request.method(), request.uri(), gateway).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::method_not_allowed("GET, HEAD"));
    }
    Ok(match path {
        "/" => {
            caller::check(request)?;
            status.page(&in_force, readiness.is_draining()).await
        }
        "/livez" => respond::json(&json!({"status": "alive"})),
        "/metrics" => metrics(gateway, request.headers()),
        "/readyz" => {
            readiness.note_watcher();
            ready(gateway, readiness).await
        }
        _ => return Err(Refusal::new(Reason::NoAdminPage)),
    })
}

/// Who does not ask for OpenMetrics reads the same text as the older format.
fn metrics(gateway: &Gateway, headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(body::full(gateway.encode_metrics()));
    let is_wanted = fields::accepts(headers, "application/openmetrics-text");
    let content_type = HeaderValue::from_static(if is_wanted { OPENMETRICS } else { PROMETHEUS_TEXT });
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Ready is who can serve live sessions. An issuer that is away keeps new users out, but takes nobody's
/// session, and so is told of and no more.
async fn ready(gateway: &Gateway, readiness: &Readiness) -> Response<Body> {
    gateway.look_for_issuers();
    let store_answers = gateway.store_answers().await;
    let draining = readiness.is_draining();
    let issuers: Map<String, Value> = gateway
        .issuers()
        .map(|(issuer, availability)| {
            let word = match availability {
                Availability::Unknown => "not asked so far",
                Availability::Available => "available",
                Availability::Unavailable => "unavailable",
            };
            (issuer.to_owned(), Value::from(word))
        })
        .collect();
    // Known sessions are served for the time of grace, and elsewhere they are no better off.
    let serves = store_answers || gateway.is_within_grace();
    let is_ready = serves && !draining;
    let status = match (draining, serves) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "unavailable",
    };
    let mut response = respond::json(&json!({
        "status": status,
        "store": if store_answers { "available" } else { "unavailable" },
        "issuers": issuers,
    }));
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}
