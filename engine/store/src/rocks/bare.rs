//! RocksDB with the options of the store and nothing of its contract: what the disk and RocksDB can do by themselves.
//!
//! For measurements, which set the store and the engine in relation to it. No commits, no history, no recovery: what is
//! written is not meant to be read again.

use std::{fs, path::Path};

use rocksdb::WriteBatch;

use super::{RocksOptions, directory::takes_direct_writes, failure, handle::Rocks};
use crate::{Error, Family};

/// What RocksDB adds to a row at most.
const ROW_OVERHEAD_BYTES: usize = 32;

/// A RocksDB on a directory of its own.
pub struct BareStore {
    rocks: Rocks,
}

impl BareStore {
    /// Opens a new RocksDB below `dir`. Its first log file grows as it is written: preparing one to write over is the
    /// store's own doing.
    ///
    /// # Errors
    /// If the directory or the files cannot be made.
    pub fn open(dir: &Path, options: &RocksOptions) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|error| failure::of_file("make the directory", dir, &error))?;
        let mut settings = options.database();
        settings.create_if_missing(true);
        settings.create_missing_column_families(true);
        settings
            .set_use_direct_io_for_flush_and_compaction(options.direct_writes && takes_direct_writes(dir));
        Ok(Self { rocks: Rocks::open(dir, settings, options)? })
    }

    /// Writes one row of the log family in a batch of its own, without a sync.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn write(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut batch = WriteBatch::with_capacity_bytes(key.len() + value.len() + ROW_OVERHEAD_BYTES);
        batch.put_cf(self.rocks.family(Family::Log), key, value);
        self.rocks.db.write(batch).map_err(|error| failure::of_call("write", &error))
    }

    /// Makes everything durable that was written before the call.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn sync(&self) -> Result<(), Error> {
        self.rocks.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rocks::space;

    #[test]
    fn what_is_written_is_in_the_log_and_synced() {
        let dir = tempfile::tempdir().unwrap();
        let store = BareStore::open(dir.path(), &RocksOptions::default()).unwrap();
        let before = space::stats(&store.rocks, 0);
        for key in 0..3_u64 {
            store.write(&key.to_be_bytes(), &[7; 10_000]).unwrap();
        }
        store.sync().unwrap();
        let after = space::stats(&store.rocks, 0);
        assert!(after.wal_bytes - before.wal_bytes >= 30_000, "{before:?} {after:?}");
        assert_eq!(after.wal_syncs - before.wal_syncs, 1);
        assert_eq!(store.rocks.get(Family::Log, &1_u64.to_be_bytes()).unwrap().unwrap().len(), 10_000);
    }
}
