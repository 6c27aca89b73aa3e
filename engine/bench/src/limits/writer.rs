//! The storing half of the bare path: one thread, one RocksDB batch write a frame, one sync for all that has queued.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Context as _;
use levada_store::BareStore;
use tokio::sync::{mpsc, watch};

use super::frame::Frame;

/// Frames that may wait to be written.
const QUEUED_MAX: usize = 256;
/// Bytes that one sync makes durable, as in the engine's default of `group_bytes_max`.
const GROUP_BYTES_MAX: usize = 1 << 20;
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

/// The thread itself.
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
            if let Err(error) = write_all(&store, queue, &listeners) {
                // Whoever waits sees its stream end.
                tracing::error!(%error, "the bare store failed");
            }
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

fn write_all(
    store: &BareStore,
    mut queue: mpsc::Receiver<Job>,
    listeners: &Mutex<Vec<mpsc::Sender<Frame>>>,
) -> Result<(), levada_store::Error> {
    let (mut group, mut key) = (Vec::new(), 0_u64);
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = first.frame.bytes.len();
        group.push(first);
        while bytes < GROUP_BYTES_MAX
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.frame.bytes.len();
            group.push(next);
        }
        for job in &group {
            key += 1;
            store.write(&key.to_be_bytes(), &job.frame.bytes)?;
        }
        if group.iter().any(|job| job.synced) {
            store.sync()?;
        }
        tell_listeners(&group, listeners);
        acknowledge(&mut group);
    }
    Ok(())
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
