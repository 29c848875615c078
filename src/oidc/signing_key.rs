//! JWTs that the client signs itself, in the compact serialization of JWS (RFC 7515 §7.1).

use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::config::{self, InvalidSigningKey};
use crate::reloaded::{Reload, Reloaded};
use crate::secret::Secret;

/// A private key of the client's, which may be replaced while it is used.
pub(super) struct SigningKey(Arc<Reloaded<config::SigningKey>>);

impl SigningKey {
    pub(super) fn new(key: &config::SigningKey) -> Result<Self, InvalidSigningKey> {
        Reloaded::new(key.clone()).map(|reloaded| Self(Arc::new(reloaded)))
    }

    /// A JWT of these claims; `typ` is its media type, without `application/` (RFC 7515 §4.1.9).
    pub(super) fn sign(&self, typ: &str, claims: &Value) -> Result<Secret, Unspecified> {
        let key = self.0.current();
        let mut header = json!({"alg": key.algorithm().as_str(), "typ": typ});
        if let Some(kid) = key.kid() {
            header["kid"] = kid.into();
        }
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?);
        Ok(Secret::new(format!("{message}.{signature}")))
    }

    /// Reads the key again, where it is in a file.
    pub(super) fn reload(&self) -> Reload {
        self.0.reload()
    }
}
