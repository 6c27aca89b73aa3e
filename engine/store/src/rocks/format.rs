//! The file `format` in the data directory: which format the directory has, readable before anything is opened.
//!
//! One line of text: `levada data format 3`. A release that changes any stored byte in a way that this one cannot
//! read raises the number. Formats 1 and 2 were never released, and nothing reads them any more; from the first release
//! on, every later one opens what an earlier one wrote.
//!
//! A process that opens the directory for writing holds a lock on the file, from before the first file is touched.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{directory::sync_directory, failure};
use crate::Error;

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 3;
/// The oldest that it reads.
const OLDEST: u32 = 3;
const NAME: &str = "format";
const LINE: &str = "levada data format ";

/// Refuses a directory of a format that this build does not read; says which format a new one has.
pub(super) fn check_or_write(dir: &Path, existed: bool) -> Result<(), Error> {
    let path = dir.join(NAME);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !existed => return write(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Corrupt {
                detail: format!(
                    "{} is missing beside the database; put the file back, it holds the line `{LINE}{FORMAT}` if this \
                     release wrote the database",
                    path.display()
                ),
            });
        }
        Err(error) => return Err(failure::of_file("read", &path, &error)),
    };
    let number = text.strip_prefix(LINE).and_then(|rest| rest.trim_end().parse::<u32>().ok());
    match number {
        Some(found) if found > FORMAT => Err(Error::Newer {
            what: format!("the data directory {}", dir.display()),
            found,
            supported: FORMAT,
        }),
        Some(found @ 1..OLDEST) => {
            Err(Error::Older { what: format!("the data directory {}", dir.display()), found, oldest: OLDEST })
        }
        Some(OLDEST..=FORMAT) => Ok(()),
        Some(_) | None => Err(Error::Corrupt {
            detail: format!(
                "{} does not say `{LINE}{FORMAT}`; if this release wrote the database, write that line into it",
                path.display()
            ),
        }),
    }
}

/// The lock of a process that writes into the directory; dropping it releases the lock.
pub(super) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file would release the lock only once no copy of the descriptor is left, and a child process that
        // is just being started holds one until it executes its program.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks the directory for writing.
pub(super) fn lock(dir: &Path) -> Result<DirectoryLock, Error> {
    let path = dir.join(NAME);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| failure::of_file("open", &path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirectoryLock(file)),
        Err(Errno::WOULDBLOCK) => Err(Error::InUse { dir: dir.to_owned() }),
        Err(error) => Err(failure::of_file("lock", &path, &error.into())),
    }
}

/// Writes the file aside and renames it, so that it is there whole or not at all.
fn write(dir: &Path) -> Result<(), Error> {
    let (path, aside) = (dir.join(NAME), dir.join("format.new"));
    let written = File::create(&aside).and_then(|mut file| {
        writeln!(file, "{LINE}{FORMAT}")?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&aside, &path))
        .map_err(|error| failure::of_file("write", &path, &error))?;
    sync_directory(dir)
}

#[cfg(test)]
mod tests {
    use super::{check_or_write, lock};
    use crate::Error;

    #[test]
    fn a_dropped_lock_is_free_even_while_a_child_process_still_has_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        check_or_write(dir.path(), false).unwrap();
        let held = lock(dir.path()).unwrap();
        let inherited = held.0.try_clone().unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::InUse { .. })));
        drop(held);
        drop(lock(dir.path()).unwrap());
        drop(inherited);
    }
}
