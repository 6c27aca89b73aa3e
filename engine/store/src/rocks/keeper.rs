//! The thread that keeps the superblock close to what is true, also when nothing is committed: it notes how far
//! RocksDB's manifest has come, and makes the superblock itself durable.
//!
//! A commit is noted by its own sync. A flush or a compaction ends at a time of its own, and what it adds to the manifest
//! is noted within [`LOOK`]. What was noted outlives the process at once, and a power cut after [`SYNC_LOOKS`] looks.

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

/// How often the manifest is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The superblock is synced at every so many looks, if it was written since.
const SYNC_LOOKS: u32 = 4;

/// The running thread; it ends with this.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread for the database in `dir`.
    pub(super) fn start(dir: PathBuf, superblock: Arc<Mutex<Superblock>>) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::channel();
        let mut looking = Looking::new(dir.clone(), superblock);
        let run = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                looking.look();
            }
        };
        let thread = thread::Builder::new().name("superblock".to_owned()).spawn(run);
        let thread = thread.map_err(|error| failure::of_file("start a thread for", &dir, &error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What is looked at, and what was seen last.
struct Looking {
    folder: PathBuf,
    superblock: Arc<Mutex<Superblock>>,
    seen: Option<Manifest>,
    /// The generation that is durable.
    synced: u64,
    looks: u32,
}

impl Looking {
    fn new(dir: PathBuf, superblock: Arc<Mutex<Superblock>>) -> Self {
        Self { folder: dir.join(FOLDER), superblock, seen: None, synced: 0, looks: 0 }
    }

    fn look(&mut self) {
        let found = Manifest::find(&self.folder);
        let has_grown = found.is_some() && found != self.seen;
        if has_grown && let Some(manifest) = found {
            // What fails now is tried again at the next look: the file stays behind, which is still true.
            let Ok(len) = manifest.settle(&self.folder) else { return };
            self.lock(|superblock| superblock.note_manifest(manifest.number, len));
            self.seen = found;
        }
        self.looks += 1;
        if has_grown || self.looks >= SYNC_LOOKS {
            self.looks = 0;
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

/// Notes everything as it is now and makes it durable, before anybody relies on it.
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
