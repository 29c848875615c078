//! What a store tells of writes to its records, so that opened sessions can be kept in the process.
//!
//! Each change raises the generation of the slot its record falls into, and each break in the telling raises
//! the epoch. Who reads a record takes a [`Mark`] first: what was read is current for as long as neither has
//! moved since. So nothing needs to be looked for and dropped, and a change that overtakes the answer
//! of a read is no race: the mark was taken before both.
//!
//! While the store is away, no mark is current any more. What was read before is at least unchanged as far as
//! anybody knows, unless a change of it was told: that much [`Changes::is_untouched`] says.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use super::RecordKey;

/// Two records share a slot now and then; a change of one then costs a read of the other.
const SLOTS: usize = PAGES * PAGE_SLOTS;

/// They lie in pages, which even a build without optimization clears at once rather than slot by slot.
const PAGES: usize = 1 << 4;
const PAGE_SLOTS: usize = 1 << 14;

/// What nobody waits for any more is forgotten once there is this much, and then whenever it has doubled.
const SWEEP_AT_LEAST: usize = 64;

/// The changes of one store, as this process is told of them.
#[derive(Debug)]
pub struct Changes {
    slots: Box<[[AtomicU32; PAGE_SLOTS]]>,
    /// Even while changes are told, odd while some may be missed.
    epoch: AtomicU64,
    /// How often all records may have changed at once.
    floods: AtomicU64,
    are_told: watch::Sender<bool>,
    losses: AtomicU64,
    /// Without a secret: a key is a hash already, of an id that nobody chooses.
    hasher: BuildHasherDefault<DefaultHasher>,
    awaited: Mutex<Awaited>,
}

/// How things stood when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    slot: u32,
    generation: u32,
    epoch: u64,
    floods: u64,
}

#[derive(Debug, Default)]
struct Awaited {
    /// In an order, so that who is woken first is no accident.
    records: BTreeMap<RecordKey, Weak<Notify>>,
    sweep_at: usize,
}

impl Changes {
    /// Changes that are told from the first.
    pub fn told() -> Self {
        Self::new(0)
    }

    /// Changes that are missed until [`Changes::connected`].
    pub fn missed() -> Self {
        Self::new(1)
    }

    fn new(epoch: u64) -> Self {
        Self {
            slots: (0..PAGES).map(|_| [const { AtomicU32::new(0) }; PAGE_SLOTS]).collect(),
            epoch: AtomicU64::new(epoch),
            floods: AtomicU64::new(0),
            are_told: watch::Sender::new(epoch == 0),
            losses: AtomicU64::new(0),
            hasher: BuildHasherDefault::default(),
            awaited: Mutex::default(),
        }
    }

    /// To be taken before a record is read.
    pub fn mark(&self, key: &RecordKey) -> Mark {
        let slot = self.slot(key);
        // The epoch first: a break between the two makes the mark old, not young.
        let epoch = self.epoch.load(Ordering::SeqCst);
        let floods = self.floods.load(Ordering::SeqCst);
        Mark { slot, generation: self.generation(slot).load(Ordering::SeqCst), epoch, floods }
    }

    /// Whether what was read after this mark is as it was, by all that can be known.
    pub fn is_current(&self, mark: &Mark) -> bool {
        mark.epoch.is_multiple_of(2)
            && mark.epoch == self.epoch.load(Ordering::SeqCst)
            && self.is_untouched(mark)
    }

    /// Whether changes were told without a break from this mark until the break there is now.
    pub fn was_told_until_the_break(&self, mark: &Mark) -> bool {
        mark.epoch.is_multiple_of(2) && mark.epoch + 1 == self.epoch.load(Ordering::SeqCst)
    }

    /// Whether no change was told of what was read after this mark. One may have been missed.
    pub fn is_untouched(&self, mark: &Mark) -> bool {
        mark.floods == self.floods.load(Ordering::SeqCst)
            && mark.generation == self.generation(mark.slot).load(Ordering::SeqCst)
    }

    /// Whether changes are told, at the moment and from now on.
    pub fn are_told(&self) -> watch::Receiver<bool> {
        self.are_told.subscribe()
    }

    /// The same, at this moment.
    pub fn tells(&self) -> bool {
        *self.are_told.borrow()
    }

    /// A record was written, touched or taken out.
    pub fn note(&self, key: &RecordKey) {
        self.generation(self.slot(key)).fetch_add(1, Ordering::SeqCst);
        let awaited = self.awaited().records.get(key).and_then(Weak::upgrade);
        if let Some(awaited) = awaited {
            awaited.notify_waiters();
        }
    }

    /// Any record may have changed.
    pub fn note_all(&self) {
        self.floods.fetch_add(1, Ordering::SeqCst);
        self.wake_all();
    }

