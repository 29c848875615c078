//! The operators' listener: `/livez`, `/readyz`, `/metrics` and `/sessions`. Never on the public one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{ACCEPT_PAUSE, Readiness};
use crate::body::{self, Body};
use crate::error::{Code, Refusal};
use crate::fields;
use crate::gateway::Gateway;
use crate::oidc::Availability;
use crate::respond::{self, Audience};
use crate::telemetry::chain;
use crate::telemetry::metrics::{OPENMETRICS, PROMETHEUS_TEXT};

mod sessions;

/// Probes are few.
const MOST_CONNECTIONS: usize = 64;

/// How long a connection may be silent, and the head of a request take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until it is aborted.
pub(super) async fn run(listener: TcpListener, gateway: Arc<Gateway>, readiness: Arc<Readiness>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(event = "admin.accept_failed", error = %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (gateway, readiness) = (Arc::clone(&gateway), Arc::clone(&readiness));
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &gateway, &readiness));
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
    gateway: &Gateway,
    readiness: &Readiness,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/sessions" {
        let answered = sessions::answer(request.method(), request.uri(), gateway).await;
        return Ok(answered.unwrap_or_else(|refusal| respond::refusal(&refusal, Audience::Script)));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = Refusal::method_not_allowed("GET, HEAD");
        return Ok(respond::refusal(&refusal, Audience::Script));
    }
    Ok(match request.uri().path() {
        "/livez" => respond::json(&json!({"status": "alive"})),
        "/metrics" => metrics(gateway, request.headers()),
        "/readyz" => {
            readiness.is_watched.store(true, Ordering::Relaxed);
            ready(gateway, readiness).await
        }
        _ => respond::refusal(
            &Refusal::new(Code::NotFound, "There are /livez, /readyz, /metrics and /sessions."),
            Audience::Script,
        ),
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
    let draining = readiness.draining.load(Ordering::Relaxed);
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
