//! Why what the issuer has signed is not believed.

/// Why a signed token of the issuer's is refused, whatever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// Larger than any honest one.
    #[error("it is too large")]
    TooLarge,
    /// For us alone to read (RFC 7516), which nobody here can.
    #[error(
        "it is encrypted, and this gateway decrypts nothing: have the issuer sign only, as it does for a client without \
         an id_token_encrypted_response_alg, userinfo_encrypted_response_alg or authorization_encrypted_response_alg"
    )]
    Encrypted,
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
