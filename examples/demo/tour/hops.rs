//! Who asked whom for what: one hop for each span that the gateway records (its OpenTelemetry traces), and for
//! each request of a browser that the issuer saw. Neither has a token, a cookie, a code or a query in it.

use std::collections::VecDeque;

use cloakroom::clock::Timestamp;
use http::StatusCode;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use serde::Serialize;

/// How many hops are remembered, and how many requests whose spans may still come.
const MOST: usize = 300;

const BACKCHANNEL: &str = "/bff/backchannel-logout";

/// Where a request comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Browser,
    Gateway,
    Issuer,
    Store,
    Api,
}

/// One part asked another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Counted from 1 on, as they became known.
    pub number: u64,
    /// The same for all hops that one request has caused.
    pub request: u64,
    /// When it began, in milliseconds since 1970 by the demo's clock.
    pub at: u64,
    pub from: Part,
    pub to: Part,
    /// Method and path; of the store its operation.
    pub what: String,
    /// Of the answer, where there is one in HTTP.
    pub status: Option<i64>,
    /// There was no answer.
    pub failed: bool,
}

/// The latest hops.
#[derive(Debug)]
pub struct Hops {
    api_url: String,
    issuer_url: String,
    known: VecDeque<Hop>,
    traces: VecDeque<Trace>,
    hops: u64,
    requests: u64,
}

/// The spans of one request. Those under it are known before it is, and a refresh behind the answer later.
#[derive(Debug)]
struct Trace {
    id: Vec<u8>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Waiting(Vec<Hop>),
    Shown(u64),
    LeftOut,
}

impl Hops {
    /// None so far. The URLs tell an issuer from an API.
    pub fn new(issuer_url: String, api_url: String) -> Self {
        let (known, traces) = (VecDeque::new(), VecDeque::new());
        Self { api_url, issuer_url, known, traces, hops: 0, requests: 0 }
    }

    /// Those that became known after this many.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Hop> {
        self.known.iter().filter(move |hop| hop.number > number)
    }

    /// A browser asked the issuer.
    pub fn add_visit(&mut self, what: String, status: StatusCode, at: Timestamp) {
        let hop = Hop::new(Part::Browser, Part::Issuer, what, at.as_millis());
        self.requests += 1;
        self.add(self.requests, Hop { status: Some(status.as_u16().into()), ..hop });
    }

    /// The gateway has recorded this. The page's own looks at the session and at the tour are left out, and so
    /// are its files.
    pub fn add_span(&mut self, span: &Span) {
        let Some(hop) = self.hop(span) else { return };
        let index = self.trace(&span.trace_id);
        if span.kind() != SpanKind::Server {
            match &mut self.traces[index].standing {
                Standing::Waiting(hops) => hops.push(hop),
                Standing::Shown(request) => {
                    let request = *request;
                    self.add(request, hop);
                }
                Standing::LeftOut => {}
            }
            return;
        }
        let is_shown = is_shown(hop.what.split_once(' ').map_or("", |(_, path)| path));
        self.requests += u64::from(is_shown);
        let standing = if is_shown { Standing::Shown(self.requests) } else { Standing::LeftOut };
        let before = std::mem::replace(&mut self.traces[index].standing, standing);
        if is_shown {
            self.add(self.requests, hop);
            let Standing::Waiting(hops) = before else { return };
            hops.into_iter().for_each(|hop| self.add(self.requests, hop));
        }
    }

    fn add(&mut self, request: u64, hop: Hop) {
        self.hops += 1;
        self.known.push_back(Hop { number: self.hops, request, ..hop });
        if self.known.len() > MOST {
            self.known.pop_front();
        }
    }

    fn trace(&mut self, id: &[u8]) -> usize {
        if let Some(index) = self.traces.iter().position(|trace| trace.id == id) {
            return index;
        }
        if self.traces.len() >= MOST {
            self.traces.pop_front();
        }
        self.traces.push_back(Trace { id: id.to_vec(), standing: Standing::Waiting(Vec::new()) });
        self.traces.len() - 1
    }

    fn hop(&self, span: &Span) -> Option<Hop> {
        let url = text(span, "url.full").unwrap_or_default();
        let method = text(span, "http.request.method").unwrap_or_default();
        let under = |base: &str| url.strip_prefix(base).filter(|path| path.starts_with('/'));
        let (from, to, what) = match span.kind() {
            SpanKind::Server => {
                let path = text(span, "url.path")?;
                let from = if path == BACKCHANNEL { Part::Issuer } else { Part::Browser };
                (from, Part::Gateway, format!("{method} {path}"))
            }
            SpanKind::Client => match (under(&self.issuer_url), under(&self.api_url)) {
                (Some(path), _) => (Part::Gateway, Part::Issuer, format!("{method} {path}")),
                (None, Some(path)) => (Part::Gateway, Part::Api, format!("{method} {path}")),
                (None, None) => return None,
            },
            SpanKind::Internal => {
                (Part::Gateway, Part::Store, span.name.strip_prefix("session store ")?.to_owned())
            }
            SpanKind::Unspecified | SpanKind::Producer | SpanKind::Consumer => return None,
        };
        let status = number(span, "http.response.status_code");
        let has_failed =
            span.status.as_ref().is_some_and(|status| status.code == i32::from(SpanStatus::Error));
        let hop = Hop::new(from, to, what, span.start_time_unix_nano / 1_000_000);
        Some(Hop { status, failed: has_failed && status.is_none(), ..hop })
    }
}

