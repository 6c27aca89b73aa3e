//! RocksDB's handle: its families, and reading rows: one, a run, and the last of a range. Each value is copied once,
//! out of RocksDB's buffer.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    CStrLike, ColumnFamily, DB, DBRawIterator, Options, ReadOptions, properties, statistics::Ticker,
};

use super::{RocksOptions, failure, layout::FOLDER, options::LAST_COMMITS};
use crate::{
    Error, Family, ScanLimit,
    commit::{APPLIED_KEY, AppliedRow},
};

const MEMTABLE_BYTES: &str = "rocksdb.cur-size-all-mem-tables";

/// An open database, for writing or for reading alone.
pub(super) struct Rocks {
    pub(super) db: DB,
    /// Kept because the counters hang on it.
    options: Options,
}

impl Rocks {
    /// Opens for writing. `options` are those of the database as a whole.
    pub(super) fn open(dir: &Path, options: Options, families: &RocksOptions) -> Result<Self, Error> {
        let db = DB::open_cf_descriptors(&options, dir.join(FOLDER), families.families())
            .map_err(|error| failure::of_open(dir, &error))?;
        Ok(Self { db, options })
    }

    /// Opens without writing anything.
    pub(super) fn open_for_reading(dir: &Path, options: &RocksOptions) -> Result<Self, Error> {
        let (database, folder) = (options.database(), dir.join(FOLDER));
        let db = DB::open_cf_descriptors_read_only(&database, folder, options.families(), false)
            .map_err(|error| failure::of_damage(dir, &error))?;
        Ok(Self { db, options: database })
    }

    /// The column family of a family.
    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        self.handle(family.name())
    }

    fn handle(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened with the database")
    }

    /// A counter since the open.
    pub(super) fn ticker(&self, ticker: Ticker) -> u64 {
        self.options.get_ticker_count(ticker)
    }

    /// A number that RocksDB knows of the whole database, 0 if it does not.
    pub(super) fn property(&self, name: impl CStrLike) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or(0)
    }

    /// A number that RocksDB knows of a family, 0 if it does not.
    pub(super) fn family_property(&self, family: Family, name: &str) -> u64 {
        self.db.property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0)
    }

    /// Jobs in the background that have failed since the open.
    pub(super) fn background_errors(&self) -> u64 {
        self.property(properties::BACKGROUND_ERRORS)
    }

    /// Bytes in memory that are in no file yet, RocksDB's own family included.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        let families = Family::ALL.map(|family| self.family_property(family, MEMTABLE_BYTES));
        self.property(MEMTABLE_BYTES) + families.iter().sum::<u64>()
    }

    /// Makes everything durable that was written before the call. Writes continue meanwhile.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.db.flush_wal(true).map_err(|error| failure::of_call("sync", &error))
    }

    /// Writes what is in memory to files.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let names = Family::ALL.into_iter().map(Family::name).chain([LAST_COMMITS]);
        for name in names {
            self.db.flush_cf(self.handle(name)).map_err(|error| failure::of_call("flush", &error))?;
        }
        Ok(())
    }

    /// The commit applied last.
    pub(super) fn last_applied(&self) -> Result<AppliedRow, Error> {
        self.get(Family::Meta, APPLIED_KEY)?
            .map_or_else(|| Ok(AppliedRow::default()), |value| AppliedRow::decode(&value))
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self
            .db
            .get_pinned_cf(self.family(family), key)
            .map_err(|error| failure::of_read(family, key, &error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        if from >= to {
            return Ok(rows);
        }
        let mut iterator = self.iterate(family, from, to);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            bytes += key.len() + value.len();
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            // To step further would read the next large value for nothing.
            if limit.is_reached(rows.len(), bytes) {
                return Ok(rows);
            }
            iterator.next();
        }
        match iterator.status() {
            // What is whole before damaged events is served; the next call begins at them and names them.
            Err(error) if rows.is_empty() || family != Family::Log => {
                Err(failure::of_read(family, from, &error))
            }
            _ => Ok(rows),
        }
    }

    pub(super) fn last_before(
        &self,
        family: Family,
        from: &[u8],
        below: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, Error> {
        if from >= below {
            return Ok(None);
        }
        let mut iterator = self.iterate(family, from, below);
        iterator.seek_to_last();
        let row =
            iterator.item().map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        iterator.status().map_err(|error| failure::of_read(family, below, &error))?;
        Ok(row)
    }

    /// An iterator that never leaves `[from, to)`: it neither reads nor steps over what is outside, tombstones
    /// of what retention deleted included.
    fn iterate(&self, family: Family, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        options.set_total_order_seek(true);
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }
}
