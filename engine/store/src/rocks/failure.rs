//! Turning what RocksDB and the file system answer into the store's errors.

use std::{io, path::Path};

use rocksdb::ErrorKind;

use crate::Error;

/// What a full disk looks like in RocksDB's texts; the crate hands on neither code nor subcode.
const NO_ROOM: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Space limit reached"];
/// What a lock that somebody holds looks like.
const LOCKED: [&str; 2] = ["While lock file", "lock hold by current process"];

/// An error of a call on an open database. `call` is a verb, such as `write`.
pub(super) fn of_call(call: &str, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    if NO_ROOM.iter().any(|sign| text.contains(sign)) {
        return Error::Full { reason: format!("{call}: {text}") };
    }
    match error.kind() {
        ErrorKind::Corruption => Error::Corrupt { detail: format!("{call}: {text}") },
        _ => Error::Failed { reason: format!("{call}: {text}") },
    }
}

/// An error of opening the database in `dir`.
pub(super) fn of_open(dir: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    if LOCKED.iter().any(|sign| text.contains(sign)) {
        return Error::InUse { dir: dir.to_owned() };
    }
    of_call("open", error)
}

/// An error of one of the store's own files. `action` is a verb and its object.
pub(super) fn of_file(action: &str, path: &Path, error: &io::Error) -> Error {
    let reason = format!("cannot {action} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { reason },
        _ => Error::Failed { reason },
    }
}
