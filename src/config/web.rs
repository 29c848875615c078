//! Origins, issuers, resources, upstreams, Redis servers and paths.
//!
//! Issuer and origin are `https` unless loopback, where nobody can listen in (RFC 8252 §8.3): loopback is
//! `localhost`, `127.0.0.0/8` and `[::1]`, nothing that a name server decides.

use std::net::IpAddr;

use serde_json::Value;
use url::Url;

use crate::config::decode::{Decode, scalar};
use crate::config::diagnostic::InvalidValue;
use crate::config::document::{Content, Node, REDACTED};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::text;
use crate::config::{Issuer, Origin, schema};

/// A transmitter of security events.
#[derive(Clone, Debug)]
pub(super) struct Transmitter(pub(super) Issuer);

/// `http` or `https`, with an optional path.
#[derive(Clone, Debug)]
pub(super) struct UpstreamUrl(pub(super) Url);

/// `redis://host:port/database`, or `rediss`.
#[derive(Clone, Debug)]
pub(super) struct RedisUrl(pub(super) Url);

/// A path as requests are matched against it.
#[derive(Clone, Debug)]
pub(super) struct Path(pub(super) String);

/// A path below the root.
#[derive(Clone, Debug)]
pub(super) struct Prefix(pub(super) String);

/// Where an access token is to be used (RFC 8707 §2), as it is written, for issuers compare it letter by letter.
#[derive(Clone, Debug)]
pub(super) struct ResourceUri(pub(super) String);

impl Decode for ResourceUri {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a URI such as `https://api.example.com`", reading, |written| {
            let text = text(written)?;
            let remedy =
                "an absolute URI without a fragment, such as `https://api.example.com` (RFC 8707 §2)";
            if text.contains('#') {
                Err(InvalidValue::new("a URI with a fragment", remedy))
            } else if is_clean(&text) && Url::parse(&text).is_ok() {
                Ok(Self(text))
            } else {
                Err(InvalidValue::new("not an absolute URI", remedy))
            }
        })
    }

    fn schema() -> Value {
        schema::pattern("[A-Za-z][A-Za-z0-9+.-]*:[^#]+")
    }
}

impl Decode for Origin {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "an origin such as `https://shop.example.com`", reading, |written| {
            Self::parse(&written.text)
        })
    }

    fn schema() -> Value {
        schema::pattern("[Hh][Tt][Tt][Pp][Ss]?://.+")
    }

    fn shown(node: &Node) -> String {
        shown_url(node)
    }
}

impl Decode for Issuer {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "an issuer such as `https://id.example.com`", reading, |written| {
            Self::parse(&written.text)
        })
    }

    fn schema() -> Value {
        schema::pattern("https?://.+")
    }

    fn shown(node: &Node) -> String {
        shown_url(node)
    }
}

impl Decode for Transmitter {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a transmitter such as `https://id.example.com`", reading, |written| {
            Issuer::parse_transmitter(&written.text).map(Self)
        })
    }

    fn schema() -> Value {
        Issuer::schema()
    }

    fn shown(node: &Node) -> String {
        shown_url(node)
    }
}

impl Decode for UpstreamUrl {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a URL such as `http://orders.internal:9000`", reading, |written| {
            http_url(&written.text).map(Self)
        })
    }

    fn schema() -> Value {
        schema::pattern("[Hh][Tt][Tt][Pp][Ss]?://.+")
    }

    fn shown(node: &Node) -> String {
        shown_url(node)
    }
}

impl Decode for RedisUrl {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a URL such as `redis://redis:6379/0`", reading, |written| {
            redis_url(&written.text).map(Self)
        })
    }

    fn schema() -> Value {
        schema::pattern("[Rr][Ee][Dd][Ii][Ss][Ss]?://.+")
    }

    fn shown(node: &Node) -> String {
        shown_url(node)
    }
}

impl Decode for Path {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a path such as `/api`", reading, |written| path(&written.text).map(Self))
    }

    fn schema() -> Value {
        schema::pattern("/.*")
    }
}

impl Decode for Prefix {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a path such as `/api`", reading, |written| match path(&written.text)?.as_str() {
            "/" => Err(InvalidValue::new("the root itself", "a path below the root, such as `/api`")),
            path => Ok(Self(path.to_owned())),
        })
    }

    fn schema() -> Value {
        schema::pattern("/.+")
    }
}

impl Origin {
    /// Reads an origin: `https` unless loopback, and nothing but scheme, host and port.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let url = http_url(text)?;
        refuse_plain_http(&url)?;
        let origin = url.origin().ascii_serialization();
        let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
        if after_scheme.contains('/') {
            return Err(InvalidValue::new("an origin has no path", format!("`{origin}`")));
        }
        Ok(Self(origin))
    }
}

