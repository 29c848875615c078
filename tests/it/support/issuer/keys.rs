//! Signing keys, and ID tokens that may be wrong in any way.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// What signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Rs256,
}

/// An ID token before it is signed.
pub struct Draft {
    pub header: Value,
    pub claims: Value,
    /// Sent in place of `header`, for what a `Value` cannot say.
    pub raw_header: Option<String>,
    /// Sent in place of `claims`.
    pub raw_claims: Option<String>,
    pub signature: Signature,
}

/// How a draft is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// By the published key of the issuer's algorithm.
    Good,
    /// By a key that nobody published.
    Foreign,
    /// By HMAC with the public key as its secret, for those who trust the header's `alg`.
    HmacOfPublicKey,
    /// Not at all.
    Absent,
}

/// The issuer's key pairs.
pub struct Keys {
    generation: u32,
    elliptic: EcdsaKeyPair,
}

/// Made once, for it takes long. Rotation changes its id alone.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl Keys {
    pub fn new() -> Self {
        Self { generation: 1, elliptic: elliptic() }
    }

    pub fn rotate(&mut self) {
        *self = Self { generation: self.generation + 1, elliptic: elliptic() };
    }

    pub fn key_id(&self, algorithm: Algorithm) -> String {
        format!("{}-{}", algorithm.name(), self.generation)
    }

    /// The JWK Set.
    pub fn published(&self) -> Value {
        let point = self.elliptic.public_key().as_ref();
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id(Algorithm::Es256),
                "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])},
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id(Algorithm::Rs256),
                "n": URL_SAFE_NO_PAD.encode(rsa.n), "e": URL_SAFE_NO_PAD.encode(rsa.e)},
        ]})
    }

    /// The compact serialization (RFC 7515 §7.1).
    pub fn sign(&self, algorithm: Algorithm, draft: &Draft) -> String {
        let header = draft.raw_header.clone().unwrap_or_else(|| draft.header.to_string());
        let claims = draft.raw_claims.clone().unwrap_or_else(|| draft.claims.to_string());
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = match (draft.signature, algorithm) {
            (Signature::Good, Algorithm::Es256) => sign_elliptic(&self.elliptic, &message),
            (Signature::Good, Algorithm::Rs256) => {
                let mut signature = vec![0; RSA.public_modulus_len()];
                RSA.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            (Signature::Foreign, _) => sign_elliptic(&elliptic(), &message),
            (Signature::HmacOfPublicKey, _) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.elliptic.public_key().as_ref());
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            (Signature::Absent, _) => Vec::new(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// `at_hash` of an access token, for algorithms with SHA-256 (Core §3.1.3.6).
pub fn half_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, token.as_bytes()).as_ref()[..16])
}

/// PKCE's S256 (RFC 7636 §4.2).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

fn elliptic() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn sign_elliptic(key: &EcdsaKeyPair, message: &str) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
}
