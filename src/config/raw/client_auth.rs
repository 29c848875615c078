//! How the client proves itself to its issuer, as it is written.

use serde_json::{Value, json};

use super::Identity;
use crate::config::decode::{At, Decode, Optional, Required, decode_at, wrong_type};
use crate::config::document::{Content, Node, REDACTED};
use crate::config::keys::{Choice, Keys, Record};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::Text;
use crate::config::secret_ref::SecretRef;
use crate::config::{AssertionAudience, SigningAlgorithm};

pub(in crate::config) enum ClientAuth {
    Proof(Box<ClientProof>),
    None,
}

/// What a client that is not public proves itself with.
pub(in crate::config) enum ClientProof {
    SecretBasic(SecretRef),
    SecretPost(SecretRef),
    PrivateKeyJwt(PrivateKeyJwt),
    Tls(Identity),
    SelfSignedTls(Identity),
}

pub(in crate::config) struct PrivateKeyJwt {
    pub(in crate::config) key: SigningKey,
    pub(in crate::config) audience: Optional<AssertionAudience>,
}

/// A private key that signs, and what is said of it.
pub(in crate::config) struct SigningKey {
    pub(in crate::config) key: Required<SecretRef>,
    pub(in crate::config) kid: Optional<Text>,
    pub(in crate::config) algorithm: Optional<SigningAlgorithm>,
}

pub(in crate::config) struct OidcTls {
    pub(in crate::config) ca: Optional<Text>,
    pub(in crate::config) certificate: Optional<Text>,
    pub(in crate::config) private_key: Optional<Text>,
}

/// The names of the methods (RFC 7591 §2, RFC 8705 §2).
const METHODS: [&str; 5] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
];

impl Decode for ClientAuth {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::Scalar { text, .. } if text == "none" => Ok(Self::None),
            Content::Scalar { .. } | Content::List(_) => {
                let wanted =
                    "`none`, or a method with what it needs, such as `{client_secret_basic: {env: NAME}}`";
                Err(wrong_type(node, wanted, &Self::shown(node), reading))
            }
            Content::Map(_) => ClientProof::decode(node, reading).map(|proof| Self::Proof(Box::new(proof))),
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [{"const": "none"}, ClientProof::schema()]})
    }

    /// Shown only where it is the name of a method, for what else stands here may be the secret.
    fn shown(node: &Node) -> String {
        let shown = node.shown();
        if shown == "none" || METHODS.contains(&shown.as_str()) { shown } else { REDACTED.to_owned() }
    }
}

impl Record for ClientProof {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        keys.one_of(&[
            Choice::new(
                "client_secret_basic",
                "The secret in the Authorization header.",
                |secret: At<SecretRef>| Self::SecretBasic(secret.value),
            ),
            Choice::new("client_secret_post", "The secret in the form.", |secret: At<SecretRef>| {
                Self::SecretPost(secret.value)
            }),
            Choice::new(
                "private_key_jwt",
                "A JWT that is signed for each request: the private key, or a map with `key` and what is said of it.",
                |jwt: At<PrivateKeyJwt>| Self::PrivateKeyJwt(jwt.value),
            ),
            Choice::new(
                "tls_client_auth",
                "A certificate of an authority that the issuer believes; both files are read again when they change.",
                |identity: At<Identity>| Self::Tls(identity.value),
            ),
            Choice::new(
                "self_signed_tls_client_auth",
                "A certificate that is registered at the issuer; both files are read again when they change.",
                |identity: At<Identity>| Self::SelfSignedTls(identity.value),
            ),
        ])
    }
}

impl Decode for PrivateKeyJwt {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        if is_secret(node) {
            return Ok(Self { key: SigningKey::alone(node, reading), audience: Ok(None) });
        }
        PrivateKeyJwtKeys::decode(node, reading).map(|PrivateKeyJwtKeys(jwt)| jwt)
    }

    fn schema() -> Value {
        json!({"anyOf": [SecretRef::schema(), PrivateKeyJwtKeys::schema()]})
    }

    fn shown(node: &Node) -> String {
        SecretRef::shown(node)
    }
}

/// The long form of a `private_key_jwt`.
struct PrivateKeyJwtKeys(PrivateKeyJwt);

impl Record for PrivateKeyJwtKeys {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self(PrivateKeyJwt {
            key: SigningKey::read(keys),
            audience: keys.optional(
                "audience",
                "Whom each JWT is for: issuer, or endpoint, the URL that is asked, for issuers that insist on it. issuer where left out.",
            ),
        }))
    }
}

impl SigningKey {
    /// A key of which nothing is said.
    pub(in crate::config) fn alone(node: &Node, reading: &mut Reading<'_>) -> Self {
        Self { key: decode_at(node, reading), kid: Ok(None), algorithm: Ok(None) }
    }

    /// The keys of the long form.
    pub(in crate::config) fn read(keys: &mut Keys<'_, '_>) -> Self {
        Self {
            key: keys.required(
                "key",
                "{file: /etc/cloakroom/client-key.pem}",
                "The private key in PEM, or as a JWK, a secret: RSA of 2048 bits or more, P-256 or Ed25519. A file is read again when it changes.",
            ),
            kid: keys.optional("kid", "The key's name at the issuer; that of the JWK, or none where left out."),
            algorithm: keys.optional(
                "algorithm",
                "RS256, PS256, ES256 or EdDSA; where left out the alg of the JWK, or what the key is for, RS256 for RSA.",
            ),
        }
    }
}

/// The key that signs authorization requests.
pub(in crate::config) struct RequestObject(pub(in crate::config) SigningKey);

impl Decode for RequestObject {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        if is_secret(node) {
            return Ok(Self(SigningKey::alone(node, reading)));
        }
        RequestObjectKeys::decode(node, reading).map(|RequestObjectKeys(key)| Self(key))
    }

    fn schema() -> Value {
        json!({"anyOf": [SecretRef::schema(), RequestObjectKeys::schema()]})
    }

    fn shown(node: &Node) -> String {
        SecretRef::shown(node)
    }
}

/// The long form of a `request_object`.
struct RequestObjectKeys(SigningKey);

impl Record for RequestObjectKeys {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self(SigningKey::read(keys)))
    }
}

/// Whether this is the reference to a secret and no more, the short form of what has one among its keys.
pub(in crate::config) fn is_secret(node: &Node) -> bool {
    match &node.content {
        Content::Map(entries) => entries.iter().any(|(key, _)| matches!(key.text.as_str(), "file" | "env")),
        Content::Scalar { .. } => true,
        Content::List(_) => false,
    }
}

impl Record for OidcTls {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            ca: keys.optional(
                "ca",
                "A file of certificates in PEM, the only authorities that are believed; the system's where left out.",
            ),
            certificate: keys.optional(
                "certificate",
                "The client's own certificate in PEM, with private_key; where client_auth has none. Both are read again when they change.",
            ),
            private_key: keys.optional("private_key", "Its private key in PEM, which others must not be able to read."),
        })
    }
}
