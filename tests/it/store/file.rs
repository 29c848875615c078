//! What may happen to a file, to its disk and to the process that writes it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::ManualClock;
use cloakroom::session::store::file::{FileStore, OpenError};
use cloakroom::session::store::outbox::{Errand, Outbox};
use cloakroom::session::store::{COLLECTION_MARGIN, Record, Replaced, Store, Version};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tempfile::TempDir;

use super::{MINUTE, eventually, index, key, owner, record};
use crate::support::clock::clock;
use crate::support::log::Log;

mod crash;
mod gateway;

const DATABASE: &str = "sessions.redb";

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");

const COLLECTION: TableDefinition<'_, (u64, u8, &str), &str> = TableDefinition::new("collection");

fn open(folder: &TempDir, clock: &Arc<ManualClock>) -> FileStore {
    FileStore::open(folder.path(), clock.clone()).unwrap()
}

#[tokio::test]
async fn all_but_leases_is_there_after_a_restart() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(&folder, &clock);
    let (key, gone, owner, index) = (key(), key(), owner(), index());
    let written = Record { indexes: vec![index.clone()], ..record(&clock) };
    let errand = Errand { id: "errand".to_owned(), sealed: b"sealed".to_vec(), due_at: written.expires_at };
    store.create(&key, &written).await.unwrap();
    store.create(&gone, &written).await.unwrap();
    assert_eq!(store.replace(&key, Version(1), b"new", Version(2)).await.unwrap(), Replaced::Written);
    store.touch(&key, written.expires_at, written.expires_at + MINUTE).await.unwrap();
    store.take(&gone).await.unwrap().expect("the record");
    assert!(store.claim_once("mark", MINUTE).await.unwrap());
    store.post(&errand).await.unwrap();
    assert!(store.lease(&key, &owner, MINUTE).await.unwrap());
    drop(store);

    let store = open(&folder, &clock);
    let expected = Record {
        sealed: b"new".to_vec(),
        version: Version(2),
        expires_at: written.expires_at + MINUTE,
        ..written
    };
    assert_eq!(store.read(&key).await.unwrap(), Some(expected));
    assert_eq!(store.read(&gone).await.unwrap(), None);
    assert_eq!(store.list(&index).await.unwrap(), std::slice::from_ref(&key));
    assert!(!store.claim_once("mark", MINUTE).await.unwrap());
    assert_eq!(store.count_errands().await.unwrap(), 1);
    let fetched = store.fetch_due(errand.due_at, errand.due_at + MINUTE).await.unwrap();
    assert_eq!(fetched, Some(errand));
    assert!(store.lease(&key, &self::owner(), MINUTE).await.unwrap(), "a lease ends with its process");
}

#[tokio::test]
async fn the_folder_and_the_file_are_their_owners_alone() {
    let (around, clock) = (tempfile::tempdir().unwrap(), clock());
    let folder = around.path().join("made");
    drop(FileStore::open(&folder, clock.clone()).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join(DATABASE))), (0o700, 0o600));
    let lacks_parent = FileStore::open(&around.path().join("a/b"), clock.clone()).unwrap_err();
    assert!(matches!(lacks_parent, OpenError::Folder { .. }), "{lacks_parent}");
    fs::write(around.path().join("file"), "").unwrap();
    let no_folder = FileStore::open(&around.path().join("file"), clock).unwrap_err();
    assert!(matches!(no_folder, OpenError::Folder { .. }), "{no_folder}");
}

#[tokio::test]
async fn a_store_is_opened_once_at_a_time() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(&folder, &clock);
    let error = FileStore::open(folder.path(), clock.clone()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == folder.path()), "{error}");
    store.ping().await.unwrap();
    drop(store);
    open(&folder, &clock).ping().await.unwrap();
}

#[tokio::test]
async fn a_start_that_was_cut_off_before_there_was_a_store_does_not_stand_in_the_way() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    fs::write(folder.path().join("sessions.redb.new"), [0; 5000]).unwrap();
    open(&folder, &clock).ping().await.unwrap();
}

#[tokio::test]
async fn what_is_no_whole_database_is_refused_and_left_as_it_is() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(&folder, &clock);
    for _ in 0..50 {
        let sealed = vec![7; 3000];
        store.create(&key(), &Record { sealed, ..record(&clock) }).await.unwrap();
    }
    drop(store);
    let path = folder.path().join(DATABASE);
    let whole = fs::read(&path).unwrap();
    let mut damages = vec![b"not a database at all".to_vec(), vec![0; 100_000], vec![0xff; 100_000]];
    for length in [0, 1, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        damages.push(whole[..length].to_vec());
    }
    for (from, to) in [(0, 9), (64, 320), (4096, whole.len())] {
        let mut damaged = whole.clone();
        damaged[from..to].iter_mut().for_each(|byte| *byte = !*byte);
        damages.push(damaged);
    }
    for (number, damaged) in damages.into_iter().enumerate() {
        fs::write(&path, &damaged).unwrap();
        for _ in 0..2 {
            let error = FileStore::open(folder.path(), clock.clone()).expect_err(&format!("damage {number}"));
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
        }
        assert!(fs::read(&path).unwrap() == damaged, "{} bytes are left as they were", damaged.len());
    }
    fs::write(&path, &whole).unwrap();
    open(&folder, &clock).ping().await.unwrap();
}

