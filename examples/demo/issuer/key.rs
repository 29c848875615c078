//! The key that signs the demo issuer's ID tokens.

use std::error::Error;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use cloakroom::random::Random;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value, json};

/// An ES256 key, made anew at each start.
#[derive(Debug)]
pub struct SigningKey {
    private: EncodingKey,
    public: DecodingKey,
    jwk: Jwk,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, Box<dyn Error>> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let private = EncodingKey::from_ec_der(key.to_pkcs8v1()?.as_ref());
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        jwk.common.key_id = Some(Random::SYSTEM.token::<8>());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { private, public: DecodingKey::from_jwk(&jwk)?, jwk })
    }

    /// The public half, as `jwks_uri` serves it (RFC 7517 §5).
    pub fn published(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// A token of this type and these claims.
    pub fn sign(&self, kind: &str, claims: &Value) -> jsonwebtoken::errors::Result<String> {
        let (typ, kid) = (Some(kind.to_owned()), self.jwk.common.key_id.clone());
        let header = Header { typ, kid, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.private)
    }

    /// The claims of an ID token we signed, however old (RP-Initiated Logout §2).
    pub fn claims(&self, id_token: &str, client_id: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.set_audience(&[client_id]);
        jsonwebtoken::decode(id_token, &self.public, &validation).ok().map(|token| token.claims)
    }
}
