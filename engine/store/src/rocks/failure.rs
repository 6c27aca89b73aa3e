//! Turning what RocksDB and the file system answer into the store's errors.

use std::{io, path::Path};

use rocksdb::ErrorKind;

use crate::Error;

/// What a full disk and a used up quota look like in RocksDB's texts, whatever C library worded them; the crate hands
/// on neither code nor subcode.
const NO_ROOM: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "Quota exceeded", "Space limit reached"];
/// What a want of file descriptors looks like there.
const NO_DESCRIPTORS: [&str; 2] = ["Too many open files", "No file descriptors available"];
/// What a lock that somebody holds looks like.
const LOCKED: [&str; 2] = ["While lock file", "lock hold by current process"];

/// An error of a call on an open database. `call` is a verb, such as `write`.
pub(super) fn of_call(call: &str, error: &rocksdb::Error) -> Error {
    of_text(call, error.kind(), error.as_ref())
}

fn of_text(call: &str, kind: ErrorKind, text: &str) -> Error {
    let shows = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    let reason = format!("{call}: {text}");
    if shows(&NO_ROOM) {
        return Error::Full { reason };
    }
    if shows(&NO_DESCRIPTORS) {
        return Error::NoDescriptors { reason };
    }
    match kind {
        ErrorKind::Corruption => Error::Corrupt { detail: reason },
        _ => Error::Failed { reason },
    }
}

/// An error of opening the database in `dir`.
pub(super) fn of_open(dir: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    match of_call("open", error) {
        // The lock's file may be what there is no room or no descriptor for.
        passing @ (Error::Full { .. } | Error::NoDescriptors { .. }) => passing,
        _ if LOCKED.iter().any(|sign| text.contains(sign)) => Error::InUse { dir: dir.to_owned() },
        other => other,
    }
}

/// An error of one of the store's own files. `action` is a verb and its object.
pub(super) fn of_file(action: &str, path: &Path, error: &io::Error) -> Error {
    Error::of_file(action, path, error)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_gets_better_by_itself_is_told_apart_whoever_says_it() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            let error = of_file("write", Path::new("ballast"), &errno.into());
            assert!(matches!(error, Error::Full { .. }), "{error}");
            assert!(error.heals());
        }
        for errno in [Errno::MFILE, Errno::NFILE] {
            let error = of_file("open", Path::new("ballast"), &errno.into());
            assert!(matches!(error, Error::NoDescriptors { .. }), "{error}");
            assert!(error.heals());
        }
        let error = of_file("sync", Path::new("ballast"), &Errno::IO.into());
        assert!(matches!(error, Error::Failed { .. }) && !error.heals(), "{error}");
    }

    #[test]
    fn texts_of_both_c_libraries_are_known() {
        let kind_of = |text: &str| of_text("write", ErrorKind::IOError, text);
        for text in ["Disk quota exceeded", "Quota exceeded", "No space left on device"] {
            let text = format!("IO error: {text}: While appending to file: /data/db/000012.log");
            assert!(matches!(kind_of(&text), Error::Full { .. }), "{text}");
        }
        for text in ["Too many open files", "Too many open files in system", "No file descriptors available"]
        {
            let text = format!("IO error: While open a file for appending: /data/db/000012.log: {text}");
            assert!(matches!(kind_of(&text), Error::NoDescriptors { .. }), "{text}");
        }
        assert!(matches!(kind_of("IO error: Input/output error"), Error::Failed { .. }));
    }
}
