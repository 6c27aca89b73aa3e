//! Settings of what is on the disk: the guard of free space, retention, and RocksDB.

use std::time::Duration;

use bytesize::ByteSize;
use levada_store::{LogOptions, RocksOptions};

use super::{
    Error,
    section::{duration, number, section, size},
};
use crate::units;

const MILLISECOND: Duration = Duration::from_millis(1);

section! {
    /// The data directory's volume, and how often old events are removed.
    StoreConfig {
        /// Least free disk space: below it, or below the smaller of a tenth of the volume and 1 GiB, publishes are
        /// refused.
        #[serde(with = "units::size")]
        disk_reserve: ByteSize = ByteSize::mib(64);
        /// How often free disk space is checked.
        #[serde(with = "units::duration")]
        disk_check_interval: Duration = Duration::from_millis(500);
        /// How often a retention round runs.
        #[serde(with = "units::duration")]
        retention_interval: Duration = Duration::from_secs(30);
        /// How old events of a topic with `retain = compact` are at least when they are compacted.
        #[serde(with = "units::duration")]
        compact_after: Duration = Duration::from_secs(600);
        /// How long their tombstones stay at least.
        #[serde(with = "units::duration")]
        tombstones_for: Duration = Duration::from_secs(24 * 3_600);
        /// Topics, subscriptions, routes and plugin versions together.
        catalogue_records_max: usize = 100_000;
    }
}

section! {
    /// RocksDB as a whole. Change these only after measuring; on a small volume the engine uses less than is set.
    RocksdbConfig {
        /// All memtables together; above it the largest is flushed.
        #[serde(with = "units::size")]
        memtables_bytes_max: ByteSize = ByteSize::mib(256);
        /// One memtable of each family but the log's.
        #[serde(with = "units::size")]
        small_memtable_bytes: ByteSize = ByteSize::mib(4);
        /// Write-ahead log kept for families that have not flushed it; bounds what a start after a crash must read.
        #[serde(with = "units::size")]
        wal_bytes_max: ByteSize = ByteSize::mib(256);
        /// Write-ahead log files kept to be written over.
        wal_files_recycled: usize = 2;
        /// Bytes of a first such file, made at every start, in whole MiB; 0 for none.
        #[serde(with = "units::size")]
        wal_bytes_prepared: ByteSize = ByteSize::mib(16);
        /// The log's pages are written out each time after this many bytes, so that a sync has little left to write; 0
        /// leaves it to the sync.
        #[serde(with = "units::size")]
        wal_bytes_per_sync: ByteSize = ByteSize::kib(512);
        /// The same for files that flushes and compactions write.
        #[serde(with = "units::size")]
        file_bytes_per_sync: ByteSize = ByteSize::mib(1);
        /// Flush and compact past the page cache, where the file system can.
        direct_writes: bool = true;
        /// Threads that flush and compact.
        background_jobs: i32 = 2;
        /// Memory for blocks of rows of all families but the log's.
        #[serde(with = "units::size")]
        block_cache_bytes: ByteSize = ByteSize::mib(16);
        /// Files held open, and no more than half of the descriptors that the process may have.
        files_open_max: i32 = 512;
    }
}

section! {
    /// RocksDB's family of events, whose large values are in blob files.
    RocksdbLogConfig {
        /// One memtable, which is also how much one flush writes.
        #[serde(with = "units::size")]
        memtable_bytes: ByteSize = ByteSize::mib(64);
        /// Memtables at most, the one being filled included; writes stall when all are full.
        memtables_max: i32 = 3;
        /// Values of this size or more are in blob files.
        #[serde(with = "units::size")]
        blob_bytes_min: ByteSize = ByteSize::kib(4);
        /// A blob file is closed when it reaches this size.
        #[serde(with = "units::size")]
        blob_file_bytes: ByteSize = ByteSize::mib(256);
        /// The part of all blob bytes that must be garbage before the live bytes of the oldest files are rewritten: 0
        /// to 1.
        blob_garbage_max: f64 = 0.5;
        /// Memory for blocks of the log's keys and small values. Large values bypass it.
        #[serde(with = "units::size")]
        block_cache_bytes: ByteSize = ByteSize::mib(8);
        /// The part of the blob files, the oldest first, that one such round rewrites: 0 to 1.
        blob_pass: f64 = 0.25;
    }
}

