//! Turning what RocksDB and the file system answer into the store's errors.

use std::{io, path::Path};

use rocksdb::ErrorKind;

use super::{damaged_table, layout::FOLDER};
use crate::{Error, Family, record::LogKey};

/// What a full disk and a used up quota look like in RocksDB's texts, whatever C library worded them; the crate hands
/// on neither code nor subcode.
const NO_ROOM: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "Quota exceeded", "Space limit reached"];
/// What a want of file descriptors looks like there.
const NO_DESCRIPTORS: [&str; 2] = ["Too many open files", "No file descriptors available"];
/// The text for a lock that another process holds.
const LOCKED: [&str; 2] = ["While lock file", "lock hold by current process"];

/// What RocksDB says of a log file on which another call has failed before: not why.
const FAILED_BEFORE: &str = "Writer has previous error";
/// What a missing file looks like.
const GONE: &str = "No such file or directory";
/// How the names of files end that hold rows.
const KINDS: [&str; 3] = [".sst", ".blob", ".log"];

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

/// True if the error only says that another call has failed, whose own error says why.
pub(super) fn is_aftermath(error: &Error) -> bool {
    matches!(error, Error::Failed { reason } if reason.contains(FAILED_BEFORE))
}

/// An error of reading the database in `dir`: what cannot be read of it is damaged or gone.
pub(super) fn of_damage(dir: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    let is_gone = text.contains(GONE);
    if error.kind() != ErrorKind::Corruption && !is_gone {
        return of_open(dir, error);
    }
    let name = damaged_table::find(&dir.join(FOLDER), &text).or_else(|| file_of(&text));
    let file = name.map_or_else(|| "a file".to_owned(), |name| format!("the file {name}"));
    let what = if is_gone { "is missing" } else { "is damaged" };
    let dir = dir.display();
    let detail = format!(
        "{file} of the database in {dir} {what}, and events or the catalogue with it; put it back, or restore {dir} \
         from a backup ({text})"
    );
    Error::Corrupt { detail }
}

/// The file of the database that one of RocksDB's texts names.
fn file_of(text: &str) -> Option<String> {
    let log = text.split_once("log number: ").map(|(_, rest)| rest);
    let number = log.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok());
    let named = text.split(|c: char| c.is_whitespace() || ":,;()".contains(c)).find_map(|word| {
        let name = word.rsplit('/').next()?.trim_end_matches('.');
        let is_ours = KINDS.iter().any(|kind| name.ends_with(kind)) || name.starts_with("MANIFEST-");
        is_ours.then(|| name.to_owned())
    });
    number.map(|number| format!("{number:06}.log")).or(named)
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

/// An error of reading the row at or behind `key`. Where events are damaged it names the topic, partition and offset.
pub(super) fn of_read(family: Family, key: &[u8], error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    let is_damaged = error.kind() == ErrorKind::Corruption || text.contains(GONE);
    if !is_damaged {
        return of_call("read", error);
    }
    let file = file_of(&text).map_or_else(|| "a blob file".to_owned(), |name| format!("the file {name}"));
    let what = format!("{file} cannot be read there; put it back or restore the data directory ({text})");
    match LogKey::decode(key) {
        Some(at) if family == Family::Log => Error::Events { at, what },
        _ => Error::Corrupt { detail: format!("rows of the family {}: {what}", family.name()) },
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

    #[test]
    fn an_error_that_names_no_cause_is_told_from_one_that_does() {
        let kind_of = |text: &str| of_text("sync", ErrorKind::IOError, text);
        assert!(is_aftermath(&kind_of("IO error: Writer has previous error.")));
        assert!(!is_aftermath(&kind_of("IO error: Input/output error")));
        assert!(!is_aftermath(&kind_of("IO error: No space left on device")));
    }

    #[test]
    fn finds_the_file_in_what_rocksdb_says() {
        for (text, name) in [
            (
                "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /d/db/000012.sst offset 0 size 5",
                Some("000012.sst"),
            ),
            (
                "IO error: No such file or directory: While open a file for random read: /d/db/000015.sst: No such file or directory",
                Some("000015.sst"),
            ),
            (
                "Corruption: Size mismatch: WAL (log number: 9) in MANIFEST is 5 bytes , but actually is 3 bytes on disk.",
                Some("000009.log"),
            ),
            ("Corruption: checksum mismatch in file /d/db/MANIFEST-000004", Some("MANIFEST-000004")),
            ("Corruption: Blob CRC mismatch", None),
        ] {
            assert_eq!(file_of(text).as_deref(), name, "{text}");
        }
    }
}
