//! Sessions: what one is, when it ends, and the way to it from a cookie.
//!
//! The browser's cookie holds a sealed ticket; the ticket names a record in the store and holds the key
//! that opens it. The store alone opens nothing, nor does the key ring alone.
//!
//! This file has what is written: a session begins, gets new tokens, is used, and ends. `loading` is the
//! way back to it, through what this process has open already.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::config;
use crate::seal::{Context, Purpose};
use crate::tokens::{Identity, Tokens};
use cookie::{OpenedCookie, Ticket};
use store::{LeaseOwner, Record, RecordKey, Replaced, Unavailable, Version};

mod cache;
mod claims;
mod common;
pub mod cookie;
mod ending;
mod errands;
mod index;
mod loading;
mod outage;
mod record;
pub mod store;

pub use common::Common;
pub use ending::Cause;
pub use errands::Unopened;
pub use index::{EndedUnseen, Whose};

/// One user's session with one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub identity: Identity,
    /// What is sent upstream, and what renews it.
    pub tokens: Tokens,
    /// Which write of the record this is.
    pub version: Version,
    /// When the user logged in.
    pub created_at: Timestamp,
    /// When its lifetime is over, whatever the user does.
    pub expires_at: Timestamp,
    /// When it dies of idleness, if it is not touched before.
    pub idle_expires_at: Timestamp,
}

/// The sessions of one app.
#[derive(Debug)]
pub struct Sessions {
    app: Arc<str>,
    secure: bool,
    settings: config::Session,
    common: Arc<Common>,
}

/// What became of new tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokensReplaced {
    /// They lie in the store; this is the session as it is now.
    Written(Arc<Session>),
    /// Somebody else wrote in between; nothing was written.
    Conflict,
    /// The session has ended; nothing was written, and nothing keeps the new tokens.
    Ended,
}

impl Session {
    /// A session that begins now.
    pub fn begin(identity: Identity, tokens: Tokens, now: Timestamp, settings: &config::Session) -> Self {
        let mut session = Self {
            identity,
            tokens,
            version: Version(1),
            created_at: now,
            expires_at: now + settings.lifetime,
            idle_expires_at: now,
        };
        session.idle_expires_at = session.idle_deadline(now, settings.idle_timeout);
        session
    }

    /// Whether it may be used.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now < self.idle_expires_at && now < self.ends_at()
    }

    /// When it ends at the latest, however often it is used: with its lifetime or, where nothing can renew
    /// the access token, with that.
    pub fn ends_at(&self) -> Timestamp {
        match self.tokens.refresh_token {
            Some(_) => self.expires_at,
            None => self.expires_at.min(self.tokens.expires_at),
        }
    }

    /// When it dies of idleness if this moment's use is its last.
    fn idle_deadline(&self, now: Timestamp, idle_timeout: Duration) -> Timestamp {
        (now + idle_timeout).min(self.ends_at())
    }

    /// Whether this use of it is worth a write: a tenth of the idle timeout has passed since the last one,
    /// and there is time to be won.
    fn needs_touch(&self, now: Timestamp, idle_timeout: Duration) -> bool {
        self.idle_expires_at < self.ends_at()
            && now + idle_timeout >= self.idle_expires_at + idle_timeout / 10
    }
}

impl Sessions {
    /// The sessions of this app.
    pub fn new(app: &config::App, common: Arc<Common>) -> Self {
        Self {
            app: app.origin.as_str().into(),
            secure: app.origin.is_secure(),
            settings: app.session.clone(),
            common,
        }
    }

    /// The app's origin.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Whether sessions that are known here are served, if need be without the store.
    pub fn is_within_grace(&self) -> bool {
        self.common.is_within_grace()
    }

    /// What the sessions of all apps have in common.
    pub fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Whether a moment is still to come.
    pub fn is_future(&self, moment: Timestamp) -> bool {
        self.common.clock.now() < moment
    }

    /// How long a session lives, whatever its user does.
    pub fn lifetime(&self) -> Duration {
        self.settings.lifetime
    }

    /// The session cookie's name.
    pub fn cookie_name(&self) -> &str {
        &self.settings.cookie_name
    }