    /// From here on changes are told; what came before may have been missed. This and
    /// [`Changes::disconnected`] are one caller's alone.
    pub fn connected(&self) {
        if !self.are_told.send_replace(true) {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.wake_all();
        }
    }

    /// From here on changes may be missed. `true` where they were told until now.
    pub fn disconnected(&self) -> bool {
        let were_told = *self.are_told.borrow();
        if were_told {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.losses.fetch_add(1, Ordering::SeqCst);
            self.are_told.send_replace(false);
            self.wake_all();
        }
        were_told
    }

    /// How often changes that were told have come to be missed.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Wakes those who wait for a change of this record, from now on.
    pub fn await_change(&self, key: &RecordKey) -> Arc<Notify> {
        let mut awaited = self.awaited();
        if let Some(change) = awaited.records.get(key).and_then(Weak::upgrade) {
            return change;
        }
        if awaited.records.len() >= awaited.sweep_at.max(SWEEP_AT_LEAST) {
            awaited.records.retain(|_, change| change.strong_count() > 0);
            awaited.sweep_at = 2 * awaited.records.len();
        }
        let change = Arc::new(Notify::new());
        awaited.records.insert(key.clone(), Arc::downgrade(&change));
        change
    }

    fn wake_all(&self) {
        let awaited: Vec<_> = self.awaited().records.values().filter_map(Weak::upgrade).collect();
        for change in awaited {
            change.notify_waiters();
        }
    }

    fn slot(&self, key: &RecordKey) -> u32 {
        u32::try_from(self.hasher.hash_one(key) % SLOTS as u64).unwrap_or_default()
    }

    fn generation(&self, slot: u32) -> &AtomicU32 {
        &self.slots.as_flattened()[slot as usize]
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RecordKey {
        RecordKey(name.to_owned())
    }

    #[test]
    fn a_mark_is_current_until_its_record_changes() {
        let changes = Changes::told();
        let (mark, other) = (changes.mark(&key("a")), changes.mark(&key("b")));
        changes.note(&key("a"));
        assert!(!changes.is_current(&mark) && !changes.is_untouched(&mark));
        assert!(changes.is_current(&other) && changes.is_untouched(&other));
        assert!(changes.is_current(&changes.mark(&key("a"))));
    }

    #[test]
    fn no_mark_outlives_a_break_and_none_is_current_within_one() {
        let changes = Changes::missed();
        let within = changes.mark(&key("a"));
        assert!(!changes.is_current(&within) && !changes.disconnected());
        changes.connected();
        assert!(!changes.is_current(&within));
        let mark = changes.mark(&key("a"));
        changes.connected();
        assert!(changes.is_current(&mark), "connected is connected");
        assert!(!changes.was_told_until_the_break(&mark));
        assert!(changes.disconnected());
        assert!(!changes.is_current(&mark) && changes.is_untouched(&mark));
        assert!(changes.was_told_until_the_break(&mark) && !changes.was_told_until_the_break(&within));
        assert!(!changes.disconnected());
        assert_eq!(changes.losses(), 1);
        changes.connected();
        assert!(!changes.is_current(&mark) && changes.is_untouched(&mark));
        assert!(!changes.was_told_until_the_break(&mark));
        let mark = changes.mark(&key("a"));
        changes.note_all();
        assert!(!changes.is_current(&mark) && !changes.is_untouched(&mark));
        assert!(*changes.are_told().borrow());
    }

    #[tokio::test]
    async fn all_who_wait_for_one_record_are_woken_and_nobody_else() {
        let changes = Changes::told();
        let (one, same, other) = (
            changes.await_change(&key("a")),
            changes.await_change(&key("a")),
            changes.await_change(&key("b")),
        );
        let (one, same, other) = (one.notified(), same.notified(), other.notified());
        tokio::pin!(one, same, other);
        for mut waiting in [one.as_mut(), same.as_mut(), other.as_mut()] {
            waiting.as_mut().enable();
        }
        changes.note(&key("a"));
        assert!(one.as_mut().enable() && same.as_mut().enable() && !other.as_mut().enable());
        changes.note_all();
        assert!(other.as_mut().enable());
    }

    #[test]
    fn whom_nobody_waits_for_any_more_is_forgotten() {
        let changes = Changes::told();
        let kept = changes.await_change(&key("kept"));
        for session in 0..1000 {
            drop(changes.await_change(&key(&session.to_string())));
        }
        assert!(changes.awaited().records.len() <= 2 * SWEEP_AT_LEAST);
        assert!(Arc::ptr_eq(&kept, &changes.await_change(&key("kept"))));
    }
}
