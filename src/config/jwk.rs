//! A private key as a JWK (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::signing_key::{InvalidSigningKey, Pair, SigningAlgorithm};
use crate::secret::Secret;

/// What a JWK holds, and says of itself.
pub(super) struct ParsedJwk {
    pub(super) pair: Pair,
    pub(super) kid: Option<String>,
    pub(super) algorithm: Option<SigningAlgorithm>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<Secret>,
    e: Option<Secret>,
    x: Option<Secret>,
    y: Option<Secret>,
    d: Option<Secret>,
    p: Option<Secret>,
    q: Option<Secret>,
    dp: Option<Secret>,
    dq: Option<Secret>,
    qi: Option<Secret>,
}

/// Reads one JWK. A name that stands in it twice is a fault.
pub(super) fn parse(text: &str) -> Result<ParsedJwk, InvalidSigningKey> {
    // Its error would show what stands there.
    let jwk: Jwk = serde_json::from_str(text).map_err(|_| InvalidSigningKey::Jwk)?;
    let is_for_signatures = jwk.usage.as_ref().is_none_or(|usage| usage == "sig")
        && jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "sign"));
    if !is_for_signatures {
        return Err(InvalidSigningKey::Use);
    }
    let algorithm = jwk.alg.as_deref().map(algorithm).transpose()?;
    let pair = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => jwk.rsa(),
        ("EC", Some("P-256")) => jwk.p256(),
        ("OKP", Some("Ed25519")) => jwk.ed25519(),
        _ => Err(InvalidSigningKey::Kind),
    };
    Ok(ParsedJwk { pair: pair?, kid: jwk.kid, algorithm })
}

impl Jwk {
    fn rsa(&self) -> Result<Pair, InvalidSigningKey> {
        let components = KeyPairComponents {
            d: private(self.d.as_ref())?,
            public_key: PublicKeyComponents { n: part(self.n.as_ref())?, e: part(self.e.as_ref())? },
            p: part(self.p.as_ref())?,
            q: part(self.q.as_ref())?,
            dP: part(self.dp.as_ref())?,
            dQ: part(self.dq.as_ref())?,
            qInv: part(self.qi.as_ref())?,
        };
        RsaKeyPair::from_components(&components).map(Pair::Rsa).map_err(InvalidSigningKey::Rejected)
    }

    fn p256(&self) -> Result<Pair, InvalidSigningKey> {
        let d = private(self.d.as_ref())?;
        let (x, y) = (part(self.x.as_ref())?, part(self.y.as_ref())?);
        let point = [&[0x04], x.as_slice(), y.as_slice()].concat(); // SEC 1 §2.3.3, uncompressed
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point)
            .map(Pair::P256)
            .map_err(InvalidSigningKey::Rejected)
    }

    fn ed25519(&self) -> Result<Pair, InvalidSigningKey> {
        let d = private(self.d.as_ref())?;
        Ed25519KeyPair::from_seed_and_public_key(&d, &part(self.x.as_ref())?)
            .map(Pair::Ed25519)
            .map_err(InvalidSigningKey::Rejected)
    }
}

/// `Ed25519` (RFC 9864 §2.2) is another name for the same signature.
fn algorithm(name: &str) -> Result<SigningAlgorithm, InvalidSigningKey> {
    match name {
        "RS256" => Ok(SigningAlgorithm::Rs256),
        "PS256" => Ok(SigningAlgorithm::Ps256),
        "ES256" => Ok(SigningAlgorithm::Es256),
        "EdDSA" | "Ed25519" => Ok(SigningAlgorithm::EdDsa),
        _ => Err(InvalidSigningKey::JwkAlgorithm),
    }
}

/// `d`, which a public key has not.
fn private(encoded: Option<&Secret>) -> Result<Zeroizing<Vec<u8>>, InvalidSigningKey> {
    if encoded.is_none() { Err(InvalidSigningKey::Public) } else { part(encoded) }
}

fn part(encoded: Option<&Secret>) -> Result<Zeroizing<Vec<u8>>, InvalidSigningKey> {
    let encoded = encoded.ok_or(InvalidSigningKey::Jwk)?;
    URL_SAFE_NO_PAD.decode(encoded.expose()).map(Zeroizing::new).map_err(|_| InvalidSigningKey::Jwk)
}