    /// The `Set-Cookie` value that gives the browser this cookie.
    pub fn set_cookie(&self, value: &str) -> HeaderValue {
        cookie::set(&self.settings, self.secure, value)
    }

    /// The `Set-Cookie` value that takes the cookie back.
    pub fn clear_cookie(&self) -> HeaderValue {
        cookie::clear(&self.settings, self.secure)
    }

    /// The ticket in a cookie's value; `None` where we did not seal it, for this cookie of this app.
    pub fn open_cookie(&self, value: &str) -> Option<Ticket> {
        let ticket = Ticket::from_cookie(value, &self.common.ring, &self.cookie_context());
        if ticket.is_none()
            && let Some(key) = Ticket::foreign_key(value, &self.common.ring)
        {
            self.common.note_foreign_key(&key);
        }
        ticket
    }

    /// The same of a request's cookie, which mostly was opened here before.
    pub fn ticket(&self, value: &str) -> Option<Arc<OpenedCookie>> {
        let tickets = &self.common.tickets;
        tickets.get(&self.app, value).or_else(|| {
            let cookie = Arc::new(OpenedCookie::new(self.open_cookie(value)?, value, &self.app)?);
            tickets.insert(value, Arc::clone(&cookie));
            Some(cookie)
        })
    }

    /// Begins a session, and gives its ticket and the cookie's value. Each has a new id (R23).
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn create(
        self: &Arc<Self>,
        tokens: Tokens,
        identity: Identity,
    ) -> Result<(Ticket, String), Unavailable> {
        let random = self.common.random;
        let ticket = Ticket::generate(random);
        let session = Session::begin(identity, tokens, self.common.clock.now(), &self.settings);
        let record = Record {
            sealed: self.seal(&ticket, &session),
            version: session.version,
            expires_at: session.idle_expires_at,
            indexes: self.indexes(&session.identity),
        };
        let writing = self.begin_write(&ticket);
        self.common.heard(self.common.store.create(&self.record_key(&ticket), &record).await)?;
        self.keep_written(writing, Arc::new(session), &record);
        let value = ticket.to_cookie(&self.common.ring, random, &self.cookie_context());
        Ok((ticket, value))
    }

    /// Writes new tokens, if the session still is as `current` says. Never brings an ended session back.
    ///
    /// # Errors
    /// Where the store cannot be asked; the tokens may have been written or not.
    pub async fn replace_tokens(
        self: &Arc<Self>,
        ticket: &Ticket,
        current: &Session,
        tokens: Tokens,
    ) -> Result<TokensReplaced, Unavailable> {
        let session = Session { tokens, version: Version(current.version.0 + 1), ..current.clone() };
        self.replace(ticket, current.version, session).await
    }

    /// Puts a session in the place of the version `expected`.
    async fn replace(
        self: &Arc<Self>,
        ticket: &Ticket,
        expected: Version,
        session: Session,
    ) -> Result<TokensReplaced, Unavailable> {
        let sealed = self.seal(ticket, &session);
        let key = self.record_key(ticket);
        let writing = self.begin_write(ticket);
        let replaced = self.common.store.replace(&key, expected, &sealed, session.version).await;
        match self.common.heard(replaced)? {
            Replaced::Written => {
                let session = Arc::new(session);
                let record = Record {
                    sealed,
                    version: session.version,
                    expires_at: session.idle_expires_at,
                    indexes: Vec::new(),
                };
                self.keep_written(writing, Arc::clone(&session), &record);
                Ok(TokensReplaced::Written(session))
            }
            Replaced::Conflict => Ok(TokensReplaced::Conflict),
            Replaced::Absent => {
                self.forget(&key);
                Ok(TokensReplaced::Ended)
            }
        }
    }

