//! What can go wrong, one type for each operation. The texts are for the log; none comes from the
//! issuer but an `error` code of clean characters.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use hyper_util::client::legacy;

use crate::config::InvalidSigningKey;
use crate::connector;
use crate::tokens::Tokens;

mod authorization;
mod device;
mod jwt;
mod security_event;

pub use authorization::{AuthorizationError, PushedFault, ResponseError, ResponseIssuerError};
pub use device::{DeviceAuthorizationError, DeviceAuthorizationFault};
pub use jwt::{IdTokenFault, JwtFault, LogoutTokenFault};
pub use security_event::{SecurityEventError, SecurityEventFault};

/// The client of an issuer cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No connection can be made.
    #[error(transparent)]
    Connector(#[from] connector::BuildError),
    /// The key that the client proves itself with cannot sign.
    #[error(transparent)]
    SigningKey(#[from] InvalidSigningKey),
}

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
    /// Nothing was redeemed: the issuer wants a nonce in the proof, and the next try has it (RFC 9449 §8).
    #[error("the issuer wants a nonce in the proof of possession")]
    NonceRequired,
    /// `invalid_client` and other answers of 4xx: an operator's fault.
    #[error("the issuer refused the token request: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// The token that was to be exchanged is dead, or nothing to the issuer (RFC 8693 §2.2.2).
    #[error("the issuer refused the token that was to be exchanged: {error}")]
    InvalidSubject {
        /// The `error` of RFC 6749 §5.2.
        error: String,
    },
    /// The issuer of this session is none that the app has any more; nobody was asked.
    #[error("the issuer of this session is not configured any more")]
    UnknownIssuer,
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

/// It is not known whether an access token is good.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    /// The issuer is away.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// The metadata have no `introspection_endpoint`.
    #[error("the issuer has no introspection endpoint")]
    NotOffered,
    /// `invalid_client` and the like: an operator's fault.
    #[error("the issuer refused the introspection: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// No JSON object that says whether the token is `active` (RFC 7662 §2.2).
    #[error("the answer does not say whether the token is active")]
    Malformed,
}

/// Why a call to the issuer brought nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallFault {
    /// The client could not prove itself, or sign its request; nothing was sent.
    #[error("the client's key could not sign; nothing was sent")]
    NotSigned,
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

impl CallFault {
    /// Its name in traces.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotSigned => "not_signed",
            Self::NotSent(_) => "connect",
            Self::TimedOut(_) => "timeout",
            Self::Broken(_) => "exchange",
            Self::TooLarge => "too_large",
            Self::Status(_) | Self::Metadata(_) | Self::KeySet | Self::TokenAnswer(_) | Self::IdToken(_) => {
                "answer"
            }
        }
    }
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
    /// The issuer takes no pushed authorization requests, and the configuration requires them.
    #[error(
        "there is no pushed_authorization_request_endpoint, though pushed_authorization_requests is `required`"
    )]
    TakesNoPushedRequests,
    /// The issuer takes nothing but pushed authorization requests (RFC 9126 §5), and the configuration forbids them.
    #[error("require_pushed_authorization_requests is true, though pushed_authorization_requests is `off`")]
    WantsPushedRequests,
    /// The issuer does not say that it takes signed requests, and the configuration has a key for them.
    #[error("request_parameter_supported is not true, though there is a request_object")]
    TakesNoRequestObjects,
    /// The response mode that is configured is none of the issuer's.
    #[error("response_modes_supported does not have the response_mode {0}")]
    ResponseMode(&'static str),
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
    /// `token_type` is not `DPoP`, though a proof was sent (RFC 9449 §5).
    #[error("token_type is not DPoP: the issuer has not bound the token to its key")]
    NotBound,
    /// `issued_token_type` is missing or not that of an access token (RFC 8693 §2.2.1).
    #[error("issued_token_type is not that of an access token")]
    IssuedTokenType,
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
    /// Neither a JSON object without duplicate names nor a JWT.
    #[error("neither a JSON object nor a JWT")]
    NotJson,
    /// It is a JWT, and not one to be believed (Core §5.3.2).
    #[error(transparent)]
    Jwt(#[from] JwtFault),
    /// Another kind of token.
    #[error("it is another kind of token")]
    Type,
    /// Another user's claims (Core §5.3.2).
    #[error("sub is not that of the ID token")]
    Subject,
}

impl RefreshError {
    /// What the issuer's refusal was, in a word for the audit trail; `None` where it has not refused.
    pub const fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::InvalidGrant => Some("invalid_grant"),
            Self::Refused { .. } | Self::InvalidSubject { .. } | Self::NonceRequired => Some("refused"),
            Self::WrongIdentity(_) => Some("wrong_identity"),
            Self::NotSent(_) | Self::Ambiguous(_) | Self::UnknownIssuer => None,
        }
    }
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

impl From<DocumentFault> for IssuerUnavailable {
    fn from(fault: DocumentFault) -> Self {
        CallFault::from(fault).into()
    }
}

impl From<CallFault> for IssuerUnavailable {
    fn from(fault: CallFault) -> Self {
        Self { fault: Arc::new(fault), retry_after: None }
    }
}
