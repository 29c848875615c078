//! Signed authorization requests (RFC 9101; OpenID Connect Core §6.1): all that is asked for stands in a JWT of the
//! client's, which nobody between it and the issuer can change.

use aws_lc_rs::error::Unspecified;
use serde_json::{Map, Value};

use super::Client;
use super::signing_key::SigningKey;

/// How long a request is good, in seconds: the browser goes there at once, by whatever connection it has.
const LIFETIME: u64 = 5 * 60;

/// What stands beside it too, for OAuth 2.0 and OpenID Connect want it there (Core §6.1).
const BESIDE: [&str; 3] = ["client_id", "response_type", "scope"];

impl Client {
    /// The parameters of a request as they are sent, in a JWT where the client signs its requests. Of a pushed one nothing
    /// stands beside it (RFC 9126 §3).
    pub(super) fn signed_where_wanted(
        &self,
        parameters: Vec<(String, String)>,
        is_pushed: bool,
    ) -> Result<Vec<(String, String)>, Unspecified> {
        let Some(signer) = &self.request_signer else { return Ok(parameters) };
        let request = self.request_object(signer, &parameters)?;
        let beside = |name: &str| !is_pushed && BESIDE.contains(&name);
        let beside = parameters.into_iter().filter(|(name, _)| beside(name));
        Ok(beside.chain([("request".to_owned(), request)]).collect())
    }

    fn request_object(
        &self,
        signer: &SigningKey,
        parameters: &[(String, String)],
    ) -> Result<String, Unspecified> {
        let mut claims = Map::new();
        for (name, value) in parameters.iter().filter(|(name, _)| name != "resource") {
            claims.insert(name.clone(), typed(name, value));
        }
        match self.oidc.authorization.resource.as_slice() {
            [] => {}
            [only] => _ = claims.insert("resource".to_owned(), only.as_str().into()),
            several => _ = claims.insert("resource".to_owned(), several.into()),
        }
        let now = self.clock.now().as_secs();
        // Last, for no parameter takes their place.
        for (name, value) in [
            ("iss", Value::from(self.oidc.client_id.as_str())),
            ("aud", self.issuer().into()),
            ("iat", now.into()),
            ("nbf", now.into()),
            ("exp", (now + LIFETIME).into()),
            ("jti", self.random.token::<16>().into()),
        ] {
            claims.insert(name.to_owned(), value);
        }
        let signed = signer.sign("oauth-authz-req+jwt", &Value::Object(claims))?;
        Ok(signed.expose().to_owned())
    }
}

/// In a JWT, what is a number or an object is one (RFC 9101 §4, Core §6.1).
fn typed(name: &str, value: &str) -> Value {
    let parsed = match name {
        "max_age" | "claims" => serde_json::from_str(value).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| value.into())
}
