//! The disk guard: refuses publishes while free space is under the reserve, so that acknowledgements, cursors and
//! dead letters always have room; and for good once the data directory was removed, as then the files that are
//! still open go with the process.
//!
//! A quota does not show in the volume's free space. It is assumed when the store met a full disk although enough is
//! free; then the guard tries now and then whether the reserve can be allocated.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use levada_protocol::error::{ErrorCode, Refusal};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use tokio::sync::Notify;

/// A tenth of the volume, but no more than this, must stay free.
const FREE_BYTES_WANTED_MAX: u64 = 1 << 30;
/// The file that is made to see whether a quota leaves the reserve.
const TRIAL: &str = "quota-trial";
/// How often that is tried.
const TRIAL_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the data directory's volume.
#[derive(Debug)]
pub(crate) struct Guard {
    path: PathBuf,
    /// Which directory it was at the start; `None` if it could not be asked.
    identity: Option<Identity>,
    gone: AtomicBool,
    reserve_bytes: u64,
    low: AtomicBool,
    got_low: Notify,
    /// When it was last tried whether a quota leaves the reserve; `None` if there is no sign of a quota.
    quota_tried: Mutex<Option<Instant>>,
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
            got_low: Notify::new(),
            quota_tried: Mutex::new(None),
            free_bytes: AtomicU64::new(u64::MAX),
            wanted_bytes: AtomicU64::new(reserve_bytes),
        };
        guard.measure_is_low();
        guard
    }

    /// Measures, and returns whether there is too little space.
    pub(crate) fn measure_is_low(&self) -> bool {
        self.look_for_directory();
        // A volume that cannot be asked is taken as it was last seen.
        if let Ok(volume) = rustix::fs::statvfs(&self.path) {
            let free = volume.f_bavail.saturating_mul(volume.f_frsize);
            let total = volume.f_blocks.saturating_mul(volume.f_frsize);
            let wanted = (total / 10).min(FREE_BYTES_WANTED_MAX).max(self.reserve_bytes);
            self.free_bytes.store(free, Ordering::Relaxed);
            self.wanted_bytes.store(wanted, Ordering::Relaxed);
            let low = free < wanted || !self.quota_leaves_reserve();
            if low != self.low.swap(low, Ordering::Relaxed) {
                if low {
                    tracing::warn!(free, wanted, "disk space is low, publishes are refused");
                    self.got_low.notify_one();
                } else {
                    tracing::info!(free, wanted, "disk space is back, publishes are taken");
                }
            }
        }
        self.low.load(Ordering::Relaxed)
    }

    /// Notes that the store met the end of the disk: a quota is the reason if the volume has enough.
    pub(crate) fn met_the_end(&self) {
        if self.reserve_bytes > 0 && !self.measure_is_low() {
            self.quota_tried.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
            self.low.store(true, Ordering::Relaxed);
            tracing::warn!(
                "the disk is full although the volume has room: publishes are refused until a quota leaves some"
            );
        }
    }

    fn is_under_quota(&self) -> bool {
        self.quota_tried.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// False while there is the sign of a quota, until as much as the reserve could be had.
    fn quota_leaves_reserve(&self) -> bool {
        let mut tried = self.quota_tried.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = *tried else { return true };
        if last.elapsed() < TRIAL_INTERVAL {
            return false;
        }
        *tried = Some(Instant::now());
        let had = self.try_reserve();
        if had {
            *tried = None;
        }
        had
    }

    /// True if a file as large as the reserve can be made, or if that is not known.
    fn try_reserve(&self) -> bool {
        let path = self.path.join(TRIAL);
        let made = fs::File::create(&path).map(|file| {
            let took = fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes);
            !matches!(took, Err(Errno::NOSPC | Errno::DQUOT))
        });
        // It was made above, or could not be.
        let _ = fs::remove_file(&path);
        match made {
            Ok(had) => had,
            Err(error) => {
                !matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
        }
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

    /// Completes once after space got low.
    pub(crate) async fn got_low(&self) {
        self.got_low.notified().await;
    }

    /// Free bytes when last measured.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Why nothing may be published, if so. It is measured now: a publish is never refused for an old measurement.
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
        if self.is_under_quota() {
            let message = format!(
                "the quota of the data directory leaves less than {} bytes; raise it, or delete what is not needed",
                self.reserve_bytes
            );
            return Some(Refusal::new(ErrorCode::StorageFull, message).retry_after(1_000));
        }
        let message = format!(
            "{} bytes are free on the data directory's volume, {} must be",
            self.free_bytes(),
            self.wanted_bytes.load(Ordering::Relaxed)
        );
        Some(Refusal::new(ErrorCode::StorageFull, message).retry_after(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_though_it_has_room_is_under_a_quota_until_the_reserve_can_be_had() {
        let dir = tempfile::tempdir().unwrap();
        let guard = Guard::new(dir.path().to_owned(), 1 << 20);
        if guard.measure_is_low() {
            // Then it is just full.
            return;
        }
        guard.met_the_end();
        let refusal = guard.refusal().expect("nothing more is taken for now");
        assert_eq!(refusal.code, ErrorCode::StorageFull);
        assert!(refusal.message.contains("quota"), "{refusal}");
        // When it is tried the next time there is room.
        let long_ago = Instant::now().checked_sub(TRIAL_INTERVAL).unwrap();
        *guard.quota_tried.lock().unwrap() = Some(long_ago);
        assert_eq!(guard.refusal(), None);
        assert!(!dir.path().join(TRIAL).exists());
    }
}
