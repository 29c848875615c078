//! Has the issuer confirm the access tokens in use (RFC 7662), where they may die before their time and nobody else
//! would notice.
//!
//! A token is as good as confirmed when it is issued. Once the issuer's last word is too old, the next request asks, for
//! all others too, in a task of its own. An issuer that does not say ends nothing: the token is used until it expires.
//! Nor does one that calls tokens dead and never one alive: so it answers a client that may not ask (RFC 7662 §2.2).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout_at};

use super::{Failure, RETRY_AFTER, Refresher};
use crate::clock::Timestamp;
use crate::oidc::{Client, Clients, IntrospectError, Introspection};
use crate::session::cookie::Ticket;
use crate::session::store::{RecordKey, Version};
use crate::session::{Cause, Session};
use crate::telemetry::{chain, for_request};

/// Of how many sessions the issuer's last word is remembered. Whoever is forgotten is asked for again.
const MOST_KNOWN: u64 = 1 << 16;

/// For how many of them there is room from the start.
const FEW_KNOWN: usize = 256;

/// How long requests wait for one answer, counted from the question on.
const REQUEST_WAIT: Duration = Duration::from_secs(3);

/// How soon an issuer that did not say, or a token that is dead and could not be replaced, is looked at again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log says that an issuer refuses to tell, in seconds; each session in use finds it out by itself.
const BETWEEN_COMPLAINTS: u64 = 60;

/// The issuer's word on the access tokens of one app's sessions.
#[derive(Clone, Debug)]
pub struct Confirmations(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    refresher: Refresher,
    /// The issuers that are asked; the tokens of another are good until they expire.
    issuers: HashMap<String, Issuer>,
    known: Arc<Cache<RecordKey, Known>>,
    /// At most one question for each session.
    flights: Arc<Mutex<HashMap<RecordKey, Arc<Flight>>>>,
}

/// An issuer that is asked.
#[derive(Debug)]
struct Issuer {
    client: Arc<Client>,
    /// How old its word may be.
    interval: Duration,
    heard: Arc<Heard>,
}

/// What a client has heard of an issuer.
#[derive(Debug, Default)]
struct Heard {
    /// Whether it has called a token active, ever since this process began. Only then it can tell a dead one.
    has_confirmed: AtomicBool,
    complained_at: AtomicU64,
}

/// What the issuer last said of a session's access token.
#[derive(Clone, Copy, Debug)]
struct Known {
    version: Version,
    word: Word,
    until: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Active,
    Inactive,
    /// It did not say.
    Unknown,
}

/// One question, and its answer.
#[derive(Debug)]
struct Flight {
    version: Version,
    started: Instant,
    answer: SetOnce<Word>,
}

/// A flight that is on its way; however it ends, nobody waits for it, nor may join it any more.
struct Landing {
    shared: Arc<Shared>,
    key: RecordKey,
    interval: Duration,
    flight: Arc<Flight>,
}

impl Confirmations {
    /// For the issuers that want it: a token is confirmed where its last confirmation is too old, and a dead one replaced
    /// by this refresher. `None` where none of them does. What was heard `before` is not asked again.
    pub fn wanted(clients: &Clients, refresher: &Refresher, before: Option<&Self>) -> Option<Self> {
        let issuers = clients.iter().filter_map(|client| {
            let interval = client.introspection_interval()?;
            let before = before.and_then(|before| before.0.issuers.get(client.issuer()));
            // Another client of the issuer's may not ask, and would be told that all tokens are dead.
            let before = before.filter(|before| Arc::ptr_eq(&before.client, client));
            let heard = before.map(|before| Arc::clone(&before.heard)).unwrap_or_default();
            Some((client.issuer().to_owned(), Issuer { client: Arc::clone(client), interval, heard }))
        });
        let issuers: HashMap<_, _> = issuers.collect();
        if issuers.is_empty() {
            return None;
        }
        let (known, flights) = match before {
            Some(Self(before)) => (Arc::clone(&before.known), Arc::clone(&before.flights)),
            None => (Arc::new(Cache::with_weighter(FEW_KNOWN, MOST_KNOWN, UnitWeighter)), Arc::default()),
        };
        Some(Self(Arc::new(Shared { refresher: refresher.clone(), issuers, known, flights })))
    }

    /// The session, where its access token is good as far as the issuer says; the same with a fresh token, where it
    /// is dead.
    ///
    /// # Errors
    /// Where the token is dead, and there is no other.
    pub async fn confirm(&self, ticket: &Ticket, session: Arc<Session>) -> Result<Arc<Session>, Failure> {
        let Some(issuer) = self.0.issuers.get(&session.identity.issuer) else { return Ok(session) };
        match self.0.word(ticket, &session, issuer.interval).await {
            Word::Active | Word::Unknown => Ok(session),
            Word::Inactive => self.0.replace(ticket, &session).await,
        }
    }
}

