//! What is done with directories and their volumes.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use super::failure;
use crate::Error;

/// True if the file system lets files be written past the page cache; some that live in memory do not.
pub(super) fn takes_direct_writes(dir: &Path) -> bool {
    let path = dir.join("direct-writes");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    // It was made above, or could not be.
    let _ = fs::remove_file(&path);
    opened.is_ok()
}

/// Makes names of new files in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|error| failure::of_file("sync the directory", dir, &error))
}
