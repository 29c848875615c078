//! The path: what passes is one path for every reader, and finds one route in every spelling (R35).

use cloakroom::gateway::route::{Paths, check_canonical, count_segments, upstream_path, without_segments};
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use url::Url;

const ROUTES: [&str; 6] = ["/", "/api", "/api/orders", "/a", "/a/b/c", "/public;v=1"];

/// A request's target as it stands in the request line.
pub fn run(data: &[u8]) {
    let Ok(target) = Uri::try_from(data) else { return };
    let paths = Paths::new(ROUTES.map(|path| (path.to_owned(), path)));
    for allow_encoded_slash in [false, true] {
        let path = target.path();
        let passes = check_canonical(path, allow_encoded_slash).is_ok();
        for spelling in [everything_escaped(path), nothing_escaped(path)] {
            // What cannot be sent is no spelling.
            if spelling.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.path() == spelling) {
                let says = check_canonical(&spelling, allow_encoded_slash).is_ok();
                assert_eq!(says, passes, "{path:?} and {spelling:?}");
                assert_eq!(find(&paths, &spelling), find(&paths, path), "{path:?} and {spelling:?}");
            }
        }
        if passes {
            check_one_meaning(path, allow_encoded_slash);
            check_route(&paths, path);
            check_forwarded(&target, allow_encoded_slash);
        }
    }
}

/// No reader finds in it what we did not see: not after decoding, not with parameters cut off, and not by the
/// rules of browsers, which resolve dots.
fn check_one_meaning(path: &str, allow_encoded_slash: bool) {
    assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'), "{path:?}");
    let decoded = decode(path);
    assert!(!decoded.contains(&0) && !decoded.contains(&b'\\'), "{path:?}");
    for segment in decoded.split(|byte| *byte == b'/') {
        for end in [b';', b'/'] {
            let read = segment.split(|byte| *byte == end).next().unwrap_or_default();
            assert!(!matches!(read, b"." | b".."), "{path:?}");
        }
    }
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    assert!(allow_encoded_slash || slashes(&decoded) == slashes(path.as_bytes()), "{path:?}");

    let url = Url::parse(&format!("https://shop.example.com{path}")).expect("a canonical path makes a URL");
    assert_eq!(url.host_str(), Some("shop.example.com"), "{path:?}");
    assert_eq!(decode(url.path()), decoded, "{path:?} is {:?} to a browser", url.path());
}

/// The route is the one that a reader of the decoded path would choose, however it takes encoded and repeated
/// slashes. Where readers would choose differently, there is none.
fn check_route(paths: &Paths<&'static str>, path: &str) {
    let decoded = decode(path);
    let segments: Vec<&[u8]> = decoded.split(|byte| *byte == b'/').skip(1).collect();
    let merged: Vec<&[u8]> = segments.iter().copied().filter(|segment| !segment.is_empty()).collect();
    if let Ok(route) = find(paths, path) {
        for reading in [segments, merged] {
            let by_reader = ROUTES
                .into_iter()
                .filter(|route| {
                    let wanted: Vec<&[u8]> =
                        route.split('/').skip(1).filter(|part| !part.is_empty()).map(str::as_bytes).collect();
                    reading.starts_with(&wanted)
                })
                .max_by_key(|route| route.len());
            assert_eq!(route, by_reader, "{path:?}");
        }
    }
}

/// What goes on is what was matched, and as canonical, with a prefix taken off too.
fn check_forwarded(target: &Uri, allow_encoded_slash: bool) {
    let path = target.path();
    let query = target.query().map(|query| format!("?{query}"));
    let whole = upstream_path(target, 0).expect("it came, and can be sent");
    assert_eq!(whole.to_string(), format!("{path}{}", query.unwrap_or_default()));
    for count in 0..=count_segments(path) {
        let rest = without_segments(path, count);
        assert!(path.ends_with(rest), "{path:?} without {count}");
        let forwarded = upstream_path(target, count).expect("it can be sent");
        assert!(check_canonical(forwarded.path(), allow_encoded_slash).is_ok(), "{path:?} without {count}");
        assert_eq!(forwarded.query(), target.query(), "{path:?} without {count}");
    }
}

fn find(paths: &Paths<&'static str>, path: &str) -> Result<Option<&'static str>, ()> {
    paths.find(path).map(|found| found.map(|route| **route)).map_err(drop)
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// Every byte as an escape, but for slashes and what is one already.
fn everything_escaped(path: &str) -> String {
    let mut escaped = String::new();
    let bytes = path.as_bytes();
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let is_escape =
            bytes.get(index + 1..index + 3).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'/' | b'\\' => escaped.push(char::from(*byte)),
            b'%' if is_escape => {
                escaped.push_str(&path[index..index + 3]);
                index += 2;
            }
            b'%' => escaped.push('%'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        index += 1;
    }
    escaped
}

/// Escapes of unreserved characters taken back, which changes nothing (RFC 3986 §6.2.2.2).
fn nothing_escaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(|code| code.is_ascii_alphanumeric() || b"-._~".contains(code)) {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[2..]);
            }
            // A bad escape and what follows could become a good one.
            None if code.is_none() => return path.to_owned(),
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}
