//! From a host and a path to what answers: one canonical path is matched, and the same is forwarded (R35).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{Request, Uri, Version, header};
use percent_encoding::percent_decode_str;

use crate::config::Origin;
use crate::error::{Reason, Refusal};

/// A host name has at most 253 letters (RFC 1035 §2.3.4), and a port five digits. What is longer is not said back.
const LONGEST_HOST: usize = 259;

/// What answers to each host.
#[derive(Debug)]
pub struct Hosts<T>(BTreeMap<String, Arc<T>>);

/// What answers under each path: the longest match wins, on segment boundaries.
#[derive(Debug)]
pub struct Paths<T>(Vec<Place<T>>);

#[derive(Debug)]
struct Place<T> {
    path: String,
    segments: Vec<Vec<u8>>,
    answers: Arc<T>,
}

impl<T> Hosts<T> {
    /// Each origin with what answers to it.
    pub fn new(apps: impl IntoIterator<Item = (Origin, T)>) -> Self {
        let mut hosts = BTreeMap::new();
        for (origin, app) in apps {
            let app = Arc::new(app);
            hosts.insert(origin.authority().to_owned(), Arc::clone(&app));
            // The default port may be written out in a Host field (RFC 9110 §4.2.3).
            if !has_port(origin.authority()) {
                let port = if origin.is_secure() { 443 } else { 80 };
                hosts.insert(format!("{}:{port}", origin.authority()), app);
            }
        }
        Self(hosts)
    }

    /// What answers to an origin.
    pub fn of(&self, origin: &Origin) -> Option<&T> {
        self.0.get(origin.authority()).map(Arc::as_ref)
    }

    /// What answers to any host. What answers to several comes as often.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|app| &**app)
    }

    /// What answers to the request's host: exactly one `Host`, and where the target is in absolute form,
    /// the same there (R38, RFC 9112 §3.2).
    pub fn admit<B>(&self, request: &Request<B>) -> Result<&Arc<T>, Refusal> {
        let mut fields = request.headers().get_all(header::HOST).iter();
        let field = match (fields.next(), fields.next()) {
            (Some(field), None) => Some(field.to_str().map_err(|_| host_faulty())?),
            (Some(_), Some(_)) => return Err(Refusal::new(Reason::HostRepeated)),
            (None, _) => None,
        };
        let host = match (field, request.uri().authority().map(Authority::as_str)) {
            (Some(field), None) => field,
            // HTTP/2 names the host in `:authority`, and needs no Host field.
            (None, Some(target)) if request.version() == Version::HTTP_2 => target,
            (Some(field), Some(target)) if field.eq_ignore_ascii_case(target) => field,
            (Some(_), Some(_)) => {
                return Err(Refusal::new(Reason::HostDiffers));
            }
            (None, _) => return Err(Refusal::new(Reason::HostMissing)),
        };
        // As most write it; what is not is looked at more closely.
        if let Some(app) = self.0.get(host) {
            return Ok(app);
        }
        if host.parse::<Authority>().is_err() || host.contains('@') {
            return Err(host_faulty());
        }
        self.0.get(&host.to_ascii_lowercase()).ok_or_else(|| {
            let refusal = Refusal::new(Reason::HostUnknown);
            if host.len() > LONGEST_HOST {
                refusal
            } else {
                refusal.saying(format!("The request is for `{host}`."))
            }
        })
    }
}

