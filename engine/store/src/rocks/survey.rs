//! The check of a data directory before it is opened for writing: whether everything is there that must exist.
//!
//! RocksDB creates what is missing, takes the first row that it cannot read for the end, and deletes files that its
//! catalogue does not name. Each of these makes damage final, so it may write only after this has found nothing.
//!
//! **Invariant:** nothing here writes to, makes or removes a file.

use std::{fs, io, path::Path};

use levada_protocol::ids::{Offset, PartitionId, TopicId};
use rocksdb::DB;

use super::{
    RocksOptions, chain, failure,
    handle::Rocks,
    layout::FOLDER,
    manifest,
    options::LAST_COMMITS,
    superblock::{self, Found, Known, State},
    view::{Inspect, View},
    wal::Wal,
};
use crate::{
    Error, Family, ScanLimit, Store,
    record::{self, LogRange},
};

/// An empty file of this name allows one start to continue without lost commits.
pub(super) const ACCEPT_LOSS: &str = "accept-loss";
const SUPERBLOCK: &str = superblock::NAME;
/// Files of a family are read in pages of this many bytes.
const PAGE: ScanLimit = ScanLimit::bytes(4 << 20);
/// RocksDB's property that names every file of a family.
const FILES: &str = "rocksdb.sstables";
const BLOB_HEADER_BYTES: u64 = 30;
const BLOB_FOOTER_BYTES: u64 = 32;

/// What was found.
pub(super) enum Survey {
    /// No database, or one whose creation has not ended: nothing was ever acknowledged.
    New,
    /// A database that is whole.
    Existing(Existing),
}

/// A database that may be opened for writing.
pub(super) struct Existing {
    pub(super) known: Known,
    /// True if the superblock must be written again.
    pub(super) is_unknown: bool,
    /// True if an operator accepts that commits are lost.
    pub(super) accepts_loss: bool,
}

/// Checks everything that can be checked before the first write.
pub(super) fn survey<I: Inspect>(
    dir: &Path,
    options: &RocksOptions,
    inspect: &I,
) -> Result<Survey, I::Error> {
    let Some(existing) = find(dir)? else { return Ok(Survey::New) };
    if !existing.accepts_loss {
        manifest::check(dir, &existing.known)?;
    }
    let wal = Wal::examine(&dir.join(FOLDER), existing.known.salt)?;
    let view = open(dir, options).map_err(|error| explain(dir, &wal, error))?;
    check_files(dir, &view.rocks)?;
    chain::check(&view.rocks, view.last.index)?;
    check_end(dir, &view, &wal, &existing, inspect)?;
    check_rows(&view)?;
    inspect.inspect(&view)?;
    Ok(Survey::Existing(existing))
}

/// The database of a directory; `None` if there is none, or none that was ever used.
fn find(dir: &Path) -> Result<Option<Existing>, Error> {
    let accepts_loss = dir.join(ACCEPT_LOSS).exists();
    let path = dir.join(SUPERBLOCK);
    let what = match superblock::read(dir)? {
        Found::Known(Known { state: State::Creating, .. }) => return Ok(None),
        Found::Known(known) => return Ok(Some(Existing { known, is_unknown: false, accepts_loss })),
        Found::Missing if is_empty(&dir.join(FOLDER))? => return Ok(None),
        Found::Missing => "is missing beside a database",
        Found::Damaged => "is damaged, neither copy in it passes its checksum",
    };
    if accepts_loss {
        let known = Known { state: State::Existing, ..Known::creating() };
        return Ok(Some(Existing { known, is_unknown: true, accepts_loss }));
    }
    let (path, dir) = (path.display(), dir.display());
    let detail = format!(
        "{path} {what}: without it nobody can tell whether acknowledged events are missing; put the file back, or \
         restore {dir} from a backup, or create the file {dir}/{ACCEPT_LOSS} to start with what is there"
    );
    Err(Error::Corrupt { detail })
}

fn is_empty(folder: &Path) -> Result<bool, Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failure::of_file("read", folder, &error)),
    }
}

/// Opens for reading, if every family is there.
fn open(dir: &Path, options: &RocksOptions) -> Result<View, Error> {
    let folder = dir.join(FOLDER);
    let found = DB::list_cf(&options.database(), &folder).map_err(|error| failure::of_damage(dir, &error))?;
    let names = Family::ALL.into_iter().map(Family::name).chain([LAST_COMMITS]);
    let missing: Vec<_> = names.filter(|name| !found.iter().any(|found| found == name)).collect();
    if !missing.is_empty() {
        let (missing, dir) = (missing.join(", "), dir.display());
        let detail = format!(
            "the manifest in {} does not name the families {missing} any more; put it back, or restore {dir} from a \
             backup",
            folder.display()
        );
        return Err(Error::Corrupt { detail });
    }
    let rocks = Rocks::open_for_reading(dir, options)?;
    let last = rocks.last_applied()?;
    Ok(View { rocks, last })
}

