//! The authorization request (Core §3.1.2.1) with PKCE (RFC 7636), and the issuer of its response
//! (RFC 9207).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use super::error::{IssuerUnavailable, ResponseIssuerError};
use super::{Client, Expected};
use crate::secret::Secret;

/// One login's request. What it names wins over the configured authorization parameters.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Comes back in the response; bound to the browser.
    pub state: &'a str,
    /// What the callback must bring, by [`Client::expect`]; `max_age` and `acr_values` are asked for as
    /// they stand here.
    pub expected: &'a Expected,
    /// `prompt`
    pub prompt: Option<&'a str>,
    /// `login_hint`
    pub login_hint: Option<&'a str>,
    /// `ui_locales`
    pub ui_locales: Option<&'a str>,
}

impl Client {
    /// Fresh secrets for one login (R2, R3), and what its ID token must say: the given `max_age` and
    /// `acr_values` (separated by spaces), or the configured ones.
    pub fn expect(&self, max_age: Option<u64>, acr_values: Option<&str>) -> Expected {
        let configured = self.oidc.authorization_parameters.get("acr_values").map(String::as_str);
        let acr_values = acr_values
            .or(configured)
            .map(|values| values.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
        Expected {
            nonce: Secret::new(self.random.token::<32>()),
            verifier: Secret::new(self.random.token::<32>()),
            max_age: max_age.or(self.oidc.max_age),
            acr_values: acr_values.filter(|values| !values.is_empty()),
        }
    }

    /// Where the browser is sent to log in, once the issuer was seen to be there.
    ///
    /// # Errors
    /// Where the issuer is away.
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest<'_>,
    ) -> Result<Url, IssuerUnavailable> {
        // From an issuer that is away nobody comes back. A crowd that logs in shares the asking.
        let metadata = self.discovery.confirmed(Duration::ZERO).await?;
        let expected = request.expected;
        let scope = self.oidc.scopes.join(" ");
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(expected.verifier.expose()));
        let max_age = expected.max_age.map(|seconds| seconds.to_string());
        let acr_values = expected.acr_values.as_ref().map(|values| values.join(" "));

        let configured = self.oidc.authorization_parameters.iter();
        let mut parameters: BTreeMap<&str, &str> =
            configured.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let asked_for = [
            ("prompt", request.prompt),
            ("login_hint", request.login_hint),
            ("ui_locales", request.ui_locales),
            ("max_age", max_age.as_deref()),
            ("acr_values", acr_values.as_deref()),
        ];
        parameters.extend(asked_for.into_iter().filter_map(|(name, value)| Some((name, value?))));
        parameters.extend([
            ("response_type", "code"),
            ("client_id", self.oidc.client_id.as_str()),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("scope", scope.as_str()),
            ("state", request.state),
            ("nonce", expected.nonce.expose()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ]);
        let mut url = metadata.authorization_endpoint.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        Ok(url)
    }

    /// R4: whether an authorization response, an error one too, is this issuer's by its `iss`.
    ///
    /// # Errors
    /// Where it is another's, or does not say though the issuer's metadata promise it.
    pub async fn check_response_issuer(&self, iss: Option<&str>) -> Result<(), ResponseIssuerError> {
        match iss {
            Some(iss) if iss == self.oidc.issuer.as_str() => Ok(()),
            Some(_) => Err(ResponseIssuerError::Mismatch),
            None if self.discovery.metadata().await?.sends_iss => Err(ResponseIssuerError::Missing),
            None => Ok(()),
        }
    }
}
