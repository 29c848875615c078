//! A collector.

use http::{HeaderMap, HeaderValue};

use super::authorities;
use crate::config::decode::Required;
use crate::config::otlp::Headers;
use crate::config::reading::{Reading, Reported};
use crate::config::{CertificateAuthorities, Otlp, is_loopback, raw};

pub(super) fn otlp(otlp: raw::telemetry::Otlp, reading: &mut Reading<'_>) -> Result<Otlp, Reported> {
    let headers = headers(otlp.headers, reading);
    let is_plain = otlp.endpoint.as_ref().is_ok_and(|endpoint| endpoint.value.0.scheme() == "http");
    let ca = otlp.ca.and_then(|ca| -> Result<Option<CertificateAuthorities>, Reported> {
        match ca {
            Some(ca) if is_plain => {
                let problem = "an authority for certificates, where none is asked for";
                Err(reading.fault(&ca.place, problem, "`https://` above, or the file without `ca`"))
            }
            ca => ca.map(|ca| authorities(&ca, reading)).transpose(),
        }
    });
    let (endpoint, headers) = (otlp.endpoint?, headers?);
    if is_plain && !headers.is_empty() && !is_loopback(&endpoint.value.0) {
        let remedy = "https, or a network that only the gateway and the collector are on";
        reading.warn(&endpoint.place, "secrets that go to the collector without TLS", remedy);
    }
    Ok(Otlp {
        endpoint: endpoint.value.0,
        protocol: otlp.protocol?.value,
        headers,
        sample_ratio: otlp.sample_ratio?.value.0,
        ca: ca?,
    })
}

fn headers(headers: Required<Headers>, reading: &mut Reading<'_>) -> Result<HeaderMap, Reported> {
    let mut map = HeaderMap::new();
    let mut result = Ok(());
    for (name, secret) in headers?.value.0 {
        let read = secret.value.read(reading).and_then(|(secret, place)| {
            let mut value = HeaderValue::try_from(secret.expose()).map_err(|_| {
                let remedy = "visible ASCII characters, and spaces between them";
                reading.fault(&place, "this secret cannot stand in a field", remedy)
            })?;
            value.set_sensitive(true);
            map.insert(name, value);
            Ok(())
        });
        result = result.and(read);
    }
    result.map(|()| map)
}
