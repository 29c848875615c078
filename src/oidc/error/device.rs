//! What can go wrong where a login on another device begins.

use super::IssuerUnavailable;

/// No login on another device was begun.
#[derive(Debug, thiserror::Error)]
pub enum DeviceAuthorizationError {
    /// The issuer is away.
    #[error(transparent)]
    Unavailable(#[from] IssuerUnavailable),
    /// The metadata have no `device_authorization_endpoint`.
    #[error("the issuer has no device authorization endpoint")]
    NotOffered,
    /// `invalid_client`, `unauthorized_client` and the like: an operator's fault.
    #[error("the issuer refused the device authorization: {error}")]
    Refused {
        /// The `error` of RFC 6749 §5.2, or the status.
        error: String,
    },
    /// The answer makes no sense.
    #[error("the device authorization answer is not usable")]
    Malformed(#[from] DeviceAuthorizationFault),
}

/// Why a device authorization answer is refused (RFC 8628 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceAuthorizationFault {
    /// Not a JSON object, or one with duplicate names.
    #[error("not a JSON object")]
    NotJson,
    /// `device_code` is missing, too long, or cannot be sent.
    #[error("no usable device_code")]
    DeviceCode,
    /// `user_code` is missing, too long, or not of letters, digits and hyphens.
    #[error("no user_code that could be shown")]
    UserCode,
    /// `verification_uri` is missing, too long, or not https.
    #[error("verification_uri is missing, too long, or not an https URL")]
    Address,
    /// `expires_in` is missing or no positive number.
    #[error("expires_in is not a positive number")]
    Lifetime,
}
