//! What crosses the gateway in the head of a message, and what does not.
//!
//! Towards the upstream: hop-by-hop fields and those that `Connection` names go first, then every field
//! that says who the caller is or where it comes from, in every spelling; ours are set last, so that
//! nothing a client sends can remove or replace them (RFC 9110 §7.6.1, RFC 7239).

use std::net::IpAddr;

use http::header::{self, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Origin;
use crate::dpop::{DPOP, DPOP_NONCE};
use crate::fields::members;
use crate::random::Random;
use crate::secret::Secret;
use crate::telemetry::RequestId;

mod forwarded;
mod trace;

use forwarded::{Chain, node};
use trace::continue_trace;

/// What is known of a request, beside the request itself.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The app the request was made to.
    pub origin: &'a ToldOrigin,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether the forwarding fields of that peer are believed.
    pub peer_is_trusted: bool,
    /// Names this request in logs, here and upstream.
    pub request_id: RequestId,
    /// Whether it asks for a WebSocket.
    pub is_handshake: bool,
}

/// An app's origin as upstreams are told of it, put together once.
#[derive(Debug)]
pub struct ToldOrigin {
    scheme: HeaderValue,
    authority: HeaderValue,
    /// The same in an element of `Forwarded`, behind the node.
    pairs: String,
}

impl ToldOrigin {
    /// An origin has a form in fields: it is a URL's scheme and authority.
    pub fn new(origin: &Origin) -> Self {
        let value = |text| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self {
            scheme: value(origin.scheme()),
            authority: value(origin.authority()),
            pairs: format!(";host=\"{}\";proto={}", origin.authority(), origin.scheme()),
        }
    }
}

/// The field that names a request in logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

// Upstreams take these for the word of a proxy in front of them. Compared with `_` and `.` read as `-`,
// as CGI and many frameworks do.
const IDENTITY: [&str; 34] = [
    "authorization",
    "cf-connecting-ip",
    "client-ip",
    "dpop",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "from",
    "proxy-authorization",
    "remote-addr",
    "remote-email",
    "remote-groups",
    "remote-name",
    "remote-user",
    "ssl-client-cert",
    "ssl-client-verify",
    "true-client-ip",
    "x-access-token",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-email",
    "x-envoy-external-address",
    "x-groups",
    "x-host",
    "x-id-token",
    "x-jwt-assertion",
    "x-real-ip",
    "x-remote-user",
    "x-request-id",
    "x-rewrite-url",
    "x-user",
    "x-userinfo",
    "x-username",
    "x-webauth-user",
];
/// How long those are that begin with each letter, as bits: most fields are told from them by that alone.
const LENGTHS: [u64; 32] = {
    let (mut lengths, mut number) = ([0; 32], 0);
    while number < IDENTITY.len() {
        let name = IDENTITY[number].as_bytes();
        lengths[(name[0] & 31) as usize] |= 1 << name.len();
        number += 1;
    }
    lengths
};
/// All begin with `o` or `x`.
const IDENTITY_PREFIXES: [&str; 9] = [
    "oidc-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authenticated-",
    "x-forwarded",
    "x-ms-client-principal",
    "x-original-",
    "x-ssl-",
    "x-user-",
];

/// The third letter that each of them has, as bits.
const THIRDS: u32 = {
    let (mut thirds, mut number) = (0, 0);
    while number < IDENTITY_PREFIXES.len() {
        thirds |= 1 << (IDENTITY_PREFIXES[number].as_bytes()[2] & 31);
        number += 1;
    }
    thirds
};

