//! RocksDB's manifest, the catalogue of its files, as far as its bytes go: which one counts, and how much of it is
//! whole. It must not know what the manifest says.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{directory::sync_directory, failure, layout::FOLDER, log_file, superblock::Known};
use crate::Error;

const CURRENT: &str = "CURRENT";
const PREFIX: &str = "MANIFEST-";

/// The manifest that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) number: u64,
    /// How long its file is.
    pub(super) len: u64,
}

impl Manifest {
    /// The one that `CURRENT` names; `None` if there is none or no such name.
    pub(super) fn find(folder: &Path) -> Option<Self> {
        let number = number(&fs::read(folder.join(CURRENT)).ok()?)?;
        let len = fs::metadata(path(folder, number)).ok()?.len();
        Some(Self { number, len })
    }

    /// Makes the file and its name durable, and returns how much of it is whole.
    pub(super) fn settle(&self, folder: &Path) -> Result<u64, Error> {
        let path = path(folder, self.number);
        let len = log_file::scan(&path, self.number, |_| {})
            .map_err(|error| failure::of_file("read", &path, &error))?
            .end;
        File::open(&path)
            .and_then(|file| file.sync_data())
            .map_err(|error| failure::of_file("sync", &path, &error))?;
        sync_directory(folder)?;
        Ok(len)
    }
}

/// Refuses a database whose manifest is not what is known of it; changes nothing.
pub(super) fn check(dir: &Path, known: &Known) -> Result<(), Error> {
    let folder = dir.join(FOLDER);
    let current = folder.join(CURRENT);
    let content = match fs::read(&current) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&current, "is missing", dir));
        }
        Err(error) => return Err(failure::of_file("read", &current, &error)),
    };
    let Some(number) = number(&content) else {
        return Err(damaged(&current, "does not hold the name of a manifest", dir));
    };
    if number < known.manifest {
        let what = format!("names manifest {number}, but the database has come to {}", known.manifest);
        return Err(damaged(&current, &what, dir));
    }
    let path = path(&folder, number);
    let scan = match log_file::scan(&path, number, |_| {}) {
        Ok(scan) => scan,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&path, "is missing, which CURRENT names", dir));
        }
        Err(error) => return Err(failure::of_file("read", &path, &error)),
    };
    let end = scan.end;
    if let Some(behind) = scan.behind {
        let what = format!("is damaged between bytes {end} and {behind}");
        return Err(damaged(&path, &what, dir));
    }
    if number == known.manifest && end < known.manifest_len {
        let what = format!("is whole up to byte {end}, but {} bytes of it were written", known.manifest_len);
        return Err(damaged(&path, &what, dir));
    }
    Ok(())
}

fn damaged(path: &Path, what: &str, dir: &Path) -> Error {
    let (path, dir) = (path.display(), dir.display());
    let detail = format!(
        "{path} {what}: which files hold the events is not known without it; put the file back, or restore {dir} \
         from a backup"
    );
    Error::Corrupt { detail }
}

fn number(content: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    let digits = name.strip_prefix(PREFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:06}"))
}
