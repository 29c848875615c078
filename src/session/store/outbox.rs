//! Errands that outlive the request that caused them, in the store: whatever gateway comes first runs
//! them, and a restart forgets none.

use async_trait::async_trait;

use super::Unavailable;
use crate::clock::Timestamp;

/// One errand: what is to be done is sealed, and nothing to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Its name: random, in base64url.
    pub id: String,
    /// What is to be done.
    pub sealed: Vec<u8>,
    /// When it is worth a try, or worth another.
    pub due_at: Timestamp,
}

/// The errands of all gateways that share a store. What moment it is, the gateway's clock says.
#[async_trait]
pub trait Outbox {
    /// Puts an errand in.
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable>;

    /// An errand that is due at `now`, the longest due first, for this caller alone until `until`: it is due
    /// then again, should the caller not come back. `None` where none is due.
    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable>;

    /// Has an errand tried again at this moment, if it is still there.
    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable>;

    /// Takes an errand out: it is done, or not worth another try.
    async fn strike(&self, id: &str) -> Result<(), Unavailable>;

    /// How many errands there are.
    async fn count_errands(&self) -> Result<u64, Unavailable>;
}
