//! Space: giving that of deleted rows back, and counting what is used and written.

use rocksdb::{BottommostLevelCompaction, CompactOptions, statistics::Ticker};

use super::{LogOptions, failure, handle::Rocks};
use crate::{Deleted, Error, Family, StoreStats};

const AGE_CUTOFF: &str = "blob_garbage_collection_age_cutoff";
const BLOB_BYTES: &str = "rocksdb.live-blob-file-size";
const BLOB_FILES: &str = "rocksdb.num-blob-files";
const BLOB_GARBAGE_BYTES: &str = "rocksdb.live-blob-file-garbage-size";
const FILE_BYTES: &str = "rocksdb.live-sst-files-size";
const MEMTABLE_BYTES: &str = "rocksdb.cur-size-all-mem-tables";
/// Rounds over half-empty blob files that one compaction runs at most.
const PASSES_MAX: usize = 4;

/// Gives space back.
pub(super) struct Collector {
    log: LogOptions,
}

impl Collector {
    pub(super) fn new(log: LogOptions) -> Self {
        Self { log }
    }

    /// Drops deleted keys of a range, which frees the blob files that hold nothing else; then, if much of what is
    /// left in blob files is deleted too, moves the living part out of the oldest ones.
    ///
    /// That rewrites the live rows of the same files. Where there is no room for it, and all rows of the range are deleted,
    /// the files that hold nothing else go first, for which nothing is written.
    pub(super) fn compact(
        &self,
        rocks: &Rocks,
        family: Family,
        (from, to): (&[u8], &[u8]),
        deleted: Deleted,
    ) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        match self.try_compact(rocks, family, from, to) {
            Err(Error::Compaction { .. }) if deleted == Deleted::All => {
                drop_whole_files(rocks, family, from, to)?;
                self.try_compact(rocks, family, from, to)
            }
            done => done,
        }
    }

    fn try_compact(&self, rocks: &Rocks, family: Family, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let errors = rocks.background_errors();
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        rocks.db.compact_range_cf_opt(rocks.family(family), Some(from), Some(to), &options);
        if family == Family::Log {
            self.collect_blobs(rocks)?;
        }
        // The call itself answers nothing.
        match rocks.background_errors().saturating_sub(errors) {
            0 => Ok(()),
            jobs => Err(Error::Compaction { jobs, log: rocks.db.path().join("LOG") }),
        }
    }

    fn collect_blobs(&self, rocks: &Rocks) -> Result<(), Error> {
        let family = rocks.family(Family::Log);
        for _ in 0..PASSES_MAX {
            if !self.is_collection_due(rocks) {
                break;
            }
            let errors = rocks.background_errors();
            set_age_cutoff(
                rocks,
                age_cutoff(rocks.family_property(Family::Log, BLOB_FILES), self.log.blob_pass),
            )?;
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            rocks.db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
            set_age_cutoff(rocks, 0.0)?;
            // That garbage is as much as before says only that the oldest files had none: the next round takes others.
            if rocks.background_errors() > errors {
                break;
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes needs no exact bytes")]
    fn is_collection_due(&self, rocks: &Rocks) -> bool {
        let total = rocks.family_property(Family::Log, BLOB_BYTES);
        total > 0 && log_garbage(rocks) as f64 >= total as f64 * self.log.blob_garbage_max
    }
}

/// Removes the files of which all keys are in the range, whether those are deleted or not; those of level 0 stay. Large
/// values of theirs are not counted as garbage then, so this is for need alone.
pub(super) fn drop_whole_files(rocks: &Rocks, family: Family, from: &[u8], to: &[u8]) -> Result<(), Error> {
    // RocksDB takes both ends as part of the range, and a row of that key may live.
    let Some(last) = before(to).filter(|last| from <= last.as_slice()) else { return Ok(()) };
    rocks
        .db
        .delete_file_in_range_cf(rocks.family(family), from, &last)
        .map_err(|error| failure::of_call("remove files", &error))
}

fn set_age_cutoff(rocks: &Rocks, cutoff: f64) -> Result<(), Error> {
    rocks
        .db
        .set_options_cf(rocks.family(Family::Log), &[(AGE_CUTOFF, &cutoff.to_string())])
        .map_err(|error| failure::of_call("set options", &error))
}

fn log_garbage(rocks: &Rocks) -> u64 {
    rocks.family_property(Family::Log, BLOB_GARBAGE_BYTES)
}

/// Counters since the open, and sizes now; `stalled_micros` is how long the store itself has held writes up.
pub(super) fn stats(rocks: &Rocks, stalled_micros: u64) -> StoreStats {
    let count = |ticker| rocks.ticker(ticker);
    let sum = |property: &str| {
        Family::ALL.map(|family| rocks.family_property(family, property)).iter().sum::<u64>()
    };
    let log_files = rocks.family_property(Family::Log, FILE_BYTES);
    StoreStats {
        wal_bytes: count(Ticker::WalFileBytes),
        wal_syncs: count(Ticker::WalFileSynced),
        flush_bytes: count(Ticker::FlushWriteBytes),
        compaction_read_bytes: count(Ticker::CompactReadBytes),
        compaction_bytes: count(Ticker::CompactWriteBytes),
        stall_micros: count(Ticker::StallMicros) + stalled_micros,
        memtable_bytes: sum(MEMTABLE_BYTES),
        log_bytes: log_files + rocks.family_property(Family::Log, BLOB_BYTES),
        log_garbage_bytes: log_garbage(rocks),
        other_bytes: sum(FILE_BYTES) - log_files,
    }
}

/// The cutoff with which RocksDB rewrites this part of the blob files, and at least one: it rounds the product of both
/// down, so that a quarter of three files would be none.
#[expect(clippy::cast_precision_loss, reason = "there are not that many files")]
fn age_cutoff(files: u64, part: f64) -> f64 {
    let files = files as f64;
    let rewritten = (files * part).ceil().max(1.0);
    ((rewritten + 0.5) / files).min(1.0)
}

/// The greatest key of the same length that is less; `None` for zeros.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    let mut before = key.to_vec();
    for byte in before.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            return Some(before);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{age_cutoff, before};

    #[test]
    fn a_pass_over_blob_files_rewrites_its_part_of_them_and_at_least_one() {
        for (files, part, rewritten) in [
            (1, 0.25, 1),
            (2, 0.25, 1),
            (3, 0.25, 1),
            (4, 0.25, 1),
            (5, 0.25, 2),
            (8, 0.25, 2),
            (3, 1.0, 3),
            (400, 0.25, 100),
        ] {
            // What RocksDB makes of it.
            let cutoff = (age_cutoff(files, part) * files as f64).floor();
            assert_eq!(cutoff, f64::from(rewritten), "{part} of {files} files");
        }
    }

    #[test]
    fn the_key_before_is_the_greatest_of_the_same_length() {
        assert_eq!(before(&[1, 2, 3]), Some(vec![1, 2, 2]));
        assert_eq!(before(&[1, 0, 0]), Some(vec![0, 255, 255]));
        assert_eq!(before(&[0, 0]), None);
        assert_eq!(before(&[]), None);
    }
}