impl Heard {
    /// Whether the log is to hear of it now that it refuses to tell. Notes that it does.
    fn may_complain(&self, now: Timestamp) -> bool {
        let (last, now) = (self.complained_at.load(Ordering::Relaxed), now.as_secs());
        now >= last + BETWEEN_COMPLAINTS
            && self.complained_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Shared {
    async fn word(self: &Arc<Self>, ticket: &Ticket, session: &Arc<Session>, interval: Duration) -> Word {
        let now = self.refresher.0.clock.now();
        if now.since(session.tokens.issued_at) < interval {
            return Word::Active;
        }
        let known = self.known.get(ticket.record_key());
        if let Some(known) = known.filter(|known| known.version == session.version && now < known.until) {
            return known.word;
        }
        let flight = self.board(ticket, session, interval);
        // It is about a token that was replaced meanwhile.
        if flight.version != session.version {
            return Word::Unknown;
        }
        let answered = timeout_at(flight.started + REQUEST_WAIT, flight.answer.wait()).await;
        answered.copied().unwrap_or(Word::Unknown)
    }

    /// Joins the question that is asked about this session, or asks.
    fn board(self: &Arc<Self>, ticket: &Ticket, session: &Arc<Session>, interval: Duration) -> Arc<Flight> {
        let key = ticket.record_key().clone();
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            return Arc::clone(flight);
        }
        let (version, started) = (session.version, Instant::now());
        let flight = Arc::new(Flight { version, started, answer: SetOnce::new() });
        flights.insert(key.clone(), Arc::clone(&flight));
        drop(flights);
        let landing = Landing { shared: Arc::clone(self), key, interval, flight: Arc::clone(&flight) };
        let (shared, ticket, session) = (Arc::clone(self), ticket.clone(), Arc::clone(session));
        self.refresher.0.tasks.spawn(for_request(async move {
            let word = shared.ask(&ticket, &session).await;
            landing.tell(word);
        }));
        flight
    }

    async fn ask(&self, ticket: &Ticket, session: &Session) -> Word {
        let refresher = &self.refresher.0;
        let Some(issuer) = self.issuers.get(&session.identity.issuer) else { return Word::Unknown };
        let said = refresher.grants.introspect(&session.tokens.access_token, &session.identity).await;
        let (word, result) = match &said {
            Ok(Introspection::Active) => (Word::Active, "active"),
            Ok(Introspection::Inactive) if issuer.heard.has_confirmed.load(Ordering::Relaxed) => {
                (Word::Inactive, "inactive")
            }
            Err(IntrospectError::Unavailable(_)) => (Word::Unknown, "unavailable"),
            Ok(Introspection::Inactive)
            | Err(
                IntrospectError::NotOffered | IntrospectError::Refused { .. } | IntrospectError::Malformed,
            ) => (Word::Unknown, "refused"),
        };
        refresher.sessions.common().metrics().count_introspection(refresher.sessions.app(), result);
        match &said {
            Ok(Introspection::Active) => {
                issuer.heard.has_confirmed.store(true, Ordering::Relaxed);
                // Should it die one day, replacing it may help again.
                self.refresher.note_accepted(ticket, None);
            }
            Ok(Introspection::Inactive) if word == Word::Inactive => {
                tracing::info!(event = "introspection.inactive", "the token has died before its time");
            }
            Err(error @ IntrospectError::Unavailable(_)) => {
                tracing::warn!(event = "introspection.issuer_unavailable", error = %chain(error), "tokens are used until they expire");
            }
            _ if !issuer.heard.may_complain(refresher.clock.now()) => {}
            Ok(Introspection::Inactive) => {
                tracing::error!(
                    event = "introspection.refused",
                    "the issuer has called no token active yet: may this client ask? Tokens are used until they expire"
                );
            }
            Err(error) => {
                tracing::error!(event = "introspection.refused", error = %chain(error), "tokens are used until they expire");
            }
        }
        word
    }

    /// A dead token is replaced like one that has expired; where nothing can replace it, the session has ended.
    async fn replace(&self, ticket: &Ticket, dead: &Session) -> Result<Arc<Session>, Failure> {
        if dead.tokens.refresh_token.is_none() {
            return Err(self.end(ticket, dead).await);
        }
        let replaced = Box::pin(self.refresher.replace_refused(ticket, dead, None)).await;
        // It was replaced a moment ago, or could not be.
        replaced.unwrap_or(Err(Failure::Issuer { retry_after: RETRY_AFTER }))
    }

    async fn end(&self, ticket: &Ticket, dead: &Session) -> Failure {
        let refresher = &self.refresher.0;
        match refresher.sessions.end_version(ticket, dead.version).await {
            Ok(Some(ended)) => {
                let facts = refresher.sessions.facts(&ended.identity, ticket.record_key());
                refresher.sessions.note_end(Cause::TokenInactive, &facts);
                let revocations = refresher.revocations.clone();
                let revocation = async move { revocations.revoke(&ended.identity, &ended.tokens).await };
                refresher.tasks.spawn(for_request(revocation));
                Failure::Ended
            }
            Ok(None) => Failure::Gone,
            Err(unavailable) => Failure::Store(unavailable),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<RecordKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Landing {
    fn tell(&self, word: Word) {
        let longest = if word == Word::Active { self.interval } else { RETRY_INTERVAL };
        let good_for = self.interval.min(longest);
        let until = self.shared.refresher.0.clock.now() + good_for;
        self.shared.known.insert(self.key.clone(), Known { version: self.flight.version, word, until });
        let _ = self.flight.answer.set(word);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let _ = self.flight.answer.set(Word::Unknown);
        self.shared.flights().remove(&self.key);
    }
}
