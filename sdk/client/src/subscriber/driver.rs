//! The task that attaches the consumer, brings deliveries in and takes verbs and credit out.
//!
//! Owns the subscribe stream and its reopening.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    frame::FrameType,
    request::{Open, Opened, Subscribe, Subscribed},
    verbs::Settled,
};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Shared;
use crate::{
    clock,
    delivery::Incoming,
    error::Error,
    link::Link,
    retry::Backoff,
    stream::{self, Frame, Stream},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A timer that is not used is set this far ahead.
const FAR: Duration = Duration::from_secs(3600);

/// Attaches a consumer.
pub(super) async fn open(link: &Link, subscribe: Subscribe) -> Result<(Stream, Subscribed), Error> {
    let session = link.session().await?;
    match stream::open(session.connection(), &Open::Subscribe(subscribe)).await? {
        (stream, Opened::Subscribe(subscribed)) => Ok((stream, subscribed)),
        _ => Err(Error::bad_answer("a subscribe stream was answered with something else")),
    }
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    /// What to open the next stream with: the subscription exists by now.
    pub(super) again: Subscribe,
}

impl Driver {
    /// Runs until the subscriber is gone and everything it said was sent, or until it has failed.
    pub(super) async fn run(self, first: Stream) {
        let mut stream = first;
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        loop {
            self.shared.lock().attached();
            match self.drive(stream, &mut backoff).await {
                Ok(()) => return,
                Err(error @ Error::Refused(_)) if !error.is_retryable() => return self.fail(&error),
                Err(error) => {
                    debug!(subscription = %self.again.subscription, error = %error, "subscribe stream ended")
                }
            }
            self.shared.lock().detached();
            self.shared.confirmed.notify_waiters();
            match self.reattach(&mut backoff).await {
                Ok(Some(next)) => stream = next,
                Ok(None) => return,
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn fail(&self, error: &Error) {
        if !matches!(error, Error::Closed) {
            warn!(subscription = %self.again.subscription, error = %error, "subscriber failed");
        }
        self.shared.fail(error);
    }

    async fn drive(&self, mut stream: Stream, backoff: &mut Backoff) -> Result<(), Error> {
        let mut out: Vec<Bytes> = Vec::new();
        let mut written = 0;
        let mut timer = Box::pin(sleep(FAR));
        // The whole credit, before anything else.
        self.shared.hurry();
        loop {
            let mut due = None;
            let clogged = {
                let mut state = self.shared.lock();
                if written == out.len() {
                    out.clear();
                    written = 0;
                    due = state.turn(clock::now(), &mut out);
                    if state.closing && out.is_empty() && state.outbox.is_empty() {
                        drop(state);
                        // A stream that the engine has stopped needs no end.
                        let _ = stream.send.finish();
                        return Ok(());
                    }
                }
                state.is_clogged()
            };
            if let Some(due) = due
                && timer.deadline() != due
            {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                frame = stream.frames.next(), if !clogged => {
                    self.on_frame(frame?.ok_or_else(Error::cut_off)?)?;
                    backoff.reset();
                }
                result = stream.send.write_chunks(&mut out[written..]), if written < out.len() => {
                    written += result?.chunks;
                }
                () = self.shared.wake.notified(), if written == out.len() => {}
                () = &mut timer, if due.is_some() => {}
            }
        }
    }

    fn on_frame(&self, frame: Frame) -> Result<(), Error> {
        match frame.kind {
            FrameType::Deliver => {
                let incoming = Incoming::read(frame)?;
                self.shared.lock().arrived(incoming);
                self.shared.arrived.notify_one();
            }
            FrameType::Settled => {
                let settled = Settled::read(&frame.payload)?;
                if !settled.refused.is_empty() {
                    debug!(refused = settled.refused.len(), "verbs were refused");
                }
                self.shared.lock().outbox.settled(&settled);
                self.shared.confirmed.notify_waiters();
            }
            _ => return Err(frame.into_unexpected()),
        }
        Ok(())
    }

    /// A new stream, however long it takes; `None` if the subscriber is gone.
    async fn reattach(&self, backoff: &mut Backoff) -> Result<Option<Stream>, Error> {
        let mut attempts = Box::pin(self.attempts(backoff));
        loop {
            if self.shared.lock().closing {
                return Ok(None);
            }
            tokio::select! {
                biased;
                result = &mut attempts => return result.map(Some),
                () = self.shared.wake.notified() => {}
            }
        }
    }

    async fn attempts(&self, backoff: &mut Backoff) -> Result<Stream, Error> {
        loop {
            // At once after a stream that worked; ever slower while streams end without a frame.
            sleep(backoff.next()).await;
            match open(&self.link, self.again.clone()).await {
                Ok((stream, _)) => return Ok(stream),
                Err(error) if error.is_retryable() => {
                    debug!(subscription = %self.again.subscription, error = %error, "cannot attach yet");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// If the runtime ends or this task dies, nobody shall wait for ever.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.fail(&Error::Closed);
    }
}
