//! Reads under way: of the log, and through the chain; and what earlier ones brought.
//!
//! Nothing here waits for a read: whoever owns the reads is told when one ends. It must not know consumers.

use levada_chain::{Chain, Input, Source};
use levada_stage::BoxFuture;
use std::{future::poll_fn, ops::Range, sync::Arc, task::Poll};

use levada_delivery::subscription::Fetch;
use levada_protocol::{
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
    request::Order,
};

use super::{
    lifetimes::Lifetimes,
    queue::{self, Queue, Queued},
    retained::{RetainBudget, Retained},
    slices::{FoundSlices, Slices, event_in, keys_of},
};
use crate::{
    chains,
    error::Error,
    frames::LogSlice,
    log::{Log, ReadOutcome},
};

/// Reads that may be under way at once.
const READS_MAX: usize = 4;
/// Bytes that one read of the log brings at most.
const READ_BYTES: usize = 512 * 1024;

/// The reads of one subscription.
pub(super) struct Reads {
    logs: Vec<Log>,
    queue: Queue,
    /// The subscription's: by key, the keys of events must be found before a chain changes them.
    order: Order,
    under_way: Vec<Read>,
    retained: Retained,
}

/// A read under way.
struct Read {
    fetch: Fetch,
    work: BoxFuture<Result<Brought, Error>>,
}

/// A read through a chain.
struct ThroughChain {
    order: Order,
    /// Keys matter now.
    needs_keys: bool,
    partition: PartitionId,
    range: Range<Offset>,
    /// When it began.
    now: Timestamp,
}

/// How a read begins.
#[derive(Debug)]
pub(super) enum Begun {
    /// What is wanted is in memory.
    Retained(Fetch),
    /// It ended at once.
    Ended(Fetch, Brought),
    /// It ends later.
    UnderWay,
    /// As many as may be are under way.
    Full(Fetch),
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Brought {
    Slices(FoundSlices),
    /// An event that was redriven to the subscription alone.
    Queued(Box<Queued>),
    /// There is nothing yet.
    End,
    /// The log begins here now.
    Dropped(Offset),
}

impl Reads {
    pub(super) fn new(logs: Vec<Log>, queue: Queue, order: Order, budget: Arc<RetainBudget>) -> Self {
        let retained = Retained::new(logs.len(), budget);
        Self { logs, queue, order, under_way: Vec::new(), retained }
    }

    /// What was redriven to the subscription alone.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Begins a read, through the chain if there is one, which is not given what has expired `now`.
    pub(super) fn begin(
        &mut self,
        fetch: Fetch,
        chain: Option<&Arc<chains::Attached>>,
        now: Timestamp,
    ) -> Result<Begun, (Fetch, Error)> {
        let (partition, range) = (fetch.partition, fetch.range.clone());
        if self.retained.find(partition, range.start).is_some() {
            return Ok(Begun::Retained(fetch));
        }
        if partition == self.queue.partition() {
            return self.begin_queued(fetch, chain);
        }
        let log = &self.logs[usize::from(partition.0)];
        // A chain may pass little of much.
        let room = usize::try_from(fetch.bytes_max).unwrap_or(usize::MAX);
        let bytes = if chain.is_some() { READ_BYTES } else { READ_BYTES.min(room.saturating_mul(2)) };
        let found = match (log.read_now(&range, bytes), chain) {
            (Some(found), None) => {
                return match stored(range.start, found) {
                    Ok(brought) => Ok(Begun::Ended(fetch, brought)),
                    Err(error) => Err((fetch, error)),
                };
            }
            (found, _) => found,
        };
        if self.under_way.len() >= READS_MAX {
            return Ok(Begun::Full(fetch));
        }
        let (log, attached) = (log.clone(), chain.map(Arc::clone));
        let (order, needs_keys) = (self.order, fetch.needs_keys);
        let work = Box::pin(async move {
            let found = match found {
                Some(found) => found,
                None => log.read_range(range.clone(), bytes).await?,
            };
            match attached {
                Some(attached) => {
                    let of = ThroughChain { order, needs_keys, partition, range, now };
                    filtered(&attached.chain, of, found).await
                }
                None => stored(range.start, found),
            }
        });
        self.under_way.push(Read { fetch, work });
        Ok(Begun::UnderWay)
    }

