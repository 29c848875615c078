//! Opened sessions of this process, of all its apps, so that a warm request neither asks the store nor opens
//! a record; and those it has ended, so that a store which went back in time brings none of them back.
//!
//! Nothing here is dropped when the store tells of a change: what was read is current by its mark, or is
//! not (see `store::changes`).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, UnitWeighter, Weighter};
use zeroize::Zeroizing;

use super::Session;
use super::cookie::Ticket;
use super::store::changes::Mark;
use super::store::{Record, RecordKey};
use crate::clock::Timestamp;
use crate::seal::fingerprint;

/// How much memory opened sessions may take, about (R65).
const CAPACITY: u64 = 768 * 1024 * 1024;

/// How many there may be.
const MOST_SESSIONS: u64 = 100_000;

/// For how many there is room from the start on.
const FEW_SESSIONS: usize = 10_000;

/// How long a session is used before the store is asked for it again, whatever the store tells. Where it
/// tells nothing, be it that it cannot, this bounds how long an ended session is used.
pub(super) const LONGEST_UNCONFIRMED: Duration = Duration::from_secs(20);

/// How many sessions are remembered that were ended here.
const MOST_ENDED: usize = 10_000;

/// The opened sessions.
#[derive(Debug)]
pub(super) struct Opened(Cache<RecordKey, Arc<Known>, ByMemory>);

/// An opened session, and what vouches for it.
#[derive(Debug)]
pub(super) struct Known {
    /// The origin of the app whose session it is.
    pub(super) app: Arc<str>,
    /// Opens the record, now and when it is written again.
    pub(super) ticket: Ticket,
    /// The session as it was.
    pub(super) session: Arc<Session>,
    /// The hash of the sealed record that the session was opened from.
    pub(super) fingerprint: [u8; 32],
    /// Taken before the record was read.
    pub(super) mark: Mark,
    /// When the record was read.
    pub(super) confirmed_at: Timestamp,
    /// When this process wrote tokens into it.
    pub(super) written_at: Option<Timestamp>,
    weight: u64,
}

#[derive(Clone, Debug)]
struct ByMemory;

/// The tickets of cookies that were opened here lately, each under the app it was opened for. A cookie that is
/// not one of them to the letter is opened. It lives with the key ring that opened them.
#[derive(Debug)]
pub(super) struct Tickets(Cache<OpenedCookie, Arc<Ticket>>);

struct OpenedCookie {
    app: Arc<str>,
    value: Zeroizing<String>,
}

/// The same, to be looked for.
#[derive(Hash)]
struct Sought<'a> {
    app: &'a str,
    value: &'a str,
}

/// The sessions that this process has ended lately, each with its app and the moment.
#[derive(Debug)]
pub(super) struct Ended(Cache<RecordKey, (Arc<str>, Timestamp)>);

impl Opened {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(FEW_SESSIONS, CAPACITY, ByMemory))
    }

    pub(super) fn get(&self, key: &RecordKey) -> Option<Arc<Known>> {
        self.0.get(key)
    }

    pub(super) fn insert(&self, key: RecordKey, known: Known) {
        self.0.insert(key, Arc::new(known));
    }

    pub(super) fn remove(&self, key: &RecordKey) -> Option<Arc<Known>> {
        self.0.remove(key).map(|(_, known)| known)
    }

    /// An app's sessions that this process has written since this moment, those written first first.
    pub(super) fn written_since(&self, app: &str, moment: Timestamp) -> Vec<Arc<Known>> {
        let written =
            self.0.iter().filter(|(_, known)| &*known.app == app && known.written_at >= Some(moment));
        let mut written: Vec<_> = written.collect();
        written.sort_by(|(one, first), (other, second)| {
            (first.written_at, one).cmp(&(second.written_at, other))
        });
        written.into_iter().map(|(_, known)| known).collect()
    }
}

