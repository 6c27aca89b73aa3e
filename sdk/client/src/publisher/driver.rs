//! The task that carries batches to the engine and brings the answers back.
//!
//! Owns the publish stream and its reopening. Must not know events: it moves what `core.rs` gives it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{Frame, FrameType},
    ids::TopicName,
    publish::Ack,
    request::{Open, Opened},
};
use tokio::time::{Sleep, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::{Shared, lane::BatchLimits};
use crate::{
    clock,
    error::Error,
    link::Link,
    retry::Backoff,
    stream::{self, Stream},
};

/// How often old batches are looked for.
const EXPIRY_TICK: Duration = Duration::from_millis(500);
/// A write that the engine stopped is followed by its reason within this time, or by none.
const REASON_GRACE: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// What the engine says of a topic when a publish stream to it is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenedTopic {
    pub(super) partitions: u16,
    pub(super) limits: BatchLimits,
}

/// Opens a publish stream.
pub(super) async fn open(link: &Link, topic: &TopicName) -> Result<(Stream, OpenedTopic), Error> {
    let session = link.session().await?;
    match stream::open(session.connection(), &Open::Publish { topic: topic.clone(), trace: None }).await? {
        (stream, Opened::Publish { partitions, backlog_max_events, backlog_max_bytes, .. }) => {
            let limits = BatchLimits::of_backlog(backlog_max_events, backlog_max_bytes);
            Ok((stream, OpenedTopic { partitions, limits }))
        }
        _ => Err(Error::bad_answer("a publish stream was answered with something else")),
    }
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) topic: TopicName,
}

impl Driver {
    /// Runs until nothing is left after the last handle has gone, or until the publisher has failed.
    pub(super) async fn run(self, first: Stream) {
        let mut stream = first;
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        loop {
            match self.drive(stream, &mut backoff).await {
                Ok(()) => return,
                Err(error) => debug!(topic = %self.topic, error = %error, "publish stream ended"),
            }
            self.shared.lock().disconnected();
            match self.reopen(&mut backoff).await {
                Ok(Some(next)) => stream = next,
                Ok(None) => return,
                Err(error) => {
                    if !matches!(error, Error::Closed) {
                        warn!(topic = %self.topic, error = %error, "publisher failed");
                    }
                    return self.shared.fail(&error);
                }
            }
            self.shared.lock().reopened();
        }
    }

    /// Moves batches and answers until the stream ends, which is an error, or until there is nothing left to
    /// do.
    async fn drive(&self, mut stream: Stream, backoff: &mut Backoff) -> Result<(), Error> {
        let mut out: Vec<Bytes> = Vec::new();
        let mut written = 0;
        let mut timer = Box::pin(sleep(EXPIRY_TICK));
        let mut expiry = clock::now() + EXPIRY_TICK;
        let mut idle = false;
        loop {
            if written == out.len() {
                out.clear();
                written = 0;
                let turn = self.shared.lock().turn(clock::now(), &mut out);
                if turn.finished {
                    // The stream may be gone already, with nothing left to say on it.
                    let _ = stream.send.finish();
                    return Ok(());
                }
                idle = turn.idle;
                let deadline = turn.deadline.map_or(expiry, |deadline| deadline.min(expiry));
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
            }
            tokio::select! {
                biased;
                frame = stream.frames.next() => {
                    self.on_frame(frame?.ok_or_else(Error::cut_off)?)?;
                    backoff.reset();
                }
                result = stream.send.write_chunks(&mut out[written..]), if written < out.len() => {
                    match result {
                        Ok(done) => written += done.chunks,
                        Err(error) => return Err(reason(&mut stream, error.into()).await),
                    }
                }
                () = self.shared.wake.notified(), if written == out.len() => {}
                () = &mut timer, if !idle => self.on_tick(&mut expiry, &mut timer),
            }
        }
    }

    fn on_frame(&self, frame: Frame) -> Result<(), Error> {
        if frame.kind != FrameType::Ack {
            return Err(stream::unexpected(&frame));
        }
        let acks = Ack::read_all(&frame.payload)?;
        self.shared.change(|core, ended| core.answers(acks, clock::now(), ended));
        Ok(())
    }

    fn on_tick(&self, expiry: &mut clock::Instant, timer: &mut std::pin::Pin<Box<Sleep>>) {
        let now = clock::now();
        if now >= *expiry {
            *expiry = now + EXPIRY_TICK;
            self.shared.change(|core, ended| core.expire(now, ended));
        }
        timer.as_mut().reset(*expiry);
    }

    /// A new stream, however long it takes; `None` if nothing is left to send. Old batches fail meanwhile.
    async fn reopen(&self, backoff: &mut Backoff) -> Result<Option<Stream>, Error> {
        let mut attempt = Box::pin(self.attempts(backoff));
        loop {
            let tick = sleep_until(clock::now() + EXPIRY_TICK);
            tokio::select! {
                biased;
                result = &mut attempt => return result.map(Some),
                () = tick => self.shared.change(|core, ended| core.expire(clock::now(), ended)),
            }
            if self.shared.lock().is_finished() {
                return Ok(None);
            }
        }
    }

    async fn attempts(&self, backoff: &mut Backoff) -> Result<Stream, Error> {
        loop {
            // At once after a stream that worked; ever slower while streams end without an answer.
            sleep(backoff.next()).await;
            match open(&self.link, &self.topic).await {
                Ok((stream, OpenedTopic { partitions, limits })) => {
                    let mut core = self.shared.lock();
                    let expected = core.partitions();
                    if usize::from(partitions) == expected {
                        core.limit_batches(limits);
                        return Ok(stream);
                    }
                    let what = format!(
                        "the topic was made anew: its number of partitions is {partitions}, and was {expected} when the publisher was opened"
                    );
                    return Err(Refusal::new(ErrorCode::PartitionNotFound, what).into());
                }
                Err(error) if error.is_retryable() => {
                    debug!(topic = %self.topic, error = %error, "publish stream not open yet");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Fails everything that waits if the task is dropped: the runtime has ended, or the task has panicked.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.fail(&Error::Closed);
    }
}

/// Why the engine stopped reading: its own words if they come, else the error of the write.
async fn reason(stream: &mut Stream, error: Error) -> Error {
    match timeout(REASON_GRACE, stream.frames.next()).await {
        Ok(Ok(Some(frame))) if frame.kind == FrameType::Error => stream::unexpected(&frame),
        _ => error,
    }
}
