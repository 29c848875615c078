//! The ID token's checks (Core §3.1.3.7).

use std::slice;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::discovery::Metadata;
use super::error::{IdTokenFault, JwtFault};
use super::jwt::{Jwt, LEEWAY};
use super::logout_token::LOGOUT_EVENT;
use super::{Client, Expected};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::tokens::Identity;

/// An ID token comes fresh from the issuer; one issued longer ago (in seconds) is a replay.
const LONGEST_AGE: u64 = 10 * 60;

/// Claims of the protocol, which say nothing about the user.
const PROTOCOL_CLAIMS: [&str; 14] = [
    "iss", "aud", "exp", "iat", "nbf", "jti", "azp", "nonce", "at_hash", "c_hash", "s_hash", "sid", "typ",
    "events",
];

/// Where claims by others are to be had, which the gateway does not fetch. A source may come with an access token
/// (Core §5.6.2), and no script sees one.
const CLAIM_SOURCES: [&str; 2] = ["_claim_names", "_claim_sources"];

/// Claims about the login, which only the ID token can make.
const LOGIN_CLAIMS: [&str; 4] = ["sub", "auth_time", "acr", "amr"];

/// An ID token as it was read. None of its words is worth anything before the checks.
#[derive(Debug)]
pub struct IdToken<'a>(Jwt<'a>);

impl<'a> IdToken<'a> {
    /// Reads header and claims. `allowed` are the issuer's asymmetric algorithms.
    ///
    /// # Errors
    /// Where this is no ID token, or none that may be looked at.
    pub fn read(token: &'a Secret, allowed: &[Algorithm]) -> Result<Self, IdTokenFault> {
        let jwt = Jwt::read(token, allowed)?;
        let is_logout = jwt.claims.get("events").is_some_and(|events| events.get(LOGOUT_EVENT).is_some());
        if is_logout || !jwt.is_typed(&["JWT"]) {
            return Err(IdTokenFault::Type);
        }
        Ok(Self(jwt))
    }

    /// The token, for its signature to be checked.
    pub fn jwt(&self) -> &Jwt<'a> {
        &self.0
    }

    /// R11, the part that a refreshed token must share with the first (R30).
    ///
    /// # Errors
    /// Where another issued it, or it is not for this client, or for somebody besides who is not trusted.
    pub fn check_parties(&self, issuer: &str, client_id: &str, trusted: &[String]) -> Result<(), JwtFault> {
        self.0.check_parties(issuer, client_id, trusted)
    }

    /// R13: all times are there and near.
    ///
    /// # Errors
    /// Where one is not.
    pub fn check_times(&self, now: Timestamp) -> Result<(), JwtFault> {
        self.0.check_times(now, LONGEST_AGE + LEEWAY)
    }

    /// R14: the nonce is that of this login, and there is none where none was sent.
    ///
    /// # Errors
    /// Where it is not.
    pub fn check_nonce(&self, nonce: Option<&Secret>) -> Result<(), IdTokenFault> {
        let expected = nonce.map(|nonce| Value::from(nonce.expose()));
        if self.nonce() == expected.as_ref() { Ok(()) } else { Err(IdTokenFault::Nonce) }
    }

    /// R15: the user proved who they are as recently, and in such a way, as was asked for.
    ///
    /// # Errors
    /// Where they did not.
    pub fn check_authentication(&self, expected: &Expected, now: Timestamp) -> Result<(), IdTokenFault> {
        if let Some(max_age) = expected.max_age {
            let now = now.as_secs();
            let is_recent = self.0.time("auth_time").is_some_and(|at| {
                at <= now + LEEWAY && now.saturating_sub(at) <= max_age.saturating_add(LEEWAY)
            });
            if !is_recent {
                return Err(IdTokenFault::AuthenticationTime);
            }
        }
        match &expected.acr_values {
            Some(values) => self.check_acr(values),
            None => Ok(()),
        }
    }

    /// R15: the authentication context is one of these; any at all where there are none (Core §5.5.1.1).
    pub(super) fn check_acr<T: AsRef<str>>(&self, values: &[T]) -> Result<(), IdTokenFault> {
        let is_met = self
            .0
            .text("acr")
            .is_some_and(|acr| values.is_empty() || values.iter().any(|value| value.as_ref() == acr));
        if is_met { Ok(()) } else { Err(IdTokenFault::AuthenticationContext) }
    }

    /// R15: `at_hash` is the left half of the access token's hash, by the hash of the signature's algorithm.
    pub(super) fn check_access_token(&self, access_token: &Secret) -> Result<(), IdTokenFault> {
        let Some(claimed) = self.0.claims.get("at_hash") else { return Ok(()) };
        let text = access_token.expose();
        let hash = match self.0.algorithm {
            Algorithm::RS384 | Algorithm::ES384 | Algorithm::PS384 => Sha384::digest(text).to_vec(),
            Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => Sha512::digest(text).to_vec(),
            _ => Sha256::digest(text).to_vec(),
        };
        let expected = URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]);
        if claimed == expected.as_str() { Ok(()) } else { Err(IdTokenFault::AccessTokenHash) }
    }

    /// R13: `sub`, of a length the protocol allows (Core §2).
    pub(super) fn subject(&self) -> Result<&str, IdTokenFault> {
        let subject = self.0.text("sub").filter(|subject| (1..=255).contains(&subject.len()));
        subject.ok_or(IdTokenFault::Subject)
    }

    /// `nonce`, for the comparison of a refreshed token with the one before (Core §12.2).
    pub(super) fn nonce(&self) -> Option<&Value> {
        self.0.claims.get("nonce")
    }

    /// Who logged in. Userinfo tells of the user, the ID token of the login.
    ///
    /// # Errors
    /// Where no `sub` says so.
    pub fn into_identity(mut self, userinfo: Map<String, Value>) -> Result<Identity, IdTokenFault> {
        let subject = self.subject()?.to_owned();
        let issuer = self.0.text("iss").unwrap_or_default().to_owned();
        let sid = self.0.text("sid").map(str::to_owned);
        let told = userinfo.into_iter().filter(|(name, _)| !LOGIN_CLAIMS.contains(&name.as_str()));
        self.0.claims.extend(told);
        let withheld: Vec<_> = PROTOCOL_CLAIMS.into_iter().chain(CLAIM_SOURCES).collect();
        self.0.claims.retain(|name, _| !withheld.contains(&name.as_str()));
        Ok(Identity { issuer, subject, sid, claims: self.0.claims })
    }
}

impl Client {
    /// What ID tokens and logout tokens for this client may be signed with: what it is registered with, or whatever the
    /// issuer lists (Core §3.1.3.7 step 7).
    pub(super) fn id_token_algorithms<'a>(&'a self, metadata: &'a Metadata) -> &'a [Algorithm] {
        let registered = self.oidc.id_token_signed_response_alg.as_ref();
        registered.map_or(&metadata.id_token_algorithms, slice::from_ref)
    }
}
