//! Every knob of RocksDB that is turned, with its default and why. It must not know what is stored.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    statistics::StatsLevel,
};

use crate::Family;

/// The family of the last commits' rows; RocksDB insists on one of this name.
pub(super) const LAST_COMMITS: &str = "default";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Files of one family that wait for a compaction, at most: with more, writes are delayed.
const LEVEL_ZERO_FILES_MAX: i32 = 36;
/// Memory that is in no file yet is bounded by one part in 16 of the volume, but not below the least.
const UNFLUSHED_PART: u64 = 16;
const UNFLUSHED_BYTES_MIN: u64 = 4 << 20;
/// With fewer files open, reading opens and closes them all the time.
const FILES_OPEN_MIN: i32 = 32;

/// How a [`super::RocksStore`] uses memory and disk.
#[derive(Debug, Clone, PartialEq)]
pub struct RocksOptions {
    /// The log's own options.
    pub log: LogOptions,
    /// One memtable of each other family, in bytes. Their rows are small and rewritten often. 4 MiB.
    pub small_memtable_bytes: usize,
    /// All memtables together, in bytes; above it the largest is flushed. 256 MiB.
    pub memtables_bytes_max: usize,
    /// Write-ahead log kept because some family has not flushed what is in it; above it, that family flushes.
    /// It bounds what a start after a crash must read. 256 MiB.
    pub wal_bytes_max: u64,
    /// Write-ahead log files kept to be written over: syncing a file that does not grow is a third cheaper. 2: more
    /// would stay on the disk while nothing is written.
    pub wal_files_recycled: usize,
    /// Bytes of a first such file, made at every open, in whole MiB; 0 for none. 16 MiB: with small commits a file is
    /// given up after about as much.
    pub wal_bytes_prepared: u64,
    /// Start writing the log's pages out after this many bytes, so that a sync has little left to write; 0 leaves that
    /// to the sync. 512 KiB: it shortens the syncs of large groups by a fifth and never meets small ones.
    pub wal_bytes_per_sync: u64,
    /// The same for files that flushing and compaction write; 1 MiB, so that their last sync does not stand in
    /// the way of the log's.
    pub file_bytes_per_sync: u64,
    /// Flush and compact past the page cache, where the file system can. On: what they write is long and read late,
    /// and copying it into fresh pages of the cache took a third of the engine's processor time.
    pub direct_writes: bool,
    /// Threads that flush and compact. 2: one of each.
    pub background_jobs: i32,
    /// Memory for blocks of rows of all families but the log. 16 MiB.
    pub block_cache_bytes: usize,
    /// Files held open. 512, and no more than half of the descriptors that the process may have.
    pub files_open_max: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            small_memtable_bytes: 4 * MIB,
            memtables_bytes_max: 256 * MIB,
            wal_bytes_max: 256 * 1024 * 1024,
            wal_files_recycled: 2,
            wal_bytes_prepared: 16 * 1024 * 1024,
            wal_bytes_per_sync: 512 * 1024,
            file_bytes_per_sync: 1024 * 1024,
            direct_writes: true,
            background_jobs: 2,
            block_cache_bytes: 16 * MIB,
            files_open_max: 512,
        }
    }
}

/// How the log family keeps its values.
///
/// Large values go to blob files when a memtable is flushed and are not rewritten after that: compaction moves
/// keys of a few dozen bytes. A blob file goes when every value in it is deleted, which is how retention deletes.
/// RocksDB's own collection of half-empty blob files stays off: it would rewrite the oldest part of the log
/// at every compaction, garbage or not. [`crate::Store::compact`] turns it on for a pass when it pays.
#[derive(Debug, Clone, PartialEq)]
pub struct LogOptions {
    /// One memtable in bytes, which is also how much one flush writes. 64 MiB.
    pub memtable_bytes: usize,
    /// Memtables at most, the one being filled included; writes stall when all are full. 3.
    pub memtables_max: i32,
    /// Values of this size or more, in bytes, go to blob files. 4 KiB.
    pub blob_bytes_min: u64,
    /// A blob file is closed when it reaches this size. 256 MiB.
    pub blob_file_bytes: u64,
    /// The part of all blob bytes that must be garbage before a compaction rewrites what is left in the oldest
    /// files, from 0 to 1. 0.5: then each byte rewritten gives back at least one.
    pub blob_garbage_max: f64,
    /// Memory for blocks of its keys and small values; large values bypass it. A reader of many partitions comes back
    /// to each block for each of them. Apart from the other families' blocks, which a long read would push out. 8 MiB:
    /// the keys of about 8 GiB of full batches.
    pub block_cache_bytes: usize,
    /// The part of the blob files, the oldest first, that one such pass rewrites. 0.25: that much room is needed
    /// for a while.
    pub blob_pass: f64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 64 * MIB,
            memtables_max: 3,
            blob_bytes_min: 4 * 1024,
            blob_file_bytes: 256 * 1024 * 1024,
            block_cache_bytes: 8 * MIB,
            blob_garbage_max: 0.5,
            blob_pass: 0.25,
        }
    }
}

