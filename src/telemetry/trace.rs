//! Spans of requests, by OpenTelemetry's conventions for HTTP, and the trace they belong to (W3C Trace Context).
//!
//! A request that is not sampled has no span, and costs what it costs where nothing is traced. What a span says is bounded, and is
//! nobody's: no query, for queries hold codes, no cookie, token or user.

use std::sync::Arc;

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as proto;
use tokio::time::Instant;

use super::otlp::Exporter;
use super::request::Current;
use crate::clock::Timestamp;
use crate::random::Random;

pub use proto::span::SpanKind;

/// The field that carries a trace on.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field that says what each tracer on the way needs besides.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of a request whose spans are recorded (W3C Trace Context §3.2.2.5.1).
const SAMPLED: u8 = 1;

/// Of a path and of a `tracestate`, in bytes: what a client chooses has an end.
const LONGEST: usize = 1024;

/// A valid `traceparent`, in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16 hexadecimal digits.
    pub parent_id: &'a str,
    /// 2 hexadecimal digits.
    pub flags: &'a str,
}

/// Where a span stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    trace_id: [u8; 16],
    span_id: [u8; 8],
}

/// Decides which requests are recorded, and hands their spans over.
#[derive(Clone, Debug)]
pub struct Tracer {
    exporter: Exporter,
    /// Of the traces that begin here, those whose id is below this.
    threshold: u64,
    random: Random,
}

/// A span that others are under.
#[derive(Debug)]
pub struct Parent {
    tracer: Tracer,
    context: Context,
    /// The same moment, by both clocks.
    instant: Instant,
    timestamp: Timestamp,
}

/// Something that takes its time, until this is dropped.
#[derive(Debug)]
pub struct Span {
    parent: Arc<Parent>,
    began: Instant,
    record: proto::Span,
}

impl<'a> TraceParent<'a> {
    /// The one of a request, where there is exactly one.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        match (fields.next(), fields.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(value: &'a str) -> Option<Self> {
        let is_hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = value.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_valid = parts.next().is_none()
            && version == "00"
            && is_hex(trace_id, 32)
            && is_hex(parent_id, 16)
            && is_hex(flags, 2);
        let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
        (is_valid && !is_zero(trace_id) && !is_zero(parent_id)).then_some(Self { trace_id, parent_id, flags })
    }

    fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.flags, 16).is_ok_and(|flags| flags & SAMPLED != 0)
    }
}

impl Context {
    /// The recorded span that this task is in, where it is in one.
    pub fn current() -> Option<Self> {
        Current::parent().map(|parent| parent.context)
    }

    /// As it is carried on.
    ///
    /// # Errors
    /// None: it is ASCII.
    pub fn traceparent(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let (trace_id, span_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        HeaderValue::try_from(format!("00-{trace_id:032x}-{span_id:016x}-01"))
    }
}

impl Tracer {
    /// Records requests that are sampled already, none that are said not to be, and of all others this part, from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a float saturates where it becomes an integer, and a ratio is not that exact"
    )]
    pub(super) fn new(exporter: Exporter, sample_ratio: f64, random: Random) -> Self {
        Self { exporter, threshold: (sample_ratio * (1_u64 << 63) as f64) as u64, random }
    }

    /// Where spans and metrics go.
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// The span of a request that has come in at this moment, where it is recorded.
    pub(super) fn begin<B>(&self, request: &Request<B>, now: Timestamp) -> Option<Span> {
        let incoming = TraceParent::of(request.headers());
        let (trace_id, parent_id) = match incoming {
            Some(incoming) if incoming.is_sampled() => {
                let trace_id = u128::from_str_radix(incoming.trace_id, 16).ok()?;
                let parent_id = u64::from_str_radix(incoming.parent_id, 16).ok()?;
                (trace_id.to_be_bytes(), parent_id.to_be_bytes().to_vec())
            }
            Some(_) => return None,
            None => (self.random.bytes(), Vec::new()),
        };
        if incoming.is_none() && !self.samples(trace_id) {
            return None;
        }
        let began = Instant::now();
        let context = Context { trace_id, span_id: self.random.bytes() };
        let parent = Parent { tracer: self.clone(), context, instant: began, timestamp: now };
        let mut span = Span::new(Arc::new(parent), SpanKind::Server, began);
        span.record.span_id = context.span_id.to_vec();
        span.record.parent_span_id = parent_id;
        if incoming.is_some() {
            span.record.trace_state = trace_state(request.headers());
        }
        // Its whole name is known at the end, if it comes to one.
        name_of(request.method()).clone_into(&mut span.record.name);
        span.note("http.request.method", name_of(request.method()));
        Some(span)
    }

    /// As OpenTelemetry's samplers do by a trace's id, so that all of them choose the same.
    fn samples(&self, trace_id: [u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace_id;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.threshold
    }
}

