//! Hands spans and metrics to a collector, by OTLP over gRPC or HTTP.
//!
//! A thread of its own does that. Whoever has something to hand over puts it into a queue that has an end, and never waits: what
//! a collector that is away, or slow, does not take in time is dropped, counted, and told of once a minute.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tower::BoxError;

use super::chain;
use super::trace::Tracer;
use crate::clock::Timestamp;
use crate::config::{Otlp, OtlpProtocol};
use crate::connector::{self, BuildError, ClientTls, Connector};
use crate::random::Random;

mod report;

/// How many spans wait at most for a collector.
const QUEUE: usize = 8192;

/// How many go out at once.
const BATCH: usize = 512;

/// How long a span may wait for others.
const DELAY: Duration = Duration::from_secs(1);

/// How long a collector has to take a batch, and to be connected to.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is said that something was lost.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// An answer's body may have this many bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The way to a collector. A clone hands over to the same.
#[derive(Clone)]
pub struct Exporter(Arc<Shared>);

struct Shared {
    queue: mpsc::Sender<Job>,
    lost: Arc<AtomicU64>,
    hurry: Arc<Notify>,
}

enum Job {
    Span(Box<Span>),
    Metrics(String, Timestamp),
    /// Tells that all before it has been handed over, or is lost.
    Flush(oneshot::Sender<()>),
}

