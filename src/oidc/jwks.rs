//! The issuer's public keys (RFC 7517), and which of them may check a signature.

use std::sync::Arc;
use std::time::Duration;

use ::http::{StatusCode, Uri};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};

use super::cache::Cached;
use super::error::{CallFault, IssuerUnavailable};
use super::http::Http;
use crate::clock::Clock;

/// R17: tokens with an unknown `kid` cause no more than one fetch of the keys in this time.
pub const KEY_RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// The keys that may check signatures.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// The keys that an issuer publishes, fetched when they are needed.
pub(super) struct PublishedKeys {
    http: Arc<Http>,
    cached: Cached<KeySet>,
}

/// A public key.
#[derive(Debug)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl KeySet {
    /// Keys for other uses, private ones, symmetric ones and those of unknown kinds are left out. `None` where
    /// this is no key set (RFC 7517 §5).
    pub fn new(document: &Map<String, Value>) -> Option<Self> {
        let keys = document.get("keys")?.as_array()?;
        Some(Self(keys.iter().filter_map(Value::as_object).filter_map(Key::new).collect()))
    }

    /// The keys a token with this header may be signed with: several where a `kid` stands for more
    /// than one key, or the header has none.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| {
            (id.is_none() || key.id.as_deref() == id) && key.algorithms.contains(&algorithm)
        })
    }
}

impl Key {
    fn new(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name| jwk.get(name).and_then(Value::as_str);
        let is_private = jwk.contains_key("d") || jwk.contains_key("k");
        let is_for_signatures = jwk.get("use").is_none_or(|usage| usage == "sig");
        let may_verify = match jwk.get("key_ops") {
            None => true,
            Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
        };
        if is_private || !is_for_signatures || !may_verify {
            return None;
        }
        let (decoding, mut algorithms) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let key = DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?;
                (key, AlgorithmFamily::Rsa.algorithms().to_vec())
            }
            ("EC", Some("P-256")) => (elliptic(text("x")?, text("y")?)?, vec![Algorithm::ES256]),
            ("EC", Some("P-384")) => (elliptic(text("x")?, text("y")?)?, vec![Algorithm::ES384]),
            ("OKP", Some("Ed25519")) => {
                (DecodingKey::from_ed_components(text("x")?).ok()?, vec![Algorithm::EdDSA])
            }
            _ => return None,
        };
        if let Some(only) = jwk.get("alg") {
            algorithms
                .retain(|algorithm| only.as_str().and_then(|name| name.parse().ok()) == Some(*algorithm));
        }
        Some(Self { id: text("kid").map(str::to_owned), algorithms, decoding })
    }
}

impl PublishedKeys {
    pub(super) fn new(http: Arc<Http>, clock: Arc<dyn Clock>) -> Self {
        Self { http, cached: Cached::new(clock) }
    }

    /// The key set at this address; where it has no candidate for such a header, a newer one.
    pub(super) async fn keys_for(
        &self,
        jwks_uri: &Uri,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<KeySet>, IssuerUnavailable> {
        let fetch = || fetch(Arc::clone(&self.http), jwks_uri.clone());
        let keys = self.cached.get(fetch()).await?;
        if keys.candidates(id, algorithm).next().is_some() {
            return Ok(keys);
        }
        self.cached.renewed(&keys, KEY_RENEWAL_INTERVAL, fetch()).await
    }
}

fn elliptic(x: &str, y: &str) -> Option<DecodingKey> {
    DecodingKey::from_ec_components(x, y).ok()
}

async fn fetch(http: Arc<Http>, address: Uri) -> Result<KeySet, IssuerUnavailable> {
    let answer = http.get(&address, []).await?;
    if answer.status != StatusCode::OK {
        return Err(answer.unavailable());
    }
    let keys = answer.untyped_json_object().as_ref().and_then(KeySet::new);
    Ok(keys.ok_or(CallFault::KeySet)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(jwk: &Value) -> usize {
        let set = json!({"keys": [jwk]});
        KeySet::new(set.as_object().unwrap()).unwrap().candidates(Some("a"), Algorithm::RS256).count()
    }

    #[test]
    fn r12_only_public_keys_for_signatures_are_kept() {
        let good = json!({"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"});
        let with = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[name] = value;
            jwk
        };
        assert_eq!(keys(&good), 1);
        assert_eq!(keys(&with("use", json!("sig"))), 1);
        assert_eq!(keys(&with("key_ops", json!(["verify"]))), 1);
        assert_eq!(keys(&with("alg", json!("RS256"))), 1);
        for (name, value) in [
            ("use", json!("enc")),
            ("use", json!(1)),
            ("key_ops", json!(["encrypt"])),
            ("key_ops", json!("verify")),
            ("alg", json!("PS256")),
            ("alg", json!("RSA-OAEP")),
            ("d", json!("AQAB")),
            ("kty", json!("oct")),
            ("kid", json!("b")),
            ("n", json!("not base64!")),
        ] {
            assert_eq!(keys(&with(name, value.clone())), 0, "{name}: {value}");
        }
        assert_eq!(keys(&json!({"kty": "oct", "kid": "a", "k": "AQAB"})), 0);
    }
}
