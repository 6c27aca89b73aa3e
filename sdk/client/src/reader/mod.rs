//! Reading stored events without leaving a trace: replay, tail, export.
//!
//! Owns the public face and what all streams of a reader share. One stream is `task.rs`.

mod cursor;
mod search;
mod task;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use levada_protocol::{
    ids::TopicName,
    progress::{Progress, Scanned},
    request::{Position, Read, Start},
    verbs::Credit,
};
use tokio::{sync::Notify, time::timeout};

use self::task::ReaderTask;
pub use self::{
    cursor::{Cursor, InvalidCursor},
    search::{Found, Search, SearchBound, SearchEnd, SearchOptions, SearchScope},
};
use crate::{
    delivery::{Delivery, Incoming},
    error::Error,
    link::Link,
    tasks::{self, Background},
};

/// What to read, and how much may be under way.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The topic's name.
    pub topic: String,
    /// Which partitions. Default: all.
    pub partitions: Vec<u16>,
    /// Where to begin in each. Default: with the oldest event.
    pub from: Start,
    /// Go on with new events until the reader is dropped, instead of ending with what is stored now. Default: no.
    pub follow: bool,
    /// Most events that have come and were not taken. Default 65,536.
    pub credit_events: u64,
    /// Most bytes of them, give or take one frame. Default 4 MiB.
    pub credit_bytes: u64,
}

impl ReadOptions {
    /// Reads all that the topic holds.
    pub fn new(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            topic: String::new(),
            partitions: Vec::new(),
            from: Start::Earliest,
            follow: false,
            credit_events: 65_536,
            credit_bytes: 4 * 1024 * 1024,
        }
    }
}

/// A position in each partition of a topic, moving on as events are taken.
///
/// When the connection is lost the reader goes on where it was, then with a stream for each partition. Events
/// of one partition come in order; between partitions there is none.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    positions: Vec<Position>,
    _task: Background,
}

impl Reader {
    pub(crate) async fn open(link: Link, options: ReadOptions) -> Result<Self, Error> {
        let read = Read {
            partitions: options.partitions,
            from: options.from,
            follow: options.follow,
            ..Read::new(TopicName::parse_any(&options.topic)?)
        };
        Self::start(link, read, options.credit_events, options.credit_bytes).await
    }

    async fn start(link: Link, read: Read, credit_events: u64, credit_bytes: u64) -> Result<Self, Error> {
        if credit_events == 0 || credit_bytes == 0 {
            return Err(Error::Config {
                what: "credit_events and credit_bytes must be at least 1".to_owned(),
            });
        }
        let limit = link.config().request_timeout;
        // Tells why there is no connection, if there is none.
        let session = link.session_within(limit).await?;
        let opened = timeout(limit, task::open(&session, read.clone())).await;
        let (stream, positions) =
            opened.map_err(|_| Error::TimedOut { waited: limit, in_doubt: false, last: None })??;
        let shared = Arc::new(Shared { state: Mutex::new(State::new(&positions)), arrived: Notify::new() });
        let granted = Credit { events: credit_events, bytes: credit_bytes };
        let task = ReaderTask::new(shared.clone(), link, granted);
        let task = tasks::spawn("reader", task.run(read, stream));
        Ok(Self { shared, positions, _task: task })
    }

    /// Where the reading began in each partition.
    pub fn began_at(&self) -> &[Position] {
        &self.positions
    }

    /// How many events were not given so far because a plugin of the principal's permission (`read … via …`) failed on them.
    pub fn withheld(&self) -> u64 {
        self.shared.lock().scanned.withheld
    }

