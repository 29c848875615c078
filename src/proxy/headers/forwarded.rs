//! The way that a request has come, as `Forwarded` and `X-Forwarded-For` tell it (RFC 7239).

use std::net::IpAddr;

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue};

use super::ToldOrigin;

/// What proxies in front of us, whom we believe, have said of the way so far.
#[derive(Default)]
pub(super) struct Chain {
    forwarded_for: Vec<u8>,
    forwarded: Vec<u8>,
}

impl Chain {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let joined = |name: &str| {
            headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..])
        };
        Self { forwarded_for: joined("x-forwarded-for"), forwarded: joined("forwarded") }
    }

    /// With our element behind it.
    pub(super) fn forwarded(
        &self,
        peer: IpAddr,
        node: &str,
        origin: &ToldOrigin,
    ) -> Result<HeaderValue, InvalidHeaderValue> {
        let [before, after] = match peer {
            IpAddr::V4(_) => ["for=", ""],
            // RFC 7239 §6: an IPv6 address is bracketed, and so must be quoted.
            IpAddr::V6(_) => ["for=\"[", "]\""],
        };
        let [before, node, after, pairs] = [before, node, after, &origin.pairs].map(str::as_bytes);
        let chain = self.forwarded.as_slice();
        [chain, comma_behind(chain), before, node, after, pairs].concat().try_into()
    }

    /// The same in the older field.
    pub(super) fn forwarded_for(&self, node: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let chain = self.forwarded_for.as_slice();
        [chain, comma_behind(chain), node.as_bytes()].concat().try_into()
    }
}

fn comma_behind(list: &[u8]) -> &'static [u8] {
    if list.is_empty() { b"" } else { b", " }
}

/// As the formatter writes it, whose way is a long one for each request.
pub(super) fn node(peer: IpAddr) -> String {
    let IpAddr::V4(address) = peer else { return peer.to_string() };
    let mut node = String::with_capacity("255.255.255.255".len());
    for octet in address.octets() {
        if !node.is_empty() {
            node.push('.');
        }
        for (least, digit) in [(100, octet / 100), (10, octet / 10), (0, octet)] {
            if octet >= least {
                node.push(char::from(b'0' + digit % 10));
            }
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_formatter_writes_it() {
        for octet in 0..=255 {
            let peer = IpAddr::from([octet, 255 - octet, 0, octet / 3]);
            assert_eq!(node(peer), peer.to_string());
        }
        assert_eq!(node("2001:db8::1".parse().unwrap()), "2001:db8::1");
    }
}
