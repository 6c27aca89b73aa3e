//! Readers: positions that leave nothing behind. One task per reader reads ahead of its credit by one look.
//!
//! It owns a reader's place in each partition. It must not know subscriptions: nothing here is remembered.

use std::{collections::VecDeque, sync::Arc};

use levada_protocol::{
    deliver::{DeliverHeader, EndEntry},
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId},
    request::{Position, Start},
    verbs::Credit,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    frames::{DELIVER_BYTES_TARGET, OutFrame, Piece, deliver_frame, payload_len, take},
    log::{Found, Log},
    topic::Topic,
};

/// Frames that may wait for the stream to take them.
const FRAMES_QUEUED_MAX: usize = 16;
/// Credit grants that may wait for the reader's task.
const CREDITS_QUEUED_MAX: usize = 16;

/// A reader, as the session holds it.
#[derive(Debug)]
pub struct Reader {
    /// Where each partition's reading begins.
    pub positions: Vec<Position>,
    /// Whole wire frames; the channel ends after `End`, or after an error.
    pub frames: mpsc::Receiver<Result<OutFrame, Error>>,
    /// Grants credit; dropping it ends the reader.
    pub credit: CreditSender,
}

/// The way a reader's client says how much more it can take.
#[derive(Debug)]
pub struct CreditSender {
    grants: mpsc::Sender<Credit>,
}

impl CreditSender {
    /// Adds to what may be delivered. Waits while many grants are queued. Cancel safe.
    ///
    /// # Errors
    /// If the reader has ended.
    pub async fn grant(&self, credit: Credit) -> Result<(), Error> {
        self.grants.send(credit).await.map_err(|_| Error::ShuttingDown)
    }
}

/// One partition of a reader.
struct Cursor {
    number: PartitionId,
    log: Log,
    next: Offset,
    /// The reader asked for the oldest event, whichever that is, and has got none yet.
    at_earliest: bool,
    /// Where a reader that does not follow ends.
    until: Option<Offset>,
    pieces: VecDeque<Piece>,
}

/// The reader's task.
pub(crate) struct ReaderTask {
    cursors: Vec<Cursor>,
    topic: Arc<Topic>,
    appended: watch::Receiver<u64>,
    cancelled: CancellationToken,
    grants: mpsc::Receiver<Credit>,
    frames: mpsc::Sender<Result<OutFrame, Error>>,
    /// Room for the reason of the end, so that telling it waits for nobody.
    last_word: mpsc::OwnedPermit<Result<OutFrame, Error>>,
    credit: Credit,
    follow: bool,
    /// Which partition is looked at first.
    first: usize,
}

/// Makes a reader and the task that serves it. `logs` come with the offset that each begins at, which is where
/// `start` was found to be.
pub(crate) fn open(
    topic: &Arc<Topic>,
    logs: Vec<(PartitionId, Log, Offset)>,
    start: Start,
    follow: bool,
    cancelled: CancellationToken,
) -> (Reader, ReaderTask) {
    let (frames, received) = mpsc::channel(FRAMES_QUEUED_MAX + 1);
    let last_word = frames.clone().try_reserve_owned().expect("a new channel has room");
    let (grants, granted) = mpsc::channel(CREDITS_QUEUED_MAX);
    let positions =
        logs.iter().map(|(number, _, next)| Position { partition: number.0, offset: next.0 }).collect();
    let cursors = logs
        .into_iter()
        .map(|(number, log, next)| {
            let until = (!follow).then(|| log.partition().end());
            Cursor {
                number,
                log,
                next,
                at_earliest: start == Start::Earliest,
                until,
                pieces: VecDeque::new(),
            }
        })
        .collect();
    let task = ReaderTask {
        cursors,
        topic: Arc::clone(topic),
        appended: topic.appended(),
        cancelled,
        grants: granted,
        frames,
        last_word,
        credit: Credit { events: 0, bytes: 0 },
        follow,
        first: 0,
    };
    (Reader { positions, frames: received, credit: CreditSender { grants } }, task)
}

