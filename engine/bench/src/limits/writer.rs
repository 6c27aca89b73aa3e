//! The storing half of the bare path: one RocksDB batch write a frame, one sync for all that has queued.
//!
//! Two threads, as RocksDB writes on while it syncs. Where nothing else is under way the first one syncs as well: one
//! event at a time waits for no second thread.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use anyhow::Context as _;
use levada_store::BareStore;
use tokio::sync::{mpsc, watch};

use super::frame::Frame;

/// Frames that may wait to be written.
const QUEUED_MAX: usize = 256;
/// Groups that may wait for their sync.
const UNSYNCED_MAX: usize = 64;
/// Bytes that are written before a sync may begin, as in the engine's default of `commit_bytes_max`.
const GROUP_BYTES_MAX: usize = 960 << 10;
/// Frames that a subscriber may lag behind; then the writer waits.
const LAG_MAX: usize = 256;

/// A frame to store.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) frame: Frame,
    pub(super) synced: bool,
    /// Counts the events of its stream that are stored.
    pub(super) stored: Arc<watch::Sender<u64>>,
}

/// The thread that writes, which ends after the one that syncs.
#[derive(Debug)]
pub(super) struct Thread(thread::JoinHandle<()>);

impl Thread {
    /// Waits until it has ended, once the last [`Writer`] is gone: a RocksDB must be closed before its process ends.
    pub(super) async fn ended(self) {
        // A panic of the thread is printed already, and the bench sees its streams end.
        let _joined = tokio::task::spawn_blocking(|| self.0.join()).await;
    }
}

/// A handle on the thread, which ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    listeners: Arc<Mutex<Vec<mpsc::Sender<Frame>>>>,
}

impl Writer {
    /// Starts the thread on this store.
    pub(super) fn start(store: BareStore) -> anyhow::Result<(Self, Thread)> {
        let (jobs, queue) = mpsc::channel(QUEUED_MAX);
        let writer = Self { jobs, listeners: Arc::default() };
        let listeners = Arc::clone(&writer.listeners);
        let body = move || {
            let (handed_over, groups) = sync_channel(UNSYNCED_MAX);
            let stored = Stored { store, listeners, unsynced: AtomicUsize::new(0) };
            // Whoever waits sees its stream end when a job is dropped.
            let report = |done| {
                if let Err(error) = done {
                    let error: levada_store::Error = error;
                    tracing::error!(%error, "the bare store failed");
                }
            };
            let stored = &stored;
            thread::scope(|scope| {
                scope.spawn(move || report(stored.sync_all(&groups)));
                report(stored.write_all(queue, &handed_over));
                drop(handed_over);
            });
        };
        let thread = thread::Builder::new().name("bare-writer".to_owned()).spawn(body);
        Ok((writer, Thread(thread.context("starting the writer")?)))
    }

    /// Hands a frame over; waits for room. Not cancel safe.
    pub(super) async fn submit(&self, job: Job) -> anyhow::Result<()> {
        self.jobs.send(job).await.ok().context("the writer has ended")
    }

    /// Every frame that is stored from now on.
    pub(super) fn listen(&self) -> mpsc::Receiver<Frame> {
        let (listener, frames) = mpsc::channel(LAG_MAX);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        frames
    }

    /// Lets all that listen know that no more comes.
    pub(super) fn end_listening(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The store, and what both threads know of it.
struct Stored {
    store: BareStore,
    listeners: Arc<Mutex<Vec<mpsc::Sender<Frame>>>>,
    /// Groups that were handed over and are not acknowledged.
    unsynced: AtomicUsize,
}

impl Stored {
    /// Writes frames in groups; a group is synced here if no other is under way and none has queued.
    fn write_all(
        &self,
        mut queue: mpsc::Receiver<Job>,
        handed_over: &SyncSender<Vec<Job>>,
    ) -> Result<(), levada_store::Error> {
        let mut key = 0_u64;
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.frame.bytes.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.frame.bytes.len();
                group.push(next);
            }
            for job in &group {
                key += 1;
                self.store.write(&key.to_be_bytes(), &job.frame.bytes)?;
            }
            if queue.is_empty() && self.unsynced.load(Ordering::Acquire) == 0 {
                self.settle(vec![group])?;
                continue;
            }
            self.unsynced.fetch_add(1, Ordering::AcqRel);
            if handed_over.send(group).is_err() {
                // The other thread has failed, and said why.
                break;
            }
        }
        Ok(())
    }

    /// Syncs what was handed over, all that has queued at once.
    fn sync_all(&self, groups: &Receiver<Vec<Job>>) -> Result<(), levada_store::Error> {
        while let Ok(first) = groups.recv() {
            let all: Vec<_> = [first].into_iter().chain(groups.try_iter()).collect();
            let count = all.len();
            self.settle(all)?;
            self.unsynced.fetch_sub(count, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Syncs groups that are written, passes their frames on and acknowledges them.
    fn settle(&self, groups: Vec<Vec<Job>>) -> Result<(), levada_store::Error> {
        let mut jobs: Vec<Job> = groups.into_iter().flatten().collect();
        if jobs.iter().any(|job| job.synced) {
            self.store.sync()?;
        }
        tell_listeners(&jobs, &self.listeners);
        acknowledge(&mut jobs);
        Ok(())
    }
}

fn tell_listeners(group: &[Job], listeners: &Mutex<Vec<mpsc::Sender<Frame>>>) {
    let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for listener in listeners {
        for job in group {
            // Whoever has gone is missed when events are counted.
            let _gone = listener.blocking_send(job.frame.clone());
        }
    }
}

/// Wakes each stream once for all of its frames that follow on each other.
fn acknowledge(group: &mut Vec<Job>) {
    let mut jobs = group.drain(..).peekable();
    let mut events = 0;
    while let Some(job) = jobs.next() {
        events += u64::from(job.frame.events);
        if jobs.peek().is_none_or(|next| !Arc::ptr_eq(&next.stored, &job.stored)) {
            job.stored.send_modify(|stored| *stored += events);
            events = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_store::RocksOptions;

    use super::{super::frame::Framer, *};

    fn frame(events: u32) -> Frame {
        Frame { bytes: Framer::new(100, events).frame(events, 5), events }
    }

    #[tokio::test]
    async fn every_frame_is_stored_counted_and_passed_on_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = BareStore::open(dir.path(), &RocksOptions::default()).unwrap();
        let (writer, thread) = Writer::start(store).unwrap();
        let mut frames = writer.listen();
        let (stored, mut told) = watch::channel(0);
        let stored = Arc::new(stored);
        for events in 1..=40 {
            let job = Job { frame: frame(events), synced: events % 2 == 0, stored: Arc::clone(&stored) };
            writer.submit(job).await.unwrap();
        }
        told.wait_for(|stored| *stored == (1..=40).sum::<u64>()).await.unwrap();
        writer.end_listening();
        for events in 1..=40 {
            assert_eq!(frames.recv().await, Some(frame(events)));
        }
        assert_eq!(frames.recv().await, None);
        drop((writer, stored));
        thread.ended().await;
    }
}
