//! An issuer of our own, which signs whatever it is told to.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::clock::Timestamp;
use cloakroom::oidc::jwks::KeySet;
use cloakroom::secret::Secret;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};

pub const ISSUER: &str = "https://id.example.com";
pub const CLIENT: &str = "shop";
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::EdDSA, Algorithm::RS256];

static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("any seed makes a key"));

/// The issuer's key set.
pub static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let x = URL_SAFE_NO_PAD.encode(KEY.public_key().as_ref());
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "key", "x": x});
    let set = Map::from_iter([("keys".to_owned(), json!([key]))]);
    KeySet::new(&set).expect("it is a key set")
});

/// A token of these two parts, with a good signature.
pub fn token(header: &[u8], claims: &[u8]) -> Secret {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = URL_SAFE_NO_PAD.encode(KEY.sign(message.as_bytes()));
    Secret::new(format!("{message}.{signature}"))
}

/// The same token with one bit of its signature turned round.
pub fn altered(token: &Secret) -> Secret {
    let (message, signature) = token.expose().rsplit_once('.').expect("it is signed");
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("we wrote it");
    bytes[0] ^= 1;
    Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Header and claims, with a line between them.
pub fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// Checks that no accepted token may go without: R11, R12, R13, by another reader of the same claims.
pub fn check_claims(header: &[u8], claims: &[u8]) -> Value {
    let header: Value = serde_json::from_slice(header).expect("an accepted header is JSON");
    let claims: Value = serde_json::from_slice(claims).expect("accepted claims are JSON");
    assert_eq!(header["alg"], "EdDSA");
    assert!(header.get("crit").is_none());
    assert!(header.get("kid").is_none_or(|id| id == "key"));
    assert_eq!(claims["iss"], ISSUER);
    let for_us = match &claims["aud"] {
        Value::Array(all) => !all.is_empty() && all.iter().all(|one| one == CLIENT),
        one => one == CLIENT,
    };
    assert!(for_us, "{claims}");
    assert!(claims.get("azp").is_none_or(|party| party == CLIENT), "{claims}");
    let now = NOW.as_secs() as f64;
    let time = |name: &str| claims[name].as_f64().expect("a time is a number");
    assert!(time("exp") + 60.0 > now, "{claims}");
    assert!(time("iat") <= now + 61.0 && time("iat") >= now - 661.0, "{claims}");
    assert!(claims.get("nbf").is_none() || time("nbf") <= now + 61.0, "{claims}");
    claims
}
