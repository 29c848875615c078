//! Opened sessions of this process, of all its apps, so that a warm request neither asks the store nor opens
//! a record; and those it has ended, so that a store which went back in time brings none of them back.
//!
//! Nothing here is dropped when the store tells of a change: what was read is current by its mark, or is
//! not (see `store::changes`).
//!
//! Of a hundred thousand sessions hardly one lies in the processor's caches, so that what a request costs is how
//! many places it looks at, one after the other: a table's entry, what that leads to, and so on.

use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};

use super::Session;
use super::cookie::{OpenedCookie, Ticket};
use super::store::changes::Mark;
use super::store::{Record, RecordKey, Version};
use crate::clock::Timestamp;

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

/// How much of a cookie it is looked for by: its last letters are of the tag, which is as good as random.
const SOUGHT_BY: usize = 16;

/// A table by hashes, which are not hashed again. Only what a gateway has sealed gets into one, and nobody chooses
/// what hashes that gives.
type Table<V, W> = Cache<u64, V, W, BuildHasherDefault<AsItIs>>;

/// The opened sessions, by the first 64 bits of their records' names. Two that share them take turns.
#[derive(Debug)]
pub(super) struct Opened(Table<Arc<Known>, ByMemory>);

/// An opened session, and what vouches for it.
#[derive(Debug)]
pub(super) struct Known {
    /// The origin of the app whose session it is.
    pub(super) app: Arc<str>,
    /// Opens the record, now and when it is written again.
    pub(super) ticket: Ticket,
    /// The session as it was.
    pub(super) session: Arc<Session>,
    /// Of the record that the session was opened from.
    fingerprint: Fingerprint,
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

/// What tells a record from others of its session, its time to live aside. The hash is made with the data key, so that
/// who has the store alone cannot make two records of one fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    version: Version,
    hash: u64,
}

/// Cookies that were opened here lately. One that is not to the letter one of them, for the same app, is opened. It
/// lives with the key ring that opened them.
#[derive(Debug)]
pub(super) struct Tickets(Table<Arc<OpenedCookie>, UnitWeighter>);

/// Takes a hash for what it is.
#[derive(Default)]
struct AsItIs(u64);

/// The sessions that this process has ended lately, each with its app and the moment.
#[derive(Debug)]
pub(super) struct Ended(Cache<RecordKey, (Arc<str>, Timestamp)>);

impl Opened {
    pub(super) fn new() -> Self {
        Self(table(CAPACITY, ByMemory))
    }

    /// What is open of this ticket.
    pub(super) fn of(&self, ticket: &Ticket) -> Option<Arc<Known>> {
        self.0.get(&ticket.record_prefix()).filter(|known| known.ticket == *ticket)
    }

    pub(super) fn get(&self, key: &RecordKey) -> Option<Arc<Known>> {
        self.0.get(&key.prefix()).filter(|known| known.ticket.record_key() == key)
    }

    pub(super) fn insert(&self, known: Known) {
        self.0.insert(known.ticket.record_prefix(), Arc::new(known));
    }

    pub(super) fn remove(&self, key: &RecordKey) {
        self.0.remove_if(&key.prefix(), |known| known.ticket.record_key() == key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// An app's sessions that this process has written since this moment, those written first first.
    pub(super) fn written_since(&self, app: &str, moment: Timestamp) -> Vec<Arc<Known>> {
        let written =
            self.0.iter().filter(|(_, known)| &*known.app == app && known.written_at >= Some(moment));
        let mut written: Vec<_> = written.collect();
        written.sort_by_key(|(prefix, known)| (known.written_at, *prefix));
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
        fingerprint: Fingerprint,
        mark: Mark,
        now: Timestamp,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            ticket: ticket.clone(),
            session,
            fingerprint,
            mark,
            confirmed_at: now,
            written_at: None,
            // A session of 4 KiB was measured to take 5 to 6, and its access token goes out of a copy.
            weight: (record.sealed.len() as u64 * 2 + 1024).max(CAPACITY / MOST_SESSIONS),
        }
    }

    /// Whether the session was opened from a record of this fingerprint.
    pub(super) fn is_of(&self, fingerprint: Fingerprint) -> bool {
        self.fingerprint == fingerprint
    }
}

impl Fingerprint {
    /// Of a record that the ticket opens, or says it does.
    pub(super) fn of(ticket: &Ticket, record: &Record) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(ticket.data_key.expose());
        hasher.write(&record.sealed);
        Self { version: record.version, hash: hasher.finish() }
    }
}

