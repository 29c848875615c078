//! What can go wrong on the way to the issuer's page and back.

use ::http::StatusCode;

use super::{IssuerUnavailable, JwtFault};

/// Nobody can be sent to the issuer to log in.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    /// The issuer is away, or does not take requests as they are configured.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// The pushed request was refused (RFC 9126 §2.3).
    #[error("the issuer refused the pushed authorization request: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// The answer to the pushed request makes no sense.
    #[error("the answer to the pushed authorization request is not usable")]
    PushedAnswer(#[from] PushedFault),
}

/// Why the answer to a pushed authorization request is refused (RFC 9126 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushedFault {
    /// Another status than 201 or 200.
    #[error("status {0}")]
    Status(StatusCode),
    /// Not a JSON object, or one with duplicate names.
    #[error("not a JSON object")]
    NotJson,
    /// `request_uri` is missing, empty, too long, or of characters that no URI has.
    #[error("no usable request_uri")]
    RequestUri,
}

/// An authorization response yields no code.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// It cannot be checked: the issuer's metadata or keys are not to be had.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// It is another issuer's, or does not say whose it is.
    #[error(transparent)]
    Issuer(#[from] ResponseIssuerError),
    /// It came in another way than was asked for.
    #[error("the authorization response did not come by the response_mode {0}, which was asked for")]
    Mode(&'static str),
    /// It brings tokens, as those of the implicit and hybrid flows do, which nobody asked for.
    #[error("the authorization response brings tokens, for which nobody asked (RFC 9700 §2.1.2)")]
    Tokens,
    /// A signed response fails a check (JARM §2.4).
    #[error("the signed authorization response is refused")]
    Jwt(#[from] JwtFault),
    /// A signed response is another kind of token.
    #[error("the signed authorization response is another kind of token")]
    Type,
    /// The issuer says no (RFC 6749 §4.1.2.1).
    #[error("the issuer refused the login: {error}")]
    Denied {
        /// The `error`, where it is one.
        error: String,
    },
    /// Neither a code nor an error.
    #[error("the authorization response is neither a code nor an error")]
    Malformed,
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

impl ResponseError {
    /// Whether the issuer would have to show the user a page (Core §3.1.2.6), which `prompt=none` forbids: nobody
    /// is logged in there, or not for this app.
    pub fn wants_the_user(&self) -> bool {
        match self {
            Self::Denied { error } => matches!(
                error.as_str(),
                "login_required" | "interaction_required" | "consent_required" | "account_selection_required"
            ),
            Self::Unavailable(_)
            | Self::Issuer(_)
            | Self::Mode(_)
            | Self::Tokens
            | Self::Jwt(_)
            | Self::Type
            | Self::Malformed => false,
        }
    }
}