impl StoreConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        duration("store.disk_check_interval", self.disk_check_interval, MILLISECOND)?;
        duration("store.retention_interval", self.retention_interval, MILLISECOND)?;
        duration("store.compact_after", self.compact_after, MILLISECOND)?;
        duration("store.tombstones_for", self.tombstones_for, MILLISECOND)?;
        number("store.catalogue_records_max", self.catalogue_records_max, 1..=10_000_000)
    }
}

impl RocksdbConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let memory = ByteSize::kib(64)..=ByteSize::tib(1);
        size("rocksdb.memtables_bytes_max", self.memtables_bytes_max, memory.clone())?;
        size("rocksdb.small_memtable_bytes", self.small_memtable_bytes, memory.clone())?;
        size("rocksdb.wal_bytes_max", self.wal_bytes_max, memory.clone())?;
        size("rocksdb.block_cache_bytes", self.block_cache_bytes, memory)?;
        let most = ByteSize::b(0)..=ByteSize::gib(1);
        size("rocksdb.wal_bytes_prepared", self.wal_bytes_prepared, most.clone())?;
        size("rocksdb.wal_bytes_per_sync", self.wal_bytes_per_sync, most.clone())?;
        size("rocksdb.file_bytes_per_sync", self.file_bytes_per_sync, most)?;
        number("rocksdb.wal_files_recycled", self.wal_files_recycled, 0..=64)?;
        number("rocksdb.background_jobs", self.background_jobs, 2..=64)?;
        number("rocksdb.files_open_max", self.files_open_max, 32..=1_000_000)
    }

    /// As the store takes them.
    pub(crate) fn options(&self, log: &RocksdbLogConfig) -> RocksOptions {
        RocksOptions {
            log: log.options(),
            small_memtable_bytes: bytes(self.small_memtable_bytes),
            memtables_bytes_max: bytes(self.memtables_bytes_max),
            wal_bytes_max: self.wal_bytes_max.as_u64(),
            wal_files_recycled: self.wal_files_recycled,
            wal_bytes_prepared: self.wal_bytes_prepared.as_u64(),
            wal_bytes_per_sync: self.wal_bytes_per_sync.as_u64(),
            file_bytes_per_sync: self.file_bytes_per_sync.as_u64(),
            direct_writes: self.direct_writes,
            background_jobs: self.background_jobs,
            block_cache_bytes: bytes(self.block_cache_bytes),
            files_open_max: self.files_open_max,
        }
    }
}

impl RocksdbLogConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        size("rocksdb_log.memtable_bytes", self.memtable_bytes, ByteSize::kib(64)..=ByteSize::gib(16))?;
        number("rocksdb_log.memtables_max", self.memtables_max, 2..=64)?;
        size("rocksdb_log.blob_bytes_min", self.blob_bytes_min, ByteSize::b(0)..=ByteSize::gib(1))?;
        size("rocksdb_log.blob_file_bytes", self.blob_file_bytes, ByteSize::kib(64)..=ByteSize::tib(1))?;
        size("rocksdb_log.block_cache_bytes", self.block_cache_bytes, ByteSize::kib(64)..=ByteSize::tib(1))?;
        number("rocksdb_log.blob_garbage_max", self.blob_garbage_max, 0.0..=1.0)?;
        number("rocksdb_log.blob_pass", self.blob_pass, 0.0..=1.0)
    }

    fn options(&self) -> LogOptions {
        LogOptions {
            memtable_bytes: bytes(self.memtable_bytes),
            memtables_max: self.memtables_max,
            blob_bytes_min: self.blob_bytes_min.as_u64(),
            blob_file_bytes: self.blob_file_bytes.as_u64(),
            block_cache_bytes: bytes(self.block_cache_bytes),
            blob_garbage_max: self.blob_garbage_max,
            blob_pass: self.blob_pass,
        }
    }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_store() {
        let options = RocksdbConfig::default().options(&RocksdbLogConfig::default());
        assert_eq!(options, RocksOptions::default());
    }
}