    /// Puts the idle timeout off because the session was used; writes only where that is due.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn touch(self: &Arc<Self>, ticket: &Ticket, session: &Session) -> Result<(), Unavailable> {
        if !self.touch_is_due(session) {
            return Ok(());
        }
        let deadline = session.idle_deadline(self.common.clock.now(), self.settings.idle_timeout);
        let key = self.record_key(ticket);
        // Of many requests at the due moment one writes.
        if !self.common.touched().insert(key.clone()) {
            return Ok(());
        }
        let writing = self.begin_write(ticket);
        let touched = self.common.store.touch(&key, session.idle_expires_at, deadline).await;
        self.common.touched().remove(&key);
        self.common.heard(touched)?;
        self.settle(writing);
        Ok(())
    }

    /// Whether [`Sessions::touch`] would write: not while the store is away, on each request anew.
    pub fn touch_is_due(&self, session: &Session) -> bool {
        !self.common.outage.is_on()
            && session.needs_touch(self.common.clock.now(), self.settings.idle_timeout)
    }

    /// Ends the session, and gives what it last was, with the newest tokens, for them to be revoked. `None`
    /// where there was none to end.
    ///
    /// # Errors
    /// Where the store cannot be asked; the session may have ended or not, and is not used here any more
    /// until the store has been asked.
    pub async fn end(&self, ticket: &Ticket) -> Result<Option<Session>, Unavailable> {
        let key = self.record_key(ticket);
        let taken = self.common.store.take(&key).await;
        // Also where nobody knows: who wanted it ended must not see it used.
        if !matches!(taken, Ok(None)) {
            self.common.ended.note(&self.app, &key, self.common.clock.now());
        }
        self.forget(&key);
        Ok(self.common.heard(taken)?.and_then(|record| self.open(ticket, &record)))
    }

    /// Ends the session if it is of this version: if nobody got further meanwhile.
    ///
    /// # Errors
    /// Where the store cannot be asked; the session may have ended or not.
    pub async fn end_version(
        &self,
        ticket: &Ticket,
        version: Version,
    ) -> Result<Option<Session>, Unavailable> {
        let key = self.record_key(ticket);
        let taken = self.common.heard(self.common.store.take_version(&key, version).await)?;
        if taken.is_some() {
            self.common.ended.note(&self.app, &key, self.common.clock.now());
            self.forget(&key);
        }
        Ok(taken.and_then(|record| self.open(ticket, &record)))
    }

    /// The key of the ticket's record, which names the session without opening it.
    pub fn record_key(&self, ticket: &Ticket) -> RecordKey {
        ticket.record_key().clone()
    }

    /// Takes or renews the lease on the session; `false` where another owner holds it.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub async fn lease(
        &self,
        ticket: &Ticket,
        owner: &LeaseOwner,
        time_to_live: Duration,
    ) -> Result<bool, Unavailable> {
        self.common.heard(self.common.store.lease(&self.record_key(ticket), owner, time_to_live).await)
    }

    /// Gives the lease up, if it is this owner's.
    ///
    /// # Errors
    /// Where the store cannot be asked; the lease then ends by itself.
    pub async fn release(&self, ticket: &Ticket, owner: &LeaseOwner) -> Result<(), Unavailable> {
        self.common.heard(self.common.store.release(&self.record_key(ticket), owner).await)
    }

    fn cookie_context(&self) -> Context<'_> {
        Context { purpose: Purpose::SessionCookie, name: &self.settings.cookie_name, app: &self.app }
    }

    fn seal(&self, ticket: &Ticket, session: &Session) -> Vec<u8> {
        let key = self.record_key(ticket);
        ticket.data_key.seal(self.common.random, &self.record_context(&key), &record::encode(session))
    }

    /// A record that does not open is of no use to anyone, ever: it counts as absent, loudly, for it is
    /// either an attack on the store or a fault of ours.
    fn open(&self, ticket: &Ticket, record: &Record) -> Option<Session> {
        let key = self.record_key(ticket);
        let opened = ticket
            .data_key
            .open(&self.record_context(&key), &record.sealed)
            .ok_or(record::Unreadable::Sealed)
            .and_then(|plaintext| record::decode(&plaintext, record));
        opened
            .inspect_err(|reason| {
                self.common.metrics.count_session_lookup("unreadable");
                tracing::error!(event = "session.record_unreadable", app = &*self.app, %reason);
            })
            .ok()
    }

    fn record_context<'a>(&'a self, key: &'a RecordKey) -> Context<'a> {
        Context { purpose: Purpose::SessionRecord, name: &key.0, app: &self.app }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Deref;

    use serde_json::json;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::config::{SameSite, SessionKey};
    use crate::dpop::Key;
    use crate::random::Random;
    use crate::seal::KeyRing;
    use crate::secret::Secret;
    use crate::telemetry::metrics::Metrics;
    use store::Store;
    use store::memory::MemoryStore;

    const IDLE: Duration = Duration::from_secs(1800);
    const LIFETIME: Duration = Duration::from_secs(43_200);
    const GRACE: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    /// An app's sessions on a memory store.
    struct Bench {
        clock: Arc<ManualClock>,
        store: Arc<MemoryStore>,
        sessions: Arc<Sessions>,
    }

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_800_000_000)));
            let store = Arc::new(MemoryStore::new(clock.clone()));
            let sessions = sessions("https://shop.example.com", &clock, &store);
            Self { clock, store, sessions }
        }

        async fn begin(&self) -> Ticket {
            self.sessions.create(tokens(self.clock.now()), identity()).await.unwrap().0
        }

        async fn load(&self, ticket: &Ticket) -> Option<Arc<Session>> {
            self.sessions.load(ticket).await.unwrap()
        }
    }

    fn sessions(app: &str, clock: &Arc<ManualClock>, store: &Arc<MemoryStore>) -> Arc<Sessions> {
        let common = Common::new(
            Arc::new(KeyRing::new(&[SessionKey::new([1; 32])])),
            store.clone(),
            GRACE,
            clock.clone(),
            Random::SYSTEM,
            TaskTracker::new(),
            Metrics::new(),
        );
        let common = Arc::new(common);
        Arc::new(Sessions { app: app.into(), secure: true, settings: settings(), common })
    }

    fn settings() -> config::Session {
        config::Session {
            cookie_name: "__Host-cloakroom".to_owned(),
            same_site: SameSite::Strict,
            idle_timeout: IDLE,
            lifetime: LIFETIME,
            refresh_before_expiry: Duration::from_secs(60),
        }
    }

    fn identity() -> Identity {
        Identity {
            issuer: "https://id.example.com".to_owned(),
            subject: "alice".to_owned(),
            sid: Some("s1".to_owned()),
            claims: json!({"name": "Alice \u{1f600} \"\\", "roles": ["a", 1, null]})
                .as_object()
                .unwrap()
                .clone(),
        }
    }

    fn tokens(now: Timestamp) -> Tokens {
        Tokens {
            access_token: Secret::new("access-\"\\\u{e9}"),
            issued_at: now,
            expires_at: now + Duration::from_secs(300),
            refresh_token: Some(Secret::new("refresh")),
            id_token: None,
            scopes: vec!["openid".to_owned(), "api".to_owned()],
            dpop_key: Some(Arc::new(Key::generate(Random::SYSTEM))),
            route_tokens: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn a_session_is_loaded_as_it_was_created() {
        let bench = Bench::new();
        let now = bench.clock.now();
        let tokens = tokens(now);
        let (ticket, value) = bench.sessions.create(tokens.clone(), identity()).await.unwrap();
        assert_eq!(bench.sessions.open_cookie(&value), Some(ticket.clone()));
        for _ in 0..2 {
            let opened = bench.sessions.ticket(&value);
            assert_eq!(opened.as_deref().map(Deref::deref), Some(&ticket));
        }
        let expected = Session {
            identity: identity(),
            tokens,
            version: Version(1),
            created_at: now,
            expires_at: now + LIFETIME,
            idle_expires_at: now + IDLE,
        };
        assert_eq!(bench.load(&ticket).await.as_deref(), Some(&expected));
    }

    #[tokio::test]
    async fn r23_every_session_has_an_id_and_a_key_of_its_own_and_an_unknown_one_is_not_adopted() {
        let bench = Bench::new();
        let (one, other) = (bench.begin().await, bench.begin().await);
        assert_ne!(one.id, other.id);
        assert_ne!(one.data_key, other.data_key);
        assert_eq!(bench.load(&Ticket::generate(Random::SYSTEM)).await, None);
    }

    #[tokio::test]
    async fn new_tokens_are_written_over_the_version_they_came_from() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        let first = bench.load(&ticket).await.unwrap();
        let renewed = Tokens { access_token: Secret::new("second"), ..first.tokens.clone() };
        let written = bench.sessions.replace_tokens(&ticket, &first, renewed.clone()).await.unwrap();
        let second =
            Arc::new(Session { tokens: renewed.clone(), version: Version(2), ..Session::clone(&first) });
        assert_eq!(written, TokensReplaced::Written(second.clone()));
        assert_eq!(bench.load(&ticket).await, Some(second));
        let late = bench.sessions.replace_tokens(&ticket, &first, renewed).await.unwrap();
        assert_eq!(late, TokensReplaced::Conflict);
    }

    #[tokio::test]
    async fn an_ended_session_gives_its_newest_tokens_once_and_never_comes_back() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        let first = bench.load(&ticket).await.unwrap();
        assert_eq!(bench.sessions.end_version(&ticket, Version(7)).await.unwrap(), None);
        assert_eq!(bench.sessions.end(&ticket).await.unwrap().as_ref(), Some(&*first));
        assert_eq!(bench.sessions.end(&ticket).await.unwrap(), None);
        let late = bench.sessions.replace_tokens(&ticket, &first, first.tokens.clone()).await.unwrap();
        assert_eq!(late, TokensReplaced::Ended);
        bench.clock.advance(IDLE / 2);
        bench.sessions.touch(&ticket, &first).await.unwrap();
        assert_eq!(bench.load(&ticket).await, None);
    }

    #[tokio::test]
    async fn r25_a_session_dies_of_idleness_and_of_age() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        bench.clock.advance(IDLE - SECOND);
        assert!(bench.load(&ticket).await.is_some());
        bench.clock.advance(SECOND);
        assert!(bench.load(&ticket).await.is_none());

        let ticket = bench.begin().await;
        let mut alive = Duration::ZERO;
        while let Some(session) = bench.load(&ticket).await {
            bench.sessions.touch(&ticket, &session).await.unwrap();
            bench.clock.advance(MINUTE);
            alive += MINUTE;
        }
        assert_eq!(alive, LIFETIME);
    }

    #[tokio::test]
    async fn a_session_is_touched_once_in_a_tenth_of_the_idle_timeout_by_whoever_saw_the_same() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        let seen = bench.load(&ticket).await.unwrap();
        bench.clock.advance(IDLE / 10 - SECOND);
        bench.sessions.touch(&ticket, &seen).await.unwrap();
        assert_eq!(bench.load(&ticket).await.unwrap(), seen);
        bench.clock.advance(SECOND);
        bench.sessions.touch(&ticket, &seen).await.unwrap();
        let touched = bench.load(&ticket).await.unwrap();
        assert_eq!(touched.idle_expires_at, bench.clock.now() + IDLE);
        bench.clock.advance(SECOND);
        bench.sessions.touch(&ticket, &seen).await.unwrap();
        assert_eq!(bench.load(&ticket).await.unwrap(), touched);
    }

    #[test]
    fn no_idle_deadline_is_past_the_lifetime() {
        let now = Timestamp::from_secs(1000);
        let session = Session::begin(identity(), tokens(now), now, &settings());
        assert_eq!(session.idle_deadline(now + LIFETIME / 2, IDLE), now + LIFETIME / 2 + IDLE);
        assert_eq!(session.idle_deadline(now + LIFETIME, IDLE), now + LIFETIME);
        let capped = Session { idle_expires_at: session.expires_at, ..session };
        assert!(!capped.needs_touch(now + LIFETIME, IDLE));
        let short = config::Session { lifetime: SECOND, ..settings() };
        assert_eq!(Session::begin(identity(), tokens(now), now, &short).idle_expires_at, now + SECOND);
    }

    #[tokio::test]
    async fn a_session_without_a_refresh_token_ends_with_its_access_token() {
        let bench = Bench::new();
        let tokens = Tokens { refresh_token: None, ..tokens(bench.clock.now()) };
        let (ticket, _) = bench.sessions.create(tokens, identity()).await.unwrap();
        bench.clock.advance(Duration::from_secs(299));
        let session = bench.load(&ticket).await.unwrap();
        assert_eq!(session.ends_at(), session.tokens.expires_at);
        bench.sessions.touch(&ticket, &session).await.unwrap();
        bench.clock.advance(SECOND);
        assert!(bench.load(&ticket).await.is_none());
    }

    #[tokio::test]
    async fn r22_a_record_under_anothers_key_or_of_another_app_counts_as_absent() {
        let bench = Bench::new();
        let (alice, bob) = (bench.begin().await, bench.begin().await);
        let stolen = bench.store.read(&alice.id.record_key()).await.unwrap().unwrap();
        bench.store.create(&bob.id.record_key(), &stolen).await.unwrap();
        assert_eq!(bench.load(&bob).await, None);
        let moved = Ticket::new(bob.id, alice.data_key.clone());
        assert_eq!(bench.load(&moved).await, None, "not even with its own key");
        assert!(bench.load(&alice).await.is_some());
        let other_app = sessions("https://other.example.com", &bench.clock, &bench.store);
        assert_eq!(other_app.load(&alice).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_altered_truncated_or_renumbered_record_counts_as_absent() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        let key = ticket.id.record_key();
        let record = bench.store.read(&key).await.unwrap().unwrap();
        let mut altered = record.sealed.clone();
        altered[40] ^= 1;
        let truncated = record.sealed[..record.sealed.len() - 1].to_vec();
        for damaged in [
            Record { sealed: altered, ..record.clone() },
            Record { sealed: truncated, ..record.clone() },
            Record { sealed: Vec::new(), ..record.clone() },
            Record { sealed: b"garbage".to_vec(), ..record.clone() },
            Record { version: Version(2), ..record.clone() },
        ] {
            bench.store.create(&key, &damaged).await.unwrap();
            assert_eq!(bench.load(&ticket).await, None);
        }
        bench.store.create(&key, &record).await.unwrap();
        assert!(bench.load(&ticket).await.is_some());
    }

    #[tokio::test]
    async fn a_mark_is_claimed_once_in_each_app() {
        let bench = Bench::new();
        let mark = "\0 any\r\nthing".repeat(10_000);
        assert!(bench.sessions.claim_once(&mark, IDLE).await.unwrap());
        assert!(!bench.sessions.claim_once(&mark, IDLE).await.unwrap());
        let other_app = sessions("https://other.example.com", &bench.clock, &bench.store);
        assert!(other_app.claim_once(&mark, IDLE).await.unwrap());
    }

    #[test]
    fn r62_debug_of_sessions_shows_no_token() {
        let now = Timestamp::from_secs(1000);
        let shown = format!("{:?}", Session::begin(identity(), tokens(now), now, &settings()));
        assert!(!shown.contains("access-") && !shown.contains("\"refresh\""), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn r49_who_waits_for_the_end_learns_of_a_logout_here_at_once() {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        let started = tokio::time::Instant::now();
        let logout = async {
            tokio::time::sleep(SECOND).await;
            bench.sessions.end(&ticket).await.unwrap();
        };
        tokio::join!(bench.sessions.until_ended(&ticket), logout);
        assert_eq!(started.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn r49_and_of_an_end_elsewhere_once_it_is_told_and_of_idleness_within_twenty_seconds() {
        let bench = Bench::new();
        for (end_elsewhere, seconds) in [(true, 61), (false, 80)] {
            let ticket = bench.begin().await;
            let started = tokio::time::Instant::now();
            let end = async {
                tokio::time::sleep(MINUTE + SECOND).await;
                if end_elsewhere {
                    bench.store.take(&bench.sessions.record_key(&ticket)).await.unwrap();
                } else {
                    bench.clock.advance(IDLE);
                }
            };
            tokio::join!(bench.sessions.until_ended(&ticket), end);
            assert_eq!(started.elapsed(), Duration::from_secs(seconds), "{end_elsewhere}");
        }
    }
}