/// Makes a request's head ready for the upstream, but for `Host`, which each protocol has its own way with. `token` is the only `Authorization` that ever goes out: with a
/// proof, as a token that is bound to its key (RFC 9449 §7.1).
pub fn prepare_request(
    headers: &mut HeaderMap,
    facts: &Facts<'_>,
    token: Option<&Secret>,
    proof: Option<HeaderValue>,
    random: Random,
) -> Result<(), header::InvalidHeaderValue> {
    let unwanted = sift(headers, |name, _| {
        claims_identity(name)
            // Met here, by the first read of the body (RFC 9110 §10.1.1).
            || *name == header::EXPECT
    });
    let chain = if facts.peer_is_trusted { Chain::of(headers) } else { Chain::default() };
    remove(headers, unwanted);

    let peer = facts.peer.to_canonical();
    let node = node(peer);
    headers.insert(header::FORWARDED, chain.forwarded(peer, &node, facts.origin)?);
    headers.insert(X_FORWARDED_FOR, chain.forwarded_for(&node)?);
    headers.insert(X_FORWARDED_PROTO, facts.origin.scheme.clone());
    headers.insert(X_FORWARDED_HOST, facts.origin.authority.clone());
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(facts.request_id.as_str())?);
    continue_trace(headers, random)?;
    if let Some(token) = token {
        let scheme = if proof.is_some() { "DPoP " } else { "Bearer " };
        headers.insert(header::AUTHORIZATION, token.as_credentials(scheme)?);
        headers.extend(proof.map(|proof| (DPOP, proof)));
    }
    Ok(())
}

/// Makes a response's head ready for the browser: what could disturb the gateway's own cookies, origin
/// and token is dropped (R46), and an answer made for one user is kept out of shared caches (R44).
pub fn prepare_response(
    headers: &mut HeaderMap,
    owns_cookie: impl Fn(&str) -> bool,
    token: Option<&Secret>,
    authenticated: bool,
) {
    let echoes = |value: &HeaderValue| token.is_some_and(|token| token.is_in(value.as_bytes()));
    let unwanted = sift(headers, |name, value| {
        *name == CLEAR_SITE_DATA
            || *name == header::AUTHORIZATION
            // Between the upstream and us.
            || *name == DPOP
            || *name == DPOP_NONCE
            // By them surrogates and content networks are told something else than other caches.
            || authenticated && (*name == SURROGATE_CONTROL || *name == CDN_CACHE_CONTROL)
            || name.as_str().starts_with("access-control-allow-")
            || echoes(value)
    });
    remove(headers, unwanted);
    retain_cookies(headers, owns_cookie);
    if authenticated {
        keep_from_shared_caches(headers);
    }
}

/// Whether two servers may see the end of this message in two places (RFC 9112 §6.1, §6.3): a transfer
/// coding other than `chunked` alone, or one besides `Content-Length`.
pub fn has_ambiguous_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return false };
    !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        || codings.next().is_some()
        || headers.contains_key(header::CONTENT_LENGTH)
}

/// Filters a message's trailers: nothing that frames, routes or authenticates may come in behind a body
/// (RFC 9110 §6.5.1).
pub fn prepare_trailers(trailers: &mut HeaderMap) {
    let unwanted = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    remove(trailers, unwanted);
}

/// Announces those trailers alone that may come; hyper sends no others.
fn announce_trailers(headers: &mut HeaderMap) {
    let announced: Vec<HeaderName> = members(headers, &header::TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(may_trail)
        .collect();
    headers.remove(header::TRAILER);
    for name in announced {
        headers.append(header::TRAILER, name.into());
    }
}

fn may_trail(name: &HeaderName) -> bool {
    !(is_hop_by_hop(name)
        || *name == header::TRAILER
        || *name == DPOP_NONCE
        || claims_identity(name)
        || frames(name))
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        members(headers, &header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        headers.remove(name);
    }
}

/// Takes out what `Connection` names, and finds what is to go besides. All fields are looked through once: to look for
/// each of what hardly any message has would cost more than all that is done with the others.
fn sift(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName, &HeaderValue) -> bool) -> Vec<HeaderName> {
    let (mut unwanted, mut has_trailers) = (Vec::new(), false);
    for (name, value) in &*headers {
        has_trailers |= *name == header::TRAILER;
        if is_hop_by_hop(name) || is_unwanted(name, value) {
            unwanted.push(name.clone());
        }
    }
    if unwanted.contains(&header::CONNECTION) {
        remove_named_by_connection(headers);
    }
    if has_trailers {
        announce_trailers(headers);
    }
    unwanted
}

fn remove(headers: &mut HeaderMap, unwanted: Vec<HeaderName>) {
    for name in unwanted {
        headers.remove(name);
    }
}

