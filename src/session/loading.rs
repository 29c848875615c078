//! The way to a session: what this process has open already, the store, and what to do while the store is
//! away or has gone back in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cache::{Fingerprint, Known, LONGEST_UNCONFIRMED};
use super::cookie::Ticket;
use super::store::changes::Mark;
use super::store::{Record, RecordKey, Unavailable};
use super::{Session, Sessions, TokensReplaced};
use crate::clock::Timestamp;

/// How long a write of ours is waited for to be told of.
const TELLING: Duration = Duration::from_secs(1);

/// How far back a store may have gone: what was written longer ago is not looked for after a break.
const FARTHEST_BACK: Duration = Duration::from_secs(120);

/// After what pause a store that has come back is asked again for what was written or ended here.
const BETWEEN_TRIES: Duration = Duration::from_millis(250);

/// A write under way.
pub(super) struct Writing {
    ticket: Ticket,
    mark: Mark,
    /// Is woken once the store tells of it.
    told: Arc<Notify>,
}

impl Sessions {
    /// The ticket's session; `None` where it has ended or never was, or its record cannot be read. One that
    /// is open here already and as it was, as far as the store tells, is not asked for again; while the
    /// store is away, one that was open here before is served for the time of grace.
    ///
    /// # Errors
    /// Where the store cannot be asked; the session may well be alive.
    pub async fn load(self: &Arc<Self>, ticket: &Ticket) -> Result<Option<Arc<Session>>, Unavailable> {
        let now = self.common.clock.now();
        let known = self.common.opened.of(ticket);
        if let Some(session) = known.as_ref().and_then(|known| self.confirmed(known, now)) {
            self.common.metrics.count_session_hit();
            return Ok(Some(session));
        }
        let servable = |now| known.as_ref().and_then(|known| self.servable(known, now));
        if let Some(session) = servable(now)
            && !self.common.outage.claim_try()
        {
            self.count_lookup("outage");
            return Ok(Some(session));
        }
        match (Box::pin(self.load_stored(ticket)).await, servable(self.common.clock.now())) {
            (Ok(session), _) => {
                self.count_lookup("miss");
                Ok(session)
            }
            (Err(_), Some(session)) => {
                self.count_lookup("outage");
                Ok(Some(session))
            }
            (Err(unavailable), None) => {
                self.count_lookup("unavailable");
                Err(unavailable)
            }
        }
    }

