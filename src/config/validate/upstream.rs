//! Upstreams: what goes together in one, and the limits that a route sets before it.

use crate::config::decode::{At, List, Optional, Required};
use crate::config::raw::route as raw;
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::Text;
use crate::config::validate::{authorities, distinct, identity};
use crate::config::web::{Prefix, UpstreamUrl, is_loopback, is_under};
use crate::config::{Address, Health, Identity, Protocol, RateLimit, Upstream, UpstreamTls};

/// How many fields an answer's head may have where nothing is said of it.
const HEADER_COUNT: usize = 100;

/// The servers behind a route at `path`.
pub(super) fn upstream(
    upstream: raw::Upstream,
    path: &Result<String, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Upstream, Reported> {
    let strip_prefix = strip_prefix(upstream.strip_prefix, path, reading);
    let addresses = addresses(upstream.addresses, reading);
    warn_of_plain(&upstream.url, &addresses, reading);
    let tls = tls(upstream.tls, &upstream.url, reading);
    let health =
        upstream.health.and_then(|health| health.map(|health| self::health(health.value)).transpose());
    Ok(Upstream {
        url: upstream.url?.value.0,
        strip_prefix: strip_prefix?,
        addresses: addresses?,
        protocol: upstream.protocol?.map_or(Protocol::Auto, |protocol| protocol.value),
        header_count: upstream.header_count?.map_or(HEADER_COUNT, |count| count.value.0),
        tls: tls?,
        health: health?,
    })
}

/// Limits of which each holds.
pub(super) fn rate_limits(limits: Optional<List<raw::RateLimit, 1>>) -> Result<Vec<At<RateLimit>>, Reported> {
    let Some(limits) = limits? else { return Ok(Vec::new()) };
    let limits = limits.value.0.into_iter().map(|limit| {
        let At { value: limit, place, written } = limit?;
        let value = RateLimit {
            requests: u32::try_from(limit.requests?.value.0).unwrap_or(u32::MAX),
            per: limit.per?.value,
            by: limit.by?.value,
            shared: limit.shared?.value,
        };
        Ok(At { value, place, written })
    });
    limits.collect()
}

fn strip_prefix(
    prefix: Optional<Prefix>,
    path: &Result<String, Reported>,
    reading: &mut Reading<'_>,
) -> Result<Option<String>, Reported> {
    let Some(prefix) = prefix? else { return Ok(None) };
    if path.as_ref().is_ok_and(|path| !is_under(path, &prefix.value.0)) {
        let problem = "a strip_prefix that not every path of this route starts with";
        return Err(reading.fault(&prefix.place, problem, "the route's path, or the start of it"));
    }
    Ok(Some(prefix.value.0))
}

fn addresses(
    addresses: Optional<List<Address, 1>>,
    reading: &mut Reading<'_>,
) -> Result<Vec<Address>, Reported> {
    let Some(addresses) = addresses? else { return Ok(Vec::new()) };
    let placed = addresses.value.0.into_iter().map(|address| address.map(|at| (at.value, at.place)));
    distinct(placed, "address", reading)
}

/// The URL's host is where requests go only where no addresses are given.
fn warn_of_plain(
    url: &Required<UpstreamUrl>,
    addresses: &Result<Vec<Address>, Reported>,
    reading: &mut Reading<'_>,
) {
    let (Ok(url), Ok(addresses)) = (url, addresses) else { return };
    let stays_here = match addresses.as_slice() {
        [] => is_loopback(&url.value.0),
        addresses => addresses.iter().all(Address::is_loopback),
    };
    if url.value.0.scheme() == "http" && !stays_here {
        let remedy = "https, or a network that only the gateway and the upstream are on";
        reading.warn(&url.place, "access tokens go to this upstream without TLS", remedy);
    }
}

fn tls(
    tls: Optional<raw::UpstreamTls>,
    url: &Required<UpstreamUrl>,
    reading: &mut Reading<'_>,
) -> Result<UpstreamTls, Reported> {
    let Some(At { value: tls, place, .. }) = tls? else { return Ok(UpstreamTls::default()) };
    if url.as_ref().is_ok_and(|url| url.value.0.scheme() == "http") {
        return Err(reading.fault(&place, "tls of an upstream without TLS", "`https://` in the URL"));
    }
    let ca = tls.ca.and_then(|ca| ca.map(|ca| authorities(&ca, reading)).transpose());
    let identity = client_identity(tls.certificate, tls.private_key, reading);
    let server_name = tls.server_name.and_then(|name| {
        let Some(At { value: Text(name), place, .. }) = name else { return Ok(None) };
        if rustls::pki_types::ServerName::try_from(name.as_str()).is_ok() {
            return Ok(Some(name));
        }
        Err(reading.fault(&place, "not a name that a certificate can have", "such as `orders.internal`"))
    });
    Ok(UpstreamTls { ca: ca?, identity: identity?, server_name: server_name? })
}

/// A certificate of the gateway's own, and its key.
pub(super) fn client_identity(
    certificate: Optional<Text>,
    private_key: Optional<Text>,
    reading: &mut Reading<'_>,
) -> Result<Option<Identity>, Reported> {
    match (certificate?, private_key?) {
        (Some(certificate), Some(private_key)) => identity(certificate, private_key, reading).map(Some),
        (None, None) => Ok(None),
        (Some(lonely), None) => {
            Err(reading.fault(&lonely.place, "a certificate without its key", "`private_key` beside it"))
        }
        (None, Some(lonely)) => {
            Err(reading.fault(&lonely.place, "a key without its certificate", "`certificate` beside it"))
        }
    }
}

fn health(health: raw::Health) -> Result<Health, Reported> {
    Ok(Health {
        path: health.path?.value.0,
        interval: health.interval?.value,
        timeout: health.timeout?.value,
        unhealthy_after: health.unhealthy_after?.value.0,
        healthy_after: health.healthy_after?.value.0,
    })
}
