//! Readers: positions that are not stored. One task per reader reads ahead of its credit by one read, and only
//! once there is room for what it will find.
//!
//! It owns a reader's position in each partition. It must not know subscriptions: nothing here is stored.

use std::{collections::VecDeque, mem, sync::Arc};

use levada_protocol::{
    deliver::{DeliverHeader, EndEntry},
    error::ErrorCode,
    ids::{DeliveryToken, Offset, PartitionId, TopicId},
    progress::{Progress, SearchState},
    request::{Position, Read, Start},
    verbs::Credit,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Duration, Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Conditions,
    changes::{Hears, Listener},
    error::Error,
    frames::{DELIVER_BYTES_TARGET, LogSlice, payload_len, take},
    log::Log,
    outbound::{Held, Window},
    outgoing::{Content, Outgoing},
    screen::{self, Screen, Screened},
    search::{Found, Step},
    topic::Topic,
};

/// Deliveries that may wait for the stream to take them.
const DELIVERIES_QUEUED_MAX: usize = 16;
/// Credit grants that may wait for the reader's task.
const CREDITS_QUEUED_MAX: usize = 16;

/// How long a turn with a mask is kept while room is waited for.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(100);

/// A reader, as the session holds it.
#[derive(Debug)]
pub struct Reader {
    /// The topic's number, which no later topic of its name has.
    pub topic: TopicId,
    /// Where each partition's reading begins.
    pub positions: Vec<Position>,
    /// What must stay true for as long as it is read, or it is to be dropped with all that it has sent: more than its opening requires.
    pub conditions: Conditions,
    /// Deliveries; the channel ends after [`Content::End`], or after an error.
    pub outgoing: mpsc::Receiver<Result<Outgoing, Error>>,
    /// Grants credit; dropping it ends the reader.
    pub credit: CreditSender,
}

/// The way a reader's client says how much more it can take.
#[derive(Debug)]
pub struct CreditSender {
    grants: mpsc::Sender<Credit>,
    /// Ends a reader that follows.
    finish: Option<CancellationToken>,
}

impl CreditSender {
    /// Adds to what may be delivered. Waits while many grants are queued. Cancel safe.
    ///
    /// # Errors
    /// If the reader has ended.
    pub async fn grant(&self, credit: Credit) -> Result<(), Error> {
        self.grants.send(credit).await.map_err(|_| Error::ShuttingDown)
    }

    /// Ends a reader that follows, with `SHUTTING_DOWN`; another one reads to its end.
    pub fn finish(&self) {
        if let Some(finish) = &self.finish {
            finish.cancel();
        }
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
}

/// What was read of one partition and not sent yet, with the bytes that are set aside for it.
#[derive(Default)]
struct Ahead {
    pieces: VecDeque<LogSlice>,
    held: Option<Held>,
    /// Where the partition goes on once all of it is sent, if that is not where it ends.
    then: Option<Offset>,
    /// Offsets of events that are withheld, in order, which the partition did not pass yet.
    withheld: VecDeque<Offset>,
}

/// What became of a partition's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// A frame was sent.
    Sent,
    /// Events were passed over, none of which matched.
    Passed,
    /// There is nothing now.
    Nothing,
}

/// The reader's task.
pub(crate) struct ReaderTask {
    cursors: Vec<Cursor>,
    topic: Arc<Topic>,
    appended: Listener,
    cancelled: CancellationToken,
    grants: mpsc::Receiver<Credit>,
    outgoing: mpsc::Sender<Result<Outgoing, Error>>,
    /// A reserved slot for the final error, so that sending it never waits.
    last_word: mpsc::OwnedPermit<Result<Outgoing, Error>>,
    credit_events: u64,
    /// May be negative: the last frame may take more than was left.
    credit_bytes: i64,
    follow: bool,
    screen: Option<Screen>,
    /// Which partition is read first: the one that `ahead` is of, if that holds anything.
    first: usize,
    ahead: Ahead,
    window: Arc<Window>,
    /// Events that were withheld since something was last sent.
    untold: u64,
    began: Instant,
}

/// Where a partition of a reader begins.
pub(crate) fn start_of(read: &Read, partition: PartitionId) -> Start {
    let named = read.positions.iter().find(|position| position.partition == partition.0);
    named.map_or(read.from, |position| Start::Offset(position.offset))
}

