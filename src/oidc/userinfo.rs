//! The userinfo endpoint (Core §5.3): claims about the user that are not in the ID token.

use ::http::header::AUTHORIZATION;
use ::http::{Method, StatusCode, Uri};
use serde_json::{Map, Value};

use super::discovery::Metadata;
use super::error::{IssuerUnavailable, RedeemError, UserinfoFault};
use super::http::Answer;
use super::jwt::{Jwt, SignatureError};
use super::{Client, authorization};
use crate::dpop::{DPOP, Key, Proven, nonce_of};
use crate::secret::Secret;

impl Client {
    /// R16: the claims, where they are those of `subject`.
    pub(super) async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: &Secret,
        key: Option<&Key>,
        subject: &str,
    ) -> Result<Map<String, Value>, RedeemError> {
        let endpoint = metadata.userinfo_endpoint.as_ref().ok_or(UserinfoFault::NotOffered)?;
        let mut answer = self.ask_for_userinfo(endpoint, access_token, key).await?;
        // RFC 9449 §9: whatever else was wrong, a nonce that is given was wanted.
        let was_given_nonce = key.is_some() && nonce_of(&answer.headers).is_some();
        if answer.status == StatusCode::UNAUTHORIZED && was_given_nonce {
            answer = self.ask_for_userinfo(endpoint, access_token, key).await?;
        }
        if answer.is_inconclusive() {
            return Err(answer.unavailable().into());
        }
        if answer.status != StatusCode::OK {
            return Err(UserinfoFault::Status(answer.status).into());
        }
        let claims = match answer.jwt() {
            Some(token) => self.signed_claims(metadata, &token).await?,
            None => answer.json_object().ok_or(UserinfoFault::NotJson)?,
        };
        match claims.get("sub").and_then(Value::as_str) {
            Some(sub) if sub == subject => Ok(claims),
            _ => Err(UserinfoFault::Subject.into()),
        }
    }

    async fn ask_for_userinfo(
        &self,
        endpoint: &Uri,
        access_token: &Secret,
        key: Option<&Key>,
    ) -> Result<Answer, IssuerUnavailable> {
        let nonce = self.userinfo_nonce.get();
        let request = Proven {
            method: &Method::GET,
            uri: endpoint,
            token: Some(access_token),
            nonce: nonce.as_deref(),
        };
        let proof = key.map(|key| (DPOP, key.prove(&request, self.clock.now(), self.random)));
        // RFC 9449 §7.1, RFC 6750 §2.1.
        let scheme = if proof.is_some() { "DPoP" } else { "Bearer" };
        let authorization = authorization(scheme, access_token.expose()).map(|value| (AUTHORIZATION, value));
        let answer = self.http.get(endpoint, authorization.into_iter().chain(proof)).await?;
        self.userinfo_nonce.take_over(&answer.headers);
        Ok(answer)
    }

    /// The claims of a signed answer (Core §5.3.2), which is by this issuer and for this client.
    async fn signed_claims(
        &self,
        metadata: &Metadata,
        token: &Secret,
    ) -> Result<Map<String, Value>, RedeemError> {
        let jwt = Jwt::read(token, &metadata.userinfo_algorithms).map_err(UserinfoFault::from)?;
        if !jwt.is_typed(&["JWT"]) || jwt.claims.contains_key("events") {
            return Err(UserinfoFault::Type.into());
        }
        jwt.check_parties(self.issuer(), &self.oidc.client_id, &self.oidc.trusted_audiences)
            .map_err(UserinfoFault::from)?;
        jwt.check_expiry(self.clock.now()).map_err(UserinfoFault::from)?;
        match self.check_signature(metadata, &jwt).await {
            Ok(()) => Ok(jwt.claims),
            Err(SignatureError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(SignatureError::Fault(fault)) => Err(UserinfoFault::from(fault).into()),
        }
    }
}
