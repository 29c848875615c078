//! Errands in the store's outbox: sealed under the key ring, for whoever holds it and comes first.

use zeroize::Zeroizing;

use super::Common;
use super::store::Unavailable;
use super::store::outbox::Errand;
use crate::clock::Timestamp;
use crate::seal::{Context, Purpose};

/// Why an errand cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It was sealed here, and was altered or moved since: an attack on the store.
    #[error("it was altered, or put in another's place")]
    Altered,
    /// Another gateway may have its key: one that has been given the new key already, or has the old one still.
    #[error("none of this gateway's keys sealed it")]
    OtherKey,
}

impl Common {
    /// An errand under a new id.
    pub fn seal_errand(&self, content: &[u8], due_at: Timestamp) -> Errand {
        let id = self.random.token::<16>();
        let sealed = self.ring.seal(self.random, &context(&id), content);
        Errand { id, sealed, due_at }
    }

    /// What an errand holds.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open_errand(&self, errand: &Errand) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        match self.ring.open(&context(&errand.id), &errand.sealed) {
            Some(content) => Ok(content),
            None if self.ring.has_key_of(&errand.sealed) => Err(Unopened::Altered),
            None => Err(Unopened::OtherKey),
        }
    }

    /// Puts an errand in.
    ///
    /// # Errors
    /// Where the store cannot be asked; the errand may be there or not, and may be put in again.
    pub async fn post_errand(&self, errand: &Errand) -> Result<(), Unavailable> {
        self.heard(self.store.post(errand).await)
    }

    /// An errand that is due, for this caller alone until `until`.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn fetch_errand(&self, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        self.heard(self.store.fetch_due(self.now(), until).await)
    }

    /// Has an errand tried again at this moment.
    ///
    /// # Errors
    /// Where the store cannot be asked; it is then tried again when its lease ends.
    pub async fn postpone_errand(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        self.heard(self.store.postpone(id, due_at).await)
    }

    /// Takes an errand out.
    ///
    /// # Errors
    /// Where the store cannot be asked; it may then be run once more.
    pub async fn strike_errand(&self, id: &str) -> Result<(), Unavailable> {
        self.heard(self.store.strike(id).await)
    }

    /// How many errands wait.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn count_errands(&self) -> Result<u64, Unavailable> {
        self.heard(self.store.count_errands().await)
    }
}

/// Bound to its id, so that a box cannot take another's place. Whose it is stands inside.
fn context(id: &str) -> Context<'_> {
    Context { purpose: Purpose::Errand, name: id, app: "" }
}