    /// As [`Reads::begin`], of the queue.
    fn begin_queued(
        &mut self,
        fetch: Fetch,
        chain: Option<&Arc<chains::Attached>>,
    ) -> Result<Begun, (Fetch, Error)> {
        let numbers = fetch.range.clone();
        if chain.is_none()
            && let Some(event) = self.queue.take_ahead(numbers.start.0)
        {
            return match Queued::stored(numbers.start, event) {
                Ok(queued) => Ok(Begun::Ended(fetch, Brought::Queued(Box::new(queued)))),
                Err(error) => Err((fetch, error)),
            };
        }
        if self.under_way.len() >= READS_MAX {
            return Ok(Begun::Full(fetch));
        }
        let (of, is_read) = (self.queue.of(), self.queue.take_ahead(numbers.start.0));
        let bringing = queue::bring(of, numbers, is_read, chain.map(Arc::clone), self.order == Order::Key);
        let work = Box::pin(async move { bringing.await.map(|queued| Brought::Queued(Box::new(queued))) });
        self.under_way.push(Read { fetch, work });
        Ok(Begun::UnderWay)
    }

    /// Waits for a read to end; for ever if none is under way. Cancel safe.
    pub(super) async fn ended(&mut self) -> (Fetch, Result<Brought, Error>) {
        poll_fn(|context| {
            for index in 0..self.under_way.len() {
                if let Poll::Ready(brought) = self.under_way[index].work.as_mut().poll(context) {
                    return Poll::Ready((self.under_way.swap_remove(index).fetch, brought));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Gives up everything under way and lets go of what was read; returns the fetches.
    pub(super) fn restart(&mut self) -> Vec<Fetch> {
        self.retained.clear();
        self.under_way.drain(..).map(|read| read.fetch).collect()
    }

    /// Keeps what was read, as [`Retained::add`] does.
    pub(super) fn retain(
        &mut self,
        partition: PartitionId,
        slices: Slices,
        needed: impl Fn(PartitionId, &Range<Offset>) -> bool,
    ) {
        self.retained.add(partition, slices, needed);
    }

    /// The stretch in memory that holds the first offset of a fetch, with keys if it needs them and without what has
    /// outlived its time to live; `None` if none does.
    ///
    /// # Errors
    /// If a batch is damaged.
    pub(super) fn find(&mut self, fetch: &Fetch, now: Timestamp) -> Result<Option<&Slices>, Error> {
        let (partition, offset) = (fetch.partition, fetch.range.start);
        self.retained.expire(partition, offset, now);
        if fetch.needs_keys {
            self.retained.find_keyed(partition, offset)
        } else {
            Ok(self.retained.find(partition, offset))
        }
    }

    /// Lets go of what is below a floor.
    pub(super) fn settle(&mut self, partition: PartitionId, floor: Offset) {
        self.retained.settle(partition, floor);
        if partition == self.queue.partition() {
            self.queue.settle(floor);
        }
    }

    /// The stored event at an offset, if it is in memory.
    pub(super) fn event(&self, partition: PartitionId, offset: Offset) -> Option<Event> {
        self.retained.find(partition, offset)?.event(offset)
    }

    /// The log of a partition.
    pub(super) fn log(&self, partition: PartitionId) -> &Log {
        &self.logs[usize::from(partition.0)]
    }
}

/// The event at an offset, if it is still stored.
pub(super) async fn read_event(log: &Log, offset: Offset) -> Result<Option<Event>, Error> {
    let ReadOutcome::Pieces(pieces) = log.read_range(offset..offset.plus(1), 1).await? else {
        return Ok(None);
    };
    for piece in &pieces {
        if let Some(event) = event_in(piece, offset)? {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// What was found, where there is no chain.
fn stored(from: Offset, found: ReadOutcome) -> Result<Brought, Error> {
    Ok(match found {
        ReadOutcome::Pieces(pieces) => Brought::Slices(FoundSlices::stored(Slices::stored(from, pieces)?)),
        ReadOutcome::End => Brought::End,
        ReadOutcome::Dropped(start) => Brought::Dropped(start),
    })
}

/// What a chain makes of what was found. By key it comes with the keys as they are stored, if these are needed now or cannot
/// be found in it later. It is not given what has expired.
async fn filtered(chain: &Chain, of: ThroughChain, found: ReadOutcome) -> Result<Brought, Error> {
    let ThroughChain { order, needs_keys, partition, range, now } = of;
    let ReadOutcome::Pieces(mut pieces) = found else { return stored(range.start, found) };
    let end = pieces.last().map_or(range.start, LogSlice::end).min(range.end);
    let given = if order == Order::Key { pieces.clone() } else { Vec::new() };
    let expired = Lifetimes::of(&pieces, range.start)?.end(now);
    if !expired.is_empty() {
        let mut live = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            live.extend(piece.without(&expired)?);
        }
        pieces = live;
    }
    let sources = pieces.into_iter().map(Source::of).collect::<Result<Vec<_>, _>>()?;
    let input = Input { partition, offsets: range.start..end, sources: &sources };
    let mut filtered = chain.filter(input).await;
    let paused = filtered.progress.paused.take().map(Box::new);
    let dead_letters = filtered.progress.dead_letters.clone();
    let with_keys = order == Order::Key && (needs_keys || filtered.rekeyed);
    let keys = with_keys.then(|| keys_of(&given)).transpose()?;
    let slices = Slices::filtered(range.start, filtered, keys, expired)?;
    Ok(Brought::Slices(FoundSlices { slices, dead_letters, paused }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use levada_chain::{ChainStage, Counted};
    use levada_delivery::subscription::EventKey;
    use levada_protocol::{
        request::OnError,
        verdict::{Change, Output, VerdictWriter},
    };
    use levada_stage::{CallInput, CallOutcome, CallOutput, Stage, StageStats};

    use super::{
        super::slices::tests::{key, keyed_piece},
        *,
    };

    /// Gives three events another key if it is to, drops the fourth, rejects the fifth, and so on.
    struct Changes {
        keys: bool,
    }

    impl Stage for Changes {
        fn call(&self, input: CallInput) -> BoxFuture<CallOutcome> {
            let mut answer = VerdictWriter::new();
            for index in 0..input.events {
                match index % 5 {
                    3 => answer.drop_event(),
                    4 => answer.reject("not this one"),
                    _ if self.keys => {
                        answer.emit(&[Output { key: Change::Set(b"other"), ..Output::default() }]);
                    }
                    _ => answer.emit(&[Output::default()]),
                }
            }
            let result = Ok(CallOutput::stateless(answer.finish()));
            Box::pin(async move { CallOutcome { result, time_spent: Duration::ZERO } })
        }

        fn stats(&self) -> StageStats {
            StageStats::default()
        }
    }

    async fn keys_through_a_chain(order: Order, needs_keys: bool, changes: bool) -> (Slices, Vec<EventKey>) {
        let stage = ChainStage {
            stage: Counted::new(Arc::new(Changes { keys: changes })),
            plugin: "changes".to_owned(),
            version: 1,
            on_error: OnError::DeadLetter,
            retries: 0,
            deadline: Duration::from_secs(1),
        };
        let chain = Chain::new(vec![stage], 1, Arc::new(|| Duration::ZERO));
        let pieces = vec![
            keyed_piece(&[(10, Some("before")), (11, Some("a")), (12, None)]),
            keyed_piece(&[(13, Some("")), (14, Some("dropped")), (16, Some("rejected")), (17, Some("a"))]),
            keyed_piece(&[(18, Some("b")), (19, Some("behind"))]),
        ];
        let (range, found) = (Offset(11)..Offset(19), ReadOutcome::Pieces(pieces));
        let partition = PartitionId(0);
        let of = ThroughChain { order, needs_keys, partition, range, now: Timestamp(0) };
        let brought = filtered(&chain, of, found).await.unwrap();
        let Brought::Slices(FoundSlices { slices, .. }) = brought else { panic!("{brought:?}") };
        let keys = slices.fetched(Offset(11), true).keys.unwrap().to_vec();
        (slices, keys)
    }

    #[tokio::test]
    async fn events_that_pass_a_chain_have_the_keys_that_they_were_stored_with() {
        for needs_keys in [true, false] {
            events_have_their_stored_keys(needs_keys).await;
        }
    }

    async fn events_have_their_stored_keys(needs_keys: bool) {
        let (mut slices, keys) = keys_through_a_chain(Order::Key, needs_keys, true).await;
        let stored = [
            key(11, Some("a")),
            key(12, None),
            key(13, Some("")),
            key(14, Some("dropped")),
            key(16, Some("rejected")),
            key(17, Some("a")),
            key(18, Some("b")),
        ];
        assert_eq!(keys, stored, "also of what it dropped and rejected");
        let passed = slices.select(&[slices.range()]).unwrap();
        let made = [11, 12, 13, 17, 18].map(|offset| key(offset, Some("other")));
        assert_eq!(keys_of(&passed).unwrap(), made, "the chain has changed them");
        assert_eq!(slices.load_keys().unwrap(), 0, "what the chain made is not looked at");
    }

    #[tokio::test]
    async fn nobody_looks_for_keys_where_they_give_no_order() {
        assert_eq!(keys_through_a_chain(Order::Partition, false, true).await.1, []);
        assert_eq!(keys_through_a_chain(Order::None, false, true).await.1, []);
    }

    #[tokio::test]
    async fn nobody_looks_for_keys_that_no_chain_changed_before_they_are_needed() {
        let (mut slices, keys) = keys_through_a_chain(Order::Key, false, false).await;
        assert_eq!(keys, []);
        slices.load_keys().unwrap();
        let passed = [(11, Some("a")), (12, None), (13, Some("")), (17, Some("a")), (18, Some("b"))];
        let passed = passed.map(|(offset, name)| key(offset, name));
        assert_eq!(slices.fetched(Offset(11), true).keys, Some(&passed[..]), "those that passed");
    }
}
