//! One who is shown proofs of possession, and takes nothing for granted (RFC 9449 §4.3).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A proof that is good for the request it came with, but for its nonce.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The key's (RFC 7638).
    pub thumbprint: String,
    pub id: String,
    pub nonce: Option<String>,
}

/// The proof of a request: of this method to this URI, with this token, at this second. `None` where it has none.
pub fn proof(
    headers: &HeaderMap,
    method: &str,
    uri: &str,
    token: Option<&str>,
    now: u64,
) -> Result<Option<Proof>, &'static str> {
    let mut fields = headers.get_all("dpop").iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err("two proofs");
    }
    let text = field.to_str().map_err(|_| "no text")?;
    let header = jsonwebtoken::decode_header(text).map_err(|_| "no JWT")?;
    if header.typ.as_deref() != Some("dpop+jwt") || header.alg != Algorithm::ES256 {
        return Err("another kind of JWT");
    }
    let jwk = header.jwk.ok_or("no jwk")?;
    let members = raw_header(text)["jwk"].as_object().ok_or("no jwk")?.len();
    if members != 4 {
        return Err("more than a public key");
    }
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "no key")?;
    let claims =
        jsonwebtoken::decode::<Value>(text, &key, &validation).map_err(|_| "a wrong signature")?.claims;
    if claims["htm"] != method || claims["htu"] != uri.split('?').next().unwrap() {
        return Err("of another request");
    }
    if claims["iat"].as_u64().is_none_or(|at| at.abs_diff(now) > 60) {
        return Err("of another time");
    }
    let hash = token.map(|token| json!(URL_SAFE_NO_PAD.encode(Sha256::digest(token))));
    if claims.get("ath") != hash.as_ref() {
        return Err("of another token");
    }
    Ok(Some(Proof {
        thumbprint: jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "no thumbprint")?,
        id: claims["jti"].as_str().filter(|id| id.len() >= 16).ok_or("no jti")?.to_owned(),
        nonce: claims.get("nonce").map(|nonce| nonce.as_str().unwrap().to_owned()),
    }))
}

fn raw_header(jwt: &str) -> Value {
    let header = URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
    serde_json::from_slice(&header).unwrap()
}
