//! RP-Initiated Logout: where the browser is sent to end the issuer's own session.

use url::Url;

use super::Client;
use super::error::IssuerUnavailable;
use crate::secret::Secret;

/// A longer hint is left out: servers refuse URLs past 8 KiB, and a logout that asks the user is better
/// than one that fails.
const LONGEST_HINT: usize = 6 * 1024;

impl Client {
    /// R53: the issuer's logout page; `None` where it has none. The ID token is the hint of whose
    /// session it is (RPIL §2), and may have expired.
    ///
    /// # Errors
    /// Where the issuer's endpoint is not known and cannot be asked for.
    pub async fn end_session_url(
        &self,
        id_token: Option<&Secret>,
        state: &str,
    ) -> Result<Option<Url>, IssuerUnavailable> {
        let metadata = self.discovery.metadata().await?;
        let Some(mut url) = metadata.end_session_endpoint.clone() else { return Ok(None) };
        let hint = id_token.map(Secret::expose).filter(|hint| hint.len() <= LONGEST_HINT);
        url.query_pairs_mut()
            .extend_pairs(&self.oidc.end_session_parameters)
            .extend_pairs(hint.map(|hint| ("id_token_hint", hint)))
            .append_pair("client_id", &self.oidc.client_id)
            .append_pair("post_logout_redirect_uri", &self.post_logout_redirect_uri)
            .append_pair("state", state);
        Ok(Some(url))
    }
}