impl RocksOptions {
    /// The same for a volume of this size: what is in memory and in no file yet takes its room twice when it is
    /// written out, so on a small volume it must be little. No change from 4 GiB on.
    pub(super) fn fitted_to(mut self, volume_bytes: u64) -> Self {
        let part = (volume_bytes / UNFLUSHED_PART).max(UNFLUSHED_BYTES_MIN);
        let bytes = usize::try_from(part).unwrap_or(usize::MAX);
        self.memtables_bytes_max = self.memtables_bytes_max.min(bytes);
        self.wal_bytes_max = self.wal_bytes_max.min(part);
        self.log.memtable_bytes = self.log.memtable_bytes.min(bytes / 4);
        self.small_memtable_bytes = self.small_memtable_bytes.min(bytes / 64);
        self
    }

    /// The same for a process with this limit of file descriptors: others need some too.
    pub(super) fn within_descriptors(mut self, limit: u64) -> Self {
        let half = i32::try_from(limit / 2).unwrap_or(i32::MAX).max(FILES_OPEN_MIN);
        self.files_open_max = self.files_open_max.min(half);
        self
    }

    /// By how much the ballast grows at a time.
    pub(super) fn ballast_step(&self) -> u64 {
        self.log.memtable_bytes as u64 / 2
    }

    /// More than RocksDB preallocates for a log file: a memtable and a tenth.
    pub(super) fn preallocated_bytes(&self) -> u64 {
        2 * self.log.memtable_bytes as u64
    }

    /// What holds for the whole database.
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        // A torn tail is cut at the first damaged record; that it was not confirmed is checked before, see `survey`.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        // A synced log file that went missing or lost its end is refused; `chain` sees to those not synced.
        options.set_track_and_verify_wals_in_manifest(true);
        // Written to the operating system with the commit: an acknowledgement for `os` survives the process.
        options.set_manual_wal_flush(false);
        options.set_recycle_log_file_num(self.wal_files_recycled);
        options.set_max_total_wal_size(self.wal_bytes_max);
        options.set_wal_bytes_per_sync(self.wal_bytes_per_sync);
        options.set_bytes_per_sync(self.file_bytes_per_sync);
        options.set_db_write_buffer_size(self.memtables_bytes_max);
        options.set_max_background_jobs(self.background_jobs);
        options.set_max_open_files(self.files_open_max);
        options.set_max_file_opening_threads(2);
        options.set_skip_stats_update_on_db_open(true);
        // Catching up reads blob files from end to end: the kernel shall read ahead.
        options.set_advise_random_on_open(false);
        options.set_manifest_preallocation_size(64 * KIB);
        options.set_max_manifest_file_size(16 * MIB);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.enable_statistics();
        options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        options
    }

    /// Every column family with its own options.
    pub(super) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.block_cache_bytes);
        let families = Family::ALL.into_iter().map(|family| {
            let options = match family {
                Family::Log => self.log_family(),
                Family::Meta
                | Family::Catalogue
                | Family::Cursors
                | Family::Producers
                | Family::Dedup
                | Family::Schedule
                | Family::Prepared
                | Family::PluginState
                | Family::Side => self.small_family(&cache),
            };
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let chain = ColumnFamilyDescriptor::new(LAST_COMMITS, self.small_family(&cache));
        families.chain([chain]).collect()
    }

    fn log_family(&self) -> Options {
        let mut options = family(&Cache::new_lru_cache(self.log.block_cache_bytes));
        options.set_write_buffer_size(self.log.memtable_bytes);
        options.set_max_write_buffer_number(self.log.memtables_max);
        // On a small volume a compaction, which needs the room of a file or two, must be small as well.
        options.set_target_file_size_base(self.log.memtable_bytes as u64);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(self.log.blob_bytes_min);
        options.set_blob_file_size(self.log.blob_file_bytes);
        options.set_blob_compression_type(DBCompressionType::None);
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(0.0);
        options.set_blob_gc_force_threshold(1.0);
        options
    }

    fn small_family(&self, cache: &Cache) -> Options {
        let mut options = family(cache);
        options.set_write_buffer_size(self.small_memtable_bytes);
        options.set_max_write_buffer_number(2);
        options
    }
}

/// The same, but files grow by what is written to them.
///
/// RocksDB takes a memtable's room for a new log file before the manifest is written, and on a full disk that can be
/// the room that the ballast gave up. The crate sets this option by its name only.
pub(super) fn without_preallocation(mut database: Options) -> Result<Options, rocksdb::Error> {
    database.get_options_from_string("allow_fallocate=false")
}

/// What holds for every family.
///
/// RocksDB never slows a write down little by little: that and asking it not to wait at all do not go together.
fn family(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(16 * KIB);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_FILES_MAX);
    options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_FILES_MAX);
    options.set_soft_pending_compaction_bytes_limit(0);
    options
}
