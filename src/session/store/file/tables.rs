//! What lies in the file, and each operation within one transaction.

use redb::{
    Database, Error, MultimapTable, MultimapTableDefinition, ReadTransaction, ReadableDatabase,
    ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use super::super::outbox::Errand;
use super::super::{COLLECTION_MARGIN, IndexKey, Record, RecordKey, Replaced, Version};
use super::encoding;
use crate::clock::Timestamp;

/// Record keys to records.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Indexes to the keys of their records.
const INDEXES: MultimapTableDefinition<'_, &str, &str> = MultimapTableDefinition::new("indexes");

/// Marks that are claimed, to when they are forgotten.
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");

/// Ids to errands.
const ERRANDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("errands");

/// Errands in the order in which they are due.
const DUE: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("due");

/// What is thrown away and when, in that order: a record's key with its indexes, or a mark. A record that
/// is damaged is found by it still.
const COLLECTION: TableDefinition<'_, (u64, u8, &str), &str> = TableDefinition::new("collection");

/// What a ping writes.
const PINGS: TableDefinition<'_, (), u64> = TableDefinition::new("pings");

const A_RECORD: u8 = 0;
const A_MARK: u8 = 1;

/// All tables within one transaction, at one moment.
pub(super) struct Tables<'t> {
    records: Table<'t, &'static str, &'static [u8]>,
    indexes: MultimapTable<'t, &'static str, &'static str>,
    marks: Table<'t, &'static str, u64>,
    errands: Table<'t, &'static str, &'static [u8]>,
    due: Table<'t, (u64, &'static str), ()>,
    collection: Table<'t, (u64, u8, &'static str), &'static str>,
    pings: Table<'t, (), u64>,
    now: Timestamp,
    changed: Vec<RecordKey>,
}

