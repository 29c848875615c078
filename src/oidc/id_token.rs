//! The ID token's checks (Core §3.1.3.7, RFC 8725): everything in it is refused until it has passed.
//!
//! `jsonwebtoken` checks the signature alone; header and claims are read here, once, so that what was
//! checked is what is used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::discovery::Metadata;
use super::error::{IdTokenFault, IssuerUnavailable};
use super::{Client, Expected, json};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::tokens::Identity;

/// How far the issuer's clock and ours may be apart, in seconds.
const LEEWAY: u64 = 60;

/// An ID token comes fresh from the issuer; one issued longer ago (in seconds) is a replay.
const LONGEST_AGE: u64 = 10 * 60;

/// An ID token may have this many bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// The last second of the year 9999: no honest time lies past it.
const LAST_SECOND: u64 = 253_402_300_799;

/// The event that makes a logout token (Back-Channel Logout §2.4).
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Claims of the protocol, which say nothing about the user.
const PROTOCOL_CLAIMS: [&str; 14] = [
    "iss", "aud", "exp", "iat", "nbf", "jti", "azp", "nonce", "at_hash", "c_hash", "s_hash", "sid", "typ",
    "events",
];

/// Claims about the login, which only the ID token can make.
const LOGIN_CLAIMS: [&str; 4] = ["sub", "auth_time", "acr", "amr"];

/// An ID token as it was read. None of its words is worth anything before the checks.
pub(super) struct IdToken<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
    message: &'a str,
    signature: &'a str,
}

/// Why a signature could not be accepted.
pub(super) enum SignatureError {
    /// The keys cannot be had.
    Unavailable(IssuerUnavailable),
    /// The token is at fault.
    Fault(IdTokenFault),
}

