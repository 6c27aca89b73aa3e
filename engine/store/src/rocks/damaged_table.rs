//! Finding the table file that RocksDB cannot open and does not name: for some damage it says only that the manifest
//! may be corrupted, which [`super::manifest`] has checked by then.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rocksdb::{DB, Options};

/// How RocksDB ends a text that names no more than its guess.
const GUESS: &str = "The file ";
const GUESS_END: &str = "may be corrupted";

/// Tells the scratch folders of one process apart.
static SCRATCH: AtomicU64 = AtomicU64::new(0);

/// The table file in `folder` that gives this error, if it is one that names no file: each is shown to a database in a
/// scratch folder, which checks it before it takes anything. Nothing in `folder` is changed.
pub(super) fn find(folder: &Path, text: &str) -> Option<String> {
    let (reason, guess) = text.split_once(GUESS)?;
    if !guess.contains(GUESS_END) || reason.contains(".sst") {
        return None;
    }
    let reason = reason.trim().trim_start_matches("Corruption: ").to_owned();
    let mut tables: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    tables.sort();
    let number = SCRATCH.fetch_add(1, Ordering::Relaxed);
    let scratch = env::temp_dir().join(format!("levada-damaged-table-{}-{number}", process::id()));
    let found = find_with(&scratch, &tables, &reason);
    if let Err(error) = fs::remove_dir_all(&scratch) {
        tracing::debug!(%error, scratch = %scratch.display(), "a scratch folder stays behind");
    }
    found
}

fn find_with(scratch: &Path, tables: &[PathBuf], reason: &str) -> Option<String> {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, scratch).ok()?;
    let damaged = tables.iter().find(|path| {
        db.ingest_external_file(vec![path]).is_err_and(|error| error.to_string().contains(reason))
    })?;
    Some(damaged.file_name()?.to_string_lossy().into_owned())
}
