//! Logout tokens (Back-Channel Logout 1.0 §2.4, §2.6): whose sessions the issuer has ended.

use serde_json::Value;

use super::Client;
use super::error::{IssuerUnavailable, JwtFault, LogoutTokenFault};
use super::jwt::{Jwt, SignatureError};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// The event that makes a logout token.
pub(super) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A logout token is acted upon at once; one issued longer ago (in seconds) is a replay.
const LONGEST_AGE: u64 = 10 * 60;

/// How long a `sub` (Core §2), a `sid` and a `jti` may be, in bytes.
const LONGEST_SUBJECT: usize = 255;
const LONGEST_NAME: usize = 1024;

/// What a good logout token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// `jti`: a token is to be acted upon once.
    pub id: String,
    /// Who was logged out, and where.
    pub whose: LoggedOut,
}

/// Whose sessions a logout token is about (Back-Channel Logout §2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// `sub` alone: all sessions of a user.
    Subject(String),
    /// `sid` alone: one session at the issuer.
    Sid(String),
    /// Both: those of a session at the issuer that are also this user's.
    Both {
        /// `sub`
        subject: String,
        /// `sid`
        sid: String,
    },
}

/// A logout token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LogoutTokenError {
    /// It cannot be checked: the issuer's metadata or keys are not to be had.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// It fails a check.
    #[error("the logout token is refused")]
    Fault(#[from] LogoutTokenFault),
}

impl Client {
    /// R54: what a logout token says, once all checks have passed but that of its `jti`.
    ///
    /// # Errors
    /// [`LogoutTokenError::Unavailable`] says nothing about the token.
    pub async fn read_logout_token(&self, token: &Secret) -> Result<LogoutToken, LogoutTokenError> {
        let metadata = self.discovery.metadata().await?;
        let jwt = Jwt::read(token, self.id_token_algorithms(&metadata)).map_err(LogoutTokenFault::from)?;
        let said = LogoutToken::check(&jwt, self.issuer(), &self.oidc.client_id, self.clock.now())?;
        // Last, for it may have to fetch keys: whatever anybody sends here must not make us do so.
        match self.check_signature(&metadata, &jwt).await {
            Ok(()) => Ok(said),
            Err(SignatureError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(SignatureError::Fault(fault)) => Err(LogoutTokenFault::from(fault).into()),
        }
    }
}

impl LogoutToken {
    /// What a token says, where all is right with it but perhaps its signature, which is to be checked after.
    ///
    /// # Errors
    /// Where something is not.
    pub fn check(
        jwt: &Jwt<'_>,
        issuer: &str,
        client_id: &str,
        now: Timestamp,
    ) -> Result<Self, LogoutTokenFault> {
        if !jwt.is_typed(&["JWT", "logout+jwt"]) {
            return Err(LogoutTokenFault::Type);
        }
        jwt.check_parties(issuer, client_id, &[])?;
        jwt.check_times(now, LONGEST_AGE)?;
        let event = jwt.claims.get("events").and_then(|events| events.as_object()?.get(LOGOUT_EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(LogoutTokenFault::Event);
        }
        // Otherwise an ID token could be made to pass for one, where both were issued alike.
        if jwt.claims.contains_key("nonce") {
            return Err(LogoutTokenFault::Nonce);
        }
        let id = text(jwt, "jti", LONGEST_NAME).map_err(|Unusable| LogoutTokenFault::TokenId)?;
        let subject = text(jwt, "sub", LONGEST_SUBJECT).map_err(|Unusable| LogoutTokenFault::Subject)?;
        let sid = text(jwt, "sid", LONGEST_NAME).map_err(|Unusable| LogoutTokenFault::Subject)?;
        let whose = match (subject, sid) {
            (Some(subject), Some(sid)) => LoggedOut::Both { subject, sid },
            (Some(subject), None) => LoggedOut::Subject(subject),
            (None, Some(sid)) => LoggedOut::Sid(sid),
            (None, None) => return Err(LogoutTokenFault::Subject),
        };
        Ok(Self { id: id.ok_or(LogoutTokenFault::TokenId)?, whose })
    }
}

impl From<JwtFault> for LogoutTokenError {
    fn from(fault: JwtFault) -> Self {
        Self::Fault(fault.into())
    }
}

/// It is there, and no text of a sane length.
struct Unusable;

fn text(jwt: &Jwt<'_>, name: &str, longest: usize) -> Result<Option<String>, Unusable> {
    match jwt.claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(Unusable),
    }
}
