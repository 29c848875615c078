//! What the page's buttons do, and what its picture is drawn from. The page reaches it through the gateway, as a
//! route that needs no session: the switches must work while the store is away.
//!
//! The tour is the gateway's OpenTelemetry collector as well. So the picture shows what the gateway itself says it
//! did, a second later at most.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cloakroom::body;
use cloakroom::clock::Clock;
use cloakroom::random::Random;
use cloakroom::session::store::Store;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::json;
use tokio::sync::watch;

use crate::issuer::grants::ACCESS_TOKEN_LIFETIME;
use crate::issuer::{Issuer, backchannel};
use crate::tour::clock::SkippingClock;
use crate::tour::hops::Hops;
use crate::tour::store::SwitchedStore;
use crate::web::{Answer, json, text};

pub mod clock;
pub mod hops;
pub mod store;

/// A silent stream says something this often, so that nobody takes it for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// All that can be switched, and all that was seen.
#[derive(Debug)]
pub struct Tour {
    /// Tells one run of the demo from the next.
    run: String,
    clock: Arc<SkippingClock>,
    issuer: Arc<Issuer>,
    issuer_runs: watch::Sender<bool>,
    store: Arc<SwitchedStore>,
    hops: Mutex<Hops>,
    news: watch::Sender<()>,
}

impl Tour {
    /// Everything runs, and nothing was seen yet.
    pub fn new(clock: Arc<SkippingClock>, issuer: Arc<Issuer>, hops: Hops) -> Self {
        let run = Random::SYSTEM.token::<8>();
        let store = Arc::new(SwitchedStore::new(Arc::clone(&clock) as _));
        let (issuer_runs, news) = (watch::Sender::new(true), watch::Sender::new(()));
        Self { run, clock, issuer, issuer_runs, store, hops: Mutex::new(hops), news }
    }

    /// What the gateway keeps its sessions in.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }

    /// What everybody goes by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as _
    }

    /// Whether the issuer is to be reached.
    pub fn issuer_runs(&self) -> watch::Receiver<bool> {
        self.issuer_runs.subscribe()
    }

    /// Answers a request.
    pub fn answer(self: &Arc<Self>, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        match (request.method().as_str(), path) {
            ("GET", "/tour/events") => self.events(),
            ("POST", "/v1/traces") => self.take_spans(request.body()),
            ("POST", "/v1/metrics") => text(StatusCode::OK, ""),
            // What no other site's page can send without being asked.
            ("POST", _) if !request.headers().contains_key("x-csrf") => {
                text(StatusCode::FORBIDDEN, "The header X-CSRF is missing.")
            }
            ("POST", _) => self.press(path),
            _ => text(StatusCode::NOT_FOUND, "Not found."),
        }
    }

    /// The issuer has answered a request. Those of the gateway it tells of itself.
    pub fn saw_visit(&self, request: &Request<Bytes>, answer: &Answer) {
        let (method, path) = (request.method(), request.uri().path());
        if ["/authorize", "/login", "/end-session"].contains(&path) {
            self.hops().add_visit(format!("{method} {path}"), answer.status(), self.clock.now());
            self.tell();
        }
    }

    fn press(&self, button: &str) -> Answer {
        match button {
            "/tour/minute" => self.clock.skip(ACCESS_TOKEN_LIFETIME),
            "/tour/issuer/start" => drop(self.issuer_runs.send_replace(true)),
            "/tour/issuer/stop" => drop(self.issuer_runs.send_replace(false)),
            "/tour/store/start" => self.store.switch(true),
            "/tour/store/stop" => self.store.switch(false),
            "/tour/issuer/end-sessions" if !*self.issuer_runs.borrow() => {
                return text(StatusCode::CONFLICT, "The issuer is stopped, and tells nobody anything.");
            }
            "/tour/issuer/end-sessions" => {
                tokio::spawn(backchannel::send(self.issuer.end_all_logins()));
            }
            _ => return text(StatusCode::NOT_FOUND, "Not found."),
        }
        println!("  tour     {button}");
        self.tell();
        json(StatusCode::OK, &json!({}))
    }

    fn take_spans(&self, body: &Bytes) -> Answer {
        let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else {
            return text(StatusCode::BAD_REQUEST, "These are no spans.");
        };
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let mut spans: Vec<_> = scopes.flat_map(|scope| &scope.spans).collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        let mut hops = self.hops();
        spans.into_iter().for_each(|span| hops.add_span(span));
        drop(hops);
        self.tell();
        text(StatusCode::OK, "")
    }

    /// Server-sent events: all that is known, and then what is new.
    fn events(self: &Arc<Self>) -> Answer {
        let mut news = self.news.subscribe();
        news.mark_changed();
        let events = stream::unfold((Arc::clone(self), news, 0), |(tour, mut news, mut seen)| async move {
            let text = match tokio::time::timeout(SIGN_OF_LIFE, news.changed()).await {
                Ok(Ok(())) => tour.tidings(&mut seen),
                Ok(Err(_)) => return None,
                Err(_) => ":\n\n".to_owned(),
            };
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), (tour, news, seen)))
        });
        let mut answer = Response::new(body::boxed(StreamBody::new(events)));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// One event, with the hops after the `seen` ones.
    fn tidings(&self, seen: &mut u64) -> String {
        let hops = self.hops();
        let new: Vec<_> = hops.after(*seen).collect();
        let event = json!({
            "run": self.run,
            "now": self.clock.now().as_millis(),
            "runs": {"issuer": *self.issuer_runs.borrow(), "store": self.store.runs()},
            "hops": new,
        });
        *seen = new.last().map_or(*seen, |hop| hop.number);
        format!("data: {event}\n\n")
    }

    fn tell(&self) {
        self.news.send_replace(());
    }

    fn hops(&self) -> MutexGuard<'_, Hops> {
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
