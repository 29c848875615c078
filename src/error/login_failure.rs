//! Why a login failed, in words that auditors can rely on.

/// Why a login failed. What the issuer said in its own words stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFailure {
    /// The user or the issuer said no.
    Denied,
    /// It was another issuer that answered (RFC 9207).
    IssuerMismatch,
    /// The answer makes no sense, or is not signed as it should be.
    UnusableResponse,
    /// The issuer refused the request itself: mostly an operator's fault.
    RequestRefused,
    /// The code is unknown, used or too old.
    CodeRefused,
    /// The ID token fails a check.
    IdTokenRefused,
    /// The userinfo answer fails a check.
    UserinfoRefused,
}

impl LoginFailure {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Denied,
        Self::IssuerMismatch,
        Self::UnusableResponse,
        Self::RequestRefused,
        Self::CodeRefused,
        Self::IdTokenRefused,
        Self::UserinfoRefused,
    ];

    /// Its name in the audit trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::IssuerMismatch => "issuer-mismatch",
            Self::UnusableResponse => "unusable-response",
            Self::RequestRefused => "request-refused",
            Self::CodeRefused => "code-refused",
            Self::IdTokenRefused => "id-token-refused",
            Self::UserinfoRefused => "userinfo-refused",
        }
    }
}
