//! Clients that prove themselves by a JWT (RFC 7523 §3): each is good once.

use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use super::{CLIENT_ID, Received};

/// The longest life of an assertion, in seconds.
const LONGEST_LIFE: u64 = 60;

/// What assertions were made of before.
#[derive(Default)]
pub(super) struct Assertions(HashSet<String>);

impl Assertions {
    /// Whether the form has an assertion that this public JWK has signed, for this audience alone, and that has not
    /// been seen before.
    pub(super) fn take(&mut self, request: &Received, key: &Value, audience: &str, now: u64) -> bool {
        let of_type = request.field("client_assertion_type")
            == Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        let claims = request.field("client_assertion").and_then(|assertion| verified(assertion, "JWT", key));
        let Some(claims) = claims.filter(|_| of_type) else { return false };
        let time = |name: &str| claims[name].as_u64().unwrap_or_default();
        claims["iss"] == CLIENT_ID
            && claims["sub"] == CLIENT_ID
            && request.field("client_id").is_none_or(|id| id == CLIENT_ID)
            && claims["aud"] == json!(audience)
            && time("iat") <= now
            && (now + 1..=now + LONGEST_LIFE).contains(&time("exp"))
            && claims["jti"].as_str().is_some_and(|jti| jti.len() >= 16 && self.0.insert(jti.to_owned()))
    }
}

/// The claims of a JWT of this type that this public JWK has signed.
pub(super) fn verified(assertion: &str, kind: &str, key: &Value) -> Option<Value> {
    let header = decode_header(assertion).ok()?;
    if header.typ.as_deref() != Some(kind) || header.kid.as_deref() != key.get("kid").and_then(Value::as_str)
    {
        return None;
    }
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let key = DecodingKey::from_jwk(&serde_json::from_value(key.clone()).ok()?).ok()?;
    Some(decode::<Value>(assertion, &key, &validation).ok()?.claims)
}
