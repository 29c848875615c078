//! Marks that are claimed once, such as the `state` of a login or the `jti` of a logout token.

use std::time::Duration;

use super::Sessions;
use super::store::Unavailable;
use crate::seal::hashed_name;

impl Sessions {
    /// `true` the first time this app claims the mark, `false` while that is remembered. The store sees a
    /// hash, so that a mark may be of any length and hold anything.
    ///
    /// # Errors
    /// Where the store cannot be asked; the mark may have been claimed or not.
    pub async fn claim_once(&self, mark: &str, time_to_live: Duration) -> Result<bool, Unavailable> {
        let name = hashed_name("mark", &[self.app.as_bytes(), mark.as_bytes()]);
        self.common.heard(self.common.store.claim_once(&name, time_to_live).await)
    }

    /// The same for what an issuer sends to all apps that are one client to it, such as a logout token's `jti`.
    ///
    /// # Errors
    /// Where the store cannot be asked; the mark may have been claimed or not.
    pub async fn claim_once_for_client(
        &self,
        issuer: &str,
        client_id: &str,
        mark: &str,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        let name = mark_of_client(issuer, client_id, mark);
        self.common.heard(self.common.store.claim_once(&name, time_to_live).await)
    }

    /// Whether a mark of such apps was claimed.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn is_claimed_for_client(
        &self,
        issuer: &str,
        client_id: &str,
        mark: &str,
    ) -> Result<bool, Unavailable> {
        let name = mark_of_client(issuer, client_id, mark);
        self.common.heard(self.common.store.is_claimed(&name).await)
    }
}

fn mark_of_client(issuer: &str, client_id: &str, mark: &str) -> String {
    hashed_name("mark of a client", &[issuer.as_bytes(), client_id.as_bytes(), mark.as_bytes()])
}
