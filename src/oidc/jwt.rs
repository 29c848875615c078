//! Signed JWTs (RFC 7519) of the issuer's, and the checks that ID tokens and logout tokens share (RFC 8725):
//! nothing in one is worth anything until it has passed.
//!
//! `jsonwebtoken` checks the signature alone; header and claims are read here, once, so that what was
//! checked is what is used.

use std::fmt;

use ::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::discovery::Metadata;
use super::error::{IssuerUnavailable, JwtFault};
use super::jwks::{KeySet, PublishedKeys};
use super::{Client, json};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// How far the issuer's clock and ours may be apart, in seconds.
pub(super) const LEEWAY: u64 = 60;

/// A token may have this many bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// The last second of the year 9999: no honest time lies past it.
const LAST_SECOND: u64 = 253_402_300_799;

/// A token as it was read.
pub struct Jwt<'a> {
    pub(super) algorithm: Algorithm,
    key_id: Option<String>,
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    message: &'a str,
    signature: &'a str,
}

/// Why a signature could not be accepted.
pub(super) enum SignatureError {
    /// The keys cannot be had.
    Unavailable(IssuerUnavailable),
    /// The token is at fault.
    Fault(JwtFault),
}

impl<'a> Jwt<'a> {
    /// Reads header and claims. `allowed` are the issuer's asymmetric algorithms.
    ///
    /// # Errors
    /// Where this is no JWT, or one that must not even be looked at.
    pub fn read(token: &'a Secret, allowed: &[Algorithm]) -> Result<Self, JwtFault> {
        let token = token.expose();
        if token.len() > LONGEST_TOKEN {
            return Err(JwtFault::TooLarge);
        }
        if is_encrypted(token) {
            return Err(JwtFault::Encrypted);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtFault::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(JwtFault::Malformed)?;
        let header = part(header).ok_or(JwtFault::Malformed)?;
        let claims = part(claims).ok_or(JwtFault::Malformed)?;
        if header.contains_key("crit") {
            return Err(JwtFault::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
        let algorithm =
            algorithm.filter(|algorithm| allowed.contains(algorithm)).ok_or(JwtFault::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(JwtFault::Malformed),
        };
        Ok(Self { algorithm, key_id, header, claims, message, signature })
    }

    /// R18: whether it says that it is one of these `types`, or does not say.
    pub(super) fn is_typed(&self, types: &[&str]) -> bool {
        self.header.get("typ").is_none_or(|own| {
            own.as_str().is_some_and(|own| types.iter().any(|typ| own.eq_ignore_ascii_case(typ)))
        })
    }

    /// Whether it says that it is of this type (RFC 8725 §3.11).
    pub(super) fn has_type(&self, typ: &str) -> bool {
        self.header.get("typ").and_then(Value::as_str).is_some_and(|own| own.eq_ignore_ascii_case(typ))
    }

    /// R12: one of the keys that are for it made its signature.
    ///
    /// # Errors
    /// Where none is for it, or none made it.
    pub fn check_signature(&self, keys: &KeySet) -> Result<(), JwtFault> {
        let mut fault = JwtFault::UnknownKey;
        for key in keys.candidates(self.key_id.as_deref(), self.algorithm) {
            let message = self.message.as_bytes();
            let verified =
                jsonwebtoken::crypto::verify(self.signature, message, &key.decoding, self.algorithm);
            if matches!(verified, Ok(true)) {
                return Ok(());
            }
            fault = JwtFault::Signature;
        }
        Err(fault)
    }

    /// R11, the part that a refreshed token must share with the first (R30): it is for the client, and for nobody else who
    /// is not trusted.
    pub(super) fn check_parties(
        &self,
        issuer: &str,
        client_id: &str,
        trusted: &[String],
    ) -> Result<(), JwtFault> {
        if self.text("iss") != Some(issuer) {
            return Err(JwtFault::Issuer);
        }
        let is_client = |audience: &Value| audience == client_id;
        let is_known =
            |audience: &Value| is_client(audience) || trusted.iter().any(|known| audience == known);
        let several = match self.claims.get("aud") {
            Some(audience @ Value::String(_)) if is_client(audience) => false,
            Some(Value::Array(audiences))
                if audiences.iter().any(is_client) && audiences.iter().all(is_known) =>
            {
                audiences.len() > 1
            }
            _ => return Err(JwtFault::Audience),
        };
        match self.claims.get("azp") {
            None if several => Err(JwtFault::AuthorizedParty),
            Some(party) if party != client_id => Err(JwtFault::AuthorizedParty),
            _ => Ok(()),
        }
    }

    /// R13: all times are there and near; `longest_age` is that of its `iat`, in seconds.
    pub(super) fn check_times(&self, now: Timestamp, longest_age: u64) -> Result<(), JwtFault> {
        let expires_at = self.check_validity(now)?;
        let now = now.as_secs();
        let issued_at = self.time("iat").ok_or(JwtFault::IssuedAt)?;
        if issued_at > now + LEEWAY || now > issued_at + longest_age || issued_at > expires_at {
            return Err(JwtFault::IssuedAt);
        }
        Ok(())
    }

    /// R13: it is still good, and already; gives its `exp`, in seconds.
    pub(super) fn check_validity(&self, now: Timestamp) -> Result<u64, JwtFault> {
        let now = now.as_secs();
        let expires_at = self.time("exp").ok_or(JwtFault::Expired)?;
        if now >= expires_at + LEEWAY {
            return Err(JwtFault::Expired);
        }
        match self.claims.get("nbf") {
            Some(_) if self.time("nbf").is_none_or(|not_before| not_before > now + LEEWAY) => {
                Err(JwtFault::NotBefore)
            }
            _ => Ok(expires_at),
        }
    }

    /// `exp`, for a token that need not have one.
    pub(super) fn check_expiry(&self, now: Timestamp) -> Result<(), JwtFault> {
        let is_over = || self.time("exp").is_none_or(|at| now.as_secs() >= at + LEEWAY);
        if self.claims.contains_key("exp") && is_over() { Err(JwtFault::Expired) } else { Ok(()) }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    pub(super) fn time(&self, name: &str) -> Option<u64> {
        numeric_date(self.claims.get(name)?)
    }
}

/// A `NumericDate` (RFC 7519 §2) in whole seconds. It may have a fraction, and no more than a sane size.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
pub(crate) fn numeric_date(value: &Value) -> Option<u64> {
    let seconds = value.as_u64().or_else(|| {
        value
            .as_f64()
            .filter(|seconds| (0.0..=LAST_SECOND as f64).contains(seconds))
            .map(|seconds| seconds as u64)
    })?;
    Some(seconds).filter(|seconds| *seconds <= LAST_SECOND)
}

impl PublishedKeys {
    /// R12: the signature is that of one of the keys at this address.
    pub(super) async fn check_signature(
        &self,
        jwks_uri: &Uri,
        token: &Jwt<'_>,
    ) -> Result<(), SignatureError> {
        let key_id = token.key_id.as_deref();
        let keys =
            self.keys_for(jwks_uri, key_id, token.algorithm).await.map_err(SignatureError::Unavailable)?;
        token.check_signature(&keys).map_err(SignatureError::Fault)
    }
}

impl Client {
    /// R12: the signature is that of one of the issuer's keys.
    pub(super) async fn check_signature(
        &self,
        metadata: &Metadata,
        token: &Jwt<'_>,
    ) -> Result<(), SignatureError> {
        self.keys.check_signature(&metadata.jwks_uri, token).await
    }
}

/// R62: a token is as good as a password, and never reaches a log.
impl fmt::Debug for Jwt<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Whether a token is for its audience alone to read (RFC 7516 §9).
pub(super) fn is_encrypted(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 4
}

/// The `iss` that a token has, checked by nobody: good for choosing who checks it, and for nothing else.
pub(super) fn alleged_issuer(token: &Secret) -> Option<String> {
    alleged(token.expose(), "iss")
}

/// A claim that a token has, checked by nobody: good for finding where it belongs, and for nothing else.
pub(super) fn alleged(token: &str, claim: &str) -> Option<String> {
    if token.len() > LONGEST_TOKEN {
        return None;
    }
    match part(token.split('.').nth(1)?)?.remove(claim)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A part of a JWT: a JSON object in base64url without padding.
fn part(encoded: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(encoded).ok()?)
}