impl Span {
    /// A call to a server, for the request that this task answers, where that is recorded. Its address goes along
    /// without a query.
    pub fn call(method: &Method, uri: impl FnOnce() -> Option<Uri>) -> Option<Self> {
        let mut span = Self::under_current(SpanKind::Client)?;
        span.record.name = name_of(method).to_owned();
        span.note("http.request.method", name_of(method));
        if let Some(uri) = uri()
            && let Some(authority) = uri.authority()
        {
            span.note("server.address", authority.host());
            let scheme = uri.scheme_str().unwrap_or("http");
            let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            span.note("server.port", i64::from(port));
            let url = format!("{scheme}://{authority}{}", cut(uri.path()));
            span.note("url.full", url);
        }
        Some(span)
    }

    /// Something within this process, or of its store, for the request that this task answers, where that is recorded.
    pub fn step(of: &str, operation: &str) -> Option<Self> {
        let mut span = Self::under_current(SpanKind::Internal)?;
        span.record.name = format!("{of} {operation}");
        Some(span)
    }

    /// What has been found of it.
    pub fn note(&mut self, key: &str, value: impl Into<Noted>) {
        let value = Some(AnyValue { value: Some(value.into().0) });
        self.record.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }

    /// The status of a call's answer.
    pub fn answered(&mut self, status: StatusCode) {
        self.note("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            self.failed(status.as_str());
        }
    }

    /// It has failed, in one of few ways.
    pub fn failed(&mut self, error_type: &str) {
        self.note("error.type", error_type);
        let code = proto::status::StatusCode::Error.into();
        self.record.status = Some(proto::Status { code, message: String::new() });
    }

    /// Does something that belongs to it.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        match Current::of_request() {
            Some(current) => current.under(self.as_parent()).scope(work).await,
            None => work.await,
        }
    }

    /// For the spans under it.
    pub(super) fn as_parent(&self) -> Arc<Parent> {
        let mut context = self.parent.context;
        context.span_id.copy_from_slice(&self.record.span_id);
        if context == self.parent.context {
            return Arc::clone(&self.parent);
        }
        let Parent { tracer, instant, timestamp, .. } = &*self.parent;
        Arc::new(Parent { tracer: tracer.clone(), context, instant: *instant, timestamp: *timestamp })
    }

    /// What a request's own span says at its end.
    pub(super) fn conclude(&mut self, route: &str, path: &str, status: StatusCode) {
        if !route.is_empty() {
            self.record.name = format!("{} {route}", self.record.name);
            self.note("http.route", route);
        }
        self.note("url.path", cut(path));
        self.note("http.response.status_code", i64::from(status.as_u16()));
        // What the client did wrong is no fault of the server.
        if status.is_server_error() {
            self.failed(status.as_str());
        }
    }

    fn under_current(kind: SpanKind) -> Option<Self> {
        let parent = Current::parent()?;
        let mut span = Self::new(parent, kind, Instant::now());
        span.record.parent_span_id = span.parent.context.span_id.to_vec();
        span.record.span_id = span.parent.tracer.random.bytes::<8>().to_vec();
        Some(span)
    }

    fn new(parent: Arc<Parent>, kind: SpanKind, began: Instant) -> Self {
        let record = proto::Span {
            trace_id: parent.context.trace_id.to_vec(),
            flags: SAMPLED.into(),
            kind: kind.into(),
            ..proto::Span::default()
        };
        Self { parent, began, record }
    }
}

/// However it ended.
impl Drop for Span {
    fn drop(&mut self) {
        let at = |instant: Instant| {
            let begin = u128::from(self.parent.timestamp.as_millis()) * 1_000_000;
            u64::try_from(begin + instant.duration_since(self.parent.instant).as_nanos()).unwrap_or(u64::MAX)
        };
        let mut record = std::mem::take(&mut self.record);
        record.start_time_unix_nano = at(self.began);
        record.end_time_unix_nano = at(Instant::now());
        self.parent.tracer.exporter.export(record);
    }
}

/// A value that is noted of a span.
#[derive(Debug)]
pub struct Noted(any_value::Value);

impl From<&str> for Noted {
    fn from(text: &str) -> Self {
        Self(any_value::Value::StringValue(text.to_owned()))
    }
}

impl From<String> for Noted {
    fn from(text: String) -> Self {
        Self(any_value::Value::StringValue(text))
    }
}

impl From<i64> for Noted {
    fn from(number: i64) -> Self {
        Self(any_value::Value::IntValue(number))
    }
}

/// A method by its name, where it is one that is known: clients can make others up.
fn name_of(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => method.as_str(),
        _ => "_OTHER",
    }
}

fn trace_state(headers: &HeaderMap) -> String {
    let fields = headers.get_all(TRACESTATE).iter().filter_map(|field| field.to_str().ok());
    let state = fields.collect::<Vec<_>>().join(",");
    if state.len() > LONGEST { String::new() } else { state }
}

/// The paths of requests are ASCII.
fn cut(path: &str) -> &str {
    path.get(..LONGEST).unwrap_or(path)
}
