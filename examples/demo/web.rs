//! The plumbing that the demo's issuer, API and tour share: small requests in, answers out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom::body::{self, Body};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An answer: whole, but for streams of events.
pub type Answer = Response<Body>;

/// Of spans, many come at once.
const LARGEST_BODY: usize = 1024 * 1024;

/// After a connection could not be accepted, or a port not be had.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests while it `runs`. While it does not, nobody listens there, and its connections are closed.
pub async fn serve_while(
    mut runs: watch::Receiver<bool>,
    listener: TcpListener,
    handler: impl Fn(&Request<Bytes>) -> Answer + Send + Sync + 'static,
) {
    let handler = Arc::new(handler);
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    while runs.wait_for(|runs| *runs).await.is_ok() {
        let listening = match listener.take() {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(address).await,
        };
        let Ok(listening) = listening else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tokio::select! {
            () = answer_all(listening, &handler) => {}
            _ = runs.wait_for(|runs| !runs) => {}
        }
    }
}

/// Answers requests until the process ends.
pub async fn serve(
    listener: TcpListener,
    handler: impl Fn(&Request<Bytes>) -> Answer + Send + Sync + 'static,
) {
    answer_all(listener, &Arc::new(handler)).await;
}

/// Until it is dropped, and its connections with it.
async fn answer_all(
    listener: TcpListener,
    handler: &Arc<impl Fn(&Request<Bytes>) -> Answer + Send + Sync + 'static>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; to ask again at once would only burn the processor.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let handler = Arc::clone(handler);
        let service = service_fn(move |request| {
            let handler = Arc::clone(&handler);
            async move {
                Ok::<_, Infallible>(match collect(request).await {
                    Some(request) => handler(&request),
                    None => text(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large, or broke off."),
                })
            }
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        // A client that hangs up is no news.
        connections.spawn(async move { drop(connection.await) });
    }
}

async fn collect(request: Request<Incoming>) -> Option<Request<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await.ok()?;
    Some(Request::from_parts(head, body.to_bytes()))
}

/// The parameters of a query or a form.
#[derive(Debug)]
pub struct Parameters(HashMap<String, String>);

impl Parameters {
    /// `None` where a parameter is repeated. One without a value counts as left out (RFC 6749 §3.1).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parameters = HashMap::new();
        for (name, value) in form_urlencoded::parse(text).into_owned().filter(|(_, value)| !value.is_empty())
        {
            if parameters.insert(name, value).is_some() {
                return None;
            }
        }
        Some(Self(parameters))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A JSON answer, which nobody may store: tokens travel in some.
pub fn json(status: StatusCode, value: &Value) -> Answer {
    let mut answer = with_type(status, "application/json", value.to_string());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A plain text.
pub fn text(status: StatusCode, text: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text)
}

/// An answer of the given media type.
pub fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body::full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