    /// The next events, waiting for some if need be; `None` at the end, if the reader does not follow, and
    /// after the client was closed.
    ///
    /// Cancel safe: no events are lost with the wait.
    ///
    /// # Errors
    /// A refusal, such as `OFFSET_OUT_OF_RANGE` after retention dropped what was to be read next, or `TOPIC_NOT_FOUND`;
    /// `BATCH_INVALID` for events that came damaged.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            match self.step().await? {
                Some(Step::Events(delivery)) => return Ok(Some(delivery)),
                Some(Step::Progress(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next events, or the next progress of a search. Cancel safe.
    async fn step(&mut self) -> Result<Option<Step>, Error> {
        loop {
            let next = self.shared.lock().take();
            match next {
                Next::Item(Item::Frame(incoming, task)) => {
                    task.taken(&incoming);
                    if let Some(delivery) = Delivery::check(incoming)? {
                        return Ok(Some(Step::Events(delivery)));
                    }
                }
                Next::Item(Item::Progress(progress)) => return Ok(Some(Step::Progress(progress))),
                Next::Failed(Error::Closed) | Next::End => return Ok(None),
                Next::Failed(error) => return Err(error),
                Next::Wait => self.shared.arrived.notified().await,
            }
        }
    }
}

/// What a reader hands out.
enum Step {
    Events(Delivery),
    Progress(Progress),
}

/// What a reader and its tasks share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes `next`.
    arrived: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Item>,
    /// Per partition that has not ended: the first offset that did not come yet.
    positions: BTreeMap<u16, u64>,
    failed: Option<Error>,
    /// What all streams have scanned so far.
    scanned: Scanned,
    /// Events that have come.
    events: u64,
}

/// Something that has come and was not taken.
#[derive(Debug)]
enum Item {
    Frame(Incoming, Arc<task::Ledger>),
    Progress(Progress),
}

enum Next {
    Item(Item),
    Wait,
    End,
    Failed(Error),
}

impl State {
    fn new(positions: &[Position]) -> Self {
        let positions = positions.iter().map(|position| (position.partition, position.offset)).collect();
        Self { queue: VecDeque::new(), positions, failed: None, scanned: Scanned::default(), events: 0 }
    }

    /// A stream says how far it has come, which was so far when it last did. Of several such sayings in a row the last one is kept.
    fn progressed(&mut self, mut progress: Progress, of_stream: &mut Scanned) {
        for entry in &progress.positions {
            self.positions.entry(entry.partition.0).and_modify(|next| *next = entry.next.0.max(*next));
        }
        let before = std::mem::replace(of_stream, progress.scanned);
        let more = |sum: u64, count: fn(&Scanned) -> u64| {
            sum.saturating_add(count(&progress.scanned).saturating_sub(count(&before)))
        };
        self.scanned = Scanned {
            bytes: more(self.scanned.bytes, |it| it.bytes),
            events: more(self.scanned.events, |it| it.events),
            matched: more(self.scanned.matched, |it| it.matched),
            undecodable: more(self.scanned.undecodable, |it| it.undecodable),
            withheld: more(self.scanned.withheld, |it| it.withheld),
        };
        progress.scanned = self.scanned;
        self.queue.pop_back_if(|last| matches!(last, Item::Progress(_)));
        self.queue.push_back(Item::Progress(progress));
    }

    fn take(&mut self) -> Next {
        match (self.queue.pop_front(), &self.failed) {
            (Some(item), _) => Next::Item(item),
            (None, Some(error)) => Next::Failed(error.clone()),
            (None, None) if self.positions.is_empty() => Next::End,
            (None, None) => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::progress::SearchState;

    use super::*;

    #[test]
    fn what_several_streams_have_scanned_adds_up_and_none_counts_twice() {
        let mut state = State::new(&[]);
        let progress = |withheld| Progress {
            scanned: Scanned { bytes: 100 * withheld, withheld, ..Scanned::default() },
            state: SearchState::Running,
            positions: Vec::new(),
        };
        let (mut first, mut second) = (Scanned::default(), Scanned::default());
        for (withheld, of_stream, sum) in [(1, 0, 1), (3, 0, 3), (2, 1, 5), (4, 0, 6), (2, 1, 6)] {
            let of_stream = if of_stream == 0 { &mut first } else { &mut second };
            state.progressed(progress(withheld), of_stream);
            assert_eq!((state.scanned.withheld, state.scanned.bytes), (sum, 100 * sum));
        }
    }
}
