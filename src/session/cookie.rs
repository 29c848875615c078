//! The browser's side of a session: the ticket that its cookie carries, and the `Cookie` and `Set-Cookie`
//! fields around it (RFC 6265).
//!
//! The functions that read a request's cookies work on bytes and trim space and tab alone. A sibling site
//! can plant cookies of nearly our name; a parser that trims all that Unicode calls space would take
//! `\u{a0}__Host-…` for ours, and with it a session that somebody else has chosen.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, CookieBuilder};
use http::header::{COOKIE, GetAll};
use http::{HeaderMap, HeaderValue};
use memchr::memchr;
use zeroize::Zeroizing;

use crate::config;
use crate::random::Random;
use crate::seal::{self, Context, DataKey, KeyRing, hashed_name};
use crate::session::store::RecordKey;

/// What finds a session and opens it. Only the browser has it, sealed.
#[derive(Clone)]
pub struct Ticket {
    /// Which session it is.
    pub id: SessionId,
    /// The key of its record.
    pub data_key: DataKey,
    /// Made of the id, once: whoever asks the store needs it.
    record_key: RecordKey,
    /// Of the record's key: a request of a session that is open here looks no further.
    record_prefix: u64,
}

/// A ticket, the cookie it was opened from, and the app it was opened for. All of it lies in one place, for each
/// request looks at all of it, and of many sessions hardly one lies in the processor's caches.
pub struct OpenedCookie {
    ticket: Ticket,
    app: Arc<str>,
    value: Zeroizing<[u8; Ticket::COOKIE_LENGTH]>,
}

/// A session's id: 128 bits that cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; SessionId::BYTES]);

/// Different values under one name: which of them is ours nobody can tell (R26).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("two different cookies of one name")]
pub struct Conflicting;

impl Ticket {
    const BYTES: usize = SessionId::BYTES + DataKey::BYTES;

    /// How long each session's cookie is.
    pub(super) const COOKIE_LENGTH: usize = (4 * (seal::OVERHEAD + Self::BYTES)).div_ceil(3);

    /// The ticket of this session.
    pub fn new(id: SessionId, data_key: DataKey) -> Self {
        let record_key = id.record_key();
        Self { record_prefix: record_key.prefix(), record_key, id, data_key }
    }

    /// A ticket for a session that never was.
    pub fn generate(random: Random) -> Self {
        Self::new(SessionId::generate(random), DataKey::generate(random))
    }

    /// The key of the session's record.
    pub fn record_key(&self) -> &RecordKey {
        &self.record_key
    }

    /// The first 64 bits of that.
    pub(super) fn record_prefix(&self) -> u64 {
        self.record_prefix
    }

    /// The cookie's value: the sealed ticket in base64url without padding.
    pub fn to_cookie(&self, ring: &KeyRing, random: Random, context: &Context<'_>) -> String {
        let plaintext = Zeroizing::new([self.id.0.as_slice(), self.data_key.expose()].concat());
        URL_SAFE_NO_PAD.encode(ring.seal(random, context, &plaintext))
    }

    /// The ticket in a cookie's value; `None` where it was not sealed by this ring under this context.
    pub fn from_cookie(value: &str, ring: &KeyRing, context: &Context<'_>) -> Option<Self> {
        if value.len() != Self::COOKIE_LENGTH {
            return None;
        }
        let plaintext = ring.open(context, &URL_SAFE_NO_PAD.decode(value).ok()?)?;
        let (id, data_key) = plaintext.split_first_chunk()?;
        Some(Self::new(SessionId(*id), DataKey::new(data_key.try_into().ok()?)))
    }
}

impl Ticket {
    /// What the key of a cookie's value is called, where it looks like one of ours and its key is not in the ring.
    pub fn foreign_key(value: &str, ring: &KeyRing) -> Option<String> {
        let is_as_long = value.len() == Self::COOKIE_LENGTH;
        ring.foreign_key(&is_as_long.then(|| URL_SAFE_NO_PAD.decode(value).ok()).flatten()?)
    }
}

impl SessionId {
    const BYTES: usize = 16;

    /// A new id.
    pub fn generate(random: Random) -> Self {
        Self(random.bytes())
    }

    /// The key of this session's record: a hash, so that a reader of the store learns no id.
    pub fn record_key(&self) -> RecordKey {
        RecordKey(hashed_name("session record", &[&self.0]))
    }
}

impl OpenedCookie {
    /// A cookie's value that was opened, for this app; `None` where it is none that can be.
    pub(super) fn new(ticket: Ticket, value: &str, app: &Arc<str>) -> Option<Self> {
        let value = Zeroizing::new(value.as_bytes().try_into().ok()?);
        Some(Self { ticket, app: Arc::clone(app), value })
    }