/// Nothing can be exported with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection can be made.
    #[error(transparent)]
    Connector(#[from] BuildError),
    /// The endpoint makes no address.
    #[error("the collector's address cannot be asked for")]
    Address(#[from] http::uri::InvalidUri),
    /// There is no thread to be had.
    #[error("no thread can be started")]
    Thread(#[from] std::io::Error),
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector did not take it in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("the collector cannot be reached")]
    Call(#[from] legacy::Error),
    #[error("the collector's answer broke off")]
    Answer(#[source] BoxError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("the collector answered with the gRPC status {0:?}")]
    GrpcStatus(Option<HeaderValue>),
}

/// Begins to record requests, and to hand them over.
///
/// # Errors
/// Where nothing can be handed over with this configuration.
pub fn start(config: &Otlp, random: Random) -> Result<Tracer, StartError> {
    let (queue, jobs) = mpsc::channel(QUEUE);
    let (lost, hurry) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let worker = Worker {
        collector: Collector::new(config)?,
        jobs,
        lost: Arc::clone(&lost),
        hurry: Arc::clone(&hurry),
        resource: resource(random),
        said_at: None,
        failure: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("otlp".to_owned()).spawn(move || runtime.block_on(worker.run()))?;
    Ok(Tracer::new(Exporter(Arc::new(Shared { queue, lost, hurry })), config.sample_ratio, random))
}

impl Exporter {
    /// Hands a span over, unless too many wait.
    pub(super) fn export(&self, span: Span) {
        self.put(Job::Span(Box::new(span)));
    }

    /// Hands metrics over, as [`super::metrics::Metrics::encode`] writes them, as of this moment.
    pub fn report(&self, metrics: String, now: Timestamp) {
        self.put(Job::Metrics(metrics, now));
    }

    /// Waits until all that waits has been handed over, or until nobody can wait for that any longer.
    pub async fn flush(&self, patience: Duration) {
        let (told, done) = oneshot::channel();
        let flushed = async {
            self.0.queue.send(Job::Flush(told)).await.ok()?;
            self.0.hurry.notify_one();
            done.await.ok()
        };
        if tokio::time::timeout(patience, flushed).await.ok().flatten().is_none() {
            tracing::warn!(
                event = "otlp.cut_off",
                "not all spans and metrics were handed over before the end"
            );
        }
    }

    fn put(&self, job: Job) {
        if self.0.queue.try_send(job).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Exporter")
    }
}

/// Empties the queue.
struct Worker {
    collector: Collector,
    jobs: mpsc::Receiver<Job>,
    lost: Arc<AtomicU64>,
    hurry: Arc<Notify>,
    resource: Resource,
    said_at: Option<Instant>,
    /// The last one that was not told of yet.
    failure: Option<String>,
}

impl Worker {
    /// Until nobody can hand over any more.
    async fn run(mut self) {
        while !self.jobs.is_closed() {
            // Nobody who hands a span over has to wake this thread.
            tokio::select! {
                () = tokio::time::sleep(DELAY) => {}
                () = self.hurry.notified() => {}
            }
            self.empty().await;
            self.tell();
        }
    }

    async fn empty(&mut self) {
        let mut spans = Vec::new();
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Span(span) => spans.push(*span),
                Job::Metrics(metrics, now) => {
                    self.hand_metrics_over(&metrics, now).await;
                    self.tell();
                }
                Job::Flush(done) => {
                    self.hand_spans_over(std::mem::take(&mut spans)).await;
                    let _ = done.send(());
                }
            }
            if spans.len() >= BATCH {
                self.hand_spans_over(std::mem::take(&mut spans)).await;
                // Behind a collector that hangs there is always more.
                self.tell();
            }
        }
        self.hand_spans_over(spans).await;
    }

    async fn hand_spans_over(&mut self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        let scope_spans = ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        let sent = self.collector.send(&self.collector.traces, &request).await;
        self.note(sent, count);
    }

    async fn hand_metrics_over(&mut self, metrics: &str, now: Timestamp) {
        let metrics = report::metrics(metrics, now);
        let scope_metrics = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        let sent = self.collector.send(&self.collector.metrics, &request).await;
        self.note(sent, 1);
    }

    fn note(&mut self, sent: Result<(), ExportError>, count: u64) {
        if let Err(error) = sent {
            self.lost.fetch_add(count, Ordering::Relaxed);
            self.failure = Some(chain(&error));
        }
    }

    fn tell(&mut self) {
        if self.said_at.is_some_and(|at| at.elapsed() < SAID_EVERY) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.said_at = Some(Instant::now());
            let error = self.failure.take();
            tracing::warn!(event = "otlp.lost", lost, error, "the collector did not take spans or metrics");
        }
    }
}

/// Where spans and metrics go.
struct Collector {
    client: legacy::Client<Connector, Full<Bytes>>,
    protocol: OtlpProtocol,
    traces: Uri,
    metrics: Uri,
    headers: HeaderMap,
}

impl Collector {
    fn new(config: &Otlp) -> Result<Self, StartError> {
        let is_plain = config.endpoint.scheme() == "http";
        let tls = if is_plain { ClientTls::none()? } else { ClientTls::new(config.ca.as_ref(), None)? };
        let speaks_grpc = config.protocol == OtlpProtocol::Grpc;
        let connector = if speaks_grpc { connector::http2_connector } else { connector::connector };
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(connector::POOL_IDLE_TIMEOUT)
            .http2_only(speaks_grpc)
            .build(connector(TIMEOUT, (*tls.config()).clone()));
        let base = config.endpoint.as_str().trim_end_matches('/');
        let service = |name: &str, path: &str| match config.protocol {
            OtlpProtocol::Grpc => {
                Uri::try_from(format!("{base}/opentelemetry.proto.collector.{name}/Export"))
            }
            OtlpProtocol::HttpProtobuf => Uri::try_from(format!("{base}/v1/{path}")),
        };
        Ok(Self {
            client,
            protocol: config.protocol,
            traces: service("trace.v1.TraceService", "traces")?,
            metrics: service("metrics.v1.MetricsService", "metrics")?,
            headers: config.headers.clone(),
        })
    }

    async fn send(&self, uri: &Uri, message: &impl Message) -> Result<(), ExportError> {
        let speaks_grpc = self.protocol == OtlpProtocol::Grpc;
        let body = if speaks_grpc { framed(message) } else { message.encode_to_vec().into() };
        let mut request = Request::post(uri.clone()).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        let content_type = if speaks_grpc { "application/grpc" } else { "application/x-protobuf" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("cloakroom"));
        if speaks_grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        tokio::time::timeout(TIMEOUT, async {
            let response = self.client.request(request).await?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(ExportError::Status(head.status));
            }
            // To its end, so that the connection can be used again.
            let body = match Limited::new(body, LARGEST_ANSWER).collect().await {
                Ok(body) => body,
                Err(error) if error.is::<LengthLimitError>() => return Ok(()),
                Err(error) => return Err(ExportError::Answer(error)),
            };
            if !speaks_grpc {
                return Ok(());
            }
            // Behind the message, or with the head where there is none.
            let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
            match status.or_else(|| head.headers.get("grpc-status")) {
                Some(status) if status == "0" => Ok(()),
                status => Err(ExportError::GrpcStatus(status.cloned())),
            }
        })
        .await?
    }
}

/// A message as gRPC sends it: whether it is compressed, its length, and itself.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    framed.freeze()
}

fn resource(random: Random) -> Resource {
    let attributes = [
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        // Tells gateways of one name apart.
        ("service.instance.id", random.token::<12>()),
    ];
    let attributes = attributes.into_iter().map(|(key, value)| text(key, value)).collect();
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
