//! What records and errands look like in the file: a format, and then fields, each with its tag and length.
//! A field that this version does not know is skipped, so that two versions of the gateway can follow each
//! other on one file.

use super::super::outbox::Errand;
use super::super::{IndexKey, Record, Version};
use crate::clock::Timestamp;

/// Counts changes that older gateways cannot read; a new field is none.
const FORMAT: u8 = 1;

const SEALED: u8 = 1;
const VERSION: u8 = 2;
const EXPIRES_AT: u8 = 3;
/// Once for each index.
const INDEX: u8 = 4;
const DUE_AT: u8 = 5;

/// Between the names of indexes, which are hexadecimal.
const SEPARATOR: char = ' ';

pub(super) fn record(record: &Record) -> Vec<u8> {
    let Record { sealed, version, expires_at, indexes } = record;
    let mut bytes = vec![FORMAT];
    put(&mut bytes, VERSION, &version.0.to_be_bytes());
    put(&mut bytes, EXPIRES_AT, &expires_at.as_millis().to_be_bytes());
    for index in indexes {
        put(&mut bytes, INDEX, index.0.as_bytes());
    }
    put(&mut bytes, SEALED, sealed);
    bytes
}

/// `None` where it is damaged, or of a format to come.
pub(super) fn to_record(bytes: &[u8]) -> Option<Record> {
    let (mut sealed, mut version, mut expires_at, mut indexes) = (None, None, None, Vec::new());
    for field in Fields::of(bytes)? {
        match field? {
            (SEALED, value) => sealed = Some(value.to_vec()),
            (VERSION, value) => version = Some(Version(number(value)?)),
            (EXPIRES_AT, value) => expires_at = Some(Timestamp::from_millis(number(value)?)),
            (INDEX, value) => indexes.push(IndexKey(String::from_utf8(value.to_vec()).ok()?)),
            _ => {}
        }
    }
    Some(Record { sealed: sealed?, version: version?, expires_at: expires_at?, indexes })
}

pub(super) fn errand(errand: &Errand) -> Vec<u8> {
    let Errand { id: _, sealed, due_at } = errand;
    let mut bytes = vec![FORMAT];
    put(&mut bytes, DUE_AT, &due_at.as_millis().to_be_bytes());
    put(&mut bytes, SEALED, sealed);
    bytes
}

/// The same, of an errand.
pub(super) fn to_errand(id: &str, bytes: &[u8]) -> Option<Errand> {
    let (mut sealed, mut due_at) = (None, None);
    for field in Fields::of(bytes)? {
        match field? {
            (SEALED, value) => sealed = Some(value.to_vec()),
            (DUE_AT, value) => due_at = Some(Timestamp::from_millis(number(value)?)),
            _ => {}
        }
    }
    Some(Errand { id: id.to_owned(), sealed: sealed?, due_at: due_at? })
}

/// The names of indexes in one text.
pub(super) fn names(indexes: &[IndexKey]) -> String {
    let names: Vec<&str> = indexes.iter().map(|index| index.0.as_str()).collect();
    names.join(&SEPARATOR.to_string())
}

/// The other way.
pub(super) fn to_indexes(names: &str) -> Vec<IndexKey> {
    names.split(SEPARATOR).filter(|name| !name.is_empty()).map(|name| IndexKey(name.to_owned())).collect()
}

/// A tag and its value.
type Field<'a> = (u8, &'a [u8]);

/// The fields of what is of this format; `None` for one that is cut short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (format, fields) = bytes.split_first()?;
        (*format == FORMAT).then_some(Self(fields))
    }

    fn split_field(&self) -> Option<(Field<'a>, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        Some(((*tag, value), rest))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = self.split_field();
        self.0 = split.map_or(&[], |(_, rest)| rest);
        Some(split.map(|(field, _)| field))
    }
}

/// A value of 4 GiB and more, which nobody has, would come back damaged.
fn put(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    bytes.push(tag);
    bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(value);
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_record() -> Record {
        Record {
            sealed: (0..=255).collect(),
            version: Version(u64::MAX),
            expires_at: Timestamp::from_millis(1),
            indexes: vec![IndexKey("b".to_owned()), IndexKey("a".to_owned())],
        }
    }

    #[test]
    fn a_record_with_fields_of_a_later_version_is_read() {
        let written = a_record();
        let mut bytes = record(&written);
        put(&mut bytes, 200, b"of a later version");
        put(&mut bytes, 201, b"");
        assert_eq!(to_record(&bytes), Some(written));
        let written = Errand { id: "id".to_owned(), sealed: vec![], due_at: Timestamp::from_millis(7) };
        let mut bytes = errand(&written);
        put(&mut bytes, 200, b"of a later version");
        assert_eq!(to_errand("id", &bytes), Some(written));
    }

    #[test]
    fn what_is_cut_short_or_of_another_format_is_damaged() {
        let bytes = record(&a_record());
        for length in 0..bytes.len() {
            assert_eq!(to_record(&bytes[..length]), None, "{length}");
        }
        assert_eq!(to_record(&[&[FORMAT + 1], &bytes[1..]].concat()), None);
        assert_eq!(to_record(&[&bytes[..], &[SEALED]].concat()), None);
        assert_eq!(to_errand("id", &bytes), None);
    }

    #[test]
    fn names_of_indexes_come_back() {
        for indexes in [vec![], a_record().indexes] {
            assert_eq!(to_indexes(&names(&indexes)), indexes);
        }
    }
}
