//! How a flight's tokens get into the record, or are thrown away.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Outcome;
use super::conflict::{Settled, settle};
use super::flight::{Flight, LONGEST_POLL, POLL, store_unavailable};
use crate::revocation::Unwanted;
use crate::session::store::changes::Mark;
use crate::session::store::{Unavailable, Version};
use crate::session::{Cause, Session, TokensReplaced};
use crate::telemetry::audit::{Event, Facts};
use crate::tokens::Tokens;

/// What became of a try to write.
enum Written {
    Done(Outcome),
    /// It is to be tried again, over something else.
    Again,
    /// The access token is another by now than the one that was exchanged.
    Overtaken,
}

impl Flight {
    /// Writes what was issued. While the store is away, this process serves the new tokens and keeps
    /// trying, under a lease it wants all the while.
    ///
    /// `None` as [`Flight::fly`] says.
    pub(super) async fn write(
        &self,
        mut before: Arc<Session>,
        mut mark: Mark,
        mut tokens: Tokens,
    ) -> Option<Outcome> {
        let change = self.shared.sessions.await_change(&self.ticket);
        let mut pause = POLL;
        loop {
            let mut changed = pin!(change.notified());
            changed.as_mut().enable();
            let unavailable = match self.try_write(&mut before, &mut mark, &mut tokens).await {
                Ok(Written::Done(outcome)) => return Some(outcome),
                Ok(Written::Again) => continue,
                Ok(Written::Overtaken) => return None,
                Err(unavailable) => unavailable,
            };
            // What was exchanged is easily had again. It lies in the record, and will be found there, or nowhere.
            if self.lease.is_none() {
                return Some(store_unavailable(&unavailable));
            }
            // The session has died of age: nobody will ask for these tokens, nor log them out.
            if self.shared.clock.now() >= before.expires_at {
                return Some(self.discard(&before, &tokens).await);
            }
            let version = Version(before.version.0 + 1);
            let newer = Session { tokens: tokens.clone(), version, ..Session::clone(&before) };
            self.tell_unwritten(newer, mark, &unavailable);
            // A store that is heard of again wakes all who wait for it.
            let is_told = tokio::time::timeout(self.jittered(pause), changed).await.is_ok();
            pause = if is_told { POLL } else { (pause * 2).min(LONGEST_POLL) };
        }
    }

    /// Writes over `before`, or over what lies there in its place, where that loses nothing: then it is `before`.
    async fn try_write(
        &self,
        before: &mut Arc<Session>,
        mark: &mut Mark,
        tokens: &mut Tokens,
    ) -> Result<Written, Unavailable> {
        let sessions = &self.shared.sessions;
        match sessions.replace_tokens(&self.ticket, before, tokens.clone()).await? {
            TokensReplaced::Written(session) => return Ok(Written::Done(Outcome::Fresh(session))),
            TokensReplaced::Ended => return Ok(Written::Done(self.discard(before, tokens).await)),
            TokensReplaced::Conflict => {}
        }
        *mark = sessions.mark(&self.ticket);
        let Some(found) = sessions.load_stored(&self.ticket).await? else {
            return Ok(Written::Done(self.discard(before, tokens).await));
        };
        // A failover may lose what was written last, and with it what `before` was.
        if found.version <= before.version {
            tracing::warn!(event = "refresh.store_went_back", found = found.version.0);
            *before = found;
            return Ok(Written::Again);
        }
        let (wanted, now) = (self.wanted.as_ref(), self.shared.clock.now());
        match settle(wanted, &before.tokens, &found.tokens, tokens, now) {
            Settled::Write(merged) => {
                (*before, *tokens) = (found, *merged);
                return Ok(Written::Again);
            }
            Settled::Overtaken => {
                self.revoke_issued(before, tokens).await;
                return Ok(Written::Overtaken);
            }
            Settled::Theirs => {}
        }
        if found.tokens != *tokens {
            tracing::warn!(event = "refresh.conflict", found = found.version.0);
            if self.lease.is_none() {
                self.tell(Outcome::Fresh(Arc::clone(&found)));
                self.revoke_issued(before, tokens).await;
            }
        }
        Ok(Written::Done(Outcome::Fresh(found)))
    }

    /// The session's end was faster: what was issued for a dead session is revoked and thrown away.
    async fn discard(&self, before: &Session, tokens: &Tokens) -> Outcome {
        tracing::info!(event = "refresh.session_gone", "what was issued is revoked");
        self.tell(Outcome::Gone);
        self.revoke_issued(before, tokens).await;
        Outcome::Gone
    }

    /// Of the tokens that were to be written, those that this flight has brought.
    async fn revoke_issued(&self, before: &Session, tokens: &Tokens) {
        let (revocations, whose) = (&self.shared.revocations, &before.identity);
        let Some(wanted) = &self.wanted else { return revocations.revoke(whose, tokens).await };
        let refresh_token = tokens.refresh_token.as_ref().filter(|_| self.lease.is_some());
        let refresh_token = refresh_token.map(Unwanted::refresh_token);
        let token = tokens.route_tokens.get(wanted);
        let token = token.map(|token| Unwanted::access_token(&token.value, token.expires_at));
        let issued: Vec<_> = refresh_token.into_iter().chain(token).collect();
        revocations.revoke_these(whose, &issued).await;
    }

    /// The refresh token is dead. Another process may have got further; otherwise the session has ended.
    pub(super) async fn end(&self, version: Version, cause: Cause) -> Outcome {
        match self.shared.sessions.end_version(&self.ticket, version).await {
            Ok(Some(session)) => {
                let facts = self.shared.sessions.facts(&session.identity, self.ticket.record_key());
                self.shared.sessions.note_end(cause, &facts);
                self.tell(Outcome::Ended);
                self.shared.revocations.revoke(&session.identity, &session.tokens).await;
                Outcome::Ended
            }
            Ok(None) => match self.shared.sessions.load_stored(&self.ticket).await {
                Ok(Some(session)) => Outcome::Fresh(session),
                Ok(None) => Outcome::Gone,
                Err(unavailable) => store_unavailable(&unavailable),
            },
            Err(unavailable) => store_unavailable(&unavailable),
        }
    }

    /// For the audit trail.
    pub(super) fn note(&self, event: Event, session: &Session, reason: Option<&'static str>) {
        let sessions = &self.shared.sessions;
        let kind = Some(if self.wanted.is_some() { "route_token" } else { "access_token" });
        let facts = sessions.facts(&session.identity, self.ticket.record_key());
        sessions.common().audit().note(event, &Facts { kind, reason, ..facts });
    }

    /// Lets this process serve what the store did not take.
    fn tell_unwritten(&self, newer: Session, mark: Mark, unavailable: &Unavailable) {
        // Counted before anybody can know of it, and until the flight ends.
        self.shared.board.unwritten.fetch_add(1, Ordering::SeqCst);
        if self.tell(Outcome::Unwritten(Arc::new(newer), mark)) {
            tracing::warn!(event = "refresh.unwritten", error = %unavailable);
        } else {
            self.shared.board.unwritten.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