    /// Whether this is what it was opened from, to the letter, and for the same app.
    pub(super) fn is_of(&self, app: &str, value: &str) -> bool {
        *self.value == *value.as_bytes() && *self.app == *app
    }
}

impl Deref for OpenedCookie {
    type Target = Ticket;

    fn deref(&self) -> &Ticket {
        &self.ticket
    }
}

/// The rest is made of the id.
impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.data_key == other.data_key
    }
}

impl Eq for Ticket {}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, data_key, record_key: _, record_prefix: _ } = self;
        formatter.debug_struct("Ticket").field("id", id).field("data_key", data_key).finish()
    }
}

impl fmt::Debug for OpenedCookie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ticket.fmt(formatter)
    }
}

/// R62: an id is as good as half a key, and never reaches a log.
impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The `Set-Cookie` value that gives a session to the browser, until the browser is closed.
pub fn set(session: &config::Session, secure: bool, value: &str) -> HeaderValue {
    header_value(&attributes(session, secure, value).build())
}

/// The `Set-Cookie` value that takes the cookie back. Its attributes are those it was set with, or the
/// browser would take it for another cookie's.
pub fn clear(session: &config::Session, secure: bool) -> HeaderValue {
    header_value(&attributes(session, secure, "").max_age(cookie::time::Duration::ZERO).build())
}

/// The value that the request carries under `name`, be it once or several times. Several `Cookie` fields
/// are one (RFC 9113 §8.2.3).
///
/// # Errors
/// Where there are different values.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Conflicting> {
    let mut values = pairs(headers.get_all(COOKIE)).filter_map(|pair| {
        let (pair_name, value) = split_at_equals(pair)?;
        (pair_name == name.as_bytes()).then_some(value)
    });
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) {
        return Err(Conflicting);
    }
    // What is text is seen to be text faster than it is looked through for what is not.
    Ok(Some(std::str::from_utf8(first).map_or_else(|_| String::from_utf8_lossy(first), Cow::Borrowed)))
}

/// The names of the request's cookies that begin with `prefix`.
pub fn names(headers: &HeaderMap, prefix: &str) -> Vec<String> {
    pairs(headers.get_all(COOKIE))
        .filter_map(|pair| std::str::from_utf8(split_at_equals(pair)?.0).ok())
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

/// Takes the cookies out that are ours by their name, and leaves the others as they are, in one field.
/// Without any left the field goes too.
pub fn remove(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let fields = headers.get_all(COOKIE);
    let Some(first) = fields.iter().next() else { return };
    let mut is_rewritten = fields.iter().nth(1).is_some();
    let mut others = Vec::with_capacity(first.len());
    for pair in pairs(fields) {
        let name = split_at_equals(pair).map_or(pair, |(name, _)| name);
        if std::str::from_utf8(name).is_ok_and(&is_ours) {
            is_rewritten = true;
            continue;
        }
        if !others.is_empty() {
            others.extend_from_slice(b"; ");
        }
        others.extend_from_slice(pair);
    }
    if !is_rewritten && !others.is_empty() {
        return;
    }
    match HeaderValue::try_from(others) {
        Ok(value) if !value.is_empty() => drop(headers.insert(COOKIE, value)),
        Ok(_) | Err(_) => drop(headers.remove(COOKIE)),
    }
}

/// The cookie pairs of all `Cookie` fields, without the space around them, and without empty ones.
fn pairs(fields: GetAll<'_, HeaderValue>) -> impl Iterator<Item = &[u8]> {
    fields
        .into_iter()
        .flat_map(|field| split_at_semicolons(field.as_bytes()))
        .map(trim)
        .filter(|pair| !pair.is_empty())
}

fn split_at_semicolons(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let field = rest.take()?;
        let Some(at) = memchr(b';', field) else { return Some(field) };
        rest = Some(&field[at + 1..]);
        Some(&field[..at])
    })
}

fn split_at_equals(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'=', pair)?;
    Some((&pair[..at], &pair[at + 1..]))
}

/// Without space and tab at both ends, the only white space of HTTP (RFC 9110 §5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn attributes<'a>(session: &'a config::Session, secure: bool, value: &'a str) -> CookieBuilder<'a> {
    let same_site = match session.same_site {
        config::SameSite::Strict => cookie::SameSite::Strict,
        config::SameSite::Lax => cookie::SameSite::Lax,
    };
    Cookie::build((session.cookie_name.as_str(), value))
        .path("/")
        .http_only(true)
        .same_site(same_site)
        .secure(secure)
}

