//! The thread that keeps the superblock up to date, also when nothing is committed: it notes the length of RocksDB's
//! manifest, and makes the superblock itself durable.
//!
//! A commit is noted by its own sync. A flush or a compaction ends at a time of its own, and what it adds to the
//! manifest is noted within [`POLL_INTERVAL`]. What was noted outlives the process at once, and a power cut after
//! [`SYNC_POLLS`] polls.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use levada_protocol::ids::CommitIndex;

use super::{
    failure,
    layout::FOLDER,
    manifest::Manifest,
    superblock::{Known, State, Superblock},
};
use crate::Error;

/// How often the manifest is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The superblock is synced after this many polls, if it was written since.
const SYNC_POLLS: u32 = 4;

/// The running thread; dropping this ends it.
#[derive(Debug)]
pub(super) struct Upkeep {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Starts the thread for the database in `dir`.
    pub(super) fn start(dir: PathBuf, superblock: Arc<Mutex<Superblock>>) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::channel();
        let mut poller = Poller::new(dir.clone(), superblock);
        let run = move || {
            while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                poller.poll();
            }
        };
        let thread = thread::Builder::new().name("superblock".to_owned()).spawn(run);
        let thread = thread.map_err(|error| failure::of_file("start a thread for", &dir, &error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported by its hook.
            let _ = thread.join();
        }
    }
}

/// Polls the manifest, and keeps what it found last.
struct Poller {
    folder: PathBuf,
    superblock: Arc<Mutex<Superblock>>,
    seen: Option<Manifest>,
    /// The generation that is durable.
    synced: u64,
    polls: u32,
}

impl Poller {
    fn new(dir: PathBuf, superblock: Arc<Mutex<Superblock>>) -> Self {
        Self { folder: dir.join(FOLDER), superblock, seen: None, synced: 0, polls: 0 }
    }

    fn poll(&mut self) {
        let found = Manifest::find(&self.folder);
        let has_grown = found.is_some() && found != self.seen;
        if has_grown && let Some(manifest) = found {
            // What fails now is tried again at the next poll: the file stays behind, which is still true.
            let Ok(len) = manifest.settle(&self.folder) else { return };
            self.lock(|superblock| superblock.note_manifest(manifest.number, len));
            self.seen = found;
        }
        self.polls += 1;
        if has_grown || self.polls >= SYNC_POLLS {
            self.polls = 0;
            let (generation, file) = self.lock(|superblock| (superblock.generation(), superblock.file()));
            if generation != self.synced && file.sync_data().is_ok() {
                self.synced = generation;
            }
        }
    }

    fn lock<T>(&self, action: impl FnOnce(&mut Superblock) -> T) -> T {
        action(&mut self.superblock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Notes the current state of everything and makes it durable.
pub(super) fn settle(dir: &Path, superblock: &Mutex<Superblock>, durable: CommitIndex) -> Result<(), Error> {
    let folder = dir.join(FOLDER);
    let manifest = Manifest::find(&folder);
    let len = manifest.map(|manifest| manifest.settle(&folder)).transpose()?;
    let mut superblock = superblock.lock().unwrap_or_else(PoisonError::into_inner);
    let known = superblock.known();
    let known = Known {
        state: State::Existing,
        durable,
        manifest: manifest.map_or(known.manifest, |manifest| manifest.number),
        manifest_len: len.unwrap_or(known.manifest_len),
        ..known
    };
    // Into both slots: either may be lost.
    superblock.write(known)?;
    superblock.write(known)?;
    superblock.sync()
}
