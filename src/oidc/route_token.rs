//! Tokens for upstreams that take another than the session's access token: exchanged for it (RFC 8693), or the
//! client's own (RFC 6749 §4.4). Both name what they are for as RFC 8707 and RFC 8693 do.

use std::sync::Arc;

use super::Client;
use super::error::{CallFault, RefreshError, TokenFault};
use crate::config::{RouteGrant, RouteToken, TokenTarget};
use crate::tokens::{AccessToken, Identity, Tokens};

/// RFC 8693 §3.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

impl Client {
    /// The tokens of a session with the one that a route `wanted` among them.
    ///
    /// # Errors
    /// As [`Client::refresh`]. Where the access token was to be exchanged, nothing is used up by it.
    pub async fn obtain(
        &self,
        tokens: &Tokens,
        identity: &Identity,
        wanted: &Arc<RouteToken>,
    ) -> Result<Tokens, RefreshError> {
        match wanted.grant {
            RouteGrant::RefreshToken => self.refresh_for(tokens, identity, wanted).await,
            RouteGrant::TokenExchange => {
                let exchanged = self.exchange(tokens, &wanted.target).await?;
                let mut tokens = tokens.clone();
                tokens.insert(wanted, exchanged);
                Ok(tokens)
            }
        }
    }

    async fn exchange(&self, tokens: &Tokens, target: &TokenTarget) -> Result<AccessToken, RefreshError> {
        let metadata = self.discovery.metadata().await.map_err(RefreshError::NotSent)?;
        let scope = target.scopes.join(" ");
        let mut parameters = vec![
            ("grant_type", RouteGrant::TokenExchange.as_str()),
            ("subject_token", tokens.access_token.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
        ];
        parameters.extend(named(target, &scope));
        let answer = self.request_tokens(&metadata, &parameters, tokens.dpop_key.as_deref()).await;
        let answer = answer.map_err(|error| about_the_subject(error.into()))?;
        if answer.issued_token_type.as_deref() != Some(ACCESS_TOKEN) {
            return Err(RefreshError::Ambiguous(CallFault::from(TokenFault::IssuedTokenType).into()));
        }
        let asked_for = if target.scopes.is_empty() { &tokens.scopes } else { &target.scopes };
        Ok(answer.into_access_token(self.clock.now(), asked_for))
    }

    /// A token of the client's own. What else the answer brings is not wanted (RFC 6749 §4.4.3).
    ///
    /// # Errors
    /// As [`Client::refresh`]. Nothing is used up by it.
    pub async fn client_credentials(&self, target: &TokenTarget) -> Result<AccessToken, RefreshError> {
        let metadata = self.discovery.metadata().await.map_err(RefreshError::NotSent)?;
        let scope = target.scopes.join(" ");
        let mut parameters = vec![("grant_type", "client_credentials")];
        parameters.extend(named(target, &scope));
        let answer = self.request_tokens(&metadata, &parameters, self.key().map(Arc::as_ref)).await?;
        Ok(answer.into_access_token(self.clock.now(), &target.scopes))
    }
}

/// RFC 8693 §2.2.2 has `invalid_request` for a subject token that is not good; issuers also say these.
fn about_the_subject(error: RefreshError) -> RefreshError {
    match error {
        RefreshError::InvalidGrant => RefreshError::InvalidSubject { error: "invalid_grant".to_owned() },
        RefreshError::Refused { error } if matches!(error.as_str(), "invalid_request" | "invalid_token") => {
            RefreshError::InvalidSubject { error }
        }
        other => other,
    }
}

/// What a token is asked for, by its parameters; `scope` are the target's, joined.
fn named<'a>(target: &'a TokenTarget, scope: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
    let parameters = [
        ("scope", Some(scope).filter(|scope| !scope.is_empty())),
        ("resource", target.resource.as_deref()),
        ("audience", target.audience.as_deref()),
    ];
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?)))
}
