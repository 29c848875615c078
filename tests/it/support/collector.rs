//! An OpenTelemetry collector: its gRPC is tonic's, and it remembers what came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::codegen::Service;

use super::wait::until;

pub struct Collector {
    pub address: SocketAddr,
    received: Received,
}

#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<Vec<Metric>>>,
    /// The fields of each request.
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Collector {
    /// Speaks gRPC.
    pub async fn start() -> Self {
        let received = Received::default();
        let (traces, metrics) =
            (TraceServiceServer::new(received.clone()), MetricsServiceServer::new(received.clone()));
        let headers = Arc::clone(&received.headers);
        let service = move |request: Request<Incoming>| {
            let (mut traces, mut metrics) = (traces.clone(), metrics.clone());
            headers.lock().unwrap().push(request.headers().clone());
            async move {
                if request.uri().path().starts_with("/opentelemetry.proto.collector.trace.v1.TraceService/") {
                    traces.call(request).await
                } else {
                    metrics.call(request).await
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(service.clone())));
            }
        });
        Self { address, received }
    }

    /// Speaks HTTP.
    pub async fn start_http() -> Self {
        let received = Received::default();
        let taking = received.clone();
        let service = move |request: Request<Incoming>| {
            let taking = taking.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                match head.uri.path() {
                    "/v1/traces" => taking.take_spans(ExportTraceServiceRequest::decode(body).unwrap()),
                    "/v1/metrics" => taking.take_metrics(ExportMetricsServiceRequest::decode(body).unwrap()),
                    path => panic!("{path}"),
                }
                taking.headers.lock().unwrap().push(head.headers);
                Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(service.clone())));
            }
        });
        Self { address, received }
    }

    /// What a gateway's file says of it, with further keys.
    pub fn keys(&self, further: &str) -> String {
        format!("telemetry: {{otlp: {{endpoint: \"http://{}\"{further}}}}}\n", self.address)
    }

    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        self.received.metrics.lock().unwrap().clone()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.received.headers.lock().unwrap().clone()
    }

    /// The spans of one trace, in the order of their beginnings, once there are so many.
    pub async fn trace(&self, id: &str, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        until(async || {
            spans = self.spans();
            spans.retain(|span| hex(&span.trace_id) == id);
            spans.len() >= count
        })
        .await;
        spans.sort_by_key(|span| span.start_time_unix_nano);
        assert_eq!(spans.len(), count, "{spans:?}");
        spans
    }
}

impl Received {
    fn take_spans(&self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            assert_eq!(attribute(&resource.resource.unwrap().attributes, "service.name"), "cloakroom");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
    }

    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
        self.metrics.lock().unwrap().extend(scopes.flat_map(|scope| scope.metrics));
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.take_spans(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.take_metrics(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// An attribute as a text; empty where it is not there.
pub fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(value) => panic!("{value:?}"),
        None => String::new(),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
