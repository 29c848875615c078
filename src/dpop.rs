//! Proofs that a token is sent by whom it was issued to (DPoP, RFC 9449): a key for each session, a signed proof
//! for each request, and the nonces that servers want to see in them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::random::Random;
use crate::secret::Secret;

/// The field that a proof goes in (RFC 9449 §4.1).
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The field in which a server gives the nonce for the next proof (RFC 9449 §8.1).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What a server wants where a proof has no nonce of its own, or an old one (RFC 9449 §8, §9).
pub const USE_DPOP_NONCE: &str = "use_dpop_nonce";

/// A nonce may have this many bytes. It is sent with every request from then on.
const LONGEST_NONCE: usize = 1024;

/// What stands before and behind the number that is a P-256 key, as `ECPrivateKey` (RFC 5915 §3) without
/// what follows from it.
const EC_PRIVATE_KEY: [u8; 7] = [0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20];

/// A P-256 key: it proves for ES256 (RFC 7518 §3.4) that tokens are sent by whoever has it.
pub struct Key {
    /// The number, in base64url.
    private: Secret,
    pair: EcdsaKeyPair,
    /// Of every proof, encoded.
    header: String,
    thumbprint: String,
}

/// The request that a proof goes with, and what is known of whom it goes to.
#[derive(Clone, Copy, Debug)]
pub struct Proven<'a> {
    /// `htm`
    pub method: &'a Method,
    /// `htu`, once query and fragment are off.
    pub uri: &'a Uri,
    /// `ath`: the token that is bound to the key, where one is sent.
    pub token: Option<&'a Secret>,
    /// `nonce`
    pub nonce: Option<&'a str>,
}

/// The nonce that one server wants to see, by its last word.
#[derive(Debug, Default)]
pub struct Nonce(Mutex<Option<Arc<str>>>);