impl Weighter<u64, Arc<Known>> for ByMemory {
    fn weight(&self, _: &u64, known: &Arc<Known>) -> u64 {
        known.weight
    }
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self(table(MOST_SESSIONS, UnitWeighter))
    }

    pub(super) fn get(&self, app: &str, value: &str) -> Option<Arc<OpenedCookie>> {
        self.0.get(&sought_by(value)).filter(|cookie| cookie.is_of(app, value))
    }

    pub(super) fn insert(&self, value: &str, cookie: Arc<OpenedCookie>) {
        self.0.insert(sought_by(value), cookie);
    }
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

fn table<V: Clone, W: Weighter<u64, V> + Clone>(capacity: u64, weighter: W) -> Table<V, W> {
    Cache::with(FEW_SESSIONS, capacity, weighter, BuildHasherDefault::default(), DefaultLifecycle::default())
}

fn sought_by(cookie: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(cookie.as_bytes().last_chunk::<SOUGHT_BY>().map_or(&[], |letters| letters.as_slice()));
    hasher.finish()
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
    use crate::config::SessionKey;
    use crate::random::Random;
    use crate::seal::{Context, KeyRing, Purpose};

    #[test]
    fn r22_a_cookie_that_was_opened_for_one_app_is_not_open_to_another_nor_is_one_that_differs() {
        let (tickets, shop) = (Tickets::new(), Arc::from("https://shop.test"));
        let ring = KeyRing::new(&[SessionKey::new([1; 32])]);
        let context = Context { purpose: Purpose::SessionCookie, name: "session", app: &shop };
        let ticket = Ticket::generate(Random::SYSTEM);
        let value = ticket.to_cookie(&ring, Random::SYSTEM, &context);
        let read = Ticket::from_cookie(&value, &ring, &context).unwrap();
        let opened = Arc::new(OpenedCookie::new(read, &value, &shop).unwrap());
        tickets.insert(&value, opened);
        let found = |app: &str, value: &str| tickets.get(app, value).map(|cookie| Ticket::clone(&cookie));
        assert_eq!(found(&shop, &value), Some(ticket));
        assert_eq!(found("https://other.test", &value), None);
        assert_eq!(found("", &format!("{shop}{value}")), None);
        for at in 0..value.len() {
            let other = if value.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut altered = value.clone();
            altered.replace_range(at..=at, other);
            assert_eq!(found(&shop, &altered), None, "letter {at}");
            assert_eq!(found(&shop, &value[at + 1..]), None, "without its first {at}");
            assert_eq!(found(&shop, &value[..at]), None, "cut to {at}");
        }
    }

    #[test]
    fn records_of_one_session_that_differ_in_anything_but_their_time_have_other_fingerprints() {
        let ticket = Ticket::generate(Random::SYSTEM);
        let record = Record {
            sealed: vec![7; 100],
            version: Version(3),
            expires_at: Timestamp::from_secs(1),
            indexes: Vec::new(),
        };
        let fingerprint = Fingerprint::of(&ticket, &record);
        let touched = Record { expires_at: Timestamp::from_secs(2), ..record.clone() };
        assert_eq!(Fingerprint::of(&ticket, &touched), fingerprint);
        let newer = Record { version: Version(4), ..record.clone() };
        assert_ne!(Fingerprint::of(&ticket, &newer), fingerprint);
        assert_ne!(Fingerprint::of(&Ticket::generate(Random::SYSTEM), &record), fingerprint);
        for at in 0..100 {
            let mut altered = record.clone();
            altered.sealed[at] ^= 1;
            assert_ne!(Fingerprint::of(&ticket, &altered), fingerprint, "byte {at} altered");
            altered.sealed.truncate(at);
            assert_ne!(Fingerprint::of(&ticket, &altered), fingerprint, "cut to {at} bytes");
        }
    }
}
