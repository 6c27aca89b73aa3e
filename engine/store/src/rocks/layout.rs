//! The names in the data directory that more than one file here knows.

/// The folder of RocksDB's files in the data directory.
pub(super) const FOLDER: &str = "db";