/// RFC 9449 §4.2.
#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl Key {
    /// A fresh key.
    pub fn generate(random: Random) -> Self {
        loop {
            // One number in four thousand million is none of the curve's (FIPS 186-5 A.2.2).
            if let Some(key) = Self::new(&Zeroizing::new(random.bytes())) {
                return key;
            }
        }
    }

    /// The key of a text that [`Key::expose`] gave; `None` where it is none.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        Self::new(bytes.as_slice().try_into().ok()?)
    }

    fn new(number: &[u8; 32]) -> Option<Self> {
        let mut encoded = Zeroizing::new([0; EC_PRIVATE_KEY.len() + 32]);
        encoded[..EC_PRIVATE_KEY.len()].copy_from_slice(&EC_PRIVATE_KEY);
        encoded[EC_PRIVATE_KEY.len()..].copy_from_slice(number);
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &*encoded).ok()?;
        // Uncompressed: a 4, then both coordinates.
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let jwk = jwk(x, y);
        Some(Self {
            private: Secret::new(URL_SAFE_NO_PAD.encode(number)),
            header: URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{jwk}}}"#)),
            thumbprint: URL_SAFE_NO_PAD.encode(Sha256::digest(&jwk)),
            pair,
        })
    }

    /// The key itself, for the one who seals it.
    pub fn expose(&self) -> &str {
        self.private.expose()
    }

    /// The public key's thumbprint (RFC 7638 §3): `dpop_jkt` and `jkt`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The proof that this request comes from whoever has the key (RFC 9449 §4.2).
    #[expect(clippy::expect_used, reason = "it is written and signed unless memory is at its end")]
    pub fn prove(&self, request: &Proven<'_>, now: Timestamp, random: Random) -> HeaderValue {
        let claims = serde_json::to_vec(&Claims {
            jti: &random.token::<16>(),
            htm: request.method.as_str(),
            htu: &target(request.uri),
            iat: now.as_secs(),
            ath: request.token.map(|token| URL_SAFE_NO_PAD.encode(Sha256::digest(token.expose()))),
            nonce: request.nonce,
        });
        let mut proof = [&self.header, "."].concat();
        URL_SAFE_NO_PAD.encode_string(claims.expect("claims are JSON"), &mut proof);
        let signature = self.pair.sign(&SystemRandom::new(), proof.as_bytes()).expect("a key signs");
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        let mut proof = HeaderValue::try_from(proof).expect("base64url can be sent");
        proof.set_sensitive(true);
        proof
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.private == other.private
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl Nonce {
    /// What the next proof is to have.
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what an answer gives, if it gives one.
    pub fn take_over(&self, answer: &HeaderMap) {
        let Some(given) = nonce_of(answer) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(given) {
            *known = Some(given.into());
        }
    }
}

/// The nonce that an answer gives for the next proof: one, of clean characters and bounded (RFC 9449 §8.1).
pub fn nonce_of(answer: &HeaderMap) -> Option<&str> {
    let mut fields = answer.get_all(DPOP_NONCE).iter();
    let (Some(nonce), None) = (fields.next(), fields.next()) else { return None };
    let is_clean = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    let nonce = nonce.to_str().ok()?;
    ((1..=LONGEST_NONCE).contains(&nonce.len()) && nonce.bytes().all(is_clean)).then_some(nonce)
}

/// The members that a thumbprint is of, in their order (RFC 7638 §3.2), and no more: nothing private.
fn jwk(x: &[u8], y: &[u8]) -> String {
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The target URI (RFC 9110 §7.1) without its query.
fn target(uri: &Uri) -> String {
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
    [scheme, "://", authority.map_or("", |authority| authority.as_str()), uri.path()].concat()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::ThumbprintHash;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// What a proof says, for one who takes nothing for granted.
    fn verified(proof: &HeaderValue) -> (jsonwebtoken::jwk::Jwk, Value) {
        let proof = proof.to_str().unwrap();
        let header = jsonwebtoken::decode_header(proof).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg), (Some("dpop+jwt"), Algorithm::ES256));
        let jwk = header.jwk.unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        (jwk, jsonwebtoken::decode::<Value>(proof, &key, &validation).unwrap().claims)
    }

    fn proof(key: &Key, uri: &str, token: Option<&Secret>, nonce: Option<&str>) -> HeaderValue {
        let uri = uri.parse().unwrap();
        let request = Proven { method: &Method::POST, uri: &uri, token, nonce };
        key.prove(&request, NOW, Random::SYSTEM)
    }

    #[test]
    fn rfc9449_a_proof_names_its_request_its_time_its_token_and_its_nonce() {
        let key = Key::generate(Random::SYSTEM);
        let uri = "https://api.test:8443/a/%7Eb?c=d";
        // RFC 9449 §7.1's token and its hash.
        let token = Secret::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
        let (jwk, mut claims) = verified(&proof(&key, uri, Some(&token), Some("n-1")));
        assert_eq!(jwk.thumbprint(ThumbprintHash::SHA256).unwrap(), key.thumbprint());
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(jti.as_str().unwrap().len(), 22);
        let expected = json!({
            "htm": "POST", "htu": "https://api.test:8443/a/%7Eb", "iat": 1_800_000_000,
            "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo", "nonce": "n-1",
        });
        assert_eq!(claims, expected);
        let (_, claims) = verified(&proof(&key, "http://api.test", None, None));
        let names: Vec<_> = claims.as_object().unwrap().keys().collect();
        assert_eq!(names, ["htm", "htu", "iat", "jti"]);
        assert_eq!(claims["htu"], "http://api.test/");
        assert_ne!(claims["jti"], jti, "of each proof its own");
    }

    #[test]
    fn rfc9449_a_proof_shows_the_public_key_and_nothing_of_the_private_one() {
        let key = Key::generate(Random::SYSTEM);
        let proof = proof(&key, "https://api.test/", None, None);
        assert_eq!(format!("{proof:?} {key:?}"), "Sensitive [redacted]");
        let header = URL_SAFE_NO_PAD.decode(proof.to_str().unwrap().split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        let members: Vec<_> = header["jwk"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["crv", "kty", "x", "y"]);
    }

    #[test]
    fn rfc7638_the_thumbprint_is_that_of_rfc9449s_own_example() {
        let decoded = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let x = decoded("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs");
        let y = decoded("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(jwk(&x, &y)));
        assert_eq!(thumbprint, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is_one() {
        // RFC 6979 A.2.5.
        let text = URL_SAFE_NO_PAD.encode([
            0xc9, 0xaf, 0xa9, 0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21, 0x57, 0x67, 0xb1, 0xd6, 0x93,
            0x4e, 0x50, 0xc3, 0xdb, 0x36, 0xe8, 0x9b, 0x12, 0x7b, 0x8a, 0x62, 0x2b, 0x12, 0x0f, 0x67, 0x21,
        ]);
        let key = Key::read(&text).unwrap();
        let public = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
        let shown: String = key.pair.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((shown.as_str(), key.expose()), (public, text.as_str()));
        let generated = Key::generate(Random::SYSTEM);
        assert_eq!(Key::read(generated.expose()), Some(generated));
        for number in [vec![0; 32], vec![0xff; 32], vec![1; 31], vec![1; 33], Vec::new()] {
            assert_eq!(Key::read(&URL_SAFE_NO_PAD.encode(number)), None);
        }
        assert_eq!(Key::read("!"), None);
    }

    #[test]
    fn a_nonce_is_one_bounded_and_clean_or_it_is_none() {
        let answer = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (DPOP_NONCE, HeaderValue::from_str(value).unwrap())).collect()
        };
        let nonce = Nonce::default();
        assert_eq!(nonce.get(), None);
        nonce.take_over(&answer(&["n-1"]));
        let (longest, too_long) = ("x".repeat(LONGEST_NONCE), "x".repeat(LONGEST_NONCE + 1));
        for bad in [&[][..], &[""], &["a b"], &["a\"b"], &["a\\b"], &["n-2", "n-3"], &[&too_long]] {
            nonce.take_over(&answer(bad));
            assert_eq!(nonce.get().as_deref(), Some("n-1"), "{bad:?}");
        }
        nonce.take_over(&answer(&[&longest]));
        assert_eq!(nonce.get().as_deref(), Some(longest.as_str()));
    }
}
