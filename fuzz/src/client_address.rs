//! `Forwarded` and `X-Forwarded-For`: nobody passes for another by what they write themselves (RFC 7239 §8.1).

use std::net::IpAddr;

use cloakroom::gateway::client_address::{client_address, is_trusted};
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Each line is a field: the first byte says which one.
pub fn run(data: &[u8]) {
    let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().filter_map(|net| net.parse().ok()).collect();
    let [proxy, stranger] =
        ["10.0.0.1", "198.51.100.7"].map(|text| text.parse::<IpAddr>().expect("it is one"));
    let headers: HeaderMap = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let (which, value) = line.split_first()?;
            let name = if which % 2 == 0 { FORWARDED } else { X_FORWARDED_FOR };
            Some((name, HeaderValue::from_bytes(value).ok()?))
        })
        .take(20)
        .collect();
    assert_eq!(client_address(&headers, stranger, &trusted), stranger);
    assert_eq!(client_address(&headers, proxy, &[]), proxy);
    assert_eq!(client_address(&HeaderMap::new(), proxy, &trusted), proxy);

    let address = client_address(&headers, proxy, &trusted);
    assert_eq!(address, address.to_canonical());
    for name in [FORWARDED, X_FORWARDED_FOR] {
        let list: HeaderMap =
            headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())).collect();
        let alone = client_address(&list, proxy, &trusted);
        if !is_trusted(alone, &trusted) {
            // What stands further left was written by the client, or may have been.
            let mut longer: HeaderMap =
                [&b"for=192.0.2.99"[..], b"192.0.2.99", b"for=\"", b"\"", b"10.0.0.9"]
                    .map(|value| (name.clone(), HeaderValue::from_bytes(value).expect("it is one")))
                    .into_iter()
                    .collect();
            for value in list.values() {
                longer.append(&name, value.clone());
            }
            assert_eq!(client_address(&longer, proxy, &trusted), alone, "{list:?}");
        }
        // One list alone says no less than both.
        let both_agree = alone == address || is_trusted(address, &trusted) || list.is_empty();
        let other_has_more = headers.keys_len() > 1;
        assert!(both_agree || other_has_more, "{headers:?}");
    }
}
