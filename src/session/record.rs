//! The plaintext of a session's record: versioned JSON. A field that this version does not know is
//! ignored, and one that an older version did not write is optional, so that two versions of the gateway
//! can share a store during an upgrade.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Session;
use super::store::{Record, Version};
use crate::clock::Timestamp;
use crate::config::{RouteGrant, RouteToken, TokenTarget};
use crate::dpop::Key;
use crate::secret::{self, Secret};
use crate::tokens::{AccessToken, Identity, Tokens};

/// Counts changes that older gateways cannot read; an optional field more is none. It goes up in two releases:
/// see `docs/life-of-a-session.md`.
const FORMAT: u32 = 1;

/// Why a record cannot be read. No source: the JSON parser's errors quote what they stumble over.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the box does not open: it was altered, or it is another session's")]
    Sealed,
    #[error("the plaintext is no session")]
    Malformed,
    #[error("the format {0} is unknown")]
    Format(u32),
    #[error("the store's version is not the sealed one")]
    Version,
}

#[derive(Serialize, Deserialize)]
struct Plaintext<'a> {
    format: u32,
    version: u64,
    created_at: u64,
    expires_at: u64,
    access_token: Cow<'a, str>,
    access_token_issued_at: u64,
    access_token_expires_at: u64,
    refresh_token: Option<Cow<'a, str>>,
    id_token: Option<Cow<'a, str>>,
    #[serde(default)]
    scopes: Cow<'a, [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_key: Option<Cow<'a, str>>,
    iss: Cow<'a, str>,
    sub: Cow<'a, str>,
    sid: Option<Cow<'a, str>>,
    #[serde(default)]
    claims: Cow<'a, Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    route_tokens: Vec<OfRoute<'a>>,
}

/// A route's token, with what was asked for.
#[derive(Serialize, Deserialize)]
struct OfRoute<'a> {
    grant_type: Cow<'a, str>,
    #[serde(default)]
    scopes_wanted: Cow<'a, [String]>,
    resource: Option<Cow<'a, str>>,
    audience: Option<Cow<'a, str>>,
    access_token: Cow<'a, str>,
    issued_at: u64,
    expires_at: u64,
    #[serde(default)]
    scopes: Cow<'a, [String]>,
}

/// The plaintext of a session, without its idle deadline: that one is the store's.
pub(super) fn encode(session: &Session) -> Zeroizing<Vec<u8>> {
    let Session { identity, tokens, version, created_at, expires_at, idle_expires_at: _ } = session;
    let plaintext = Plaintext {
        format: FORMAT,
        version: version.0,
        created_at: created_at.as_millis(),
        expires_at: expires_at.as_millis(),
        access_token: tokens.access_token.expose().into(),
        access_token_issued_at: tokens.issued_at.as_millis(),
        access_token_expires_at: tokens.expires_at.as_millis(),
        refresh_token: tokens.refresh_token.as_ref().map(|token| token.expose().into()),
        id_token: tokens.id_token.as_ref().map(|token| token.expose().into()),
        scopes: tokens.scopes.as_slice().into(),
        dpop_key: tokens.dpop_key.as_ref().map(|key| key.expose().into()),
        iss: identity.issuer.as_str().into(),
        sub: identity.subject.as_str().into(),
        sid: identity.sid.as_deref().map(Cow::from),
        claims: Cow::Borrowed(&identity.claims),
        route_tokens: tokens.route_tokens.iter().map(OfRoute::new).collect(),
    };
    secret::to_json(&plaintext)
}

impl<'a> OfRoute<'a> {
    fn new((wanted, token): (&'a Arc<RouteToken>, &'a AccessToken)) -> Self {
        let RouteToken { grant, target } = &**wanted;
        Self {
            grant_type: grant.as_str().into(),
            scopes_wanted: target.scopes.as_slice().into(),
            resource: target.resource.as_deref().map(Cow::from),
            audience: target.audience.as_deref().map(Cow::from),
            access_token: token.value.expose().into(),
            issued_at: token.issued_at.as_millis(),
            expires_at: token.expires_at.as_millis(),
            scopes: token.scopes.as_slice().into(),
        }
    }

    /// `None` where a newer gateway has got it in a way that is not known here.
    fn read(self) -> Option<(Arc<RouteToken>, AccessToken)> {
        let target = TokenTarget {
            scopes: self.scopes_wanted.into_owned(),
            resource: self.resource.map(Cow::into_owned),
            audience: self.audience.map(Cow::into_owned),
        };
        let wanted = RouteToken { grant: RouteGrant::from_name(&self.grant_type)?, target };
        let token = AccessToken {
            value: Secret::bearer(self.access_token),
            issued_at: Timestamp::from_millis(self.issued_at),
            expires_at: Timestamp::from_millis(self.expires_at),
            scopes: self.scopes.into_owned(),
        };
        Some((Arc::new(wanted), token))
    }
}

