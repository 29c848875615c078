//! What is asked of an issuer on behalf of sessions that exist: a trait, because a simulation puts an
//! issuer of its own in the client's place.

use std::fmt;

use async_trait::async_trait;

use super::{Client, RefreshError, Revocation, RevokeError, TokenKind};
use crate::secret::Secret;
use crate::tokens::{Identity, Tokens};

/// Renews and revokes what an issuer has granted.
#[async_trait]
pub trait Grants: fmt::Debug + Send + Sync {
    /// Redeems the refresh token; see [`Client::refresh`].
    async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError>;

    /// Tells the issuer that a token is no longer wanted; see [`Client::revoke`].
    async fn revoke(&self, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError>;

    /// Whether it is known, without asking, that the issuer revokes no tokens.
    fn is_known_not_to_revoke(&self) -> bool {
        false
    }
}

#[async_trait]
impl Grants for Client {
    async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError> {
        Self::refresh(self, tokens, identity).await
    }

    async fn revoke(&self, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError> {
        Self::revoke(self, token, kind).await
    }

    fn is_known_not_to_revoke(&self) -> bool {
        Self::is_known_not_to_revoke(self)
    }
}
