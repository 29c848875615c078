//! A private key that signs JWTs (RFC 7515): where it is, and what it signs with.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{jwk, secret_ref};
use crate::secret::Secret;

/// Where a private key is that signs JWTs, and what is said of it beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    source: KeySource,
    kid: Option<String>,
    algorithm: Option<SigningAlgorithm>,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeySource {
    /// In a file, which may change.
    File(PathBuf),
    /// In the environment, as it was at the start.
    Value(Secret),
}

/// `alg` of a JWT (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    Rs256,
    /// RSASSA-PSS.
    Ps256,
    /// ECDSA on P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// A private key that signs with one algorithm.
pub struct PrivateKey {
    pair: Pair,
    algorithm: SigningAlgorithm,
    kid: Option<String>,
}

pub(super) enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Why a private key cannot sign. None of it says what the key is.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSigningKey {
    /// It is not there, or not ours to read, or others can read it too.
    #[error("{0}")]
    Unreadable(String),
    /// Something else.
    #[error("neither a private key in PEM nor a JWK")]
    NotAKey,
    /// In need of a passphrase, which nobody is there to give.
    #[error("this private key is encrypted")]
    Encrypted,
    /// The other half.
    #[error("a public key, which cannot sign")]
    Public,
    /// P-384, DSA, X25519 and so on.
    #[error("a key of a kind that signs with none of RS256, PS256, ES256 and EdDSA")]
    Kind,
    /// Its parts do not fit, or it is too short.
    #[error("this private key is damaged, or too short ({0})")]
    Rejected(#[source] KeyRejected),
    /// It lacks parts, or they are no base64url.
    #[error("this JWK is damaged, or lacks a part of its key")]
    Jwk,
    /// RFC 7517 §4.2, §4.3.
    #[error("by its `use` or `key_ops`, this JWK is not for signatures")]
    Use,
    /// RFC 7517 §4.4.
    #[error("by its `alg`, this JWK is for another algorithm")]
    JwkAlgorithm,
    /// Beside a key of another kind.
    #[error("this key cannot sign with {0}")]
    Algorithm(SigningAlgorithm),
}

impl SigningKey {
    pub(super) fn new(source: KeySource, kid: Option<String>, algorithm: Option<SigningAlgorithm>) -> Self {
        Self { source, kid, algorithm }
    }

    /// A key in a file, of which nothing is said.
    pub fn in_file(path: PathBuf) -> Self {
        Self::new(KeySource::File(path), None, None)
    }

    /// The file it is in, which may change; none where it came by the environment.
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            KeySource::File(path) => Some(path),
            KeySource::Value(_) => None,
        }
    }

    /// Reads the key, as it is now. Symbolic links are followed. What is said beside the key goes before what
    /// a JWK says of itself, but an `alg` must be the same in both.
    ///
    /// # Errors
    /// Where it cannot be read, can be read by others, or cannot sign.
    pub fn load(&self) -> Result<PrivateKey, InvalidSigningKey> {
        match &self.source {
            KeySource::File(path) => {
                let text = secret_ref::file(path).map_err(InvalidSigningKey::Unreadable)?;
                self.parse(&text)
            }
            KeySource::Value(text) => self.parse(text.expose()),
        }
    }

    fn parse(&self, text: &str) -> Result<PrivateKey, InvalidSigningKey> {
        let (pair, kid, claimed) = if text.trim_start().starts_with('{') {
            let jwk = jwk::parse(text)?;
            (jwk.pair, jwk.kid, jwk.algorithm)
        } else {
            (pair_of_pem(text)?, None, None)
        };
        let algorithm = match (self.algorithm, claimed) {
            (Some(wanted), Some(claimed)) if wanted != claimed => {
                return Err(InvalidSigningKey::JwkAlgorithm);
            }
            (wanted, claimed) => wanted.or(claimed).unwrap_or_else(|| pair.usual_algorithm()),
        };
        if !pair.signs_with(algorithm) {
            return Err(InvalidSigningKey::Algorithm(algorithm));
        }
        Ok(PrivateKey { pair, algorithm, kid: self.kid.clone().or(kid) })
    }
}

impl PrivateKey {
    /// `alg` of what it signs.
    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// `kid` of what it signs (RFC 7515 §4.1.4). Where nobody named one there is none: an issuer then takes
    /// the key that fits, whereas no key has a name that was made up.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The signature of a message, as JWS has it (RFC 7518 §3.4).
    ///
    /// # Errors
    /// Where the cryptographic library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        // The library has its own randomness, and asks for another by convention only.
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let is_pss = self.algorithm == SigningAlgorithm::Ps256;
                let padding: &dyn RsaEncoding = if is_pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature)?;
                Ok(signature)
            }
            Pair::P256(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
        }
    }
}

