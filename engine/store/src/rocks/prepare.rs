//! A first log file to write over. It must not know what the log holds.
//!
//! A sync of a log file that grows has to write the file's new length too, and that is a second wait for the disk: it
//! takes half as long again. RocksDB writes over log files that it needs no more, but after an open it has none.
//! So one is filled, given up, and taken again. Where the disk gets full meanwhile, or descriptors run out, that is
//! passed over: readers are served, and the next write meets it itself.

use rocksdb::WriteBatch;

use super::{failure, handle::Rocks};
use crate::Error;

/// What is written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// No zeros, which a file system may leave out.
const FILLER: u8 = 0xb5;
/// A key that is never found: the batch that puts it deletes it as well.
const NOTHING: &[u8] = b"nothing";

/// Fills a log file up to about `bytes`, and has the next one written over it.
pub(super) fn log_file(rocks: &Rocks, bytes: u64) -> Result<(), Error> {
    match fill_log_file(rocks, bytes) {
        Err(error) if error.heals() => {
            tracing::warn!(%error, "no log file was prepared");
            Ok(())
        }
        done => done,
    }
}

fn fill_log_file(rocks: &Rocks, bytes: u64) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    let chunk = vec![FILLER; CHUNK_BYTES];
    for _ in 0..bytes.div_ceil(CHUNK_BYTES as u64) {
        let mut batch = WriteBatch::default();
        // It is in the log file alone, and recovery steps over it.
        batch.put_log_data(&chunk);
        rocks.db.write(batch).map_err(|error| failure::of_call("write", &error))?;
    }
    // The first flush gives the file up, the second begins the next one in its place.
    for _ in 0..2 {
        let mut batch = WriteBatch::default();
        batch.put(NOTHING, []);
        batch.delete(NOTHING);
        rocks.db.write(batch).map_err(|error| failure::of_call("write", &error))?;
        rocks.db.flush().map_err(|error| failure::of_call("flush", &error))?;
    }
    Ok(())
}
