//! Token revocation (RFC 7009).

use super::Client;
use super::error::RevokeError;
use crate::secret::Secret;

/// `token_type_hint` (RFC 7009 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// With it dies what was issued by it.
    RefreshToken,
    /// This token alone.
    AccessToken,
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The token is dead, or was.
    Revoked,
    /// The issuer revokes no tokens, or none of this kind: nothing is left to be done.
    NotOffered,
}

impl TokenKind {
    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }
}

impl Client {
    /// R51: tells the issuer that a token is no longer wanted. May be repeated.
    ///
    /// # Errors
    /// [`RevokeError::Unavailable`] means not yet revoked.
    pub async fn revoke(&self, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError> {
        let metadata = self.discovery.metadata().await?;
        let Some(endpoint) = &metadata.revocation_endpoint else { return Ok(Revocation::NotOffered) };
        let parameters = [("token", token.expose()), ("token_type_hint", kind.as_str())];
        let answer = self.post_as_client(endpoint, &parameters).await?;
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status.is_success() {
            return Ok(Revocation::Revoked);
        }
        match answer.error_code().as_deref() {
            Some("unsupported_token_type") => Ok(Revocation::NotOffered),
            // As some issuers say it of a trouble of their own.
            Some("temporarily_unavailable" | "server_error") => Err(answer.unavailable().into()),
            _ => Err(RevokeError::Refused { error: answer.refusal() }),
        }
    }

    /// Whether the issuer is known to have no revocation endpoint. Asks nobody.
    pub fn is_known_not_to_revoke(&self) -> bool {
        self.discovery.known().is_some_and(|metadata| metadata.revocation_endpoint.is_none())
    }
}
