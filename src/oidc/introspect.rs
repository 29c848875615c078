//! Token introspection (RFC 7662): whether the issuer still honours an access token.

use ::http::StatusCode;
use serde_json::{Map, Value};

use super::Client;
use super::error::IntrospectError;
use crate::secret::Secret;
use crate::tokens::Identity;

/// What the issuer says of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// It is good.
    Active,
    /// It is dead, or never was this user's with this client.
    Inactive,
}

impl Client {
    /// Asks whether an access token is still good. The answer never tells whose it is: one about anybody else is
    /// that of a dead token.
    ///
    /// # Errors
    /// None of them says anything about the token.
    pub async fn introspect(
        &self,
        access_token: &Secret,
        identity: &Identity,
    ) -> Result<Introspection, IntrospectError> {
        let metadata = self.discovery.metadata().await?;
        let endpoint = metadata.introspection_endpoint.as_ref().ok_or(IntrospectError::NotOffered)?;
        let parameters = [("token", access_token.expose()), ("token_type_hint", "access_token")];
        let answer = self.post_as_client(endpoint, &parameters).await?;
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status != StatusCode::OK {
            return Err(IntrospectError::Refused { error: answer.refusal() });
        }
        let said = answer.json_object().ok_or(IntrospectError::Malformed)?;
        match said.get("active") {
            Some(Value::Bool(true)) if is_about(&said, &identity.subject, &self.oidc.client_id) => {
                Ok(Introspection::Active)
            }
            Some(Value::Bool(_)) => Ok(Introspection::Inactive),
            Some(_) | None => Err(IntrospectError::Malformed),
        }
    }
}

/// Both are optional (RFC 7662 §2.2).
fn is_about(said: &Map<String, Value>, subject: &str, client_id: &str) -> bool {
    [("sub", subject), ("client_id", client_id)]
        .iter()
        .all(|(name, own)| said.get(*name).is_none_or(|value| value == own))
}