/// The session in a plaintext. The version is sealed too, so that a store cannot pass an old record for
/// a new one by its number.
pub(super) fn decode(plaintext: &[u8], record: &Record) -> Result<Session, Unreadable> {
    let plaintext: Plaintext<'static> =
        serde_json::from_slice(plaintext).map_err(|_| Unreadable::Malformed)?;
    if plaintext.format != FORMAT {
        return Err(Unreadable::Format(plaintext.format));
    }
    if Version(plaintext.version) != record.version {
        return Err(Unreadable::Version);
    }
    // A token that is bound to a key is of no use without it.
    let dpop_key = plaintext.dpop_key.map(|text| {
        let text = Secret::new(text);
        Key::read(text.expose()).map(Arc::new).ok_or(Unreadable::Malformed)
    });
    Ok(Session {
        identity: Identity {
            issuer: plaintext.iss.into_owned(),
            subject: plaintext.sub.into_owned(),
            sid: plaintext.sid.map(Cow::into_owned),
            claims: plaintext.claims.into_owned(),
        },
        tokens: Tokens {
            access_token: Secret::bearer(plaintext.access_token),
            issued_at: Timestamp::from_millis(plaintext.access_token_issued_at),
            expires_at: Timestamp::from_millis(plaintext.access_token_expires_at),
            refresh_token: plaintext.refresh_token.map(Secret::new),
            id_token: plaintext.id_token.map(Secret::new),
            scopes: plaintext.scopes.into_owned(),
            dpop_key: dpop_key.transpose()?,
            route_tokens: plaintext.route_tokens.into_iter().filter_map(OfRoute::read).collect(),
        },
        version: record.version,
        created_at: Timestamp::from_millis(plaintext.created_at),
        expires_at: Timestamp::from_millis(plaintext.expires_at),
        idle_expires_at: record.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        Record {
            sealed: Vec::new(),
            version: Version(3),
            expires_at: Timestamp::from_millis(900),
            indexes: Vec::new(),
        }
    }

    fn plaintext(changes: &Value) -> Vec<u8> {
        let mut plaintext = json!({
            "format": 1, "version": 3, "created_at": 1, "expires_at": 1000,
            "access_token": "a", "access_token_issued_at": 1, "access_token_expires_at": 500,
            "iss": "https://id.example.com", "sub": "alice",
        });
        for (name, value) in changes.as_object().unwrap() {
            plaintext[name] = value.clone();
        }
        serde_json::to_vec(&plaintext).unwrap()
    }

    #[test]
    fn a_field_more_or_an_optional_one_less_is_tolerated() {
        let session = decode(&plaintext(&json!({"a_later_field": {"x": [1]}})), &record()).unwrap();
        assert_eq!((session.version, session.idle_expires_at), (Version(3), Timestamp::from_millis(900)));
        assert!(session.tokens.refresh_token.is_none() && session.identity.claims.is_empty());
        assert_eq!(decode(&encode(&session), &record()), Ok(session));
    }

    #[test]
    fn a_key_is_kept_and_a_record_without_one_or_with_a_bad_one_is_told_apart() {
        let key = Key::generate(crate::random::Random::SYSTEM);
        let session = decode(&plaintext(&json!({"dpop_key": key.expose()})), &record()).unwrap();
        assert_eq!(session.tokens.dpop_key.as_deref(), Some(&key));
        assert_eq!(decode(&encode(&session), &record()), Ok(session));
        let without = decode(&plaintext(&json!({})), &record()).unwrap();
        assert_eq!(without.tokens.dpop_key, None);
        assert!(!String::from_utf8_lossy(&encode(&without)).contains("dpop_key"));
        let bad = decode(&plaintext(&json!({"dpop_key": "AAAA"})), &record());
        assert_eq!(bad, Err(Unreadable::Malformed));
    }

    #[test]
    fn tokens_of_routes_are_read_as_they_were_written_and_those_of_an_unknown_kind_left_out() {
        let exchanged = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": "orders",
            "access_token": "b", "issued_at": 2, "expires_at": 400, "scopes": ["read"],
        });
        let redeemed = json!({
            "grant_type": "refresh_token", "resource": "https://orders.example.com", "a_later_field": 1,
            "access_token": "c", "issued_at": 3, "expires_at": 300,
        });
        let later = json!({"grant_type": "later", "access_token": "d", "issued_at": 3, "expires_at": 300});
        let tokens = json!({"route_tokens": [exchanged, later, redeemed]});
        let session = decode(&plaintext(&tokens), &record()).unwrap();
        let held: Vec<_> = session.tokens.route_tokens.values().map(|token| token.value.expose()).collect();
        assert_eq!(held, ["b", "c"]);
        assert_eq!(decode(&encode(&session), &record()), Ok(session));
    }

    #[test]
    fn an_unknown_format_another_version_and_garbage_are_unreadable() {
        let read = |plaintext: &[u8]| decode(plaintext, &record()).unwrap_err();
        assert_eq!(read(&plaintext(&json!({"format": 2}))), Unreadable::Format(2));
        assert_eq!(read(&plaintext(&json!({"version": 2}))), Unreadable::Version);
        assert_eq!(read(&plaintext(&json!({"access_token": null}))), Unreadable::Malformed);
        for garbage in [&b""[..], b"null", b"[]", b"{", b"\xff", &plaintext(&json!({}))[1..]] {
            assert_eq!(read(garbage), Unreadable::Malformed);
        }
    }

    #[test]
    fn the_buffer_of_tokens_never_grows() {
        let session =
            decode(&plaintext(&json!({"access_token": "\"\u{0}".repeat(10_000)})), &record()).unwrap();
        let encoded = encode(&session);
        assert_eq!(encoded.capacity(), encoded.len());
    }
}
