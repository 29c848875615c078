//! Proofs of possession at the issuer's endpoints (RFC 9449 §5, §8), and the keys they are made with.

use std::sync::Arc;

use ::http::{Method, Uri};

use super::Client;
use super::error::IssuerUnavailable;
use super::http::Answer;
use crate::dpop::{DPOP, Key, Proven, USE_DPOP_NONCE, nonce_of};

impl Client {
    /// A key for one login, where its tokens are to be bound to one.
    pub(super) fn fresh_key(&self) -> Option<Arc<Key>> {
        self.oidc.dpop_bound_access_tokens.then(|| Arc::new(Key::generate(self.random)))
    }

    /// What the client's own tokens are bound to, where they are.
    pub fn key(&self) -> Option<&Arc<Key>> {
        self.dpop_key.as_ref()
    }

    /// [`Client::post_as_client`] with a proof of this key, where there is one. The nonce of the answer is that of
    /// the next proof.
    pub(super) async fn post_with_key(
        &self,
        endpoint: &Uri,
        parameters: &[(&str, &str)],
        key: Option<&Key>,
    ) -> Result<Answer, IssuerUnavailable> {
        let Some(key) = key else { return self.post_as_client(endpoint, parameters).await };
        let nonce = self.nonce.get();
        let request = Proven { method: &Method::POST, uri: endpoint, token: None, nonce: nonce.as_deref() };
        let proof = (DPOP, key.prove(&request, self.clock.now(), self.random));
        let answer = self.post_as_client_with(endpoint, parameters, [proof]).await?;
        self.nonce.take_over(&answer.headers);
        Ok(answer)
    }
}

impl Answer {
    /// Whether nothing but the nonce of the proof was refused, and another was given (RFC 9449 §8): nothing was
    /// redeemed, and the same request may be made again.
    pub(super) fn wants_nonce(&self) -> bool {
        nonce_of(&self.headers).is_some() && self.error_code().as_deref() == Some(USE_DPOP_NONCE)
    }
}
