//! The authorization request (Core §3.1.2.1) with PKCE (RFC 7636).

use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::error::{AuthorizationError, CallFault, IssuerUnavailable};
use super::{Client, Expected};
use crate::config::ResponseMode;
use crate::fields;
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
    /// What the browser accepts, which stands in for `ui_locales` where the issuer says which of them it supports.
    pub accept_language: &'a [(&'a str, f32)],
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
            dpop_key: self.fresh_key(),
        }
    }

    /// Where the browser is sent to log in, once the issuer was seen to be there and has taken the request, where it
    /// takes them directly.
    ///
    /// # Errors
    /// Where the issuer is away, or refuses the request.
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest<'_>,
    ) -> Result<Url, AuthorizationError> {
        // From an issuer that is away nobody comes back. A crowd that logs in shares the asking.
        let metadata = self.discovery.confirmed(Duration::ZERO).await?;
        let push_endpoint = self.push_endpoint(&metadata).map_err(IssuerUnavailable::from)?;
        let supported = metadata.ui_locales_supported.iter().map(String::as_str);
        // A configured one stands in the parameters already.
        let is_open = !self.oidc.authorization_parameters.contains_key("ui_locales");
        // Who takes anything gets what the issuer would choose.
        let accepted: Vec<_> =
            request.accept_language.iter().copied().filter(|(range, _)| *range != "*").collect();
        let preferred = fields::best_tag(&accepted, supported).filter(|_| is_open);
        let request = AuthorizationRequest { ui_locales: request.ui_locales.or(preferred), ..*request };
        let parameters = self.request_parameters(&request);
        let parameters = self.signed_where_wanted(parameters, push_endpoint.is_some());
        let parameters = parameters.map_err(|Unspecified| IssuerUnavailable::from(CallFault::NotSigned))?;
        let parameters = match push_endpoint {
            Some(endpoint) => self.push(endpoint, &borrowed(&parameters)).await?,
            None => parameters,
        };
        let mut url = metadata.authorization_endpoint.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        Ok(url)
    }

    /// All that is asked for, each parameter once but for `resource` (RFC 8707 §2).
    fn request_parameters(&self, request: &AuthorizationRequest<'_>) -> Vec<(String, String)> {
        let (oidc, expected) = (&self.oidc, request.expected);
        let response_mode =
            Some(oidc.authorization.response_mode).filter(|mode| *mode != ResponseMode::Query);
        let claims = Some(oidc.authorization.claims.as_json()).filter(|claims| !claims.is_empty());
        let asked_for = [
            ("prompt", request.prompt.map(str::to_owned)),
            ("login_hint", request.login_hint.map(str::to_owned)),
            ("ui_locales", request.ui_locales.map(str::to_owned)),
            ("max_age", expected.max_age.map(|seconds| seconds.to_string())),
            ("acr_values", expected.acr_values.as_ref().map(|values| values.join(" "))),
            ("dpop_jkt", expected.dpop_key.as_ref().map(|key| key.thumbprint().to_owned())),
            ("response_mode", response_mode.map(|mode| mode.as_str().to_owned())),
            ("claims", claims.map(|claims| Value::Object(claims.clone()).to_string())),
        ];
        let own = [
            ("response_type", "code".to_owned()),
            ("client_id", oidc.client_id.clone()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("scope", oidc.scopes.join(" ")),
            ("state", request.state.to_owned()),
            ("nonce", expected.nonce.expose().to_owned()),
            ("code_challenge", URL_SAFE_NO_PAD.encode(Sha256::digest(expected.verifier.expose()))),
            ("code_challenge_method", "S256".to_owned()),
        ];
        let mut parameters = oidc.authorization_parameters.clone();
        let asked_for = asked_for.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        parameters.extend(asked_for);
        parameters.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let resources = oidc.authorization.resource.iter().map(|uri| ("resource".to_owned(), uri.clone()));
        parameters.into_iter().chain(resources).collect()
    }
}

fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
