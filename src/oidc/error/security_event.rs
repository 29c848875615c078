//! What can go wrong where a transmitter tells of an event.

use super::{IssuerUnavailable, JwtFault};

/// Why a security event token is refused (RFC 8417, Shared Signals Framework §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityEventFault {
    /// As any token would be.
    #[error(transparent)]
    Jwt(#[from] JwtFault),
    /// R18: another kind of token.
    #[error("typ is not secevent+jwt")]
    Type,
    /// For another receiver.
    #[error("aud names none of this receiver's")]
    Audience,
    /// It cannot be told from another.
    #[error("jti is missing, empty or too long")]
    TokenId,
    /// Not about anything.
    #[error("events is no object of objects")]
    Events,
    /// About nobody.
    #[error("the subject is missing, or not written as its format says")]
    Subject,
}

/// A security event token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SecurityEventError {
    /// It cannot be checked: the transmitter's metadata or keys are not to be had.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// It fails a check.
    #[error("the security event token is refused")]
    Fault(#[from] SecurityEventFault),
}
