//! Sessions by whose they are, for an issuer or an operator who wants to end them and has no cookie
//! (Back-Channel Logout §2.7). The names of the indexes are keyed hashes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::store::{IndexKey, RecordKey, Unavailable};
use super::{Session, Sessions};
use crate::clock::Timestamp;
use crate::telemetry::audit::Facts;
use crate::tokens::Identity;

/// Whose sessions are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All of one user (`sub`).
    Subject(String),
    /// All of one session at the issuer (`sid`).
    Sid(String),
    /// Those of one session at the issuer that are also this user's.
    SubjectAndSid {
        /// `sub`
        subject: String,
        /// `sid`
        sid: String,
    },
}

impl Whose {
    /// As the audit trail has it.
    pub fn facts(&self) -> Facts<'_> {
        let (user, issuer_session) = match self {
            Self::Subject(subject) => (Some(subject.as_str()), None),
            Self::Sid(sid) => (None, Some(sid.as_str())),
            Self::SubjectAndSid { subject, sid } => (Some(subject.as_str()), Some(sid.as_str())),
        };
        Facts { user, issuer_session, ..Facts::default() }
    }
}

/// A session that was ended without its cookie.
#[derive(Debug)]
pub struct EndedUnseen {
    /// What it last was, where this process had it open. Else nobody can read its record any more.
    pub session: Option<Session>,
    /// When it would have died of idleness.
    pub idle_expires_at: Timestamp,
}

impl Sessions {
    /// The keys of the sessions that are meant. One may name nothing: a session that has just ended.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn find(&self, issuer: &str, whose: &Whose) -> Result<Vec<RecordKey>, Unavailable> {
        let found = match whose {
            Whose::Subject(subject) => self.list("sub", issuer, subject).await?,
            Whose::Sid(sid) => self.list("sid", issuer, sid).await?,
            Whose::SubjectAndSid { subject, sid } => {
                let of_subject = self.list("sub", issuer, subject).await?;
                let of_sid = self.list("sid", issuer, sid).await?;
                of_subject.intersection(&of_sid).cloned().collect()
            }
        };
        Ok(found.into_iter().collect())
    }

    /// When the session dies of idleness or of age; `None` where it has ended.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn expires_at(&self, key: &RecordKey) -> Result<Option<Timestamp>, Unavailable> {
        Ok(self.common.heard(self.common.store.read(key).await)?.map(|record| record.expires_at))
    }

    /// Ends a session without its cookie; `None` where there was none to end.
    ///
    /// # Errors
    /// Where the store cannot be asked; the session may have ended or not, and is not used here any more
    /// until the store has been asked.
    pub async fn end_unseen(&self, key: &RecordKey) -> Result<Option<EndedUnseen>, Unavailable> {
        // Before it goes: who finds it gone meanwhile forgets it, and nobody else can read what was taken.
        let known = self.common.opened.get(key);
        let taken = self.common.store.take(key).await;
        if !matches!(taken, Ok(None)) {
            self.common.ended.note(&self.app, key, self.common.clock.now());
        }
        self.forget(key);
        Ok(self.common.heard(taken)?.map(|record| EndedUnseen {
            session: known.and_then(|known| self.open(&known.ticket, &record)),
            idle_expires_at: record.expires_at,
        }))
    }

    /// The session as this process has it open, if it has. Asks nobody.
    pub fn held(&self, key: &RecordKey) -> Option<Arc<Session>> {
        self.common.opened.get(key).map(|known| Arc::clone(&known.session))
    }

    /// The indexes that list a session of this user.
    pub(super) fn indexes(&self, identity: &Identity) -> Vec<IndexKey> {
        let subject = self.index_keys("sub", &identity.issuer, &identity.subject).into_iter().next();
        let sid = identity
            .sid
            .as_ref()
            .and_then(|sid| self.index_keys("sid", &identity.issuer, sid).into_iter().next());
        subject.into_iter().chain(sid).collect()
    }

    async fn list(&self, kind: &str, issuer: &str, value: &str) -> Result<BTreeSet<RecordKey>, Unavailable> {
        let mut keys = BTreeSet::new();
        for index in self.index_keys(kind, issuer, value) {
            keys.extend(self.common.heard(self.common.store.list(&index).await)?);
        }
        Ok(keys)
    }

    /// Under each key of the ring: a session is listed under the one that was first when it began.
    fn index_keys(&self, kind: &str, issuer: &str, value: &str) -> Vec<IndexKey> {
        let parts = [self.app.as_bytes(), issuer.as_bytes(), value.as_bytes()];
        self.common.ring.names(kind, &parts).into_iter().map(IndexKey).collect()
    }
}
