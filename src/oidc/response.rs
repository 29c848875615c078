//! The authorization response (RFC 6749 §4.1.2): in the query or in a form, signed (JARM) or not, and whose it is
//! (RFC 9207).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::Client;
use super::error::{ResponseError, ResponseIssuerError};
use super::http::is_error_code;
use super::jwt::{self, Jwt, SignatureError};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// A response as it came. Nothing in it is worth anything before [`Client::accept`] has checked it; its `state` only
/// finds the login that it answers.
pub struct AuthorizationResponse {
    state: Option<String>,
    parameters: BTreeMap<String, String>,
    was_posted: bool,
}

impl AuthorizationResponse {
    /// What the browser brought, in a query or in a form.
    pub fn new(parameters: BTreeMap<String, String>, was_posted: bool) -> Self {
        let state = match parameters.get("response") {
            // Beside a signed response nothing else counts (JARM §2.4).
            Some(signed) => jwt::alleged(signed, "state"),
            None => parameters.get("state").cloned(),
        };
        Self { state, parameters, was_posted }
    }

    /// Which login it answers, by its own word.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref().filter(|state| !state.is_empty())
    }

    /// Whether nobody here can read it, and so not which login it answers either (JARM §2.2).
    pub fn is_encrypted(&self) -> bool {
        self.parameters.get("response").is_some_and(|response| jwt::is_encrypted(response))
    }

    /// What a page must hand over for the response to come again, as it came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All checks of a signed response but for that of its signature (JARM §2.4).
    ///
    /// # Errors
    /// Where it is another kind of token, another issuer's, for another client, or past its time.
    pub fn check(jwt: &Jwt<'_>, issuer: &str, client_id: &str, now: Timestamp) -> Result<(), ResponseError> {
        // No type is registered for it; what says that it is something else is not one.
        if !jwt.is_typed(&["JWT"]) {
            return Err(ResponseError::Type);
        }
        jwt.check_parties(issuer, client_id, &[])?;
        jwt.check_validity(now)?;
        Ok(())
    }

    /// The code among the parameters of a response that is the issuer's.
    ///
    /// # Errors
    /// Where there is none, or something beside it that has no place there.
    pub fn code(parameters: &Map<String, Value>) -> Result<Secret, ResponseError> {
        // Nobody asked for them, and what came through the browser is worth nothing.
        if ["access_token", "id_token"].iter().any(|name| parameters.contains_key(*name)) {
            return Err(ResponseError::Tokens);
        }
        match (parameters.get("code"), parameters.get("error")) {
            (Some(Value::String(code)), None) if !code.is_empty() => Ok(Secret::new(code.as_str())),
            (None, Some(Value::String(error))) if is_error_code(error) => {
                Err(ResponseError::Denied { error: error.clone() })
            }
            // R20: what else it may say is not repeated, not even in the log.
            (None, Some(_)) => Err(ResponseError::Denied { error: "by no registered error".to_owned() }),
            (_, _) => Err(ResponseError::Malformed),
        }
    }
}

impl Client {
    /// Whether the browser posts this issuer's responses.
    pub fn is_answered_by_post(&self) -> bool {
        self.oidc.authorization.response_mode.is_posted()
    }

    /// The code that a response brings, if the response is this issuer's, came as it was asked for, and is no refusal.
    ///
    /// # Errors
    /// Where it does not. [`ResponseError::Unavailable`] says nothing about it.
    pub async fn accept(&self, response: &AuthorizationResponse) -> Result<Secret, ResponseError> {
        let mode = self.oidc.authorization.response_mode;
        let signed = response.parameters.get("response");
        if mode.is_posted() != response.was_posted || mode.is_signed() != signed.is_some() {
            return Err(ResponseError::Mode(mode.as_str()));
        }
        if let Some(signed) = signed {
            return AuthorizationResponse::code(
                &self.check_signed_response(&Secret::new(signed.as_str())).await?,
            );
        }
        self.check_response_issuer(response.parameters.get("iss").map(String::as_str)).await?;
        let text = |text: &String| Value::String(text.clone());
        let parameters = response.parameters.iter().map(|(name, value)| (name.clone(), text(value)));
        AuthorizationResponse::code(&parameters.collect())
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

    /// The parameters of a signed response, all checks of JARM §2.4 passed.
    async fn check_signed_response(&self, signed: &Secret) -> Result<Map<String, Value>, ResponseError> {
        let metadata = self.discovery.metadata().await?;
        let jwt = Jwt::read(signed, &metadata.authorization_algorithms)?;
        AuthorizationResponse::check(&jwt, self.issuer(), &self.oidc.client_id, self.clock.now())?;
        match self.check_signature(&metadata, &jwt).await {
            Ok(()) => Ok(jwt.claims),
            Err(SignatureError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(SignatureError::Fault(fault)) => Err(fault.into()),
        }
    }
}

impl fmt::Debug for AuthorizationResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthorizationResponse").finish_non_exhaustive()
    }
}
