//! Turning what RocksDB and the file system answer into the store's errors.

use std::{io, path::Path};

use rocksdb::ErrorKind;

use crate::{Error, Family, record::LogKey};

/// What a full disk looks like in RocksDB's texts; the crate hands on neither code nor subcode.
const NO_ROOM: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Space limit reached"];
/// What a lock that somebody holds looks like.
const LOCKED: [&str; 2] = ["While lock file", "lock hold by current process"];

/// What a missing file looks like.
const GONE: &str = "No such file or directory";
/// How the names of files end that hold rows.
const KINDS: [&str; 3] = [".sst", ".blob", ".log"];

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

/// An error of looking at the database in `dir`: what cannot be read of it is damaged or gone.
pub(super) fn of_damage(dir: &Path, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    let is_gone = text.contains(GONE);
    if error.kind() != ErrorKind::Corruption && !is_gone {
        return of_open(dir, error);
    }
    let file = file_of(&text).map_or_else(|| "a file".to_owned(), |name| format!("the file {name}"));
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
    if LOCKED.iter().any(|sign| text.contains(sign)) {
        return Error::InUse { dir: dir.to_owned() };
    }
    of_call("open", error)
}

/// An error of reading the row at or behind `key`. Where events are damaged it names the place.
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
    let reason = format!("cannot {action} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { reason },
        _ => Error::Failed { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
