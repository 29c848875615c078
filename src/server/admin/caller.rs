//! Whether an operator asks, or a page that an operator's browser shows. A browser on this machine, or on a network from
//! which the listener can be reached, asks it for any page in the world. Nothing here has a password, so:
//!
//! - What is read is read by an address, or by a name that nobody can register. A page of `attacker.example` may have that
//!   name lead to this listener (DNS rebinding), and is of the same origin then; but its requests say the name.
//! - What ends sessions is asked for by no page at all.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderName, Method, Request, header};

use crate::error::{Reason, Refusal};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Domains that nobody can register: those of RFC 6761 §6.2 and §6.3, of RFC 6762 §3 and RFC 8375, `.internal` as ICANN's
/// board has resolved, and the short names of a Kubernetes cluster.
const PRIVATE_DOMAINS: [&str; 6] = ["localhost", "test", "internal", "local", "home.arpa", "svc"];

/// Refuses what may come from a page.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let is_private = host(request).is_some_and(|authority| is_private(authority.host()));
    if !is_private {
        return Err(Refusal::new(Reason::AdminHost));
    }
    // Browsers send the first with all that is no read (Fetch §3.2), and new ones the second with everything.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read && [header::ORIGIN, SEC_FETCH_SITE].iter().any(|name| request.headers().contains_key(name)) {
        return Err(Refusal::new(Reason::PageOnAdmin));
    }
    Ok(())
}

/// The one that was asked for, where that is certain.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let field: Authority = field.to_str().ok().filter(|host| !host.contains('@'))?.parse().ok()?;
    let target = request.uri().authority();
    target.is_none_or(|target| *target == field).then_some(field)
}

fn is_private(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || PRIVATE_DOMAINS
            .iter()
            .any(|domain| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_can_register_is_private() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "[::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "cloakroom",
            "gw.ops.internal",
            "gw.ns.svc.cluster.local",
            "gw.ns.svc",
            "gw.local",
            "gw.home.arpa",
        ] {
            assert!(is_private(host), "{host}");
        }
        for host in [
            "attacker.example",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "xlocalhost.com",
            "internal.com",
            "a.xinternal",
            "1.2.3.4.5",
            "gw.xlocal",
            "cloakroom.com.",
        ] {
            assert!(!is_private(host), "{host}");
        }
    }
}