impl Issuer {
    /// Reads an issuer: `https` unless loopback, and a URL that can be called as it is written.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        // Discovery §4.1: a slash at the issuer's end goes before the suffix is put there.
        let address = format!("{}/.well-known/openid-configuration", text.trim_end_matches('/'));
        Self::at(text, |_| address)
    }

    /// Reads a transmitter of security events, to which the same applies. Its metadata are elsewhere: the
    /// well-known part goes between host and path (Shared Signals Framework §7.2.1).
    pub fn parse_transmitter(text: &str) -> Result<Self, InvalidValue> {
        Self::at(text, |url| {
            let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
            format!("{origin}/.well-known/ssf-configuration{path}")
        })
    }

    fn at(text: &str, address: impl FnOnce(&Url) -> String) -> Result<Self, InvalidValue> {
        let url = http_url(text)?;
        refuse_plain_http(&url)?;
        if !text.starts_with(url.scheme()) {
            return Err(InvalidValue::new(
                "a scheme in capitals",
                "`https://` in small letters, and the rest",
            ));
        }
        let invalid =
            |_| InvalidValue::new("a URL that cannot be called", "a URL such as `https://id.example.com`");
        Ok(Self { text: text.to_owned(), metadata_address: address(&url).parse().map_err(invalid)? })
    }
}

/// Whether only this machine can be meant by a host.
pub fn is_loopback(url: &Url) -> bool {
    is_loopback_host(url.host_str().unwrap_or_default())
}

/// The same of a host alone, an IPv6 address with or without its brackets.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether `path` is `prefix` or below it, by segments.
pub(super) fn is_under(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `user:password@` is a secret.
fn shown_url(node: &Node) -> String {
    match &node.content {
        Content::Scalar { text, .. } if text.contains('@') => REDACTED.to_owned(),
        Content::Scalar { .. } | Content::List(_) | Content::Map(_) => node.shown(),
    }
}

/// `http` or `https`, a host, perhaps a port and a path. The parser of browsers, which `url` is, mends
/// much that must not be mended in silence, so the text is looked at first.
fn http_url(text: &str) -> Result<Url, InvalidValue> {
    let remedy = "a URL such as `https://id.example.com`";
    let invalid = |problem: &str| InvalidValue::new(problem, remedy);
    let after_scheme = ["http://", "https://"].iter().find_map(|scheme| {
        let start = text.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
    });
    let after_scheme = after_scheme.ok_or_else(|| invalid("not an http or https URL"))?;
    let url = Url::parse(text).ok().filter(|url| is_clean(text) && url.port() != Some(0));
    let url = url.filter(|_| !after_scheme.starts_with('/')).ok_or_else(|| invalid("not a URL"))?;
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(invalid("a URL with user information"));
    }
    // Legal in a URL, and so to the parser, but no name that is looked up and no `Host` that is sent.
    if url.host_str().is_some_and(|host| host.contains('*')) {
        return Err(invalid("a wildcard, where one host is to be named"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("a URL with a query or fragment"));
    }
    Ok(url)
}

/// Whether a text has nothing that `url` would take out or turn round in silence.
fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn refuse_plain_http(url: &Url) -> Result<(), InvalidValue> {
    if url.scheme() == "https" || is_loopback(url) {
        return Ok(());
    }
    let remedy = "`https://…`; http is for `localhost`, `127.0.0.1` and `[::1]` alone";
    Err(InvalidValue::new("plain http, which anybody on the way can read and change", remedy))
}

fn redis_url(text: &str) -> Result<Url, InvalidValue> {
    let remedy = "a URL such as `redis://redis:6379/0`";
    let invalid = |problem: &str| InvalidValue::new(problem, remedy);
    let url = Url::parse(text).map_err(|_| invalid("not a URL"))?;
    if url.password().is_some() {
        let remedy = "the URL without it, and `password: {file: PATH}` or `password: {env: NAME}` beside it";
        return Err(InvalidValue::new("a password in the file", remedy));
    }
    if !url.username().is_empty() || text.contains('@') {
        return Err(InvalidValue::new("a user in the URL", "the URL without it, and `username` beside it"));
    }
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    let database = url.path().strip_prefix('/').unwrap_or(url.path());
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.port() != Some(0);
    let is_database = database.is_empty() || database.parse::<u32>().is_ok();
    if matches!(url.scheme(), "redis" | "rediss") && is_clean(text) && has_host && is_plain && is_database {
        Ok(url)
    } else {
        Err(invalid("not the URL of a Redis server"))
    }
}

/// A path as requests have it once they are canonical, so that it can match one: no empty or dot
/// segments, no escapes, no query, no slash at the end.
fn path(text: &str) -> Result<String, InvalidValue> {
    let invalid =
        |problem: &str| InvalidValue::new(problem, "a path such as `/api`, without a slash at its end");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
    if !text.starts_with('/') {
        return Err(invalid("a path starts with a slash"));
    }
    if !text.bytes().all(is_plain) {
        return Err(invalid("a path with escapes, a query, or characters that no path has"));
    }
    let mut segments = text[1..].split('/');
    if text != "/" && segments.any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(invalid("a path with an empty segment or a dot segment"));
    }
    Ok(text.to_owned())
}