impl<T> Paths<T> {
    /// Each path with what answers under it.
    pub fn new(routes: impl IntoIterator<Item = (String, T)>) -> Self {
        let places = routes.into_iter().map(|(path, route)| {
            let (segments, answers) = (decoded_segments(&path), Arc::new(route));
            Place { path, segments, answers }
        });
        let mut places: Vec<_> = places.collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.segments.len()));
        Self(places)
    }

    /// What answers to any path.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|place| &*place.answers)
    }

    /// What answers under exactly this path, as it was configured.
    pub fn of(&self, path: &str) -> Option<&T> {
        self.0.iter().find(|place| place.path == path).map(|place| &*place.answers)
    }

    /// What answers to a request's path. Segments are compared decoded, as the upstream will see them:
    /// otherwise `/%61pi` would slip past the rules for `/api`. An encoded slash must not slip past them
    /// either: whether or not a server takes it for a separator, and whether or not that server takes several
    /// separators for one, the same route has to answer (R35).
    pub fn find(&self, path: &str) -> Result<Option<&Arc<T>>, Refusal> {
        if is_plain(path) {
            return Ok(self.0.iter().find(|place| place.holds(path)).map(|place| &place.answers));
        }
        let wanted = decoded_segments(path);
        let found = self.longest(&wanted);
        let split_again: Vec<Vec<u8>> = wanted
            .iter()
            .flat_map(|segment| segment.split(|byte| *byte == b'/'))
            .map(<[u8]>::to_vec)
            .collect();
        let merged: Vec<Vec<u8>> =
            split_again.iter().filter(|segment| !segment.is_empty()).cloned().collect();
        for reading in [split_again, merged] {
            if self.longest(&reading).map(Arc::as_ptr) != found.map(Arc::as_ptr) {
                return Err(Refusal::new(Reason::PathAmbiguous));
            }
        }
        Ok(found)
    }

    fn longest(&self, wanted: &[Vec<u8>]) -> Option<&Arc<T>> {
        self.0.iter().find(|place| wanted.starts_with(&place.segments)).map(|place| &place.answers)
    }
}

impl<T> Place<T> {
    /// Whether a plain path is this one or below it.
    fn holds(&self, path: &str) -> bool {
        self.segments.is_empty()
            || path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Whether a path is canonical without a closer look: it has no escape, no backslash, no empty segment, and
/// none that begins with a dot. Nearly every path is.
fn is_plain(path: &str) -> bool {
    // To their ends, so that many bytes are looked at with one instruction.
    let escapes = path.bytes().fold(false, |any, byte| any | matches!(byte, b'%' | b'\\'));
    let pairs = path.as_bytes().windows(2);
    let begins = pairs.fold(false, |any, pair| any | (pair[0] == b'/') & matches!(pair[1], b'/' | b'.'));
    path.starts_with('/') && !escapes && !begins
}

/// Refuses a path that another server might read otherwise than we do (R35): an empty or a dot segment,
/// an encoded slash, a backslash, a NUL, a bad escape. What passes is forwarded byte for byte.
pub fn check_canonical(path: &str, allow_encoded_slash: bool) -> Result<(), Refusal> {
    if is_plain(path) {
        return Ok(());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Refusal::new(Reason::PathWithoutSlash));
    };
    let last = rest.split('/').count() - 1;
    for (index, segment) in rest.split('/').enumerate() {
        if segment.is_empty() && index != last {
            return Err(Refusal::new(Reason::PathEmptySegment));
        }
        check_segment(segment, allow_encoded_slash)?;
    }
    Ok(())
}

/// The path behind its first `count` segments: what is left once a prefix is taken off.
pub fn without_segments(path: &str, count: usize) -> &str {
    let mut rest = path;
    for _ in 0..count {
        let behind_slash = rest.strip_prefix('/').unwrap_or(rest);
        rest = behind_slash.find('/').map_or("", |index| &behind_slash[index..]);
    }
    rest
}

/// What an upstream is asked for: the path as it was matched, less a prefix, with its query.
pub fn upstream_path(uri: &Uri, stripped_segments: usize) -> Result<PathAndQuery, Refusal> {
    if let (0, Some(path)) = (stripped_segments, uri.path_and_query()) {
        return Ok(path.clone());
    }
    let path = without_segments(uri.path(), stripped_segments);
    let path = if path.is_empty() { "/" } else { path };
    let asked = uri.query().map_or_else(|| path.parse(), |query| format!("{path}?{query}").try_into());
    asked.map_err(|_| Refusal::new(Reason::PathNotForwardable))
}

/// How many segments a configured prefix has.
pub fn count_segments(prefix: &str) -> usize {
    decoded_segments(prefix).len()
}

fn check_segment(segment: &str, allow_encoded_slash: bool) -> Result<(), Refusal> {
    let bytes = segment.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        if *byte == b'\\' {
            return Err(Refusal::new(Reason::PathBackslash));
        }
        if *byte == b'%' {
            let escape = bytes.get(index + 1..index + 3).map(<[u8]>::to_ascii_lowercase);
            match escape.as_deref() {
                Some(b"2f") if !allow_encoded_slash => {
                    return Err(Refusal::new(Reason::PathEncodedSlash));
                }
                Some(b"5c") => return Err(Refusal::new(Reason::PathBackslash)),
                Some(b"00") => return Err(Refusal::new(Reason::PathNul)),
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
                Some(_) | None => return Err(Refusal::new(Reason::PathBadEscape)),
            }
        }
    }
    // Decoded slashes split again, so that `a%2f..` hides no dot segment where encoded slashes are allowed.
    let decoded: Vec<u8> = percent_decode_str(segment).collect();
    // Servlet containers take what is behind a `;` off before they resolve dots: `/..;/` climbs there.
    let is_dots = |part: &[u8]| matches!(part.split(|byte| *byte == b';').next(), Some(b"." | b".."));
    if decoded.split(|byte| *byte == b'/').any(is_dots) {
        return Err(Refusal::new(Reason::PathDotSegment));
    }
    Ok(())
}

