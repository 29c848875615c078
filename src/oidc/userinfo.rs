//! The userinfo endpoint (Core §5.3): claims about the user that are not in the ID token.

use ::http::StatusCode;
use serde_json::{Map, Value};

use super::discovery::Metadata;
use super::error::{IssuerUnavailable, RedeemError, UserinfoFault};
use super::{Client, authorization};
use crate::secret::Secret;

impl Client {
    /// R16: the claims, where they are those of `subject`.
    pub(super) async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: &Secret,
        subject: &str,
    ) -> Result<Map<String, Value>, RedeemError> {
        let endpoint = metadata.userinfo_endpoint.as_ref().ok_or(UserinfoFault::NotOffered)?;
        let authorization = authorization("Bearer", access_token.expose()); // RFC 6750 §2.1
        let answer = self.http.get(endpoint, authorization).await.map_err(IssuerUnavailable::from)?;
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status != StatusCode::OK {
            return Err(UserinfoFault::Status(answer.status).into());
        }
        let claims = answer.json_object().ok_or(UserinfoFault::NotJson)?;
        match claims.get("sub").and_then(Value::as_str) {
            Some(sub) if sub == subject => Ok(claims),
            _ => Err(UserinfoFault::Subject.into()),
        }
    }
}