#[expect(
    clippy::expect_used,
    reason = "the configuration lets only tokens be cookie names (RFC 6265 §4.1.1)"
)]
fn header_value(cookie: &Cookie<'_>) -> HeaderValue {
    HeaderValue::try_from(cookie.to_string()).expect("a cookie is made of visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{SameSite, SessionKey};
    use crate::seal::Purpose;

    const NAME: &str = "__Host-cloakroom";
    const CONTEXT: Context<'static> =
        Context { purpose: Purpose::SessionCookie, name: NAME, app: "https://shop.example.com" };

    fn settings(name: &str) -> config::Session {
        config::Session {
            cookie_name: name.to_owned(),
            same_site: SameSite::Strict,
            idle_timeout: Duration::from_secs(1800),
            lifetime: Duration::from_secs(43_200),
            refresh_before_expiry: Duration::from_secs(60),
        }
    }

    fn ring() -> KeyRing {
        KeyRing::new(&[SessionKey::new([1; 32])])
    }

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        headers
    }

    fn one(value: &str) -> Result<Option<Cow<'_, str>>, Conflicting> {
        Ok(Some(value.into()))
    }

    #[test]
    fn a_ticket_comes_back_from_its_cookie() {
        let ticket = Ticket::generate(Random::SYSTEM);
        let value = ticket.to_cookie(&ring(), Random::SYSTEM, &CONTEXT);
        assert_eq!(Ticket::from_cookie(&value, &ring(), &CONTEXT), Some(ticket));
    }

    #[test]
    fn r62_debug_shows_nothing_of_a_cookie() {
        let value = Ticket::generate(Random::SYSTEM).to_cookie(&ring(), Random::SYSTEM, &CONTEXT);
        let ticket = Ticket::from_cookie(&value, &ring(), &CONTEXT).unwrap();
        let cookie = OpenedCookie::new(ticket, &value, &CONTEXT.app.into()).unwrap();
        assert_eq!(format!("{cookie:?}"), "Ticket { id: [redacted], data_key: [redacted] }");
    }

    #[test]
    fn a_forged_truncated_foreign_or_oversized_cookie_is_no_ticket() {
        let ring = ring();
        let value = Ticket::generate(Random::SYSTEM).to_cookie(&ring, Random::SYSTEM, &CONTEXT);
        for end in 0..value.len() {
            assert_eq!(Ticket::from_cookie(&value[..end], &ring, &CONTEXT), None, "cut to {end}");
        }
        let other_app = Context { app: "https://other.example.com", ..CONTEXT };
        assert_eq!(Ticket::from_cookie(&value, &ring, &other_app), None);
        for plaintext in [&b"short"[..], &[0; 47], &[0; 49]] {
            let sealed = URL_SAFE_NO_PAD.encode(ring.seal(Random::SYSTEM, &CONTEXT, plaintext));
            assert_eq!(Ticket::from_cookie(&sealed, &ring, &CONTEXT), None);
        }
        for hostile in
            ["", "=", "a", "\u{a0}", "%00", &"A".repeat(100_000), &format!("{value}="), &format!("{value}A")]
        {
            assert_eq!(Ticket::from_cookie(hostile, &ring, &CONTEXT), None);
        }
    }

    #[test]
    fn r21_the_cookie_is_host_only_strict_and_out_of_scripts_reach() {
        let value = Ticket::generate(Random::SYSTEM).to_cookie(&ring(), Random::SYSTEM, &CONTEXT);
        let field = set(&settings(NAME), true, &value);
        let expected = format!("{NAME}={value}; HttpOnly; SameSite=Strict; Secure; Path=/");
        assert_eq!(field.to_str().unwrap(), expected);
        assert!(field.len() <= 300, "{} bytes", field.len());
        let lax = config::Session { same_site: SameSite::Lax, ..settings("cloakroom") };
        assert_eq!(set(&lax, false, "x"), "cloakroom=x; HttpOnly; SameSite=Lax; Path=/");
    }

    #[test]
    fn a_cookie_is_cleared_with_the_attributes_it_was_set_with() {
        let field = clear(&settings(NAME), true);
        assert_eq!(field, format!("{NAME}=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0"));
    }

    #[test]
    fn r26_several_cookie_fields_are_one_header() {
        assert_eq!(find(&HeaderMap::new(), NAME), Ok(None));
        assert_eq!(find(&headers(&[b"a=1", b"__Host-cloakroom=x", b"b=2"]), NAME), one("x"));
        assert_eq!(find(&headers(&[b"a=1;\t__Host-cloakroom=x \t; b=2"]), NAME), one("x"));
        assert_eq!(find(&headers(&[b";;__Host-cloakroom=x;"]), NAME), one("x"));
        assert_eq!(find(&headers(&[b"__Host-cloakroom="]), NAME), one(""));
        assert_eq!(find(&headers(&[b"__Host-cloakroom=x=y=="]), NAME), one("x=y=="));
    }

    #[test]
    fn r26_two_different_values_conflict_and_the_same_twice_is_one() {
        assert_eq!(find(&headers(&[b"__Host-cloakroom=x; a=1; __Host-cloakroom=x"]), NAME), one("x"));
        assert_eq!(find(&headers(&[b"__Host-cloakroom=x", b"__Host-cloakroom=x"]), NAME), one("x"));
        for fields in [
            &[b"__Host-cloakroom=x; __Host-cloakroom=y".as_slice()][..],
            &[b"__Host-cloakroom=x", b"a=1", b"__Host-cloakroom=y"],
            &[b"__Host-cloakroom=x; __Host-cloakroom=x; __Host-cloakroom="],
            &[b"__Host-cloakroom=\xff; __Host-cloakroom=\xfe"],
        ] {
            assert_eq!(find(&headers(fields), NAME), Err(Conflicting));
        }
    }

    #[test]
    fn r26_no_name_that_is_only_nearly_ours_is_ours() {
        for field in [
            "\u{a0}__Host-cloakroom=x",
            "\u{2003}__Host-cloakroom=x",
            "\u{feff}__Host-cloakroom=x",
            "__Host-cloakroom\u{a0}=x",
            "__Host-cloakroom =x",
            "__host-cloakroom=x",
            "__Host-cloakroom2=x",
            "__Host-cloakroom",
            "a=__Host-cloakroom=x",
            "=__Host-cloakroom=x",
            "\"__Host-cloakroom\"=x",
            "a=\"; b=\"__Host-cloakroom=x\"",
        ] {
            assert_eq!(find(&headers(&[field.as_bytes()]), NAME), Ok(None), "{field:?}");
        }
    }

    #[test]
    fn r34_ours_are_removed_and_the_others_stay_byte_for_byte() {
        let is_ours = |name: &str| name.starts_with(NAME);
        for (before, after) in [
            (&[b"a=1; __Host-cloakroom=x;  b=\xff\xa0\"2\""], Some(b"a=1; b=\xff\xa0\"2\"")),
            (&[b"__Host-cloakroom=x"], None),
            (&[b"__Host-cloakroom=x", b" ; __Host-cloakroom-login-1=y;"], None),
            (&[b"a=1", b"__Host-cloakroom=x", b"b=2"], Some(b"a=1; b=2")),
            (&[b"__Host-cloakroom", b"__Host-cloakroom=x=a=1"], None),
            (&[b"\xa0__Host-cloakroom=x"], Some(b"\xa0__Host-cloakroom=x")),
            (&[b"a=__Host-cloakroom=x; nameless"], Some(b"a=__Host-cloakroom=x; nameless")),
            (&[], None),
        ] as [(&[&[u8]], Option<&[u8]>); 8]
        {
            let mut headers = headers(before);
            remove(&mut headers, is_ours);
            assert_eq!(headers.get(COOKIE).map(HeaderValue::as_bytes), after);
            assert!(headers.get_all(COOKIE).iter().count() <= 1);
        }
    }

    /// Whatever is thrown at the two: what `find` takes for ours `remove` takes out, and it takes nothing else.
    #[test]
    fn r34_what_is_found_is_removed_whatever_the_header() {
        let alphabet: [&[u8]; 12] =
            [b"N", b"NN", b"=", b";", b" ", b"\t", b"x", b"\xc2\xa0", b"\xff", b"\"", b"N=", b"; N=y"];
        for _ in 0..20_000 {
            let fields: Vec<Vec<u8>> = (0..1 + Random::SYSTEM.bytes::<1>()[0] % 3)
                .map(|_| {
                    Random::SYSTEM
                        .bytes::<8>()
                        .iter()
                        .flat_map(|byte| alphabet[usize::from(byte % 12)])
                        .copied()
                        .collect()
                })
                .collect();
            let before = headers(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut after = before.clone();
            remove(&mut after, |name| name == "N");
            assert_eq!(find(&after, "N"), Ok(None), "{fields:?}");
            let others = |headers: &HeaderMap| -> Vec<Vec<u8>> {
                let is_other = |pair: &&[u8]| !(*pair == b"N" || pair.starts_with(b"N="));
                pairs(headers.get_all(COOKIE)).filter(is_other).map(<[u8]>::to_vec).collect()
            };
            assert_eq!(others(&after), others(&before), "{fields:?}");
        }
    }

    #[test]
    fn r62_debug_shows_neither_id_nor_key() {
        let ticket = Ticket::generate(Random::SYSTEM);
        assert_eq!(format!("{ticket:?}"), "Ticket { id: [redacted], data_key: [redacted] }");
    }
}