/// By the public half: a private one has no other.
impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.pair.public() == other.pair.public()
            && self.algorithm == other.algorithm
            && self.kid == other.kid
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey({})", self.algorithm)
    }
}

impl Pair {
    /// Most issuers expect RS256 of an RSA key where nothing else was agreed upon (Core §9).
    fn usual_algorithm(&self) -> SigningAlgorithm {
        match self {
            Self::Rsa(_) => SigningAlgorithm::Rs256,
            Self::P256(_) => SigningAlgorithm::Es256,
            Self::Ed25519(_) => SigningAlgorithm::EdDsa,
        }
    }

    fn signs_with(&self, algorithm: SigningAlgorithm) -> bool {
        match algorithm {
            SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256 => matches!(self, Self::Rsa(_)),
            SigningAlgorithm::Es256 => matches!(self, Self::P256(_)),
            SigningAlgorithm::EdDsa => matches!(self, Self::Ed25519(_)),
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::P256(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }
}

impl SigningAlgorithm {
    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl InvalidSigningKey {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "a file that this user may read and others may not (`chmod o-r`)",
            Self::NotAKey | Self::Public => {
                "one private key, in PEM (`-----BEGIN PRIVATE KEY-----`) or as a JWK (`{\"kty\": …}`)"
            }
            Self::Encrypted => {
                "the key without a passphrase (`openssl pkey`), in a file that only this user may read"
            }
            Self::Kind => "an RSA key, one on P-256, or an Ed25519 key",
            Self::Rejected(_) => "a whole key; one for RSA with 2048 bits or more",
            Self::Jwk => "a whole private JWK (RFC 7518 §6): for RSA with `p`, `q`, `dp`, `dq` and `qi`",
            Self::Use => "a JWK for signatures (`\"use\": \"sig\"`)",
            Self::JwkAlgorithm => "RS256, PS256, ES256 or EdDSA, the same in the JWK and here",
            Self::Algorithm(_) => {
                "RS256 or PS256 for an RSA key, ES256 for one on P-256, EdDSA for an Ed25519 key"
            }
        }
    }
}

fn pair_of_pem(text: &str) -> Result<Pair, InvalidSigningKey> {
    let Ok(der) = PrivateKeyDer::from_pem_slice(text.as_bytes()) else { return Err(no_key_in(text)) };
    let der = Zeroizing::new(der);
    match &*der {
        PrivateKeyDer::Pkcs1(der) => {
            RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Pair::Rsa).map_err(InvalidSigningKey::Rejected)
        }
        PrivateKeyDer::Sec1(der) if contains(der.secret_sec1_der(), P256) => p256(der.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(der) => pair_of_pkcs8(der.secret_pkcs8_der()),
        _ => Err(InvalidSigningKey::Kind),
    }
}

fn pair_of_pkcs8(der: &[u8]) -> Result<Pair, InvalidSigningKey> {
    // The algorithm's name stands right behind the version (RFC 5208 §5).
    let head = &der[..der.len().min(40)];
    if contains(head, RSA_ENCRYPTION) {
        RsaKeyPair::from_pkcs8(der).map(Pair::Rsa).map_err(InvalidSigningKey::Rejected)
    } else if contains(head, P256) {
        p256(der)
    } else if contains(head, ED25519) {
        Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519).map_err(InvalidSigningKey::Rejected)
    } else {
        Err(InvalidSigningKey::Kind)
    }
}

fn p256(der: &[u8]) -> Result<Pair, InvalidSigningKey> {
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
        .map(Pair::P256)
        .map_err(InvalidSigningKey::Rejected)
}

/// What a text is that has no private key in PEM, or a damaged one.
fn no_key_in(text: &str) -> InvalidSigningKey {
    let has = |label: &str| text.contains(label);
    if has("BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        InvalidSigningKey::Encrypted
    } else if has("PUBLIC KEY-----") || has("BEGIN CERTIFICATE-----") {
        InvalidSigningKey::Public
    } else if has("BEGIN DSA PRIVATE KEY-----") {
        InvalidSigningKey::Kind
    } else {
        InvalidSigningKey::NotAKey
    }
}

// Object identifiers in DER: rsaEncryption (RFC 8017 appendix C), prime256v1 (RFC 5480 §2.1.1.1), id-Ed25519 (RFC 8410 §3).
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