impl Known {
    /// A session as it was read, or written, at this moment.
    pub(super) fn new(
        app: &Arc<str>,
        ticket: &Ticket,
        session: Arc<Session>,
        record: &Record,
        mark: Mark,
        now: Timestamp,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            ticket: ticket.clone(),
            session,
            fingerprint: fingerprint(&record.sealed),
            mark,
            confirmed_at: now,
            written_at: None,
            // A session of 4 KiB was measured to take 5; half as much again for those of another kind.
            weight: (record.sealed.len() as u64 * 3 / 2 + 1024).max(CAPACITY / MOST_SESSIONS),
        }
    }

    /// Whether the session was opened from this very record, its time to live aside.
    pub(super) fn is_of(&self, record: &Record) -> bool {
        self.session.version == record.version && self.fingerprint == fingerprint(&record.sealed)
    }
}

impl Weighter<RecordKey, Arc<Known>> for ByMemory {
    fn weight(&self, _: &RecordKey, known: &Arc<Known>) -> u64 {
        known.weight
    }
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(FEW_SESSIONS, MOST_SESSIONS, UnitWeighter))
    }

    pub(super) fn get(&self, app: &str, value: &str) -> Option<Arc<Ticket>> {
        self.0.get(&Sought { app, value })
    }

    pub(super) fn insert(&self, app: &Arc<str>, value: &str, ticket: Arc<Ticket>) {
        let value = Zeroizing::new(value.to_owned());
        self.0.insert(OpenedCookie { app: Arc::clone(app), value }, ticket);
    }
}

impl OpenedCookie {
    fn sought(&self) -> Sought<'_> {
        Sought { app: &self.app, value: &self.value }
    }
}

impl PartialEq for OpenedCookie {
    fn eq(&self, other: &Self) -> bool {
        self.sought().equivalent(other)
    }
}

impl Eq for OpenedCookie {}

impl Hash for OpenedCookie {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sought().hash(state);
    }
}

impl Equivalent<OpenedCookie> for Sought<'_> {
    fn equivalent(&self, cookie: &OpenedCookie) -> bool {
        self.value == cookie.value.as_str() && *self.app == *cookie.app
    }
}

impl fmt::Debug for OpenedCookie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl Ended {
    pub(super) fn new() -> Self {
        Self(Cache::new(MOST_ENDED))
    }

    pub(super) fn note(&self, app: &Arc<str>, key: &RecordKey, now: Timestamp) {
        self.0.insert(key.clone(), (Arc::clone(app), now));
    }

    pub(super) fn has(&self, key: &RecordKey) -> bool {
        self.0.peek(key).is_some()
    }

    /// Those of an app since this moment; the others of that age are forgotten.
    pub(super) fn since(&self, app: &str, moment: Timestamp) -> Vec<RecordKey> {
        self.0.retain(|_, (_, ended_at)| *ended_at >= moment);
        let mut ended: Vec<_> =
            self.0.iter().filter(|(_, (of, _))| **of == *app).map(|(key, _)| key).collect();
        ended.sort();
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn r22_a_cookie_that_was_opened_for_one_app_is_not_open_to_another_nor_is_one_that_differs() {
        let (tickets, shop) = (Tickets::new(), Arc::from("https://shop.test"));
        let ticket = Arc::new(Ticket::generate(Random::SYSTEM));
        tickets.insert(&shop, "sealed", Arc::clone(&ticket));
        assert_eq!(tickets.get(&shop, "sealed"), Some(ticket));
        for (app, value) in [
            ("https://other.test", "sealed"),
            ("https://shop.test", "seale"),
            ("https://shop.test", "sealed "),
            ("https://shop.test", "Sealed"),
            ("https://shop.tests", "ealed"),
            ("", "https://shop.testsealed"),
        ] {
            assert_eq!(tickets.get(app, value), None, "{app} {value}");
        }
    }

    #[test]
    fn r62_debug_shows_no_cookie() {
        let cookie = OpenedCookie { app: Arc::from("app"), value: Zeroizing::new("value".to_owned()) };
        assert_eq!(format!("{cookie:?}"), "[redacted]");
    }
}