impl<'t> Tables<'t> {
    /// Makes those that are not there yet.
    pub(super) fn open(transaction: &'t WriteTransaction, now: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            indexes: transaction.open_multimap_table(INDEXES)?,
            marks: transaction.open_table(MARKS)?,
            errands: transaction.open_table(ERRANDS)?,
            due: transaction.open_table(DUE)?,
            collection: transaction.open_table(COLLECTION)?,
            pings: transaction.open_table(PINGS)?,
            now,
            changed: Vec::new(),
        })
    }

    /// The records that were written, touched or taken out.
    pub(super) fn into_changed(self) -> Vec<RecordKey> {
        self.changed
    }

    pub(super) fn create(&mut self, key: &RecordKey, record: &Record) -> Result<(), Error> {
        self.take(key, None)?;
        self.put(key, record)
    }

    pub(super) fn replace(
        &mut self,
        key: &RecordKey,
        expected: Version,
        sealed: Vec<u8>,
        version: Version,
    ) -> Result<Replaced, Error> {
        match self.alive(key)? {
            None => Ok(Replaced::Absent),
            Some(record) if record.version != expected => Ok(Replaced::Conflict),
            Some(record) => {
                self.put(key, &Record { sealed, version, ..record })?;
                Ok(Replaced::Written)
            }
        }
    }

    pub(super) fn touch(
        &mut self,
        key: &RecordKey,
        seen: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Error> {
        match self.alive(key)? {
            Some(record) if record.expires_at == seen && expires_at > seen => {
                self.collection.remove((collected_at(seen), A_RECORD, key.0.as_str()))?;
                self.put(key, &Record { expires_at, ..record })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A damaged record is thrown away where no version is asked for. It stays listed until it is collected:
    /// only that table knows its indexes.
    pub(super) fn take(
        &mut self,
        key: &RecordKey,
        version: Option<Version>,
    ) -> Result<Option<Record>, Error> {
        let Some(found) = self.found(key)? else { return Ok(None) };
        let Some(record) = found else {
            if version.is_none() {
                self.records.remove(key.0.as_str())?;
                self.changed.push(key.clone());
            }
            return Ok(None);
        };
        if version.is_some_and(|version| version != record.version) {
            return Ok(None);
        }
        self.records.remove(key.0.as_str())?;
        self.collection.remove((collected_at(record.expires_at), A_RECORD, key.0.as_str()))?;
        for index in &record.indexes {
            self.indexes.remove(index.0.as_str(), key.0.as_str())?;
        }
        self.changed.push(key.clone());
        Ok(Some(record))
    }

    pub(super) fn claim_once(&mut self, mark: &str, expires_at: Timestamp) -> Result<bool, Error> {
        let forgotten_at = self.marks.get(mark)?.map(|mark| mark.value());
        if let Some(forgotten_at) = forgotten_at {
            if self.now.as_millis() < forgotten_at {
                return Ok(false);
            }
            self.collection.remove((forgotten_at, A_MARK, mark))?;
        }
        self.marks.insert(mark, expires_at.as_millis())?;
        self.collection.insert((expires_at.as_millis(), A_MARK, mark), "")?;
        Ok(true)
    }

    pub(super) fn post(&mut self, errand: &Errand) -> Result<(), Error> {
        self.strike(&errand.id)?;
        self.put_errand(errand)
    }

    pub(super) fn fetch_due(&mut self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Error> {
        loop {
            let first = self.due.first()?.map(|(first, _)| {
                let (due_at, id) = first.value();
                (due_at, id.to_owned())
            });
            let Some((due_at, id)) = first.filter(|(due_at, _)| *due_at <= now.as_millis()) else {
                return Ok(None);
            };
            self.due.remove((due_at, id.as_str()))?;
            if let Some(errand) = self.errand(&id)? {
                self.put_errand(&Errand { due_at: until, ..errand.clone() })?;
                return Ok(Some(errand));
            }
            self.errands.remove(id.as_str())?;
            tracing::error!(event = "store.errand_unreadable", reason = "the errand in the file is damaged");
        }
    }

    pub(super) fn postpone(&mut self, id: &str, due_at: Timestamp) -> Result<(), Error> {
        let Some(errand) = self.errand(id)? else { return Ok(()) };
        self.due.remove((errand.due_at.as_millis(), id))?;
        self.put_errand(&Errand { due_at, ..errand })
    }

    pub(super) fn strike(&mut self, id: &str) -> Result<(), Error> {
        if let Some(errand) = self.errand(id)? {
            self.due.remove((errand.due_at.as_millis(), id))?;
        }
        self.errands.remove(id)?;
        Ok(())
    }

    /// Throws away what has been dead for long enough, `most` of it at a time.
    pub(super) fn collect(&mut self, most: usize) -> Result<(), Error> {
        for _ in 0..most {
            let first = self.collection.first()?.map(|(first, indexes)| {
                let (at, kind, name) = first.value();
                (at, kind, name.to_owned(), encoding::to_indexes(indexes.value()))
            });
            let Some((at, kind, name, indexes)) = first.filter(|(at, ..)| *at <= self.now.as_millis()) else {
                return Ok(());
            };
            self.collection.remove((at, kind, name.as_str()))?;
            if kind == A_MARK {
                self.marks.remove(name.as_str())?;
            } else {
                self.collect_record(&RecordKey(name), &indexes)?;
            }
        }
        Ok(())
    }

    /// Never one whose time has not come, whatever is noted.
    fn collect_record(&mut self, key: &RecordKey, indexes: &[IndexKey]) -> Result<(), Error> {
        let found = self.found(key)?.flatten();
        if found.is_some_and(|record| collected_at(record.expires_at) > self.now.as_millis()) {
            return Ok(());
        }
        self.records.remove(key.0.as_str())?;
        for index in indexes {
            self.indexes.remove(index.0.as_str(), key.0.as_str())?;
        }
        Ok(())
    }

    /// Writes the record, lists it, and has it collected in time.
    fn put(&mut self, key: &RecordKey, record: &Record) -> Result<(), Error> {
        for index in &record.indexes {
            self.indexes.insert(index.0.as_str(), key.0.as_str())?;
        }
        self.records.insert(key.0.as_str(), encoding::record(record).as_slice())?;
        let collection = (collected_at(record.expires_at), A_RECORD, key.0.as_str());
        self.collection.insert(collection, encoding::names(&record.indexes).as_str())?;
        self.changed.push(key.clone());
        Ok(())
    }

    fn alive(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        Ok(self.found(key)?.flatten().filter(|record| self.now < record.expires_at))
    }

    /// Nothing, something damaged (`Some(None)`), or a record.
    fn found(&self, key: &RecordKey) -> Result<Option<Option<Record>>, Error> {
        Ok(self.records.get(key.0.as_str())?.map(|bytes| whole_record(bytes.value())))
    }

    fn errand(&self, id: &str) -> Result<Option<Errand>, Error> {
        Ok(self.errands.get(id)?.and_then(|bytes| encoding::to_errand(id, bytes.value())))
    }

    fn put_errand(&mut self, errand: &Errand) -> Result<(), Error> {
        self.errands.insert(errand.id.as_str(), encoding::errand(errand).as_slice())?;
        self.due.insert((errand.due_at.as_millis(), errand.id.as_str()), ())?;
        Ok(())
    }
}

/// Writes, and nothing that anybody asks for.
pub(super) fn ping(tables: &mut Tables<'_>) -> Result<(), Error> {
    tables.pings.insert((), tables.now.as_millis())?;
    Ok(())
}

/// The record of this key, alive or not.
pub(super) fn read(transaction: &ReadTransaction, key: &RecordKey) -> Result<Option<Record>, Error> {
    let records = transaction.open_table(RECORDS)?;
    let bytes = records.get(key.0.as_str())?;
    Ok(bytes.and_then(|bytes| whole_record(bytes.value())))
}

/// The keys that an index lists.
pub(super) fn list(transaction: &ReadTransaction, index: &IndexKey) -> Result<Vec<RecordKey>, Error> {
    let indexes = transaction.open_multimap_table(INDEXES)?;
    let keys = indexes.get(index.0.as_str())?;
    keys.map(|key| Ok(RecordKey(key?.value().to_owned()))).collect()
}

/// Whether a mark is set, and not forgotten yet.
pub(super) fn is_claimed(transaction: &ReadTransaction, mark: &str, now: Timestamp) -> Result<bool, Error> {
    let marks = transaction.open_table(MARKS)?;
    Ok(marks.get(mark)?.is_some_and(|forgotten_at| now.as_millis() < forgotten_at.value()))
}

/// How many errands there are.
pub(super) fn count_errands(transaction: &ReadTransaction) -> Result<u64, Error> {
    Ok(transaction.open_table(ERRANDS)?.len()?)
}

/// Whether an errand is due.
pub(super) fn has_errand_due(transaction: &ReadTransaction, now: Timestamp) -> Result<bool, Error> {
    let due = transaction.open_table(DUE)?;
    let first = due.first()?;
    Ok(first.is_some_and(|(first, _)| first.value().0 <= now.as_millis()))
}

/// Whether something is to be thrown away.
pub(super) fn has_waste(database: &Database, now: Timestamp) -> Result<bool, Error> {
    let collection = database.begin_read()?.open_table(COLLECTION)?;
    let first = collection.first()?;
    Ok(first.is_some_and(|(first, _)| first.value().0 <= now.as_millis()))
}

fn collected_at(expires_at: Timestamp) -> u64 {
    (expires_at + COLLECTION_MARGIN).as_millis()
}

/// The same event as of a record that cannot be opened: to the session it makes no difference.
fn whole_record(bytes: &[u8]) -> Option<Record> {
    let record = encoding::to_record(bytes);
    if record.is_none() {
        tracing::error!(event = "session.record_unreadable", reason = "the record in the file is damaged");
    }
    record
}
