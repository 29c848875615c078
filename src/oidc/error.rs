//! What can go wrong, one type for each operation. The texts are for the log; none comes from the
//! issuer but an `error` code of clean characters.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use hyper_util::client::legacy;

use crate::tokens::Tokens;

/// The issuer gave no answer that can be used; a later one may be.
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

/// Why a call to the issuer brought nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallFault {
    /// No connection stood; nothing was sent.
    #[error("no connection; nothing was sent")]
    NotSent(#[source] legacy::Error),
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke; what was asked may have been done.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is larger than any honest one.
    #[error("the answer is too large")]
    TooLarge,
    /// A status that promises nothing: 3xx, 408, 429, 5xx.
    #[error("status {0}")]
    Status(StatusCode),
    /// The metadata is refused.
    #[error("the issuer's metadata is refused")]
    Metadata(#[from] DocumentFault),
    /// The key set is no JSON object with `keys` (RFC 7517 §5).
    #[error("the key set is not usable")]
    KeySet,
    /// The token answer makes no sense.
    #[error("the token answer is not usable")]
    TokenAnswer(#[from] TokenFault),
    /// A refreshed ID token fails a check.
    #[error("the refreshed ID token is refused")]
    IdToken(#[from] IdTokenFault),
}

/// Why the metadata are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    /// Not found there, or not shown to us.
    #[error("status {0}")]
    Status(StatusCode),
    /// Not a JSON object, or one with duplicate names.
    #[error("not a JSON object")]
    NotJson,
    /// The metadata of another issuer (RFC 8414 §3.3).
    #[error("issuer is not the configured one")]
    Issuer,
    /// A required endpoint is missing, or an endpoint is no https URL.
    #[error("{0} is missing or not an https URL")]
    Endpoint(&'static str),
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

/// Why a signed token of the issuer's is refused, whatever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// Larger than any honest one.
    #[error("it is too large")]
    TooLarge,
    /// No signed JWT of two JSON objects, or one with duplicate names.
    #[error("it is not a signed JWT without duplicate names")]
    Malformed,
    /// An extension that must be understood (RFC 7515 §4.1.11).
    #[error("it has critical extensions")]
    Critical,
    /// R12: an algorithm that is not allowed.
    #[error("its algorithm is not one of the issuer's asymmetric ones")]
    Algorithm,
    /// R17: no key of the issuer's is for it.
    #[error("no key of the issuer's is for it")]
    UnknownKey,
    /// R12: no key of the issuer's made the signature.
    #[error("its signature is wrong")]
    Signature,
    /// R11: another issuer's.
    #[error("iss is not the issuer")]
    Issuer,
    /// R11: for another client, or for others too.
    #[error("aud is not this client alone")]
    Audience,
    /// R11: issued to another client.
    #[error("azp is not this client")]
    AuthorizedParty,
    /// R13: `exp` is missing or past.
    #[error("exp is missing or past")]
    Expired,
    /// R13: `iat` is missing, long past, or in the future.
    #[error("iat is missing, too old, or in the future")]
    IssuedAt,
    /// R13: `nbf` is in the future.
    #[error("nbf is in the future")]
    NotBefore,
}

/// Why an ID token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenFault {
    /// As any token would be.
    #[error(transparent)]
    Jwt(#[from] JwtFault),
    /// The token answer has none.
    #[error("there is none")]
    Missing,
    /// R18: another kind of token.
    #[error("it is another kind of token")]
    Type,
    /// R13: nobody's.
    #[error("sub is missing, empty or too long")]
    Subject,
    /// R14: of another login.
    #[error("nonce is not that of this login")]
    Nonce,
    /// R15: goes with another access token.
    #[error("at_hash is not that of the access token")]
    AccessTokenHash,
    /// R15: the user proved who they are too long ago, or never.
    #[error("auth_time is missing or older than max_age")]
    AuthenticationTime,
    /// R15: in another way than asked for.
    #[error("acr is none of those asked for")]
    AuthenticationContext,
}

/// Why a logout token is refused (Back-Channel Logout §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenFault {
    /// As any token would be.
    #[error(transparent)]
    Jwt(#[from] JwtFault),
    /// R18: another kind of token.
    #[error("it is another kind of token")]
    Type,
    /// R54: not about a logout.
    #[error("events has no object for the back-channel logout")]
    Event,
    /// R54: as an ID token has.
    #[error("it has a nonce")]
    Nonce,
    /// R54: cannot be told from another.
    #[error("jti is missing, empty or too long")]
    TokenId,
    /// R54: nobody's.
    #[error("sub and sid are missing, empty or too long")]
    Subject,
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
