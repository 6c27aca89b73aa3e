//! Plugin artefacts: files named by the hash of their bytes, written whole before the catalogue names them.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::error::Error;

/// The folder of artefacts.
#[derive(Debug, Clone)]
pub(crate) struct Artefacts {
    folder: PathBuf,
}

impl Artefacts {
    /// Opens the folder, and removes files that nothing names: a crash may have left them.
    pub(crate) fn open(data_dir: &Path, named: &HashSet<String>) -> Result<Self, Error> {
        let folder = data_dir.join("artefacts");
        let failed = |error: io::Error| storage(&folder, &error);
        fs::create_dir_all(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { folder })
    }

    /// Where the artefact with this hash lies.
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256)
    }

    /// Stores an artefact so that a crash leaves it whole or not at all. Blocks on the disk.
    pub(crate) fn store(&self, sha256: &str, artefact: &[u8]) -> Result<(), Error> {
        let path = self.path(sha256);
        if path.exists() {
            return Ok(());
        }
        let partial = self.folder.join(format!("{sha256}.partial"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(artefact)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| storage(&path, &error))
    }

    /// Removes an artefact that nothing names any more.
    pub(crate) fn remove(&self, sha256: &str) {
        if let Err(error) = fs::remove_file(self.path(sha256)) {
            tracing::warn!(%error, sha256, "an unused artefact could not be removed; the next start tries again");
        }
    }
}

/// A hash as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// Reads 32 bytes from lower-case hexadecimal.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

fn storage(path: &Path, error: &io::Error) -> Error {
    levada_store::Error::of_file("keep the artefact", path, error).into()
}
