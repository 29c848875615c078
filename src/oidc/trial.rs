//! What an operator wants to know of an issuer before users do: whether its keys fit, what time it has, and whether it
//! takes this client for who it is. For `cloakroom check --connect`.

use ::http::header::DATE;
use std::time::UNIX_EPOCH;

use super::token::TokenError;
use super::{Client, IssuerUnavailable};

/// What a token request with a code that nobody was given came to (RFC 6749 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The code was refused, so the client was not.
    Accepted,
    /// The client was refused, or may not do this, in the issuer's code.
    Refused(String),
    /// The issuer looked at something else first, in its code.
    Unclear(String),
}

impl Client {
    /// Each algorithm that ID tokens may be signed with, and how many of the published keys are for it.
    ///
    /// # Errors
    /// Where the metadata or the keys are not to be had.
    pub async fn count_keys(&self) -> Result<Vec<(String, usize)>, IssuerUnavailable> {
        let metadata = self.discovery.metadata().await?;
        let mut counts = Vec::new();
        for algorithm in self.id_token_algorithms(&metadata) {
            let keys = self.keys.keys_for(&metadata.jwks_uri, None, *algorithm).await?;
            counts.push((format!("{algorithm:?}"), keys.candidates(None, *algorithm).count()));
        }
        Ok(counts)
    }

    /// By how many seconds the issuer's clock is ahead; `None` where it does not say (RFC 9110 §6.6.1).
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn clock_offset(&self) -> Result<Option<i64>, IssuerUnavailable> {
        let asked_at = self.clock.now();
        let answer = self.http.get(self.oidc.issuer.metadata_address(), []).await?;
        let answered_at = self.clock.now();
        let date =
            answer.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(|date| date.as_secs());
        // It wrote the date in between; to which side it errs does not matter.
        Ok(date.map(|date| match (date < asked_at.as_secs(), date > answered_at.as_secs()) {
            (true, _) => -i64::try_from(asked_at.as_secs() - date).unwrap_or(i64::MAX),
            (_, true) => i64::try_from(date - answered_at.as_secs()).unwrap_or(i64::MAX),
            (false, false) => 0,
        }))
    }

    /// Asks for tokens with a code that nobody was given.
    ///
    /// # Errors
    /// Where the token endpoint does not answer.
    pub async fn try_authentication(&self) -> Result<Trial, IssuerUnavailable> {
        let metadata = self.discovery.metadata().await?;
        let (code, verifier) = (self.random.token::<32>(), self.random.token::<32>());
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", verifier.as_str()),
        ];
        match self.request_tokens(&metadata, &parameters, self.fresh_key().as_deref()).await {
            Err(TokenError::InvalidGrant) => Ok(Trial::Accepted),
            Err(TokenError::Refused { error }) => Ok(match error.as_str() {
                "invalid_client" | "unauthorized_client" | "status 401" | "status 403" => {
                    Trial::Refused(error)
                }
                _ => Trial::Unclear(error),
            }),
            Err(TokenError::Unavailable(unavailable)) => Err(unavailable),
            Err(TokenError::NonceRequired) => Ok(Trial::Unclear("use_dpop_nonce".to_owned())),
            Ok(_) | Err(TokenError::Malformed(_)) => Ok(Trial::Unclear("tokens for no code".to_owned())),
        }
    }
}
