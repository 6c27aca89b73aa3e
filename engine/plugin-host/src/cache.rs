//! Compiled plugins on disk: one file per artefact and engine, readable by the engine's user alone.
//!
//! ```text
//!  0         8           40
//!  +---------+-----------+---------------+
//!  | magic   | HMAC      | compiled code |
//!  | 8 bytes | 32 bytes  |               |
//!  +---------+-----------+---------------+
//! ```
//!
//! The HMAC-SHA-256 covers the artefact's hash, the engine's compatibility number (8 bytes, little endian) and the
//! code, under a key that lies in the same folder. Loading code trusts it wholly, so a file counts only if it
//! belongs to this user, is closed to all others, and its HMAC fits: anything else is as if it were not there.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::registry::Sha256Hash;

const MAGIC: &[u8; 8] = b"LVCWASM1";
const HMAC_BYTES: usize = 32;
const CODE_START: usize = MAGIC.len() + HMAC_BYTES;
const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;

/// The folder of compiled plugins.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
    compatibility: u64,
}

/// Compiled code that this engine wrote itself. Nothing but [`Cache::load`] makes one.
#[derive(Debug)]
pub(crate) struct Verified(Vec<u8>);

impl Verified {
    /// The code.
    pub(crate) fn code(&self) -> &[u8] {
        &self.0[CODE_START..]
    }
}

impl Cache {
    /// Opens the folder, makes it and its key if need be, and removes what other engine versions compiled.
    pub(crate) fn open(dir: &Path, compatibility: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let key = read_key(dir).or_else(|_| make_key(dir))?;
        let cache = Self { dir: dir.to_owned(), key, compatibility };
        cache.remove_foreign()?;
        Ok(cache)
    }

    /// The code that was stored for `artefact`, if it is there and can be trusted.
    pub(crate) fn load(&self, artefact: &Sha256Hash) -> Option<Verified> {
        let bytes = read_private(&self.path(artefact)).ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (hmac, code) = rest.split_first_chunk::<HMAC_BYTES>()?;
        let fits = magic == MAGIC && self.hmac(artefact, code).verify_slice(hmac).is_ok();
        fits.then_some(Verified(bytes))
    }

    /// Stores code. A file that a crash leaves half written does not fit its HMAC.
    pub(crate) fn store(&self, artefact: &Sha256Hash, code: &[u8]) -> io::Result<()> {
        let hmac = self.hmac(artefact, code).finalize().into_bytes();
        write_private(&self.path(artefact), &[MAGIC, &hmac, code])
    }

    /// Removes the code of an artefact that is no longer needed.
    pub(crate) fn remove(&self, artefact: &Sha256Hash) -> io::Result<()> {
        match fs::remove_file(self.path(artefact)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, artefact: &Sha256Hash) -> PathBuf {
        self.dir.join(format!("{artefact}{}", self.suffix()))
    }

    fn suffix(&self) -> String {
        format!("-{:016x}.cwasm", self.compatibility)
    }

    fn hmac(&self, artefact: &Sha256Hash, code: &[u8]) -> Hmac<Sha256> {
        let mut hmac = Hmac::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        hmac.update(&artefact.0);
        hmac.update(&self.compatibility.to_le_bytes());
        hmac.update(code);
        hmac
    }

    fn remove_foreign(&self) -> io::Result<()> {
        let suffix = self.suffix();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name != KEY_FILE && !name.ends_with(&suffix) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn read_key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let bytes = read_private(&dir.join(KEY_FILE))?;
    bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the key is not 32 bytes"))
}

fn make_key(dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    write_private(&dir.join(KEY_FILE), &[&key])?;
    Ok(key)
}

/// Reads a file that belongs to this user and is closed to all others.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is not this user's alone"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that no other user may read, in one step as far as readers can see.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{:?}.tmp", std::thread::current().id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    fs::rename(&unfinished, path)
}
