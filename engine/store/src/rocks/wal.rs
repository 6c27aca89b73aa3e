//! What the files of the write-ahead log prove, and what is lost if some of it cannot be recovered. It reads them apart
//! from RocksDB, which takes what it cannot read for the end.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use levada_protocol::ids::{CommitIndex, Offset, PartitionId, TopicId};

use super::{chain::Link, failure, log_file};
use crate::{
    Error,
    record::{LOG_KEY_BYTES, LogKey, RECORD_PREFIX_BYTES},
};

/// RocksDB's tag of a row with its family.
const FAMILY_ROW: u8 = 5;
/// Tag, family, length of the key.
const ROW_HEAD_BYTES: usize = 3;
/// The length of a value of up to 64 KiB and a prefix.
const LENGTH_BYTES_MAX: usize = 5;
/// Where the commit's index is in a record's prefix.
const COMMIT_INDEX_AT: usize = 12;

/// What the log's files say together.
#[derive(Debug, Default)]
pub(super) struct Wal {
    files: Vec<WalFile>,
    /// The last commit that is known to have been durable.
    pub(super) proven: CommitIndex,
}

#[derive(Debug)]
struct WalFile {
    number: u64,
    path: PathBuf,
    len: u64,
    /// What the first commit follows on.
    follows: Option<CommitIndex>,
    /// The last commit before anything unreadable.
    last: Option<CommitIndex>,
    end: u64,
    behind: Option<u64>,
    /// True if the next file does not continue where this one ends.
    is_cut: bool,
}

impl WalFile {
    fn is_holed(&self) -> bool {
        self.behind.is_some() || self.is_cut
    }

    fn describe(&self) -> String {
        let (path, end) = (self.path.display(), self.end);
        match self.behind {
            Some(behind) => format!("{path} is damaged between bytes {end} and {behind}"),
            None if self.is_cut => {
                format!("{path} is damaged from byte {end} on, or the log file after it is missing")
            }
            None if self.last.is_none() => format!("{path} holds no whole commit"),
            None => format!("{path} ends at byte {end}, where it was cut or the next log file is missing"),
        }
    }
}

impl Wal {
    /// Reads every file of the log, changing nothing.
    pub(super) fn examine(folder: &Path, salt: u64) -> Result<Self, Error> {
        let mut wal = Self::default();
        for (number, path) in files(folder)? {
            let (mut follows, mut last) = (None, None);
            let scan = log_file::scan(&path, number, |entry| {
                let Some(link) = Link::of_batch(entry.payload, salt) else { return };
                wal.proven = wal.proven.max(link.confirmed);
                if !entry.is_behind {
                    follows = follows.or(Some(link.applied.previous));
                    last = Some(link.applied.index);
                }
            });
            let scan = scan.map_err(|error| failure::of_file("read", &path, &error))?;
            let len = fs::metadata(&path).map_or(0, |file| file.len());
            let (end, behind) = (scan.end, scan.behind);
            wal.files.push(WalFile { number, path, len, follows, last, end, behind, is_cut: false });
        }
        for at in 1..wal.files.len() {
            let (last, follows) = (wal.files[at - 1].last, wal.files[at].follows);
            wal.files[at - 1].is_cut = last.zip(follows).is_some_and(|(last, follows)| last != follows);
        }
        Ok(wal)
    }

    /// The first file with something unreadable before more commits, in words, and the last commit before that.
    pub(super) fn hole(&self) -> Option<(String, CommitIndex)> {
        let file = self.files.iter().find(|file| file.is_holed())?;
        let before = self.files.iter().filter(|before| before.number <= file.number);
        Some((file.describe(), before.filter_map(|before| before.last).max().unwrap_or_default()))
    }

    /// Where the commits end that can be recovered, in words.
    pub(super) fn describe_end(&self, applied: CommitIndex) -> String {
        let mut files = self.files.iter().filter(|file| file.last.is_none_or(|last| last >= applied));
        let hole = files.clone().find(|file| file.is_holed());
        let unreadable = files.clone().find(|file| file.last.is_none() && file.len > file.end);
        match hole.or(unreadable).or_else(|| files.next_back()).or_else(|| self.files.last()) {
            Some(file) => file.describe(),
            None => "the files of the write-ahead log are missing".to_owned(),
        }
    }

    /// The partitions that lose events with the commits after `applied`, each with the first offset that is named
    /// there.
    pub(super) fn lost(&self, applied: CommitIndex) -> BTreeMap<(TopicId, PartitionId), Offset> {
        let mut lost = BTreeMap::new();
        for file in &self.files {
            // It was read before; what cannot be read again has no name.
            let Ok(bytes) = fs::read(&file.path) else { continue };
            let rows = (0..bytes.len()).filter_map(|at| row(&bytes[at..]));
            for (key, _) in rows.filter(|(_, index)| *index > applied) {
                let first = lost.entry((key.topic, key.partition)).or_insert(key.base);
                *first = key.base.min(*first);
            }
        }
        lost
    }
}

/// The files of the log by their numbers.
fn files(folder: &Path) -> Result<BTreeMap<u64, PathBuf>, Error> {
    let failed = |error: io::Error| failure::of_file("read", folder, &error);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|kind| kind == "log")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            files.insert(number, path);
        }
    }
    Ok(files)
}

/// A row of the log that these bytes begin with, and the commit that wrote it. What else is damaged does not matter.
fn row(bytes: &[u8]) -> Option<(LogKey, CommitIndex)> {
    if bytes[0] != FAMILY_ROW || usize::from(*bytes.get(2)?) != LOG_KEY_BYTES {
        return None;
    }
    let rest = bytes.get(ROW_HEAD_BYTES..)?;
    let key = LogKey::decode(rest.get(..LOG_KEY_BYTES)?)?;
    let rest = &rest[LOG_KEY_BYTES..];
    let length = rest.iter().take(LENGTH_BYTES_MAX).position(|byte| byte & 0x80 == 0)? + 1;
    let prefix = rest.get(length..length + RECORD_PREFIX_BYTES)?;
    let (index, _) = prefix[COMMIT_INDEX_AT..].split_first_chunk()?;
    let is_plausible = prefix[0] == crate::record::RECORD_VERSION && prefix[1] == 0 && prefix[3] == 0;
    is_plausible.then(|| (key, CommitIndex(u64::from_le_bytes(*index))))
}
