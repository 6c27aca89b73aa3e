//! The disk guard: refuses publishes while free space is under the reserve, so that acknowledgements, cursors and
//! dead letters always have room; and for ever once the data directory was removed, for then the files that are
//! still open go with the process.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use levada_protocol::error::{ErrorCode, Refusal};

/// A tenth of the volume, but no more than this, must stay free.
const FREE_BYTES_WANTED_MAX: u64 = 1 << 30;

/// Watches the data directory's volume.
#[derive(Debug)]
pub(crate) struct Guard {
    path: PathBuf,
    /// Which directory it was at the start; `None` if it could not be asked.
    identity: Option<Identity>,
    gone: AtomicBool,
    reserve_bytes: u64,
    low: AtomicBool,
    free_bytes: AtomicU64,
    wanted_bytes: AtomicU64,
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(path: &Path) -> std::io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Guard {
    pub(crate) fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        let guard = Self {
            identity: identity(&path).ok(),
            gone: AtomicBool::new(false),
            path,
            reserve_bytes,
            low: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
            wanted_bytes: AtomicU64::new(reserve_bytes),
        };
        guard.measure_is_low();
        guard
    }

    /// Measures, and answers whether there is too little space.
    pub(crate) fn measure_is_low(&self) -> bool {
        self.look_for_directory();
        // A volume that cannot be asked is taken as it was last seen.
        if let Ok(volume) = rustix::fs::statvfs(&self.path) {
            let free = volume.f_bavail.saturating_mul(volume.f_frsize);
            let total = volume.f_blocks.saturating_mul(volume.f_frsize);
            let wanted = (total / 10).min(FREE_BYTES_WANTED_MAX).max(self.reserve_bytes);
            self.free_bytes.store(free, Ordering::Relaxed);
            self.wanted_bytes.store(wanted, Ordering::Relaxed);
            let low = free < wanted;
            if low != self.low.swap(low, Ordering::Relaxed) {
                if low {
                    tracing::warn!(free, wanted, "disk space is low, publishes are refused");
                } else {
                    tracing::info!(free, wanted, "disk space is back, publishes are taken");
                }
            }
        }
        self.low.load(Ordering::Relaxed)
    }

    fn look_for_directory(&self) {
        let gone = match (identity(&self.path), self.identity) {
            (Err(error), Some(_)) => error.kind() == std::io::ErrorKind::NotFound,
            (Ok(now), Some(before)) => now != before,
            (_, None) => false,
        };
        if gone && !self.gone.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            tracing::error!(%path, "the data directory was removed or replaced under the engine, publishes are refused");
        }
    }

    /// Free bytes when last measured.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Why nothing may be published, if so. Nobody is refused for what was true a while ago.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.gone.load(Ordering::Relaxed) {
            let message = format!(
                "the data directory {} was removed or replaced while the engine runs; what is published now would be lost",
                self.path.display()
            );
            return Some(Refusal::new(ErrorCode::StorageFailed, message));
        }
        if !self.low.load(Ordering::Relaxed) || !self.measure_is_low() {
            return None;
        }
        let message = format!(
            "{} bytes are free on the data directory's volume, {} must be",
            self.free_bytes(),
            self.wanted_bytes.load(Ordering::Relaxed)
        );
        Some(Refusal::new(ErrorCode::StorageFull, message).retry_after(1_000))
    }
}