impl Hop {
    fn new(from: Part, to: Part, what: String, at: u64) -> Self {
        Self { number: 0, request: 0, at, from, to, what, status: None, failed: false }
    }
}

fn is_shown(path: &str) -> bool {
    let endpoints = ["/bff/login", "/bff/callback", "/bff/logout", "/bff/logout/callback", BACKCHANNEL];
    path.starts_with("/api/") || endpoints.contains(&path)
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match value(span, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn number(span: &Span, key: &str) -> Option<i64> {
    match value(span, key)? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::Status;

    use super::*;

    fn span(trace: u8, kind: SpanKind, name: &str, attributes: &[(&str, Value)]) -> Span {
        let attribute = |(key, value): &(&str, Value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(value.clone()) }),
            ..KeyValue::default()
        };
        Span {
            trace_id: vec![trace],
            kind: kind.into(),
            name: name.to_owned(),
            attributes: attributes.iter().map(attribute).collect(),
            ..Span::default()
        }
    }

    fn string(text: &str) -> Value {
        Value::StringValue(text.to_owned())
    }

    fn asked(trace: u8, method: &str, path: &str, status: i64) -> Span {
        let status = ("http.response.status_code", Value::IntValue(status));
        let attributes = [("http.request.method", string(method)), ("url.path", string(path)), status];
        span(trace, SpanKind::Server, "", &attributes)
    }

    fn called(trace: u8, method: &str, url: &str) -> Span {
        let attributes = [("http.request.method", string(method)), ("url.full", string(url))];
        span(trace, SpanKind::Client, "", &attributes)
    }

    fn hops(spans: &[Span]) -> Vec<(u64, Part, Part, String)> {
        let mut hops = Hops::new("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:12".to_owned());
        spans.iter().for_each(|span| hops.add_span(span));
        hops.after(0).map(|hop| (hop.request, hop.from, hop.to, hop.what.clone())).collect()
    }

    #[test]
    fn a_request_is_shown_with_all_it_has_caused_before_its_answer_and_after() {
        let read = span(7, SpanKind::Internal, "session store read", &[]);
        let spans = [
            read,
            called(7, "GET", "http://127.0.0.1:12/api/hello"),
            asked(7, "GET", "/api/hello", 200),
            called(7, "POST", "http://127.0.0.1:1/token"),
        ];
        let hop = |from, to, what: &str| (1, from, to, what.to_owned());
        let wanted = [
            hop(Part::Browser, Part::Gateway, "GET /api/hello"),
            hop(Part::Gateway, Part::Store, "read"),
            hop(Part::Gateway, Part::Api, "GET /api/hello"),
            hop(Part::Gateway, Part::Issuer, "POST /token"),
        ];
        assert_eq!(hops(&spans), wanted);
    }

    #[test]
    fn what_the_page_does_for_itself_is_left_out_with_all_it_causes() {
        for path in ["/bff/session", "/tour/events", "/", "/app.js"] {
            let read = || span(1, SpanKind::Internal, "session store read", &[]);
            assert!(hops(&[read(), asked(1, "GET", path, 200), read()]).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_logout_over_the_back_channel_comes_from_the_issuer() {
        let hops = hops(&[asked(1, "POST", BACKCHANNEL, 200)]);
        assert_eq!((hops[0].1, hops[0].2), (Part::Issuer, Part::Gateway));
    }

    #[test]
    fn an_operation_without_an_answer_has_failed_and_a_refusal_has_not() {
        let mut failed = span(1, SpanKind::Internal, "session store read", &[]);
        failed.status = Some(Status { code: SpanStatus::Error.into(), ..Status::default() });
        let mut refused = asked(1, "GET", "/api/hello", 503);
        refused.status.clone_from(&failed.status);
        let mut hops = Hops::new(String::new(), String::new());
        [failed, refused].iter().for_each(|span| hops.add_span(span));
        let shown: Vec<_> = hops.after(0).map(|hop| (hop.status, hop.failed)).collect();
        assert_eq!(shown, [(Some(503), false), (None, true)]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut hops = Hops::new(String::new(), String::new());
        for _ in 0..=MOST {
            hops.add_visit("GET /authorize".to_owned(), StatusCode::OK, Timestamp::from_secs(1));
        }
        let numbers: Vec<_> = hops.after(0).map(|hop| hop.number).collect();
        assert_eq!((numbers.len(), numbers[0]), (MOST, 2));
        assert_eq!(hops.after(MOST as u64).count(), 1);
    }
}