impl ReaderTask {
    /// Serves the reader until it ends, its client goes, or the topic does.
    pub(crate) async fn run(mut self) {
        let (cancelled, topic) = (self.cancelled.clone(), Arc::clone(&self.topic));
        // Dropping the work at any await is safe: a reader leaves nothing behind. So it ends even while its client
        // takes no frames.
        let ended = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(Error::ShuttingDown),
            () = topic.deleted.cancelled() => Err(topic.deleted_error()),
            ended = self.serve() => ended,
        };
        if let Err(error) = ended {
            self.last_word.send(Err(error));
        }
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            self.appended.mark_unchanged();
            while let Ok(credit) = self.grants.try_recv() {
                self.grant(credit);
            }
            let mut sent = false;
            // Each partition is the first in turn, so that one with much to read does not take all credit for ever.
            self.first = (self.first + 1) % self.cursors.len().max(1);
            for at in (self.first..self.cursors.len()).chain(0..self.first) {
                if self.credit.events > 0 && self.credit.bytes > 0 {
                    sent |= self.deliver(at).await?;
                }
            }
            if !self.follow && self.cursors.iter().all(Cursor::is_done) {
                return self.end().await;
            }
            if sent {
                continue;
            }
            tokio::select! {
                biased;
                granted = self.grants.recv() => match granted {
                    Some(credit) => self.grant(credit),
                    None => return Ok(()),
                },
                // The topic outlives the reader: it holds the sending side.
                _ = self.appended.changed() => {}
            }
        }
    }

    fn grant(&mut self, credit: Credit) {
        self.credit.events = self.credit.events.saturating_add(credit.events);
        self.credit.bytes = self.credit.bytes.saturating_add(credit.bytes);
    }

    /// Sends one frame from one partition, if there is something.
    async fn deliver(&mut self, at: usize) -> Result<bool, Error> {
        let cursor = &mut self.cursors[at];
        cursor.fill().await?;
        let until = cursor.until.unwrap_or(Offset(u64::MAX));
        let bytes_max = DELIVER_BYTES_TARGET;
        let pieces = take(&mut cursor.pieces, cursor.next..until, self.credit.events, bytes_max)?;
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok(false) };
        let header = DeliverHeader {
            partition: cursor.number,
            built: false,
            attempt: 1,
            count: 0,
            token: DeliveryToken(0),
            span: u32::try_from(last.end().0 - first.run.base.0).unwrap_or(u32::MAX),
        };
        cursor.next = last.end();
        cursor.at_earliest = false;
        let events: u64 = pieces.iter().map(|piece| u64::from(piece.events)).sum();
        self.credit.events = self.credit.events.saturating_sub(events);
        self.credit.bytes = self.credit.bytes.saturating_sub(payload_len(&pieces) as u64);
        let frame = deliver_frame(header, &pieces);
        self.frames.send(Ok(frame)).await.map_err(|_| Error::ShuttingDown)?;
        Ok(true)
    }

    async fn end(&mut self) -> Result<(), Error> {
        let entries: Vec<EndEntry> = self
            .cursors
            .iter()
            .map(|cursor| EndEntry { partition: cursor.number, next: cursor.next })
            .collect();
        let frame = OutFrame { chunks: vec![EndEntry::frame(&entries)], receipt: None };
        self.frames.send(Ok(frame)).await.map_err(|_| Error::ShuttingDown)
    }
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Reads on if nothing is left of the last look.
    ///
    /// What retention dropped meanwhile ends the reader, for it would miss events that it counts on. Only where the
    /// oldest event was asked for, and none was sent yet, reading begins with what is the oldest now.
    async fn fill(&mut self) -> Result<(), Error> {
        while self.pieces.is_empty() && !self.is_done() {
            match self.log.read(self.next, DELIVER_BYTES_TARGET * 2).await? {
                Found::Pieces(pieces) => self.pieces.extend(pieces),
                Found::End => return Ok(()),
                Found::Dropped(start) if self.at_earliest => self.next = start,
                Found::Dropped(start) => return Err(self.behind(start)),
            }
        }
        Ok(())
    }

    fn behind(&self, start: Offset) -> Error {
        let message = format!(
            "the reader fell behind retention in partition {}: its next offset is {}, the earliest one now is {start}",
            self.number, self.next
        );
        Error::refused(ErrorCode::OffsetOutOfRange, message)
    }
}