    /// The ticket's session as it lies in the store, past what is open here.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn load_stored(self: &Arc<Self>, ticket: &Ticket) -> Result<Option<Arc<Session>>, Unavailable> {
        let key = self.record_key(ticket);
        let mut has_died_meanwhile = false;
        loop {
            let known = self.common.opened.of(ticket);
            let mark = self.common.store.changes().mark(&key);
            let Some(record) = self.common.heard(self.common.store.read(&key).await)? else {
                self.forget(&key);
                return Ok(None);
            };
            if self.common.ended.has(&key) {
                self.end_again(&key).await?;
                return Ok(None);
            }
            // A failover may lose what was written last; whoever holds it writes it again.
            if let Some(newer) = known.as_ref().filter(|known| known.session.version > record.version) {
                match self.mend(&newer.ticket, &newer.session, &record).await? {
                    TokensReplaced::Written(session) => return Ok(Some(session).filter(|s| self.is_alive(s))),
                    TokensReplaced::Conflict => continue,
                    TokensReplaced::Ended => return Ok(None),
                }
            }
            let fingerprint = Fingerprint::of(ticket, &record);
            let session = match known.filter(|known| known.is_of(fingerprint)) {
                Some(known) => with_deadline(&known.session, record.expires_at),
                None => match self.open(ticket, &record) {
                    Some(session) => Arc::new(session),
                    None => {
                        self.forget(&key);
                        return Ok(None);
                    }
                },
            };
            self.keep(ticket, &session, &record, fingerprint, mark);
            // It lived when it was read. Somebody may have touched it since.
            if !self.is_alive(&session) && !has_died_meanwhile {
                has_died_meanwhile = true;
                continue;
            }
            return Ok(Some(session).filter(|session| self.is_alive(session)));
        }
    }

    /// To be taken before a session is read that is to be kept elsewhere.
    pub fn mark(&self, ticket: &Ticket) -> Mark {
        self.common.store.changes().mark(&self.record_key(ticket))
    }

    /// Whether nothing was told of a session since this mark. What may have changed, or ended, is not served
    /// in an outage.
    pub fn is_untouched(&self, mark: &Mark) -> bool {
        self.common.store.changes().is_untouched(mark)
    }

    /// Wakes whoever waits for it when something is told of a session, and when the store is heard of again.
    pub fn await_change(&self, ticket: &Ticket) -> Arc<Notify> {
        self.common.store.changes().await_change(&self.record_key(ticket))
    }

    /// Whether the store has failed within this time, or was not heard of, though it may answer again.
    pub fn had_an_outage_within(&self, time: Duration) -> bool {
        self.common.clock.now().since(self.common.outage.failed_at()) < time
    }

    /// Runs until it is told to stop, and then to the end of an outage that it has seen begin. When the store's
    /// notifications break off, an outage begins;
    /// when they are back, what was written and ended here lately is looked for: the store may have lost it,
    /// and another gateway would redeem a refresh token that was redeemed before, or serve who has left.
    ///
    /// What takes the place of another such watch leaves the outage to it that is under way.
    pub async fn watch_store(self: Arc<Self>, is_successor: bool, stop: CancellationToken) {
        let mut are_told = self.common.store.changes().are_told();
        if is_successor && are_told.wait_for(|told| *told).await.is_err() {
            return;
        }
        let mut were_told = *are_told.borrow();
        loop {
            tokio::select! {
                biased;
                breaks_off = are_told.wait_for(|told| !told) => if breaks_off.is_err() { return },
                () = stop.cancelled() => return,
            }
            let broke_at = self.common.clock.now();
            self.common.outage.note_break(broke_at);
            if are_told.wait_for(|told| *told).await.is_err() {
                return;
            }
            // It has been away until now, though nobody may have asked it anything; unless this is the beginning.
            if std::mem::replace(&mut were_told, true) {
                self.common.outage.note_failure(self.common.clock.now());
            }
            self.common.outage.note_answer();
            let farthest = FARTHEST_BACK.as_millis().try_into().unwrap_or(u64::MAX);
            let since = Timestamp::from_millis(broke_at.as_millis().saturating_sub(farthest));
            for key in self.common.ended.since(&self.app, since) {
                while let Err(unavailable) = self.end_again(&key).await
                    && self.is_worth_another_try(&unavailable).await
                {}
            }
            for known in self.common.opened.written_since(&self.app, since) {
                while let Err(unavailable) = self.load_stored(&known.ticket).await
                    && self.is_worth_another_try(&unavailable).await
                {}
            }
        }
    }

    /// Right after a failover, not every connection leads to the new primary yet. Waits a moment.
    async fn is_worth_another_try(&self, unavailable: &Unavailable) -> bool {
        tracing::warn!(event = "session.not_looked_for", error = %unavailable);
        tokio::time::sleep(BETWEEN_TRIES).await;
        self.common.store.changes().tells()
    }

    /// Takes out a record that this process has taken out before: the store has lost that. The tokens there
    /// were then are revoked; what another gateway may have written since dies unread.
    async fn end_again(&self, key: &RecordKey) -> Result<(), Unavailable> {
        if self.common.heard(self.common.store.take(key).await)?.is_some() {
            self.common.metrics.count_mended_record();
            tracing::warn!(event = "session.store_went_back", "a session that had ended is ended again");
        }
        self.forget(key);
        Ok(())
    }

    /// To be called before a write, so that nothing is missed of what is told of it.
    pub(super) fn begin_write(&self, ticket: &Ticket) -> Writing {
        let (changes, key) = (self.common.store.changes(), self.record_key(ticket));
        Writing { ticket: ticket.clone(), mark: changes.mark(&key), told: changes.await_change(&key) }
    }

    /// Keeps what was written here.
    pub(super) fn keep_written(self: &Arc<Self>, writing: Writing, session: Arc<Session>, record: &Record) {
        let now = self.common.clock.now();
        let ticket = &writing.ticket;
        let fingerprint = Fingerprint::of(ticket, record);
        let mut known = Known::new(&self.app, ticket, session, record, fingerprint, writing.mark, now);
        known.written_at = Some(now);
        self.common.opened.insert(known);
        self.settle(writing);
    }

    /// Reads a session again once the store has told of a write of ours: it cannot tell ours from others',
    /// and a session that may have changed is not served in an outage.
    pub(super) fn settle(self: &Arc<Self>, writing: Writing) {
        let sessions = Arc::clone(self);
        self.common.tasks.spawn(async move {
            let key = sessions.record_key(&writing.ticket);
            let changes = sessions.common.store.changes();
            let told = writing.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if changes.is_untouched(&writing.mark) {
                let _ = tokio::time::timeout(TELLING, told).await;
            }
            let is_kept = sessions.common.opened.get(&key);
            if is_kept.is_some_and(|known| !changes.is_current(&known.mark)) {
                // What goes wrong here the next request sees for itself.
                let _ = sessions.load_stored(&writing.ticket).await;
            }
        });
    }

    /// The session has ended, or may have: nothing of it is used any more before the store was asked.
    pub(super) fn forget(&self, key: &RecordKey) {
        // Told first: who reads at this moment keeps nothing that counts.
        self.common.store.changes().note(key);
        self.common.opened.remove(key);
    }

    /// A known session that needs no asking.
    fn confirmed(&self, known: &Known, now: Timestamp) -> Option<Arc<Session>> {
        let is_confirmed = self.common.outage.has_grace()
            && known.confirmed_at <= now
            && now.since(known.confirmed_at) < LONGEST_UNCONFIRMED
            && self.common.store.changes().is_current(&known.mark)
            && known.session.is_alive(now);
        is_confirmed.then(|| Arc::clone(&known.session))
    }

    /// A known session that may be used while the store does not answer.
    fn servable(&self, known: &Known, now: Timestamp) -> Option<Arc<Session>> {
        let (changes, outage) = (self.common.store.changes(), &self.common.outage);
        // When the store last vouched for it, by its answer or by telling of no change. The outage alone does
        // not bound this: a part of the store may answer while this session's does not.
        let vouched_at = if changes.is_current(&known.mark) {
            now
        } else if changes.was_told_until_the_break(&known.mark) {
            known.confirmed_at.max(outage.broke_at())
        } else {
            known.confirmed_at
        };
        let is_servable = outage.is_within_grace(now)
            && outage.is_grace_left(vouched_at, now)
            && changes.is_untouched(&known.mark)
            && known.session.is_alive(now);
        is_servable.then(|| Arc::clone(&known.session))
    }

    /// Whether the session is known here, and may be used while the store does not answer.
    pub(super) fn is_servable(&self, ticket: &Ticket) -> bool {
        let now = self.common.clock.now();
        self.common.opened.of(ticket).is_some_and(|known| self.servable(&known, now).is_some())
    }

    fn count_lookup(&self, result: &'static str) {
        self.common.metrics.count_session_lookup(result);
    }

    fn keep(
        &self,
        ticket: &Ticket,
        session: &Arc<Session>,
        record: &Record,
        fingerprint: Fingerprint,
        mark: Mark,
    ) {
        // It ended, or was written, while it was read: the next request will ask again.
        if !self.common.store.changes().is_untouched(&mark) {
            return;
        }
        let now = self.common.clock.now();
        let session = Arc::clone(session);
        let mut known = Known::new(&self.app, ticket, session, record, fingerprint, mark, now);
        known.written_at = self.common.opened.of(ticket).and_then(|known| known.written_at);
        self.common.opened.insert(known);
    }

    async fn mend(
        self: &Arc<Self>,
        ticket: &Ticket,
        newer: &Session,
        found: &Record,
    ) -> Result<TokensReplaced, Unavailable> {
        let session = Session { idle_expires_at: found.expires_at, ..newer.clone() };
        let (lost, found) = (newer.version.0, found.version);
        let outcome = self.replace(ticket, found, session).await?;
        if let TokensReplaced::Written(_) = outcome {
            self.common.metrics.count_mended_record();
            tracing::warn!(event = "session.store_went_back", found = found.0, lost);
        }
        Ok(outcome)
    }

    fn is_alive(&self, session: &Session) -> bool {
        session.is_alive(self.common.clock.now())
    }
}

/// The session with the deadline that the store has; a touch moves nothing else.
fn with_deadline(session: &Arc<Session>, idle_expires_at: Timestamp) -> Arc<Session> {
    if session.idle_expires_at == idle_expires_at {
        return Arc::clone(session);
    }
    Arc::new(Session { idle_expires_at, ..Session::clone(session) })
}