fn decoded_segments(path: &str) -> Vec<Vec<u8>> {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return Vec::new();
    }
    path.trim_end_matches('/').split('/').map(|segment| percent_decode_str(segment).collect()).collect()
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn host_faulty() -> Refusal {
    Refusal::new(Reason::HostMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn paths() -> Paths<&'static str> {
        let routes = ["/", "/api", "/api/orders", "/public"];
        Paths::new(routes.map(|path| (path.to_owned(), path)))
    }

    #[test]
    fn the_longest_match_wins_on_segment_boundaries() {
        let found = |path| **paths().find(path).unwrap().unwrap();
        assert_eq!(found("/"), "/");
        assert_eq!(found("/api"), "/api");
        assert_eq!(found("/api/"), "/api");
        assert_eq!(found("/apis"), "/");
        assert_eq!(found("/api/orders/7"), "/api/orders");
        assert_eq!(found("/api/orders2"), "/api");
    }

    #[test]
    fn r35_an_encoded_letter_does_not_slip_past_a_route() {
        assert_eq!(**paths().find("/%61pi/x").unwrap().unwrap(), "/api");
        assert_eq!(**paths().find("/api/%6frders").unwrap().unwrap(), "/api/orders");
    }

    #[test]
    fn r35_an_encoded_slash_leads_to_the_same_route_or_to_none() {
        assert_eq!(**paths().find("/api/a%2fb").unwrap().unwrap(), "/api");
        assert!(paths().find("/api/orders%2fb").is_err());
        assert!(paths().find("/api%2forders").is_err());
        // Servers that merge slashes read `/api` here, and `/api/orders`.
        assert!(paths().find("/%2fapi/x").is_err());
        assert!(paths().find("/api/%2forders").is_err());
        assert_eq!(**paths().find("/api/http:%2f%2fa.example%2f").unwrap().unwrap(), "/api");
    }

    #[test]
    fn r35_an_ambiguous_path_is_refused() {
        for path in [
            "//api",
            "/api//x",
            "/api/../x",
            "/api/..;/x",
            "/api/..;a=b/x",
            "/api/%2e%2e%3b/x",
            "/api/./x",
            "/api/%2e%2e/x",
            "/api/.%2E",
            "/api/%2f",
            "/api/a%2Fb",
            "/api/%5c",
            "/api\\x",
            "/api/%00",
            "/api/%",
            "/api/%4",
            "/api/%zz",
            "/..",
            "/.",
            "api",
            "",
        ] {
            assert!(check_canonical(path, false).is_err(), "{path}");
        }
        for path in ["/", "/api/", "/api/a.b/..c/d..", "/%C3%A9", "/api/%252e%252e/x", "/a;b=c/@:!$&'()*+,="]
        {
            assert!(check_canonical(path, false).is_ok(), "{path}");
        }
    }

    #[test]
    fn r35_where_encoded_slashes_are_allowed_they_still_hide_no_dot_segment() {
        assert!(check_canonical("/api/a%2Fb", true).is_ok());
        assert!(check_canonical("/api/a%2f..%2fb", true).is_err());
        assert!(check_canonical("/api/..%2fb", true).is_err());
    }

    /// The short way for plain paths, and the long one that is there for all.
    #[test]
    fn r35_a_plain_path_is_answered_as_if_it_were_looked_at_closely() {
        let pieces =
            ["", "a", "api", "orders", ".", "..", ".x", "x.", "%61pi", "%2f", "%5c", "\\", ";", "public"];
        let paths = paths();
        let mut plain = 0;
        for one in pieces {
            for two in pieces {
                for three in pieces {
                    for path in
                        [format!("/{one}/{two}/{three}"), format!("{one}/{two}{three}/"), format!("/{one}")]
                    {
                        if !is_plain(&path) {
                            continue;
                        }
                        plain += 1;
                        let segments = decoded_segments(&path);
                        let found = paths.find(&path).unwrap().map(|found| **found);
                        assert_eq!(found, paths.longest(&segments).map(|found| **found), "{path}");
                        assert!(
                            path[1..].split('/').all(|segment| check_segment(segment, false).is_ok()),
                            "{path}"
                        );
                        let whole = path[1..].strip_suffix('/').unwrap_or(&path[1..]);
                        assert!(path == "/" || whole.split('/').all(|segment| !segment.is_empty()), "{path}");
                    }
                }
            }
        }
        assert!(plain > 100, "{plain}");
    }

    #[test]
    fn a_prefix_is_taken_off_by_segments() {
        assert_eq!(without_segments("/public/a/b", 1), "/a/b");
        assert_eq!(without_segments("/publi%63/a", 1), "/a");
        assert_eq!(without_segments("/public", 1), "");
        assert_eq!(without_segments("/public/", 1), "/");
        assert_eq!(without_segments("/a/b/c", 2), "/c");
    }

    #[test]
    fn r38_exactly_one_host_is_admitted() {
        let hosts = Hosts::new([(Origin::parse("https://shop.example.com").unwrap(), ())]);
        let admits = |uri: &str, fields: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in fields {
                request = request.header("host", *host);
            }
            hosts.admit(&request.body(()).unwrap()).map(|_| ()).map_err(|refusal| refusal.code())
        };
        assert_eq!(admits("/", &["shop.example.com"]), Ok(()));
        assert_eq!(admits("/", &["SHOP.example.com:443"]), Ok(()));
        assert_eq!(admits("http://shop.example.com/", &["shop.example.com"]), Ok(()));
        assert_eq!(admits("/", &["other.example.com"]), Err(Code::Misdirected));
        assert_eq!(admits("/", &["shop.example.com:8443"]), Err(Code::Misdirected));
        assert_eq!(admits("/", &["shop.example.com", "shop.example.com"]), Err(Code::BadRequest));
        assert_eq!(admits("/", &[]), Err(Code::BadRequest));
        assert_eq!(admits("http://evil.example/", &["shop.example.com"]), Err(Code::BadRequest));
        assert_eq!(admits("/", &["user@shop.example.com"]), Err(Code::BadRequest));
    }
}
