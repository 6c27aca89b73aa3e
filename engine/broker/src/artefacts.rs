//! Plugin artefacts: files named by the hash of their bytes, written whole before the catalogue names them.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use levada_protocol::error::ErrorCode;
use sha2::{Digest as _, Sha256};

use crate::{error::Error, rows::PluginRecord};

const FOLDER: &str = "artefacts";
/// How the name of a file ends that is being written.
const PARTIAL: &str = "partial";
/// An empty file of this name in the data directory allows a start without what is lost.
const ACCEPT_LOSS: &str = "accept-loss";

/// The folder of artefacts.
#[derive(Debug, Clone)]
pub(crate) struct Artefacts {
    folder: PathBuf,
}

impl Artefacts {
    /// Opens the folder, and removes files that a crash left unfinished. A whole one that nothing names stays: what
    /// named it may be what is damaged.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Error> {
        let folder = data_dir.join(FOLDER);
        let failed = |error: io::Error| storage(&folder, &error);
        fs::create_dir_all(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|kind| kind == PARTIAL) {
                fs::remove_file(path).map_err(failed)?;
            }
        }
        Ok(Self { folder })
    }

    /// Checks that the file of every plugin version is there and whole, changing nothing.
    pub(crate) fn check<'a>(
        data_dir: &Path,
        plugins: impl Iterator<Item = &'a PluginRecord>,
    ) -> Result<(), Error> {
        for plugin in plugins {
            let path = data_dir.join(FOLDER).join(&plugin.sha256);
            let what = match fs::read(&path) {
                Ok(artefact) if hash(&artefact) == plugin.sha256 => continue,
                Ok(_) => "is damaged",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing",
                Err(error) => return Err(storage(&path, &error)),
            };
            let (name, version, path) = (&plugin.name, plugin.version, path.display());
            let message = format!("the component of plugin {name}@{version}, {path}, {what}");
            if data_dir.join(ACCEPT_LOSS).exists() {
                tracing::warn!("{message}; {ACCEPT_LOSS} allows one start without it");
                continue;
            }
            let data_dir = data_dir.display();
            let message = format!(
                "{message}: put a copy of the .wasm file there, whose SHA-256 is its name, or create the file \
                 {data_dir}/{ACCEPT_LOSS} to start without it"
            );
            return Err(Error::Store { code: ErrorCode::StorageCorrupt, message });
        }
        Ok(())
    }

    /// The path of the artefact with this hash.
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256)
    }

    /// Stores an artefact so that a crash leaves it whole or not at all. Blocks on the disk.
    pub(crate) fn store(&self, sha256: &str, artefact: &[u8]) -> Result<(), Error> {
        let path = self.path(sha256);
        if fs::read(&path).is_ok_and(|stored| stored == artefact) {
            return Ok(());
        }
        let partial = self.folder.join(format!("{sha256}.{PARTIAL}"));
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
            tracing::warn!(%error, sha256, "an unused artefact could not be removed and stays");
        }
    }
}

fn hash(artefact: &[u8]) -> String {
    hex(&<[u8; 32]>::from(Sha256::digest(artefact)))
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
