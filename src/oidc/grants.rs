//! What is asked of an app's issuers on behalf of sessions that exist, and of the client itself: a trait, because a
//! simulation puts an issuer of its own in the clients' place.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Clients, IntrospectError, Introspection, RefreshError, Revocation, RevokeError, TokenKind};
use crate::config::{RouteToken, TokenTarget};
use crate::secret::Secret;
use crate::tokens::{AccessToken, Identity, Tokens};

/// Gets, renews and revokes what issuers grant. Each token goes to the issuer that it came from, and to no other.
#[async_trait]
pub trait Grants: fmt::Debug + Send + Sync {
    /// Redeems the refresh token; see [`Client::refresh`](super::Client::refresh).
    async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError>;

    /// Gets what a route `wanted` beside the access token; see [`Client::obtain`](super::Client::obtain).
    async fn obtain(
        &self,
        tokens: &Tokens,
        identity: &Identity,
        wanted: &Arc<RouteToken>,
    ) -> Result<Tokens, RefreshError>;

    /// Gets a token of the client's own; see [`Client::client_credentials`](super::Client::client_credentials).
    async fn client_credentials(
        &self,
        issuer: &str,
        target: &TokenTarget,
    ) -> Result<AccessToken, RefreshError>;

    /// Tells its issuer that a token is no longer wanted; see [`Client::revoke`](super::Client::revoke).
    async fn revoke(&self, issuer: &str, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError>;

    /// Asks whether an access token is still good; see [`Client::introspect`](super::Client::introspect).
    async fn introspect(&self, _: &Secret, _: &Identity) -> Result<Introspection, IntrospectError> {
        Err(IntrospectError::NotOffered)
    }

    /// Whether it is known, without asking, that the issuer revokes no tokens.
    fn is_known_not_to_revoke(&self, issuer: &str) -> bool;
}

#[async_trait]
impl Grants for Clients {
    async fn refresh(&self, tokens: &Tokens, identity: &Identity) -> Result<Tokens, RefreshError> {
        let client = self.of(&identity.issuer).ok_or(RefreshError::UnknownIssuer)?;
        client.refresh(tokens, identity).await
    }

    async fn obtain(
        &self,
        tokens: &Tokens,
        identity: &Identity,
        wanted: &Arc<RouteToken>,
    ) -> Result<Tokens, RefreshError> {
        let client = self.of(&identity.issuer).ok_or(RefreshError::UnknownIssuer)?;
        client.obtain(tokens, identity, wanted).await
    }

    async fn client_credentials(
        &self,
        issuer: &str,
        target: &TokenTarget,
    ) -> Result<AccessToken, RefreshError> {
        self.of(issuer).ok_or(RefreshError::UnknownIssuer)?.client_credentials(target).await
    }

    async fn revoke(&self, issuer: &str, token: &Secret, kind: TokenKind) -> Result<Revocation, RevokeError> {
        match self.of(issuer) {
            Some(client) => client.revoke(token, kind).await,
            // There is nobody to be told any more.
            None => Ok(Revocation::NotOffered),
        }
    }

    async fn introspect(
        &self,
        access_token: &Secret,
        identity: &Identity,
    ) -> Result<Introspection, IntrospectError> {
        let client = self.of(&identity.issuer).ok_or(IntrospectError::NotOffered)?;
        client.introspect(access_token, identity).await
    }

    fn is_known_not_to_revoke(&self, issuer: &str) -> bool {
        self.of(issuer).is_some_and(|client| client.is_known_not_to_revoke())
    }
}
