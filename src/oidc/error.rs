//! What can go wrong, one type for each operation. The texts are for the log; none comes from the
//! issuer but an `error` code of clean characters.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;

use crate::tokens::Tokens;

use super::http::CallFault;
use super::id_token::IdTokenFault;

/// The issuer gave no answer that can be used, for now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the issuer is unavailable")]
pub struct IssuerUnavailable {
    #[source]
    fault: Arc<CallFault>,
    retry_after: Option<Duration>,
}

/// A code was not redeemed: nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The issuer is away; a later login may work.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// The code is unknown, used or too old.
    #[error("the issuer refused the code")]
    InvalidGrant,
    /// `invalid_client` and the like: an operator's fault.
    #[error("the issuer refused the token request: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// The token endpoint's answer makes no sense.
    #[error("the token answer is not usable")]
    TokenAnswer(#[from] TokenFault),
    /// The ID token fails a check.
    #[error("the ID token is refused")]
    IdToken(#[from] IdTokenFault),
    /// The userinfo endpoint's answer fails a check.
    #[error("the userinfo answer is refused")]
    Userinfo(#[from] UserinfoFault),
}

/// A refresh token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token is dead, by the token endpoint's word (RFC 6749 §5.2).
    #[error("the refresh token is no longer good")]
    InvalidGrant,
    /// The refresh token was not sent, so that trying again is safe.
    #[error("the refresh token was not sent")]
    NotSent(#[source] IssuerUnavailable),
    /// The refresh token may have been redeemed, or not.
    #[error("the refresh token may or may not have been redeemed")]
    Ambiguous(#[source] IssuerUnavailable),
    /// `invalid_client` and other answers of 4xx: an operator's fault.
    #[error("the issuer refused the token request: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// The new ID token is about another login (Core §12.2): the session must end, and what was just
    /// issued be revoked.
    #[error("the refreshed ID token has another iss, sub, aud or nonce")]
    WrongIdentity(Box<Tokens>),
}

/// A token was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// Not yet revoked: try again later (RFC 7009 §2.2.1).
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// Refused for good: an operator's fault.
    #[error("the issuer refused the revocation: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
}

/// The `iss` of an authorization response is refused (RFC 9207 §2.4).
#[derive(Debug, thiserror::Error)]
pub enum ResponseIssuerError {
    /// Whether the issuer sends `iss` cannot be found out.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// Another issuer's response: a mix-up attack.
    #[error("the authorization response is another issuer's")]
    Mismatch,
    /// The issuer says it always sends `iss`, and this response has none.
    #[error("the authorization response lacks iss")]
    Missing,
}

/// Why a token answer is refused (RFC 6749 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not a JSON object, or one with duplicate names.
    #[error("not a JSON object")]
    NotJson,
    /// `access_token` is missing, empty, or cannot be sent.
    #[error("no usable access_token")]
    AccessToken,
    /// `token_type` is missing or not `Bearer`.
    #[error("token_type is not Bearer")]
    TokenType,
}

/// Why a userinfo answer is refused (Core §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserinfoFault {
    /// The issuer has no userinfo endpoint.
    #[error("the issuer has no userinfo endpoint")]
    NotOffered,
    /// The endpoint refused the access token.
    #[error("status {0}")]
    Status(StatusCode),
    /// Not a JSON object, or one with duplicate names.
    #[error("not a JSON object")]
    NotJson,
    /// Another user's claims (Core §5.3.2).
    #[error("sub is not that of the ID token")]
    Subject,
}

impl IssuerUnavailable {
    /// What became of the call.
    pub fn fault(&self) -> &CallFault {
        &self.fault
    }

    /// What the issuer's `Retry-After` asks for, at most an hour.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(super) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }
}

impl From<CallFault> for IssuerUnavailable {
    fn from(fault: CallFault) -> Self {
        Self { fault: Arc::new(fault), retry_after: None }
    }
}
