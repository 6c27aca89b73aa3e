//! The task that attaches the consumer, brings deliveries in and takes verbs and credit out.
//!
//! Owns the subscribe stream and its reopening.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_protocol::{
    error::ErrorCode,
    frame::{Frame, FrameType},
    request::{Open, Opened, Subscribe, Subscribed, SubscriptionOptions},
    verbs::Settled,
};
use quinn::WriteError;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Detached, Shared, state::Wish};
use crate::{
    clock,
    delivery::Incoming,
    error::Error,
    link::Link,
    retry::Backoff,
    stream::{self, Stream},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A consumer that cannot attach says so this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
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

/// When unacknowledged deliveries of the subscription time out; an engine that does not say it has the default.
pub(super) fn ack_timeout(subscribed: &Subscribed) -> Duration {
    let timeout_ms = match subscribed.ack_timeout_ms {
        0 => SubscriptionOptions::default().ack_timeout_ms(),
        given => given,
    };
    Duration::from_millis(timeout_ms.into())
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    /// What to open the next stream with: the subscription exists by now.
    pub(super) again: Subscribe,
}

impl Driver {
    /// Runs until the subscriber is gone and everything it said was sent, or until it has failed.
    pub(super) async fn run(self, first: Stream, timeout: Duration) {
        let (mut stream, mut ack_timeout) = (first, timeout);
        let mut policy = ReconnectPolicy::new();
        loop {
            self.shared.lock().attached(ack_timeout);
            match self.drive(stream, &mut policy).await {
                Ok(()) => return,
                Err(error) if policy.is_over(&error) => return self.fail(&error),
                Err(error) => {
                    self.note(&error, &mut policy);
                    self.shared.lock().detached(Some(error));
                }
            }
            self.shared.confirmed.notify_waiters();
            match self.reattach(&mut policy).await {
                Ok(Some(next)) => (stream, ack_timeout) = next,
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

    /// Says why there is no stream: in the log now and then, and to a program that asks.
    fn note(&self, error: &Error, policy: &mut ReconnectPolicy) {
        let subscription = &self.again.subscription;
        match error {
            Error::Refused(_) if policy.may_warn() => {
                warn!(%subscription, error = %error, "the engine has detached this consumer; it tries to attach again");
            }
            _ => debug!(%subscription, error = %error, "consumer is not attached"),
        }
    }

    async fn drive(&self, mut stream: Stream, policy: &mut ReconnectPolicy) -> Result<(), Error> {
        let mut out: Vec<Bytes> = Vec::new();
        let mut written = 0;
        let mut timer = Box::pin(sleep(FAR));
        // The whole credit, before anything else.
        self.shared.flush();
        loop {
            let mut due = None;
            let over_limit = {
                let mut state = self.shared.lock();
                if state.wish == Wish::Replace {
                    return Err(Error::lost(Detached));
                }
                if written == out.len() {
                    out.clear();
                    written = 0;
                    due = state.turn(clock::now(), &mut out);
                    if state.wish == Wish::Close && out.is_empty() && state.outbox.is_empty() {
                        drop(state);
                        // A stream that the engine has stopped needs no end.
                        let _ = stream.send.finish();
                        return Ok(());
                    }
                }
                state.is_over_limit()
            };
            if let Some(due) = due
                && timer.deadline() != due
            {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                frame = stream.frames.next(), if !over_limit => {
                    self.on_frame(frame?.ok_or_else(Error::cut_off)?)?;
                    policy.worked();
                }
                result = stream.send.write_chunks(&mut out[written..]), if written < out.len() => {
                    match result {
                        Ok(done) => written += done.chunks,
                        Err(WriteError::Stopped(_)) => return Err(self.hear_out(&mut stream).await),
                        Err(error) => return Err(error.into()),
                    }
                }
                () = self.shared.wake.notified(), if written == out.len() => {}
                () = &mut timer, if due.is_some() => {}
            }
        }
    }

    /// Why the engine stopped reading.
    async fn hear_out(&self, stream: &mut Stream) -> Error {
        loop {
            // Confirmations still count; deliveries come again.
            if let Err(error) = stream.last_words().await.and_then(|frame| self.on_frame(frame)) {
                return error;
            }
        }
    }

    fn on_frame(&self, frame: Frame) -> Result<(), Error> {
        match frame.kind {
            FrameType::Deliver => {
                let incoming = Incoming::read(frame)?;
                self.shared.lock().arrived(incoming, clock::now());
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
            _ => return Err(stream::unexpected(&frame)),
        }
        Ok(())
    }

    /// A new stream, however long it takes; `None` if the subscriber is gone.
    async fn reattach(&self, policy: &mut ReconnectPolicy) -> Result<Option<(Stream, Duration)>, Error> {
        let mut attempts = Box::pin(self.attempts(policy));
        loop {
            if self.shared.lock().wish == Wish::Close {
                return Ok(None);
            }
            tokio::select! {
                biased;
                result = &mut attempts => return result.map(Some),
                () = self.shared.wake.notified() => {}
            }
        }
    }

    async fn attempts(&self, policy: &mut ReconnectPolicy) -> Result<(Stream, Duration), Error> {
        loop {
            // At once after a stream that worked; ever slower while streams end without a frame.
            sleep(policy.backoff.next()).await;
            match open(&self.link, self.again.clone()).await {
                Ok((stream, subscribed)) => return Ok((stream, ack_timeout(&subscribed))),
                Err(error) if error.is_retryable() => {
                    self.note(&error, policy);
                    self.shared.lock().interruption = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// When a consumer whose stream ended attaches again, and when it gives up.
struct ReconnectPolicy {
    backoff: Backoff,
    /// A frame came on some stream: the engine did take this consumer.
    worked: bool,
    warn_at: clock::Instant,
}

impl ReconnectPolicy {
    fn new() -> Self {
        Self { backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_LAST), worked: false, warn_at: clock::now() }
    }

    fn worked(&mut self) {
        self.backoff.reset();
        self.worked = true;
    }

    /// True if the caller has to know instead: another stream would meet this again, or it is the engine's answer
    /// to the very first. A subscription that was moved has taken this consumer, and takes it again.
    fn is_over(&mut self, error: &Error) -> bool {
        let refused = matches!(error, Error::Refused(it) if it.code != ErrorCode::SubscriptionMoved);
        let first_answer = !std::mem::replace(&mut self.worked, true) && refused;
        first_answer || !error.is_retryable()
    }

    /// True now and then.
    fn may_warn(&mut self) -> bool {
        let now = clock::now();
        let may = now >= self.warn_at;
        if may {
            self.warn_at = now + WARN_EVERY;
        }
        may
    }
}

/// Fails everything that waits if the task is dropped: the runtime has ended, or the task has panicked.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.fail(&Error::Closed);
    }
}
