//! One stream of a reader: it gives credit, queues what comes, and goes on after a loss.
//!
//! The first stream reads all partitions. After a loss each partition goes on from its own offset, which
//! takes a stream for each, as a stream has one start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    deliver::EndEntry,
    frame::{Frame, FrameType},
    limits::FRAME_BYTES_MAX,
    progress::{Progress, Scanned, SearchState},
    request::{Open, Opened, Position, Read, Start},
    verbs::Credit,
};
use quinn::WriteError;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Item, Shared};
use crate::{
    delivery::Incoming,
    error::Error,
    link::Link,
    retry::Backoff,
    session::Session,
    stream::{self, Stream},
    tasks,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// Opens a reading stream; returns it with the positions where it begins.
pub(super) async fn open(session: &Session, read: Read) -> Result<(Stream, Vec<Position>), Error> {
    match stream::open(session.connection(), &Open::Read(read)).await? {
        (stream, Opened::Read { positions }) => Ok((stream, positions)),
        _ => Err(Error::bad_answer("a reading stream was answered with something else")),
    }
}

/// The credit of a stream: what was granted, and what of it is free again.
#[derive(Debug)]
pub(super) struct Ledger {
    granted: Credit,
    free_events: AtomicU64,
    free_bytes: AtomicU64,
    /// Bytes that came and were not taken.
    queued_bytes: AtomicU64,
    wake: Notify,
}

impl Ledger {
    fn new(granted: Credit) -> Self {
        Self {
            granted,
            free_events: AtomicU64::new(granted.events),
            free_bytes: AtomicU64::new(granted.bytes),
            queued_bytes: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// The application took this: its credit is free again, and is granted once a quarter of the whole is.
    pub(super) fn taken(&self, incoming: &Incoming) {
        let events = u64::from(incoming.header.count);
        let events = self.free_events.fetch_add(events, Ordering::Relaxed) + events;
        let bytes = self.free_bytes.fetch_add(incoming.bytes, Ordering::Relaxed) + incoming.bytes;
        let before = self.queued_bytes.fetch_sub(incoming.bytes, Ordering::Relaxed);
        let has_room_again = self.is_too_much(before) && !self.is_too_much(before - incoming.bytes);
        if has_room_again
            || events >= self.granted.events.div_ceil(4)
            || bytes >= self.granted.bytes.div_ceil(4)
        {
            self.wake.notify_one();
        }
    }

    /// True if more is queued than the credit allows: reading stops until some of it was taken.
    fn is_over_limit(&self) -> bool {
        self.is_too_much(self.queued_bytes.load(Ordering::Relaxed))
    }

    fn is_too_much(&self, bytes: u64) -> bool {
        let one_frame = u64::try_from(FRAME_BYTES_MAX).expect("a constant fits 64 bits");
        bytes > self.granted.bytes.saturating_add(one_frame)
    }

    /// What is free, to be granted now.
    fn grant(&self) -> Option<Credit> {
        let events = self.free_events.swap(0, Ordering::Relaxed);
        let bytes = self.free_bytes.swap(0, Ordering::Relaxed);
        (events > 0 || bytes > 0).then_some(Credit { events, bytes })
    }
}

pub(super) struct ReaderTask {
    shared: Arc<Shared>,
    link: Link,
    granted: Credit,
}

/// What has come on one stream.
#[derive(Default)]
struct Came {
    anything: bool,
    /// What the stream said last that it has scanned.
    scanned: Scanned,
}

/// Why reading a stream has ended.
enum Stop {
    End,
    Lost(Error),
}

impl ReaderTask {
    pub(super) fn new(shared: Arc<Shared>, link: Link, granted: Credit) -> Self {
        Self { shared, link, granted }
    }

    /// Reads all partitions; after a loss, each of them on its own.
    pub(super) async fn run(self, read: Read, first: Stream) {
        let ledger = Arc::new(Ledger::new(self.granted));
        match self.feed(first, ledger, &mut Came::default()).await {
            Ok(()) => return self.ended(None),
            Err(error) if is_final(&error) => return self.fail(&error),
            Err(error) => debug!(topic = %read.topic, error = %error, "reading stream ended"),
        }
        if read.search.is_some() {
            return self.go_on(&read).await;
        }
        let left: Vec<u16> = self.shared.lock().positions.keys().copied().collect();
        let parts = u64::try_from(left.len()).unwrap_or(u64::MAX).max(1);
        let share = |whole: u64| (whole / parts).max(1);
        let granted = Credit { events: share(self.granted.events), bytes: share(self.granted.bytes) };
        let mut running = Vec::new();
        for partition in left {
            let task = Self::new(self.shared.clone(), self.link.clone(), granted);
            running.push(tasks::spawn("reader", task.run_partition(read.clone(), partition)));
        }
        for task in running {
            task.ended().await;
        }
    }

    /// Goes on with a search, in one stream, as its bounds are for all partitions together.
    async fn go_on(&self, read: &Read) {
        let ledger = Arc::new(Ledger::new(self.granted));
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        loop {
            sleep(backoff.next()).await;
            let Some(rest) = self.rest_of(read) else { return self.limited() };
            match self.stream(rest, &ledger, &mut backoff).await {
                Stop::End => return self.ended(None),
                Stop::Lost(error) if is_final(&error) => return self.fail(&error),
                Stop::Lost(error) => debug!(error = %error, "searching stream ended"),
            }
        }
    }

    /// What is left of a search whose stream has ended before its time; `None` if a bound was reached already.
    fn rest_of(&self, read: &Read) -> Option<Read> {
        let state = self.shared.lock();
        let positions = state
            .positions
            .iter()
            .map(|(partition, offset)| Position { partition: *partition, offset: *offset });
        let mut rest = Read {
            partitions: state.positions.keys().copied().collect(),
            positions: positions.collect(),
            ..read.clone()
        };
        if let Some(search) = &mut rest.search {
            let bounds =
                [(&mut search.scan_bytes_max, state.scanned.bytes), (&mut search.events_max, state.events)];
            // 0 stands for no bound.
            for (bound, used) in bounds.into_iter().filter(|(bound, _)| **bound > 0) {
                *bound = bound.checked_sub(used).filter(|left| *left > 0)?;
            }
        }
        Some(rest)
    }

    /// A bound was reached before the stream could say so.
    fn limited(&self) {
        let (scanned, positions) = (Scanned::default(), Vec::new());
        let progress = Progress { scanned, state: SearchState::Limited, positions };
        self.shared.lock().progressed(progress, &mut Scanned::default());
        self.ended(None);
    }

    /// Reads one partition from where it is, through as many streams as it takes.
    async fn run_partition(self, read: Read, partition: u16) {
        let ledger = Arc::new(Ledger::new(self.granted));
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        loop {
            sleep(backoff.next()).await;
            let Some(offset) = self.shared.lock().positions.get(&partition).copied() else { return };
            let from = Start::Offset(offset);
            let read = Read { partitions: vec![partition], from, ..read.clone() };
            match self.stream(read, &ledger, &mut backoff).await {
                Stop::End => return self.ended(Some(partition)),
                Stop::Lost(error) if is_final(&error) => return self.fail(&error),
                Stop::Lost(error) => debug!(partition, error = %error, "reading stream ended"),
            }
        }
    }

    async fn stream(&self, read: Read, ledger: &Arc<Ledger>, backoff: &mut Backoff) -> Stop {
        // Without a connection this waits for one; with one, the engine has to answer in time.
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(error) => return Stop::Lost(error),
        };
        let limit = self.link.config().request_timeout;
        let opened = timeout(limit, open(&session, read)).await;
        let timed_out = Error::TimedOut { waited: limit, in_doubt: false, last: None };
        match opened.unwrap_or(Err(timed_out)) {
            Ok((stream, _)) => {
                let mut came = Came::default();
                let fed = self.feed(stream, ledger.clone(), &mut came).await;
                // One that is opened and ended again and again is tried less and less often.
                if came.anything {
                    backoff.reset();
                }
                match fed {
                    Ok(()) => Stop::End,
                    Err(error) => Stop::Lost(error),
                }
            }
            Err(error) => Stop::Lost(error),
        }
    }

    /// Queues what comes until the end, or until the stream is lost, which is an error.
    async fn feed(&self, mut stream: Stream, ledger: Arc<Ledger>, came: &mut Came) -> Result<(), Error> {
        self.regain(&ledger);
        loop {
            if let Some(credit) = ledger.grant() {
                match stream.send.write_chunk(credit.frame()).await {
                    Ok(()) => {}
                    Err(WriteError::Stopped(_)) => return self.hear_out(&mut stream, &ledger, came).await,
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::select! {
                biased;
                frame = stream.frames.next(), if !ledger.is_over_limit() => {
                    if self.on_frame(frame?.ok_or_else(Error::cut_off)?, &ledger, came)? {
                        return Ok(());
                    }
                }
                () = ledger.wake.notified() => {}
            }
        }
    }

    /// The engine takes no more credit: the last events are on their way, with the end or the reason behind them.
    async fn hear_out(
        &self,
        stream: &mut Stream,
        ledger: &Arc<Ledger>,
        came: &mut Came,
    ) -> Result<(), Error> {
        while !self.on_frame(stream.last_words().await?, ledger, came)? {}
        Ok(())
    }

    /// A new stream: all credit is free but that of what came earlier and was not taken.
    fn regain(&self, ledger: &Arc<Ledger>) {
        // The lock is held to the end, so that a frame is either counted here or counted when it is taken.
        let state = self.shared.lock();
        let (mut events, mut bytes) = (0, 0);
        for item in &state.queue {
            let Item::Frame(incoming, other) = item else { continue };
            if !Arc::ptr_eq(other, ledger) {
                continue;
            }
            events += u64::from(incoming.header.count);
            bytes += incoming.bytes;
        }
        ledger.free_events.store(ledger.granted.events.saturating_sub(events), Ordering::Relaxed);
        ledger.free_bytes.store(ledger.granted.bytes.saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Returns true at the end.
    fn on_frame(&self, frame: Frame, ledger: &Arc<Ledger>, came: &mut Came) -> Result<bool, Error> {
        came.anything = true;
        let at_end = frame.kind == FrameType::End;
        match frame.kind {
            FrameType::Deliver => {
                let incoming = Incoming::read(frame)?;
                let mut state = self.shared.lock();
                // A reader that has failed in one partition ends in all, or the caller would not hear of it while
                // the others go on.
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if let Some(next) = incoming.next_offset() {
                    state.positions.insert(incoming.header.partition.0, next.0);
                }
                ledger.queued_bytes.fetch_add(incoming.bytes, Ordering::Relaxed);
                state.events += u64::from(incoming.header.count);
                state.queue.push_back(Item::Frame(incoming, ledger.clone()));
            }
            FrameType::Progress => {
                let progress = Progress::read(&frame.payload)?;
                self.shared.lock().progressed(progress, &mut came.scanned);
            }
            FrameType::End => drop(EndEntry::read_all(&frame.payload)?),
            _ => return Err(stream::unexpected(&frame)),
        }
        self.shared.arrived.notify_one();
        Ok(at_end)
    }

    /// A partition, or all of them, was read to its end.
    fn ended(&self, partition: Option<u16>) {
        let mut state = self.shared.lock();
        match partition {
            Some(partition) => drop(state.positions.remove(&partition)),
            None => state.positions.clear(),
        }
        drop(state);
        self.shared.arrived.notify_one();
    }

    fn fail(&self, error: &Error) {
        if !matches!(error, Error::Closed) {
            warn!(error = %error, "reader failed");
        }
        self.shared.lock().failed.get_or_insert_with(|| error.clone());
        self.shared.arrived.notify_one();
    }
}

/// True for errors that another stream would meet again.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Refused(refusal) => !refusal.code.is_retryable(),
        Error::Closed
        | Error::TimedOut { .. }
        | Error::Config { .. }
        | Error::EventTooLarge(_)
        | Error::HeaderReserved(_)
        | Error::InvalidName(_)
        | Error::RequestTooLarge { .. }
        | Error::OffsetMismatch { .. }
        | Error::Fenced { .. }
        | Error::BadAnswer { .. }
        | Error::Damaged { .. } => true,
        Error::ConnectFailed { .. }
        | Error::TlsFailed { .. }
        | Error::ConnectionLost { .. }
        | Error::NoStream { .. } => false,
    }
}