impl<'a> IdToken<'a> {
    /// Reads header and claims. `allowed` are the issuer's asymmetric algorithms.
    pub(super) fn read(token: &'a Secret, allowed: &[Algorithm]) -> Result<Self, IdTokenFault> {
        let token = token.expose();
        if token.len() > LONGEST_TOKEN {
            return Err(IdTokenFault::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(IdTokenFault::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(IdTokenFault::Malformed)?;
        let header = part(header).ok_or(IdTokenFault::Malformed)?;
        let claims = part(claims).ok_or(IdTokenFault::Malformed)?;
        if header.contains_key("crit") {
            return Err(IdTokenFault::Critical);
        }
        let is_typed_jwt = header
            .get("typ")
            .is_none_or(|typ| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")));
        if !is_typed_jwt || claims.get("events").is_some_and(|events| events.get(LOGOUT_EVENT).is_some()) {
            return Err(IdTokenFault::Type);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
        let algorithm = algorithm.filter(|algorithm| allowed.contains(algorithm));
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(IdTokenFault::Malformed),
        };
        Ok(Self { algorithm: algorithm.ok_or(IdTokenFault::Algorithm)?, key_id, claims, message, signature })
    }

    /// R11, the part that a refreshed token must share with the first (R30).
    pub(super) fn check_parties(&self, issuer: &str, client_id: &str) -> Result<(), IdTokenFault> {
        if self.text("iss") != Some(issuer) {
            return Err(IdTokenFault::Issuer);
        }
        let several = match self.claims.get("aud") {
            Some(Value::String(audience)) if audience == client_id => false,
            Some(Value::Array(audiences))
                if !audiences.is_empty() && audiences.iter().all(|audience| audience == client_id) =>
            {
                audiences.len() > 1
            }
            _ => return Err(IdTokenFault::Audience),
        };
        match self.claims.get("azp") {
            None if several => Err(IdTokenFault::AuthorizedParty),
            Some(party) if party != client_id => Err(IdTokenFault::AuthorizedParty),
            _ => Ok(()),
        }
    }

    /// R13: all times are there and near.
    pub(super) fn check_times(&self, now: Timestamp) -> Result<(), IdTokenFault> {
        let now = now.as_secs();
        let expires_at = self.time("exp").ok_or(IdTokenFault::Expired)?;
        if now >= expires_at + LEEWAY {
            return Err(IdTokenFault::Expired);
        }
        let issued_at = self.time("iat").ok_or(IdTokenFault::IssuedAt)?;
        if issued_at > now + LEEWAY || now > issued_at + LONGEST_AGE + LEEWAY || issued_at > expires_at {
            return Err(IdTokenFault::IssuedAt);
        }
        match self.claims.get("nbf") {
            Some(_) if self.time("nbf").is_none_or(|not_before| not_before > now + LEEWAY) => {
                Err(IdTokenFault::NotBefore)
            }
            _ => Ok(()),
        }
    }

    /// R14, R15: the token is the answer to this login.
    pub(super) fn check_login(&self, expected: &Expected, now: Timestamp) -> Result<(), IdTokenFault> {
        if self.text("nonce") != Some(expected.nonce.expose()) {
            return Err(IdTokenFault::Nonce);
        }
        if let Some(max_age) = expected.max_age {
            let now = now.as_secs();
            let is_recent = self.time("auth_time").is_some_and(|at| {
                at <= now + LEEWAY && now.saturating_sub(at) <= max_age.saturating_add(LEEWAY)
            });
            if !is_recent {
                return Err(IdTokenFault::AuthenticationTime);
            }
        }
        if let Some(values) = &expected.acr_values
            && !self.text("acr").is_some_and(|acr| values.iter().any(|value| value == acr))
        {
            return Err(IdTokenFault::AuthenticationContext);
        }
        Ok(())
    }

    /// R15: `at_hash` is the left half of the access token's hash, by the hash of the signature's algorithm.
    pub(super) fn check_access_token(&self, access_token: &Secret) -> Result<(), IdTokenFault> {
        let Some(claimed) = self.claims.get("at_hash") else { return Ok(()) };
        let text = access_token.expose();
        let hash = match self.algorithm {
            Algorithm::RS384 | Algorithm::ES384 | Algorithm::PS384 => Sha384::digest(text).to_vec(),
            Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => Sha512::digest(text).to_vec(),
            _ => Sha256::digest(text).to_vec(),
        };
        let expected = URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]);
        if claimed == expected.as_str() { Ok(()) } else { Err(IdTokenFault::AccessTokenHash) }
    }

    /// R13: `sub`, of a length the protocol allows (Core §2).
    pub(super) fn subject(&self) -> Result<&str, IdTokenFault> {
        let subject = self.text("sub").filter(|subject| (1..=255).contains(&subject.len()));
        subject.ok_or(IdTokenFault::Subject)
    }

    /// `nonce`, for the comparison of a refreshed token with the one before (Core §12.2).
    pub(super) fn nonce(&self) -> Option<&Value> {
        self.claims.get("nonce")
    }

    /// Who logged in. Userinfo tells of the user, the ID token of the login.
    pub(super) fn into_identity(mut self, userinfo: Map<String, Value>) -> Result<Identity, IdTokenFault> {
        let subject = self.subject()?.to_owned();
        let issuer = self.text("iss").unwrap_or_default().to_owned();
        let sid = self.text("sid").map(str::to_owned);
        let told = userinfo.into_iter().filter(|(name, _)| !LOGIN_CLAIMS.contains(&name.as_str()));
        self.claims.extend(told);
        self.claims.retain(|name, _| !PROTOCOL_CLAIMS.contains(&name.as_str()));
        Ok(Identity { issuer, subject, sid, claims: self.claims })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    /// A `NumericDate` (RFC 7519 §2) in whole seconds. It may have a fraction, and no more than a sane size.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
    fn time(&self, name: &str) -> Option<u64> {
        let value = self.claims.get(name)?;
        let seconds = value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|seconds| (0.0..=LAST_SECOND as f64).contains(seconds))
                .map(|seconds| seconds as u64)
        })?;
        Some(seconds).filter(|seconds| *seconds <= LAST_SECOND)
    }
}

impl Client {
    /// R12: the signature is that of one of the issuer's keys.
    pub(super) async fn check_signature(
        &self,
        metadata: &Metadata,
        token: &IdToken<'_>,
    ) -> Result<(), SignatureError> {
        let key_id = token.key_id.as_deref();
        let keys =
            self.keys_for(metadata, key_id, token.algorithm).await.map_err(SignatureError::Unavailable)?;
        let mut fault = IdTokenFault::UnknownKey;
        for key in keys.candidates(key_id, token.algorithm) {
            let message = token.message.as_bytes();
            let verified =
                jsonwebtoken::crypto::verify(token.signature, message, &key.decoding, token.algorithm);
            if matches!(verified, Ok(true)) {
                return Ok(());
            }
            fault = IdTokenFault::Signature;
        }
        Err(SignatureError::Fault(fault))
    }
}

/// A part of a JWT: a JSON object in base64url without padding.
fn part(encoded: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(encoded).ok()?)
}