#[tokio::test]
async fn r62_a_damaged_record_is_absent_and_in_the_log_and_collected_with_its_listing() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let (key, index, whole) = (key(), index(), record(&clock));
    let whole = Record { indexes: vec![index.clone()], ..whole };
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    for damaged in [&b""[..], b"\x01", b"\x02garbage", b"{}"] {
        let store = open(&folder, &clock);
        store.create(&key, &whole).await.unwrap();
        drop(store);
        with_each_record(&folder, |transaction, name| {
            transaction.open_table(RECORDS).unwrap().insert(name, damaged).unwrap();
        });
        let store = open(&folder, &clock);
        assert_eq!(store.read(&key).await.unwrap(), None);
        assert!(log.take().contains("session.record_unreadable"));
    }
    let store = open(&folder, &clock);
    let replaced = store.replace(&key, Version(1), b"new", Version(2)).await.unwrap();
    assert_eq!(replaced, Replaced::Absent);
    store.touch(&key, whole.expires_at, whole.expires_at + MINUTE).await.unwrap();
    assert_eq!(store.take_version(&key, Version(1)).await.unwrap(), None);
    assert_eq!(store.take(&key).await.unwrap(), None, "thrown away");
    log.take();
    clock.advance(MINUTE + COLLECTION_MARGIN);
    eventually(&clock, || async { store.list(&index).await.unwrap().is_empty() }).await;
}

#[tokio::test]
async fn what_has_died_is_thrown_away_without_anybody_asking_and_the_living_stay() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(&folder, &clock);
    let (kept, index) = (key(), index());
    let dying = Record { indexes: vec![index.clone()], ..record(&clock) };
    let living = Record { expires_at: dying.expires_at + Duration::from_secs(86_400), ..dying.clone() };
    for number in 0..300 {
        store.create(&key(), &dying).await.unwrap();
        assert!(store.claim_once(&number.to_string(), MINUTE).await.unwrap());
    }
    store.create(&kept, &dying).await.unwrap();
    store.touch(&kept, dying.expires_at, living.expires_at).await.unwrap();
    let claimed = Duration::from_secs(86_400);
    assert!(store.claim_once("kept", claimed).await.unwrap());

    clock.advance(MINUTE + COLLECTION_MARGIN - Duration::from_millis(1));
    store.ping().await.unwrap();
    assert_eq!(store.list(&index).await.unwrap().len(), 301, "not before the margin");
    clock.advance(Duration::from_millis(1));
    eventually(&clock, || async { store.list(&index).await.unwrap().len() == 1 }).await;
    assert_eq!(store.list(&index).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(store.read(&kept).await.unwrap(), Some(living));
    assert!(!store.claim_once("kept", MINUTE).await.unwrap());
    drop(store);

    let database = Database::open(folder.path().join(DATABASE)).unwrap();
    let transaction = database.begin_read().unwrap();
    assert_eq!(transaction.open_table(RECORDS).unwrap().len().unwrap(), 1);
    assert_eq!(transaction.open_table(MARKS).unwrap().len().unwrap(), 1);
    assert_eq!(transaction.open_table(COLLECTION).unwrap().len().unwrap(), 2);
}

#[tokio::test]
async fn a_living_record_is_never_thrown_away_whatever_is_noted() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let store = open(&folder, &clock);
    let (key, index) = (key(), index());
    let living = Record { indexes: vec![index.clone()], ..record(&clock) };
    store.create(&key, &living).await.unwrap();
    drop(store);
    with_each_record(&folder, |transaction, name| {
        transaction.open_table(COLLECTION).unwrap().insert((0, 0, name), "").unwrap();
    });
    let store = open(&folder, &clock);
    // Each write throws away what is to be thrown away.
    store.ping().await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), Some(living));
    assert_eq!(store.list(&index).await.unwrap(), [key]);
}

#[tokio::test]
async fn r65_room_that_has_become_free_is_used_again_and_given_back_at_a_start() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let length = || fs::metadata(folder.path().join(DATABASE)).unwrap().len();
    let store = open(&folder, &clock);
    let large = Record { sealed: vec![7; 100_000], ..record(&clock) };
    let (mut lengths, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let keys: Vec<_> = std::iter::repeat_with(key).take(40).collect();
        for key in &keys {
            store.create(key, &large).await.unwrap();
        }
        lengths.push(length());
        // The last one lies at the end of the file, which cannot be given back then.
        for key in kept.iter().chain(&keys[..39]) {
            store.take(key).await.unwrap().expect("the record");
        }
        kept = vec![keys[39].clone()];
    }
    assert!(lengths[0] > 4_000_000 && lengths[4] <= 2 * lengths[0], "{lengths:?}");
    drop(store);
    let store = open(&folder, &clock);
    assert!(length() < 1_000_000, "{}", length());
    assert_eq!(store.read(&kept[0]).await.unwrap(), Some(large));
}

/// Does this for each record's name in a transaction behind the store's back.
fn with_each_record(folder: &TempDir, change: impl Fn(&WriteTransaction, &str)) {
    let database = Database::open(folder.path().join(DATABASE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let names: Vec<String> = {
        let records = transaction.open_table(RECORDS).unwrap();
        records.iter().unwrap().map(|entry| entry.unwrap().0.value().to_owned()).collect()
    };
    for name in names {
        change(&transaction, &name);
    }
    transaction.commit().unwrap();
}