/// RFC 9110 §7.6.1, and the older names that must not be forwarded either.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || matches!(name.as_str(), "http2-settings" | "keep-alive" | "proxy-connection")
}

fn claims_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    let &[first, ref rest @ ..] = name.as_bytes() else { return false };
    let has_their_length = (LENGTHS[usize::from(first & 31)] >> name.len().min(63)) & 1 == 1;
    let may_begin_as = rest.get(1).is_some_and(|third| (THIRDS >> (third & 31)) & 1 == 1);
    let is_one = || IDENTITY.iter().any(|known| known.len() == name.len() && known.bytes().eq(as_read(name)));
    let begins_as =
        |prefix: &&str| name.len() >= prefix.len() && prefix.bytes().eq(as_read(&name[..prefix.len()]));
    (has_their_length && is_one())
        || (matches!(first, b'o' | b'x') && may_begin_as && IDENTITY_PREFIXES.iter().any(begins_as))
}

/// A field's name as CGI and many frameworks read it.
fn as_read(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|letter| if matches!(letter, b'_' | b'.') { b'-' } else { letter })
}

fn frames(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::CONTENT_RANGE
            | header::HOST
            | header::COOKIE
            | header::SET_COOKIE
            | header::CACHE_CONTROL
            | header::LOCATION
            | header::WWW_AUTHENTICATE
    )
}

