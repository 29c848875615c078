//! What crosses the gateway in a message's head: no framing of this hop, nobody's identity but ours, one
//! `Authorization`, and nothing else lost (R34, R36, R37, R44, R46).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use cloakroom::config::Origin;
use cloakroom::proxy::headers::{Facts, ToldOrigin, prepare_request, prepare_response, prepare_trailers};
use cloakroom::random::Random;
use cloakroom::secret::Secret;
use cloakroom::telemetry::RequestId;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// In capitals, too: some fields are written anew in small letters, and must not become it by that.
const TOKEN: &str = "The-Access-Token";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Ours, which are set anew.
const OWN: [&str; 7] = [
    "authorization",
    "forwarded",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// RFC 9110 §7.6.1, RFC 9113 §8.2.2.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Who calls, in the words of some proxies and frameworks.
const IDENTITY: [&str; 13] = [
    "dpop",
    "forwarded",
    "from",
    "oidc-claim-sub",
    "proxy-authorization",
    "remote-user",
    "x-auth-request-email",
    "x-forwarded-user",
    "x-original-url",
    "x-real-ip",
    "x-remote-user",
    "x-request-id",
    "x-user",
];

/// The first byte holds switches; each line after it is a field.
pub fn run(data: &[u8]) {
    let Some((switches, lines)) = data.split_first() else { return };
    let fields = fields(lines);
    let token = (switches & 1 != 0).then(|| Secret::new(TOKEN));
    check_request(&fields, token.as_ref(), switches & 2 != 0);
    check_response(&fields, token.as_ref(), switches & 4 != 0);
    let mut trailers = fields.clone();
    prepare_trailers(&mut trailers);
    check_trailers(&fields, &trailers);
}

fn check_request(fields: &HeaderMap, token: Option<&Secret>, peer_is_trusted: bool) {
    let origin = Origin::parse("https://shop.example.com").expect("it is an origin");
    let random = Random::from_source(|bytes| bytes.fill(7));
    let request_id = RequestId::generate(random);
    let origin = ToldOrigin::new(&origin);
    let facts = Facts { origin: &origin, peer: PEER, peer_is_trusted, request_id, is_handshake: false };
    let mut prepared = fields.clone();
    prepare_request(&mut prepared, &facts, token, None, random).expect("whatever was received can be sent");

    let credentials: Vec<_> = prepared.get_all(header::AUTHORIZATION).iter().collect();
    assert_eq!(credentials, token.map(|_| format!("Bearer {TOKEN}")).iter().collect::<Vec<_>>());
    for name in prepared.keys() {
        let is_own = OWN.contains(&name.as_str());
        assert!(is_own || !IDENTITY.contains(&spelled(name).as_str()), "{name}");
        assert!(!HOP_BY_HOP.contains(&name.as_str()), "{name}");
        assert!(is_own || !named_by_connection(fields).contains(name.as_str()), "{name}");
        assert!(!is_own || prepared.get_all(name).iter().count() == 1, "{name}");
    }
    assert!(!prepared.contains_key("expect"));
    let chain = prepared["x-forwarded-for"].as_bytes();
    let has_chain = peer_is_trusted && fields.contains_key("x-forwarded-for");
    assert!(if has_chain { chain.ends_with(b"192.0.2.7") } else { chain == b"192.0.2.7" });
    assert_eq!(prepared["x-forwarded-host"], "shop.example.com");
    assert_eq!(prepared["x-forwarded-proto"], "https");
    assert_eq!(prepared["x-request-id"], request_id.to_string());
    assert_eq!(prepared["traceparent"].len(), 55);
    check_kept(fields, &prepared, &["accept", "content-type", "cookie", "x-api-version"]);
}

fn check_response(fields: &HeaderMap, token: Option<&Secret>, authenticated: bool) {
    let owns = |name: &str| name.eq_ignore_ascii_case("__Host-cloakroom");
    let mut prepared = fields.clone();
    prepare_response(&mut prepared, owns, token, authenticated);
    let connection = named_by_connection(fields);
    for (name, value) in &prepared {
        let text = String::from_utf8_lossy(value.as_bytes());
        assert!(token.is_none() || !text.contains(TOKEN), "{name}");
        assert!(!HOP_BY_HOP.contains(&name.as_str()), "{name}");
        // Set anew for the answer to one user.
        let is_set = authenticated && (*name == header::CACHE_CONTROL || *name == header::VARY);
        assert!(is_set || !connection.contains(name.as_str()), "{name}");
        assert!(!name.as_str().starts_with("access-control-allow-"), "{name}");
        assert!(*name != "clear-site-data" && *name != header::AUTHORIZATION, "{name}");
        assert!(*name != "dpop" && *name != "dpop-nonce", "{name}");
        if *name == header::SET_COOKIE {
            assert!(
                !sent_back(&text).is_some_and(|pair| owns(pair.split('=').next().unwrap_or(""))),
                "{text:?}"
            );
        }
    }
    if authenticated {
        let controls: Vec<_> = prepared.get_all(header::CACHE_CONTROL).iter().collect();
        let [control] = controls.as_slice() else { panic!("{controls:?}") };
        let control = String::from_utf8_lossy(control.as_bytes()).to_ascii_lowercase();
        let directives: Vec<&str> = control.split(',').map(str::trim).collect();
        assert!(directives.contains(&"private") || directives.contains(&"no-store"), "{control}");
        assert!(!directives.iter().any(|it| *it == "public" || it.starts_with("s-maxage")), "{control}");
    }
    let kept: &[_] = if token.is_some() { &[] } else { &["content-type", "etag", "x-api-version"] };
    check_kept(fields, &prepared, kept);
}

fn check_trailers(fields: &HeaderMap, trailers: &HeaderMap) {
    for name in trailers.keys() {
        assert!(*name != header::AUTHORIZATION && !name.as_str().starts_with("x-forwarded"), "{name}");
        assert!(!IDENTITY.contains(&spelled(name).as_str()), "{name}");
        assert!(!HOP_BY_HOP.contains(&name.as_str()), "{name}");
        assert!(
            !["content-length", "host", "set-cookie", "trailer", "dpop-nonce"].contains(&name.as_str()),
            "{name}"
        );
    }
    let untouched = HeaderMap::from_iter(
        fields.iter().filter(|(name, _)| *name != header::CONNECTION).map(|(n, v)| (n.clone(), v.clone())),
    );
    check_kept(&untouched, trailers, &["grpc-status", "x-api-version"]);
}

/// What is nobody's business passes as it is, unless `Connection` names it.
fn check_kept(before: &HeaderMap, after: &HeaderMap, names: &[&str]) {
    for name in names {
        if !named_by_connection(before).iter().any(|named| named == name) {
            let values = |headers: &HeaderMap| -> Vec<HeaderValue> {
                headers.get_all(*name).iter().cloned().collect()
            };
            assert_eq!(values(after), values(before), "{name}");
        }
    }
}

fn fields(lines: &[u8]) -> HeaderMap {
    let fields = lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        // As it comes out of a connection: without the space around it.
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    });
    fields.take(200).collect()
}

fn named_by_connection(headers: &HeaderMap) -> BTreeSet<String> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect()
}

/// As CGI and its heirs read a name: nothing but letters and digits is told apart.
fn spelled(name: &HeaderName) -> String {
    let letters = name.as_str().chars();
    letters.map(|letter| if matches!(letter, '_' | '.') { '-' } else { letter }).collect()
}

/// What a browser makes of a cookie in later requests (RFC 6265bis §5.6, §5.8.3); nothing where it drops it.
fn sent_back(text: &str) -> Option<String> {
    let is_control = |letter: char| letter.is_ascii_control() && letter != '\t';
    let pair = text.split(';').next().unwrap_or_default();
    if pair.contains(is_control) {
        return None;
    }
    let (name, value) = pair.split_once('=').unwrap_or(("", pair));
    let [name, value] = [name, value].map(|part| part.trim_matches([' ', '\t']));
    Some(if name.is_empty() { value.to_owned() } else { format!("{name}={value}") })
}