/// Makes a reader and the task that serves it. `logs` come with the offset that each begins at, which is where
/// [`start_of`] was found to be.
pub(crate) fn open(
    topic: &Arc<Topic>,
    logs: Vec<(PartitionId, Log, Offset)>,
    read: &Read,
    (screen, conditions): (Option<Screen>, Conditions),
    cancelled: CancellationToken,
    window: Arc<Window>,
) -> (Reader, ReaderTask) {
    let follow = read.follow;
    let (outgoing, received) = mpsc::channel(DELIVERIES_QUEUED_MAX + 1);
    let last_word = outgoing.clone().try_reserve_owned().expect("a new channel has room");
    let (grants, granted) = mpsc::channel(CREDITS_QUEUED_MAX);
    let positions =
        logs.iter().map(|(number, _, next)| Position { partition: number.0, offset: next.0 }).collect();
    let partitions: Vec<PartitionId> = logs.iter().map(|(number, ..)| *number).collect();
    let cursors = logs
        .into_iter()
        .map(|(number, log, next)| {
            let until = (!follow).then(|| log.partition().end());
            Cursor { number, log, next, at_earliest: start_of(read, number) == Start::Earliest, until }
        })
        .collect();
    let finish = follow.then(|| cancelled.clone());
    let task = ReaderTask {
        cursors,
        topic: Arc::clone(topic),
        appended: topic.listen(Hears::Some(&partitions)),
        cancelled,
        grants: granted,
        outgoing,
        last_word,
        credit_events: 0,
        credit_bytes: 0,
        follow,
        screen,
        first: 0,
        ahead: Ahead::default(),
        window,
        untold: 0,
        began: Instant::now(),
    };
    let credit = CreditSender { grants, finish };
    (Reader { topic: topic.id, positions, conditions, outgoing: received, credit }, task)
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
            self.appended.forget();
            while let Ok(credit) = self.grants.try_recv() {
                self.grant(credit);
            }
            let moved = self.round().await?;
            if let Some(state) = self.ended() {
                return self.end(state).await;
            }
            if self.outgoing.is_closed() {
                return Ok(());
            }
            if moved {
                continue;
            }
            tokio::select! {
                biased;
                granted = self.grants.recv() => match granted {
                    Some(credit) => self.grant(credit),
                    None => return Ok(()),
                },
                () = self.appended.changed() => {}
            }
        }
    }

    fn grant(&mut self, credit: Credit) {
        self.credit_events = self.credit_events.saturating_add(credit.events);
        let bytes = i64::try_from(credit.bytes).unwrap_or(i64::MAX);
        self.credit_bytes = self.credit_bytes.saturating_add(bytes);
    }

    /// Most events that may be sent now.
    fn events_max(&self) -> u64 {
        let left = self.screen.as_ref().map_or(u64::MAX, |screen| screen.tally.events_left());
        self.credit_events.min(left)
    }

    fn has_credit(&self) -> bool {
        self.events_max() > 0 && self.credit_bytes > 0
    }

    /// How the reading ended, if it has.
    fn ended(&self) -> Option<SearchState> {
        let (bytes_left, events_left) = self
            .screen
            .as_ref()
            .map_or((u64::MAX, u64::MAX), |screen| (screen.tally.left(), screen.tally.events_left()));
        if !self.follow && self.cursors.iter().all(Cursor::is_done) {
            Some(SearchState::Complete)
        } else {
            // What was found is sent before a search ends for the bytes that it has scanned.
            let is_spent = bytes_left == 0 && self.ahead.pieces.is_empty();
            (is_spent || events_left == 0).then_some(SearchState::Limited)
        }
    }

    /// Serves every partition in turn while there is credit; true if anything was sent or passed over.
    ///
    /// The first is a different one each time, so that one with much to read does not take all credit; but what
    /// was read of one is sent before another is read, so that no more than one read is ever in memory.
    async fn round(&mut self) -> Result<bool, Error> {
        let (count, begin) = (self.cursors.len(), self.first);
        let mut moved = false;
        for at in (0..count).map(|step| (begin + step) % count) {
            if !self.has_credit() {
                break;
            }
            self.first = at;
            while self.has_credit() {
                let served = self.deliver(at).await?;
                moved |= served != Served::Nothing;
                if served != Served::Sent || self.ahead.pieces.is_empty() {
                    break;
                }
            }
            if !self.ahead.pieces.is_empty() {
                break;
            }
            self.first = (at + 1) % count;
        }
        Ok(moved)
    }

    /// Reads ahead in a partition of which nothing is left in memory. Of a search that may be nothing although there
    /// is more.
    ///
    /// Events that retention dropped meanwhile end the reader with an error, as it would miss them. Only if the oldest
    /// event was requested and none was sent yet, reading begins with the event that is the oldest now.
    async fn fetch(&mut self, at: usize) -> Result<Served, Error> {
        let mut least = 0;
        loop {
            let cursor = &self.cursors[at];
            let left = self.screen.as_ref().map_or(u64::MAX, |screen| screen.tally.left());
            if left == 0 || cursor.is_done() || cursor.next >= cursor.log.partition().end() {
                return Ok(Served::Nothing);
            }
            let bytes_max = self.window.size().min(DELIVER_BYTES_TARGET);
            let bytes_max = bytes_max.min(usize::try_from(left).unwrap_or(usize::MAX));
            let paused = match &mut self.screen {
                Some(screen) => screen.paused().await?,
                None => None,
            };
            if let Some(wait) = paused {
                return self.wait_out(wait).await;
            }
            let (mut held, turn) =
                room_and_turn(&self.window, bytes_max.max(least), self.screen.as_ref()).await;
            let (step, withheld) = match cursor.step(self.screen.as_mut(), turn, bytes_max).await? {
                Screened::Passed(step, withheld) => (step, withheld),
                Screened::Paused(wait) => {
                    drop(held);
                    return self.wait_out(wait).await;
                }
            };
            let cursor = &mut self.cursors[at];
            match step {
                Step::Found(found) => {
                    let bytes = found.kept_bytes;
                    if let Some(more) = bytes.checked_sub(held.bytes()).filter(|more| *more > 0) {
                        match self.window.try_hold(more) {
                            Some(more) => held.merge(more),
                            // Nothing is kept while it waits for room; it is read again.
                            None if least < bytes => {
                                least = bytes;
                                continue;
                            }
                            // All of a budget is held already.
                            None => {}
                        }
                    }
                    held.shrink(bytes);
                    return self.found(at, (found, withheld), held).await;
                }
                Step::End => return Ok(Served::Nothing),
                Step::Dropped(start) if cursor.at_earliest => cursor.next = start,
                Step::Dropped(start) => return Err(cursor.behind(start)),
            }
        }
    }

    /// Waits for plugins that are left alone.
    async fn wait_out(&mut self, wait: Duration) -> Result<Served, Error> {
        // So that its client knows how far it is while nothing moves.
        self.report(SearchState::Running).await?;
        sleep(wait).await;
        Ok(Served::Passed)
    }

    /// Keeps what was read to be sent, and says how far it has come when that is due.
    async fn found(
        &mut self,
        at: usize,
        (found, withheld): (Found, Vec<Offset>),
        held: Held,
    ) -> Result<Served, Error> {
        if let Some(screen) = &mut self.screen {
            screen.tally.add(found.scanned);
        }
        let (pieces, withheld) = (VecDeque::from(found.slices), withheld.into());
        let is_empty = pieces.is_empty();
        let held = Some(held).filter(|_| !is_empty);
        self.ahead = Ahead { pieces, held, then: Some(found.reached), withheld };
        if is_empty {
            self.pass(at, found.reached);
        }
        self.report_if_due().await?;
        Ok(if is_empty { Served::Passed } else { Served::Sent })
    }

    /// What is before this offset of a partition is dealt with.
    fn pass(&mut self, at: usize, next: Offset) {
        self.cursors[at].pass(next);
        let passed = self.ahead.withheld.partition_point(|offset| *offset < next);
        self.ahead.withheld.drain(..passed);
        let passed = passed as u64;
        self.untold += passed;
        if let Some(screen) = &mut self.screen {
            screen.withheld(passed);
        }
    }

    /// Sends one frame from one partition, if there is something.
    async fn deliver(&mut self, at: usize) -> Result<Served, Error> {
        if self.ahead.pieces.is_empty() {
            let served = self.fetch(at).await?;
            if served != Served::Sent {
                return Ok(served);
            }
        }
        let events_max = self.events_max();
        let cursor = &mut self.cursors[at];
        let until = cursor.until.unwrap_or(Offset(u64::MAX));
        let bytes_max = DELIVER_BYTES_TARGET;
        let pieces = take(&mut self.ahead.pieces, cursor.next..until, events_max, bytes_max)?;
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            // Offsets without events are left at most.
            let reached = self.ahead.then.filter(|reached| *reached > cursor.next);
            reached.into_iter().for_each(|reached| self.pass(at, reached));
            self.ahead = Ahead::default();
            return Ok(if reached.is_some() { Served::Passed } else { Served::Nothing });
        };
        let header = DeliverHeader {
            partition: cursor.number,
            built: false,
            attempt: 1,
            count: 0,
            token: DeliveryToken(0),
            span: u32::try_from(last.end().0 - first.run.base.0).unwrap_or(u32::MAX),
        };
        let then = self.ahead.then.filter(|_| self.ahead.pieces.is_empty());
        self.pass(at, last.end());
        let events: u64 = pieces.iter().map(|piece| u64::from(piece.events)).sum();
        self.credit_events = self.credit_events.saturating_sub(events);
        if let Some(screen) = &mut self.screen {
            screen.tally.delivered(events);
        }
        let bytes = payload_len(&pieces);
        self.credit_bytes = self.credit_bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut delivery = Outgoing::delivery(header, pieces);
        if let Some(mut held) = self.ahead.held.take() {
            if !self.ahead.pieces.is_empty() {
                let sent = held.split(bytes);
                self.ahead.held = Some(mem::replace(&mut held, sent));
            }
            delivery = delivery.counted(held);
        }
        self.send(delivery).await?;
        // What is withheld behind its last event is told with what comes next.
        then.into_iter().for_each(|then| self.pass(at, then));
        self.report_if_due().await?;
        Ok(Served::Sent)
    }

    async fn report_if_due(&mut self) -> Result<(), Error> {
        let is_due = |screen: &Screen| screen.tally.is_due(self.began.elapsed());
        if self.screen.as_ref().is_some_and(is_due) {
            self.report(SearchState::Running).await
        } else {
            Ok(())
        }
    }

    /// Says how far a search or a mask has come.
    async fn report(&mut self, state: SearchState) -> Result<(), Error> {
        let (positions, now) = (self.positions(), self.began.elapsed());
        let Some(screen) = &mut self.screen else { return Ok(()) };
        screen.tally.reported(now);
        let progress = Progress { scanned: screen.tally.scanned(), state, positions };
        self.send(Outgoing::new(Content::Progress(progress))).await
    }

    async fn end(&mut self, state: SearchState) -> Result<(), Error> {
        self.report(state).await?;
        self.send(Outgoing::new(Content::End(self.positions()))).await
    }

    async fn send(&mut self, outgoing: Outgoing) -> Result<(), Error> {
        let outgoing = outgoing.with_withheld(mem::take(&mut self.untold));
        self.outgoing.send(Ok(outgoing)).await.map_err(|_| Error::ShuttingDown)
    }

    /// The first offset of each partition that was not dealt with.
    fn positions(&self) -> Vec<EndEntry> {
        self.cursors.iter().map(|cursor| EndEntry { partition: cursor.number, next: cursor.next }).collect()
    }
}

