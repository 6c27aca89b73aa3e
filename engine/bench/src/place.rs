//! Where files of a measurement are made.

use std::path::{Path, PathBuf};

use levada_terminal::Output;

/// `f_type` of a tmpfs, see statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The directory that was named, or the system's for temporary files.
pub(crate) fn of(named: Option<&Path>) -> PathBuf {
    named.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// The same, with a remark if a sync costs nothing there.
pub(crate) fn checked(output: &Output, named: Option<&Path>) -> PathBuf {
    let place = of(named);
    if is_tmpfs(&place) {
        let shown = place.display();
        output
            .remark(&format!("note: {shown} is memory, where a sync costs nothing; --dir DIR names a disk"));
    }
    place
}

fn is_tmpfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC))
}
