//! Whom a request comes from, where proxies stand in front of the gateway (RFC 7239).
//!
//! Each proxy adds to the right whom it was asked by, so the lists are read from the right, and only as
//! long as the one who wrote an element is trusted. What stands further left may be anybody's invention.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address nearest to the gateway that is not a trusted proxy's: the peer's own, or the one that the
/// last trusted proxy was asked by. Where that proxy does not name an address (`unknown`, an obfuscated
/// identifier, or nothing that can be read), it is the proxy's.
///
/// A proxy that writes one of `Forwarded` and `X-Forwarded-For` lets the other through as the client
/// sent it, and which it writes is not known here. So where both are there the way is followed as far as
/// they agree, and a client that makes one up is taken for the proxy it came by: it can hide among the
/// others who do so, and pass for nobody else.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.to_canonical();
    if !is_trusted(nearest, trusted) {
        return nearest;
    }
    let mut forwarded = elements(headers, &FORWARDED).map(forwarded_for);
    let mut x_forwarded_for = elements(headers, &X_FORWARDED_FOR).map(node);
    while is_trusted(nearest, trusted) {
        let next = match (forwarded.next(), x_forwarded_for.next()) {
            (Some(one), Some(other)) if one == other => one,
            // A list that is at its end says nothing against the other.
            (Some(only), None) | (None, Some(only)) => only,
            (Some(_), Some(_)) | (None, None) => None,
        };
        let Some(next) = next else { break };
        nearest = next;
    }
    nearest
}

/// What one client has at its disposal: an address, or in IPv6 a /64, in which it may choose (RFC 6177 §2). A limit
/// by the whole address would be none to it.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Whether the fields of this peer are believed.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The elements of a list from the right to the left. Commas part them within quotes, too: else one quote
/// that a client leaves open would swallow what the proxies add. No address has a comma in it, and a piece
/// of a quoted text is no element that can be read.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let fields = headers.get_all(name).iter().rev();
    let elements = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The `for` of an element of `Forwarded` (RFC 7239 §4), where the whole element can be read.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in element.split(|byte| *byte == b';') {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        let value = unquoted(value.trim())?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(node(value.as_bytes())).is_some() {
            return None;
        }
    }
    found.flatten()
}

/// A value without its quotes. Escapes are not read: no host and no node needs one.
fn unquoted(value: &str) -> Option<&str> {
    let inner = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    (!inner.contains(['"', '\\'])).then_some(inner)
}

/// The address of a node, which may have a port (RFC 7239 §6), and may do without the brackets in
/// `X-Forwarded-For`.
fn node(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    if let Some(bracketed) = node.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_node = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_node).map(|v6| IpAddr::V6(v6).to_canonical());
    }
    let address = match node.split_once(':') {
        Some((address, port)) if is_port(port) => address.parse().map(IpAddr::V4),
        Some(_) | None => node.parse(),
    };
    address.ok().map(|address| address.to_canonical())
}

/// Whether this is a port or an obfuscated one (RFC 7239 §6.2).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && !name.contains(':'),
        None => port.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PEER: &str = "10.0.0.1";

    /// What is made of these fields, from a peer that is trusted as all of 10.0.0.0/8 and fd00::/8 are.
    fn client(fields: &[(&'static str, &'static str)]) -> String {
        client_of(PEER, fields)
    }

    fn client_of(peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client_address(&headers, peer.parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn r65_a_client_is_an_address_or_a_network_of_64_bits() {
        let client = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(client_of("198.51.100.7", &fields), "198.51.100.7");
        assert_eq!(client_of("::ffff:198.51.100.7", &fields), "198.51.100.7");
        assert_eq!(client_of("::ffff:10.0.0.1", &fields), "192.0.2.1");
        assert_eq!(client(&[]), PEER);
    }

    #[test]
    fn what_stands_left_of_the_first_stranger_is_not_read() {
        for name in ["x-forwarded-for", "forwarded"] {
            let client = |list: &'static str| client(&[(name, list)]);
            let lists = match name {
                "forwarded" => ["for=192.0.2.66, for=203.0.113.5, for=10.0.0.2", "for=\"x, for=203.0.113.5"],
                _ => ["192.0.2.66, 203.0.113.5,10.0.0.2 , ", "10.9.9.9, 203.0.113.5"],
            };
            for list in lists {
                assert_eq!(client(list), "203.0.113.5", "{list}");
            }
        }
        let fields = [("x-forwarded-for", "192.0.2.66"), ("x-forwarded-for", "203.0.113.5, 10.0.0.2")];
        assert_eq!(client(&fields), "203.0.113.5", "several fields are one list");
        assert_eq!(client(&[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3", "all are proxies");
    }

    #[test]
    fn where_a_proxy_names_no_address_it_is_the_client() {
        for hidden in
            ["unknown", "_hidden", "", "\"\"", "203.0.113", "203.0.113.5:x", "[2001:db8::1", "[::1]x"]
        {
            let list: &'static str = format!("192.0.2.66, {hidden}x, 10.0.0.2").leak();
            assert_eq!(client(&[("x-forwarded-for", list)]), "10.0.0.2", "{list}");
            let list: &'static str = format!("for=192.0.2.66, for={hidden}, for=10.0.0.2").leak();
            assert_eq!(client(&[("forwarded", list)]), "10.0.0.2", "{list}");
        }
        for piece in ["proto=https", "for=192.0.2.1;for=192.0.2.2", "for", "host=\"a, for=192.0.2.1;x=\""] {
            let list: &'static str = format!("{piece}, for=10.0.0.2").leak();
            assert_eq!(client(&[("forwarded", list)]), "10.0.0.2", "{list}");
        }
    }

    #[test]
    fn ports_brackets_and_quotes_are_taken_off() {
        for written in ["203.0.113.5", "203.0.113.5:4711", "203.0.113.5:_p", "::ffff:203.0.113.5"] {
            assert_eq!(client(&[("x-forwarded-for", written)]), "203.0.113.5", "{written}");
            let element: &'static str = format!("Proto=https; FOR = \"{written}\";host=\"a:1\"").leak();
            assert_eq!(client(&[("forwarded", element)]), "203.0.113.5", "{element}");
        }
        for written in ["2001:db8::5", "[2001:db8::5]", "[2001:db8::5]:4711", "[2001:0DB8:0::5]:_p"] {
            assert_eq!(client(&[("x-forwarded-for", written)]), "2001:db8::5", "{written}");
            let list: &'static str = format!("for=\"{written}\", for=\"[fd00::2]:1\"").leak();
            assert_eq!(client(&[("forwarded", list)]), "2001:db8::5", "{list}");
        }
    }

    #[test]
    fn two_lists_are_followed_as_far_as_they_agree() {
        let both = |forwarded, other| client(&[("forwarded", forwarded), ("x-forwarded-for", other)]);
        assert_eq!(both("for=203.0.113.5, for=\"10.0.0.2:1\"", "203.0.113.5, 10.0.0.2"), "203.0.113.5");
        assert_eq!(both("for=192.0.2.66", "203.0.113.5"), PEER);
        assert_eq!(both("for=192.0.2.66, for=10.0.0.2", "203.0.113.5, 10.0.0.2"), "10.0.0.2");
        assert_eq!(both("for=unknown, for=10.0.0.2", "203.0.113.5, 10.0.0.2"), "10.0.0.2");
        // The outer proxy writes the one list, the inner both.
        assert_eq!(both("for=10.0.0.2", "203.0.113.5, 10.0.0.2"), "203.0.113.5");
        assert_eq!(both("for=203.0.113.5, for=10.0.0.2", "10.0.0.2"), "203.0.113.5");
    }
}