/// The error of a database that does not open, with the position in the write-ahead log if the damage is there.
fn explain(dir: &Path, wal: &Wal, error: Error) -> Error {
    let Some((hole, before)) = wal.hole().filter(|_| matches!(error, Error::Corrupt { .. })) else {
        return error;
    };
    let (first, dir) = (before.0 + 1, dir.display());
    let lost: Vec<_> = wal
        .lost(before)
        .into_iter()
        .map(|((topic, partition), offset)| {
            format!("topic number {topic} partition {partition} from offset {offset} on")
        })
        .collect();
    let events =
        if lost.is_empty() { String::new() } else { format!(", with the events of {}", lost.join(", ")) };
    let detail = format!(
        "commits from {first} on cannot be recovered{events}: {hole}; put the file back, or restore {dir} from a backup"
    );
    Error::Corrupt { detail }
}

/// Checks that every file which the manifest names is there, as long as it was written.
fn check_files(dir: &Path, rocks: &Rocks) -> Result<(), Error> {
    let folder = dir.join(FOLDER);
    let tables = rocks.db.live_files().map_err(|error| failure::of_damage(dir, &error))?;
    let tables =
        tables.into_iter().map(|file| (file.name.trim_start_matches('/').to_owned(), file.size as u64));
    // No other call names each blob file.
    let dump =
        rocks.db.property_value_cf(rocks.family(Family::Log), FILES).ok().flatten().unwrap_or_default();
    let mut wrong = Vec::new();
    for (name, expected) in tables.chain(blob_files(&dump)) {
        let path = folder.join(&name);
        match fs::metadata(&path) {
            Ok(file) if file.len() == expected => {}
            Ok(file) => wrong.push(format!("{name} has {} bytes instead of {expected}", file.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => wrong.push(format!("{name} is missing")),
            Err(error) => return Err(failure::of_file("examine", &path, &error)),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let (wrong, folder, dir) = (wrong.join(", "), folder.display(), dir.display());
    let detail = format!(
        "files with events or the catalogue are damaged in {folder}: {wrong}; put them back, or restore {dir} from a \
         backup"
    );
    Err(Error::Corrupt { detail })
}

/// Checks that the last commit found is not before one that was durable.
fn check_end(
    dir: &Path,
    view: &View,
    wal: &Wal,
    existing: &Existing,
    inspect: &impl Inspect,
) -> Result<(), Error> {
    let (applied, durable) = (view.last.index, existing.known.durable.max(wal.proven));
    if applied >= durable {
        return Ok(());
    }
    let first = applied.0 + 1;
    let (end, events) = (wal.describe_end(applied), lost_events(view, wal, inspect));
    if existing.accepts_loss {
        tracing::warn!(
            "commits {first} to {durable} are lost{events}: {end}; {ACCEPT_LOSS} allows one start without them"
        );
        return Ok(());
    }
    let dir = dir.display();
    let detail = format!(
        "commits {first} to {durable} are missing, which were durable: {end}{events}; put the file back, or restore \
         {dir} from a backup, or create the file {dir}/{ACCEPT_LOSS} to start without what is lost"
    );
    Err(Error::Corrupt { detail })
}

/// The events that are lost with the commits that were not found, in words.
fn lost_events(view: &View, wal: &Wal, inspect: &impl Inspect) -> String {
    let lost: Vec<_> = wal
        .lost(view.last.index)
        .into_iter()
        .map(|((topic, partition), named)| {
            let name = inspect.topic_name(view, topic).unwrap_or_else(|| format!("number {topic}"));
            let first = recovered_end(view, topic, partition).unwrap_or(named);
            format!("topic {name} partition {partition} from offset {first} on")
        })
        .collect();
    if lost.is_empty() { String::new() } else { format!("; lost are the events of {}", lost.join(", ")) }
}

/// The offset behind the last event of a partition that is there.
fn recovered_end(view: &View, topic: TopicId, partition: PartitionId) -> Option<Offset> {
    let LogRange { from, to } = LogRange::partition(topic, partition);
    let (key, value) = view.last_before(Family::Log, &from, &to).ok()??;
    Some(record::check(&key, value).ok()?.end())
}

/// Reads every row but the events: they are few, a start needs most of them, and each is checked as it is read.
fn check_rows(view: &View) -> Result<(), Error> {
    for family in Family::ALL.into_iter().filter(|family| *family != Family::Log) {
        let mut from = Vec::new();
        loop {
            let rows = view.scan(family, &from, &[u8::MAX; 64], PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            from = [last.as_ref(), &[0]].concat();
        }
    }
    Ok(())
}

/// The blob files that a dump of RocksDB's files names, with the bytes that each must have.
fn blob_files(dump: &str) -> impl Iterator<Item = (String, u64)> + '_ {
    dump.lines().filter_map(|line| {
        let number: u64 = field(line, "blob_file_number: ")?;
        let bytes: u64 = field(line, "total_blob_bytes: ")?;
        Some((format!("{number:06}.blob"), BLOB_HEADER_BYTES + bytes + BLOB_FOOTER_BYTES))
    })
}

fn field(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(name)?;
    rest.split(' ').next()?.parse().ok()
}
