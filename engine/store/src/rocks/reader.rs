//! Reading rows: one, a run, and the last of a range. Each value is copied once, out of RocksDB's buffer.

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions};

use super::{database::Database, failure};
use crate::{Error, Family, ScanLimit};

impl Database {
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self
            .db
            .get_pinned_cf_opt(self.family(family), key, &read_options(family))
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

    /// An iterator that never leaves `[from, to)`: it neither reads nor steps over what lies outside, tombstones
    /// of what retention deleted included.
    fn iterate(&self, family: Family, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let mut options = read_options(family);
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        options.set_total_order_seek(true);
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }
}

/// The log is read in long runs, once each: its blocks would only push others out of the cache.
fn read_options(family: Family) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(family != Family::Log);
    options
}