/// Room for what is read, and a turn with the mask. Room is not held while a turn is waited for, so that a slow plugin leaves others their
/// room; and a turn hardly while room is, so that a client that takes nothing leaves others their turns.
async fn room_and_turn(
    window: &Arc<Window>,
    bytes: usize,
    screen: Option<&Screen>,
) -> (Held, Option<OwnedSemaphorePermit>) {
    loop {
        let held = window.hold(bytes).await;
        let masking = match screen.map(Screen::try_turn) {
            None => return (held, None),
            Some(Ok(turn)) => return (held, turn),
            Some(Err(masking)) => masking,
        };
        drop(held);
        let turn = masking.turn().await;
        if let Ok(held) = timeout(ROOM_WAIT_MAX, window.hold(bytes)).await {
            return (held, Some(turn));
        }
    }
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// What is before this offset is dealt with.
    fn pass(&mut self, next: Offset) {
        self.next = next;
        self.at_earliest = false;
    }

    /// Reads on, about `bytes_max` bytes: what passes a screen, or everything.
    async fn step(
        &self,
        screen: Option<&mut Screen>,
        turn: Option<OwnedSemaphorePermit>,
        bytes_max: usize,
    ) -> Result<Screened, Error> {
        let range = self.next..self.until.unwrap_or(Offset(u64::MAX));
        match screen {
            Some(screen) => screen.step((self.number, &self.log), range, turn, bytes_max).await,
            None => Ok(Screened::Passed(screen::read(&self.log, range, bytes_max).await?, Vec::new())),
        }
    }

    fn behind(&self, start: Offset) -> Error {
        let message = format!(
            "the reader fell behind retention in partition {}: its next offset is {}, the earliest one now is {start}",
            self.number, self.next
        );
        Error::refused(ErrorCode::OffsetOutOfRange, message)
    }
}