fn retain_cookies(headers: &mut HeaderMap, owns_cookie: impl Fn(&str) -> bool) {
    let Entry::Occupied(entry) = headers.entry(header::SET_COOKIE) else { return };
    let (_, values) = entry.remove_entry_mult();
    let kept: Vec<HeaderValue> = values.filter(|value| !sets_own_cookie(value, &owns_cookie)).collect();
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

fn sets_own_cookie(value: &HeaderValue, owns_cookie: &impl Fn(&str) -> bool) -> bool {
    let pair = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    // A cookie without a name is sent back as its bare value, and `=name=value` would pass for ours.
    std::str::from_utf8(name).is_ok_and(|name| {
        let name = name.trim_matches([' ', '\t']);
        name.is_empty() || owns_cookie(name)
    })
}

/// Marks an answer as made for one user (R44, RFC 9111 §3).
pub fn keep_from_shared_caches(headers: &mut HeaderMap) {
    let directives: Vec<String> = members(headers, &header::CACHE_CONTROL)
        .filter_map(|directive| std::str::from_utf8(directive).ok())
        .map(str::to_ascii_lowercase)
        .filter(|directive| !directive.is_empty())
        .filter(|directive| directive != "public" && !directive.starts_with("s-maxage"))
        .filter(|directive| directive != "private" && !directive.starts_with("private="))
        .collect();
    let value = (!directives.is_empty())
        .then(|| HeaderValue::try_from(format!("private, {}", directives.join(", "))).ok())
        .flatten()
        .unwrap_or(HeaderValue::from_static("no-store"));
    headers.insert(header::CACHE_CONTROL, value);
    headers.append(header::VARY, HeaderValue::from_static("Cookie"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::TraceParent;

    fn request_id() -> RequestId {
        RequestId::generate(Random::from_source(|bytes| bytes.fill(7)))
    }

    fn facts(origin: &ToldOrigin, peer: IpAddr, peer_is_trusted: bool) -> Facts<'_> {
        Facts { origin, peer, peer_is_trusted, request_id: request_id(), is_handshake: false }
    }

    fn prepared(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let origin = ToldOrigin::new(&Origin::parse("https://shop.example.com").unwrap());
        let peer = "10.0.0.9".parse().unwrap();
        let facts = facts(&origin, peer, trusted);
        prepare_request(&mut headers, &facts, Some(&Secret::new("token")), None, Random::SYSTEM).unwrap();
        headers
    }

    #[test]
    fn r34_the_token_goes_out_even_where_connection_names_authorization() {
        let headers =
            prepared(&[("connection", "authorization, x-request-id"), ("authorization", "Bearer x")], false);
        assert_eq!(headers[header::AUTHORIZATION], "Bearer token");
        assert_eq!(headers.get_all(header::AUTHORIZATION).iter().count(), 1);
        assert!(headers[header::AUTHORIZATION].is_sensitive());
        assert_eq!(headers["x-request-id"], request_id().as_str());
    }

    #[test]
    fn r36_identity_and_forwarding_fields_are_removed_in_every_spelling() {
        let hostile = [
            "X-Forwarded-User",
            "x_forwarded_for",
            "X.Forwarded.Host",
            "X-Real-IP",
            "x_real_ip",
            "Remote_User",
            "X-Auth-Request-Email",
            "Forwarded",
            "Proxy-Authorization",
            "DPoP",
            "X-Original-URL",
            "X_Request_Id",
        ];
        let fields: Vec<_> = hostile.iter().map(|name| (*name, "evil")).collect();
        let headers = prepared(&fields, false);
        for (name, value) in &headers {
            assert!(value != "evil", "{name}");
        }
    }

    #[test]
    fn r36_every_name_that_claims_identity_is_known_however_it_is_spelled() {
        let by_the_rule = |name: &str| {
            let spelled = name.replace(['_', '.'], "-");
            IDENTITY.contains(&spelled.as_str())
                || IDENTITY_PREFIXES.iter().any(|prefix| spelled.starts_with(prefix))
        };
        let known = IDENTITY.iter().chain(&IDENTITY_PREFIXES).copied();
        let harmless =
            ["accept", "a", "x", "z-z", "user-agent", "x-csrf", "xx-user", "fromm", "oidc", "cookie"];
        let mut refused = 0;
        for name in known.chain(harmless) {
            let cut = name[..name.len() - 1].to_owned();
            let altered = (0..name.len()).flat_map(|at| {
                ["_", ".", "-", "a", "z"].map(|letter| format!("{}{letter}{}", &name[..at], &name[at + 1..]))
            });
            let of_name =
                [name.to_owned(), cut, format!("{name}x"), format!("{name}-x"), format!("x-{name}")];
            let respelled = [name.replace('-', "_"), name.replace('-', "."), name.replacen('-', "_", 1)];
            for name in of_name.into_iter().chain(respelled).chain(altered) {
                let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else { continue };
                assert_eq!(claims_identity(&field), by_the_rule(&name), "{name}");
                refused += usize::from(by_the_rule(&name));
            }
        }
        assert!(refused > 200, "{refused}");
    }

    #[test]
    fn r37_hop_by_hop_fields_and_those_connection_names_are_dropped() {
        let headers = prepared(
            &[
                ("connection", "x-hop, close"),
                ("x-hop", "1"),
                ("te", "gzip"),
                ("keep-alive", "5"),
                ("x-kept", "1"),
            ],
            false,
        );
        for name in ["connection", "x-hop", "te", "keep-alive"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers["x-kept"], "1");
    }

    #[test]
    fn only_a_trusted_peer_may_lengthen_the_forwarding_chain() {
        let fields = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        let trusted = prepared(&fields, true);
        assert_eq!(trusted["x-forwarded-for"], "192.0.2.1, 10.0.0.9");
        assert_eq!(trusted["forwarded"], "for=192.0.2.1, for=10.0.0.9;host=\"shop.example.com\";proto=https");
        let untrusted = prepared(&fields, false);
        assert_eq!(untrusted["x-forwarded-for"], "10.0.0.9");
        assert_eq!(untrusted["x-forwarded-proto"], "https");
        assert_eq!(untrusted["x-forwarded-host"], "shop.example.com");
    }

    #[test]
    fn an_ipv6_peer_is_bracketed_and_quoted_and_a_mapped_one_is_ipv4() {
        let origin = ToldOrigin::new(&Origin::parse("http://localhost:8080").unwrap());
        let element = |peer: &str| {
            let facts = facts(&origin, peer.parse().unwrap(), false);
            let mut headers = HeaderMap::new();
            prepare_request(&mut headers, &facts, None, None, Random::SYSTEM).unwrap();
            (headers[header::FORWARDED].clone(), headers["x-forwarded-for"].clone())
        };
        let (forwarded, chain) = element("2001:db8::7");
        assert_eq!(forwarded, "for=\"[2001:db8::7]\";host=\"localhost:8080\";proto=http");
        assert_eq!(chain, "2001:db8::7");
        assert_eq!(element("::ffff:192.0.2.1").1, "192.0.2.1");
    }

    #[test]
    fn has_ambiguous_framing_finds_all_but_one_chunked_or_a_length() {
        let ambiguous = |fields: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            has_ambiguous_framing(&headers)
        };
        let coding = "transfer-encoding";
        assert!(
            !ambiguous(&[]) && !ambiguous(&[("content-length", "3")]) && !ambiguous(&[(coding, "Chunked")])
        );
        for value in ["gzip, chunked", "chunked, chunked", "identity", "", "\"chunked\""] {
            assert!(ambiguous(&[(coding, value)]), "{value}");
        }
        assert!(ambiguous(&[(coding, "chunked"), (coding, "chunked")]));
        assert!(ambiguous(&[(coding, "chunked"), ("content-length", "3")]));
    }

    #[test]
    fn a_valid_trace_is_carried_on_and_a_faulty_one_replaced() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let valid = prepared(&[("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))], false);
        let carried = valid["traceparent"].to_str().unwrap();
        assert!(carried.starts_with(&format!("00-{trace}-")) && carried.ends_with("-01"), "{carried}");
        assert!(!carried.contains("b7ad6b7169203331"));
        for faulty in ["", "00-0-0-00", &format!("00-{trace}-0000000000000000-01"), "ff-x"] {
            let replaced = prepared(&[("traceparent", faulty), ("tracestate", "a=b")], false);
            assert!(TraceParent::of(&replaced).is_some());
            assert!(!replaced.contains_key("tracestate"));
        }
    }

    fn answered(fields: &[(&str, &str)], authenticated: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let owns = |name: &str| name == "__Host-cloakroom";
        prepare_response(&mut headers, owns, Some(&Secret::new("s3cret-token")), authenticated);
        headers
    }

    #[test]
    fn r46_an_upstream_cannot_touch_our_cookie_our_origin_or_the_token() {
        let headers = answered(
            &[
                ("set-cookie", "__Host-cloakroom=forged; Path=/"),
                ("set-cookie", " __Host-cloakroom =forged"),
                ("set-cookie", "=__Host-cloakroom=forged; Path=/"),
                ("set-cookie", "theme=dark"),
                ("clear-site-data", "\"cookies\""),
                ("access-control-allow-origin", "*"),
                ("access-control-allow-credentials", "true"),
                ("authorization", "Bearer other"),
                ("x-debug", "got Bearer s3cret-token"),
                ("dpop", "a.proof.sent-back"),
                ("dpop-nonce", "n-1"),
                ("x-kept", "1"),
            ],
            false,
        );
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["theme=dark"]);
        assert_eq!(headers["x-kept"], "1");
        assert_eq!(headers.len(), 2, "{headers:?}");
    }

    #[test]
    fn r44_an_answer_for_one_user_stays_out_of_shared_caches() {
        let control = |value: &str| answered(&[("cache-control", value)], true)["cache-control"].clone();
        assert_eq!(control("public, max-age=60, s-maxage=600"), "private, max-age=60");
        assert_eq!(control("private=\"x\", max-age=5"), "private, max-age=5");
        assert_eq!(control("no-store"), "private, no-store");
        assert_eq!(answered(&[], true)["cache-control"], "no-store");
        assert!(!answered(&[], false).contains_key("cache-control"));
    }

    #[test]
    fn r37_trailers_carry_nothing_that_frames_or_authenticates() {
        let mut trailers = HeaderMap::new();
        for name in [
            "authorization",
            "content-length",
            "transfer-encoding",
            "x-forwarded-for",
            "dpop",
            "dpop-nonce",
            "set-cookie",
            "grpc-status",
        ] {
            trailers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("0"));
        }
        prepare_trailers(&mut trailers);
        assert_eq!(trailers.len(), 1);
        assert!(trailers.contains_key("grpc-status"));
    }
}
