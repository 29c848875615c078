//! What the issuer makes of proofs of possession (RFC 9449).

use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};

use super::endpoints::Answer;
use super::{Received, Shared, State};
use crate::support::dpop::{Proof, proof};

/// How the issuer deals with proofs; by default it takes them, and needs none.
#[derive(Clone, Debug, Default)]
pub struct Dpop {
    /// The client is registered with `dpop_bound_access_tokens`: nothing is issued without a proof.
    pub required: bool,
    /// Proofs are ignored, as by an issuer that knows nothing of them.
    pub ignored: bool,
    /// What proofs must have, and each answer gives.
    pub nonce: Option<String>,
    /// No nonce is ever good.
    pub insatiable: bool,
}

impl Shared {
    /// The good proof of a request, sent by this method and with this token.
    pub(super) fn proof(
        &self,
        request: &Received,
        state: &mut State,
        method: &str,
        token: Option<&str>,
    ) -> Result<Option<Proof>, &'static str> {
        let dpop = &state.behaviour.dpop;
        if dpop.ignored {
            return Ok(None);
        }
        // Where it was asked, which may be at an alias (RFC 8705 §5).
        let scheme = self.issuer.split(':').next().unwrap();
        let host = request.headers[HOST].to_str().unwrap();
        let uri = format!("{scheme}://{host}{}{}", self.path, request.endpoint.path());
        let proof = proof(&request.headers, method, &uri, token, self.clock.now().as_secs());
        let proof = proof.map_err(|_| "invalid_dpop_proof")?;
        let Some(proof) = proof else {
            return if dpop.required { Err("invalid_dpop_proof") } else { Ok(None) };
        };
        if dpop.insatiable || proof.nonce != dpop.nonce {
            return Err("use_dpop_nonce");
        }
        if state.proofs.insert(proof.id.clone()) { Ok(Some(proof)) } else { Err("invalid_dpop_proof") }
    }

    /// Gives the nonce for the next proof.
    pub(super) fn give_nonce(&self, answer: &mut Answer) {
        if let Some(nonce) = &self.state().behaviour.dpop.nonce {
            answer.headers_mut().insert("dpop-nonce", HeaderValue::from_str(nonce).unwrap());
        }
    }
}

/// The access token of a request, and whether it claims to be bound to a key.
pub fn presented(request: &Received) -> (&str, bool) {
    let field = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = field.split_once(' ').unwrap_or_default();
    (token, scheme == "DPoP")
}

/// What a resource says to a bad proof (RFC 9449 §7.1, §9).
pub fn challenge(answer: &mut Answer, error: &str) {
    let challenge = format!("DPoP error=\"{error}\", algs=\"ES256\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).unwrap());
}
