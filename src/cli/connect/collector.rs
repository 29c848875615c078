//! The OpenTelemetry collector: can it be reached, and does it speak what it is to be spoken to in?

use super::{Finding, in_time, upstream};
use crate::config::{Address, Otlp, OtlpProtocol, Protocol};
use crate::connector::ClientTls;
use crate::telemetry::chain;

/// Users notice nothing of one that is away: it is never a fault.
pub(super) async fn check(otlp: &Otlp) -> Finding {
    let part = format!("collector {}", otlp.endpoint);
    match connect(otlp).await {
        Ok(()) => Finding::good(part),
        Err(wrong) => {
            let remedy = "see that it runs, can be reached from here, and has this protocol at this port: gRPC mostly \
                 at 4317, http/protobuf at 4318";
            Finding::warning(part, wrong, remedy)
        }
    }
}

async fn connect(otlp: &Otlp) -> Result<(), String> {
    let protocol = match otlp.protocol {
        OtlpProtocol::Grpc => Protocol::Http2,
        OtlpProtocol::HttpProtobuf => Protocol::Http1,
    };
    let host = otlp.endpoint.host_str().unwrap_or_default();
    let tls = match otlp.endpoint.scheme() {
        "https" => {
            let believed = ClientTls::new(otlp.ca.as_ref(), None).map_err(|error| chain(&error))?;
            Some(upstream::towards(&believed, host, protocol)?)
        }
        _ => None,
    };
    let port = otlp.endpoint.port_or_known_default().unwrap_or_default();
    let address = Address::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port };
    in_time(upstream::connect(&address, tls.as_ref(), protocol)).await.map(drop)
}
