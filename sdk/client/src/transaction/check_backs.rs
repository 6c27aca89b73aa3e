//! Being asked about a group's prepared transactions, across reconnects.

use std::time::Duration;

use levada_protocol::{
    frame::{self, FrameType},
    ids::{Timestamp, TransactionId},
    request::{CheckBack, Open, Opened, TransactionInfo},
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::group::Group;
use crate::{
    error::Error,
    link::Link,
    retry::Backoff,
    stream::{self, Stream},
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// What a member of a producer group is asked. It attaches again after a lost connection. As long as it lives the engine
/// counts on it: take what comes, or drop it.
#[derive(Debug)]
pub struct CheckBacks {
    group: Group,
    stream: Option<Stream>,
    backoff: Backoff,
}

/// A question: is this transaction committed? Dropping it leaves it open: the group is asked again, unless this was the last
/// check.
#[derive(Debug)]
pub struct Check {
    group: Group,
    asked: CheckBack,
}

impl CheckBacks {
    pub(super) async fn open(group: Group) -> Result<Self, Error> {
        let limit = group.client().request_timeout();
        let opened = timeout(limit, open(&group)).await;
        let stream = opened.map_err(|_| Error::TimedOut { waited: limit, in_doubt: false, last: None })??;
        let backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        Ok(Self { group, stream: Some(stream), backoff })
    }

    /// The next question; `None` once the client was closed. Cancel safe.
    ///
    /// # Errors
    /// What is not over with the connection, such as `PERMISSION_DENIED`.
    pub async fn next(&mut self) -> Result<Option<Check>, Error> {
        loop {
            let error = match &mut self.stream {
                Some(stream) => match next_of(stream).await {
                    Ok(asked) => {
                        self.backoff.reset();
                        return Ok(Some(Check { group: self.group.clone(), asked }));
                    }
                    Err(error) => {
                        self.stream = None;
                        error
                    }
                },
                None => match open(&self.group).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            match error {
                Error::Closed => return Ok(None),
                error if error.is_retryable() => {
                    debug!(group = %self.group.name(), %error, "the stream of checks ended, and is opened again");
                    sleep(self.backoff.next()).await;
                }
                error => return Err(error),
            }
        }
    }
}

async fn open(group: &Group) -> Result<Stream, Error> {
    let open = |link: Link| async move {
        let session = link.session().await?;
        let open = Open::CheckBacks { group: group.name().clone(), trace: None };
        match stream::open(session.connection(), &open).await? {
            (stream, Opened::CheckBacks) => Ok(stream),
            _ => Err(Error::bad_answer("a stream of checks was answered with something else")),
        }
    };
    group.client().open(open).await
}

async fn next_of(stream: &mut Stream) -> Result<CheckBack, Error> {
    let frame = stream.frames.next().await?.ok_or_else(Error::cut_off)?;
    if frame.kind != FrameType::CheckBack {
        return Err(stream::unexpected(&frame));
    }
    Ok(frame::read_message(&frame.payload)?)
}

impl Check {
    /// The transaction.
    pub fn id(&self) -> &TransactionId {
        &self.asked.id
    }

    /// When it was prepared, by the engine's clock.
    pub fn prepared(&self) -> Timestamp {
        Timestamp(self.asked.prepared_ms)
    }

    /// How often the group was asked about it, this time included.
    pub fn number(&self) -> u32 {
        self.asked.check
    }

    /// How often it is asked at most. After the last check the transaction is parked: it waits for a person, or for the
    /// answer to that check.
    pub fn checks_max(&self) -> u32 {
        self.asked.checks_max
    }

    /// Commits it. Not cancel safe, as [`super::ProducerGroup::commit`].
    ///
    /// # Errors
    /// As [`super::ProducerGroup::commit`].
    pub async fn commit(self) -> Result<TransactionInfo, Error> {
        self.group.decide(self.asked.id, true).await
    }

    /// Rolls it back. Not cancel safe, as [`super::ProducerGroup::rollback`].
    ///
    /// # Errors
    /// As [`super::ProducerGroup::rollback`].
    pub async fn rollback(self) -> Result<TransactionInfo, Error> {
        self.group.decide(self.asked.id, false).await
    }
}
