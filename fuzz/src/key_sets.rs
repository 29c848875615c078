//! Key sets: no key is kept that is symmetric, private or for something else, and none accepts what it did not
//! sign (R12).

use cloakroom::oidc::json;
use cloakroom::oidc::jwks::KeySet;
use cloakroom::oidc::jwt::Jwt;
use cloakroom::secret::Secret;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::{signed, token_answers};

const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The document at `jwks_uri`.
pub fn run(data: &[u8]) {
    let Some(document) = json::object(data) else { return };
    token_answers::check_same_json(data, &document);
    let Some(keys) = KeySet::new(&document) else { return };
    let Some(Value::Array(listed)) = document.get("keys") else { panic!("a set has keys") };

    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        assert_eq!(keys.candidates(None, algorithm).count(), 0);
    }
    let usable = listed.iter().filter(|key| may_verify(key)).count();
    for algorithm in ASYMMETRIC {
        assert!(keys.candidates(None, algorithm).count() <= usable);
        let named = listed.iter().filter_map(|key| key["kid"].as_str());
        for id in named {
            assert!(keys.candidates(Some(id), algorithm).count() <= usable);
        }
        assert!(keys.candidates(Some("nobody's"), algorithm).count() <= named_nobody(listed));
        let forged = Secret::new(format!("{}.e30.AAAA", header(algorithm)));
        let jwt = Jwt::read(&forged, &ASYMMETRIC).expect("it is a token");
        assert!(jwt.check_signature(&keys).is_err());
    }
    // A token of our own issuer's passes if its key is listed, and else not.
    let own = signed::token(br#"{"alg":"EdDSA"}"#, b"{}");
    let jwt = Jwt::read(&own, &ASYMMETRIC).expect("it is a token");
    if jwt.check_signature(&keys).is_ok() {
        assert!(listed.iter().any(|key| key["crv"] == "Ed25519" && may_verify(key)));
    }
}

fn may_verify(key: &Value) -> bool {
    let is_public = key.get("d").is_none() && key.get("k").is_none();
    let is_for_signatures = key.get("use").is_none_or(|usage| usage == "sig");
    is_public && is_for_signatures && key.get("kty").is_some_and(|kind| kind != "oct")
}

fn named_nobody(listed: &[Value]) -> usize {
    listed.iter().filter(|key| key["kid"] == "nobody's").count()
}

fn header(algorithm: Algorithm) -> String {
    use base64::Engine;
    let name = format!("{algorithm:?}");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#))
}
