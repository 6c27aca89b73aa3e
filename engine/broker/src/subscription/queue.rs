//! The queue of a subscription: events of dead letters that were redriven to it alone.
//!
//! For the rules of delivery it is one more partition, behind those of the topic, whose offsets are the events' numbers in
//! the queue. Consumers see where each event was in the topic. So each is read, and delivered, on its own: neighbours may
//! have been anywhere. While nothing was ever redriven, the queue costs a look at a number.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use levada_chain::{Chain, Input, Source};
use levada_delivery::subscription::{Acked, CameBack, Subscription};
use levada_protocol::{
    deliver::Run,
    event::Event,
    ids::{DeliveryToken, Offset, PartitionId, SubscriptionId},
    verbs::Verb,
};
use levada_store::Store;

use super::slices::{FoundSlices, Slices, event_in, keys_of};
use crate::{
    chains,
    error::Error,
    frames::LogSlice,
    log::blocking,
    queue_ends::QueueEnd,
    rows::{self, QueuedEvent},
};

/// How far above the oldest event that has not come to its end others are delivered: what is known of them is in memory.
const WINDOW: u64 = 16_384;
/// Rows, and their bytes, that one read brings at most, but for one row more.
const READ_ROWS: usize = 64;
const READ_BYTES: usize = 256 * 1024;

/// Where an event of the queue was in the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
}

/// The queue of one subscription, as its owner sees it.
pub(super) struct Queue {
    of: Of,
    partition: PartitionId,
    end: Arc<QueueEnd>,
    /// The end that the rules of delivery know.
    told: u64,
    /// Events that were read ahead; at most those of two reads, or of the last one if it is larger.
    ahead: BTreeMap<u64, QueuedEvent>,
    /// Where those were that were read and have not come to their end, as far as the floor shows it.
    places: BTreeMap<u64, Place>,
}

/// Whose rows are read, and where.
#[derive(Clone)]
pub(super) struct Of {
    pub(super) store: Arc<dyn Store>,
    pub(super) subscription: SubscriptionId,
}

/// An event of the queue on its way to consumers.
#[derive(Debug)]
pub(super) struct Queued {
    /// `None` if it is not there: it counts as settled.
    pub(super) place: Option<Place>,
    pub(super) found: FoundSlices,
    /// Those that follow it, which were read along with it.
    pub(super) ahead: Vec<(u64, QueuedEvent)>,
}

impl Queue {
    /// The queue that is the rules' partition of this number.
    pub(super) fn new(of: Of, partition: PartitionId, end: Arc<QueueEnd>) -> Self {
        Self { of, partition, end, told: 0, ahead: BTreeMap::new(), places: BTreeMap::new() }
    }

    /// Its number among the partitions.
    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn of(&self) -> Of {
        self.of.clone()
    }

    /// True if it may have an end that the rules of delivery are yet to be told.
    pub(super) fn is_ahead(&self) -> bool {
        self.told != self.end.get()
    }

    /// The end to tell, where everything below `floor` has come to its end; `None` if it is known.
    pub(super) fn next_end(&mut self, floor: Offset) -> Option<Offset> {
        let end = self.end.get().min(floor.0.saturating_add(WINDOW));
        let is_new = end > self.told;
        self.told = self.told.max(end);
        is_new.then_some(Offset(end))
    }

    /// Takes an event that was read ahead.
    pub(super) fn take_ahead(&mut self, number: u64) -> Option<QueuedEvent> {
        self.ahead.remove(&number)
    }

    /// Keeps what was learned with the event of this number.
    pub(super) fn keep(&mut self, number: Offset, place: Option<Place>, ahead: Vec<(u64, QueuedEvent)>) {
        if let Some(place) = place {
            self.places.insert(number.0, place);
        }
        let bytes = |event: &QueuedEvent| event.batch.len();
        let held: usize = self.ahead.values().map(bytes).sum();
        let more: usize = ahead.iter().map(|(_, event)| bytes(event)).sum();
        // What is read ahead again and again stays bounded: it can be read once more.
        if self.ahead.len() + ahead.len() > 2 * READ_ROWS || held + more > 2 * READ_BYTES {
            self.ahead.clear();
        }
        self.ahead.extend(ahead);
    }

    /// Lets go of what is below the floor.
    pub(super) fn settle(&mut self, floor: Offset) {
        if self.places.first_key_value().is_some_and(|(number, _)| *number < floor.0) {
            self.places = self.places.split_off(&floor.0);
        }
        if self.ahead.first_key_value().is_some_and(|(number, _)| *number < floor.0) {
            self.ahead = self.ahead.split_off(&floor.0);
        }
    }

    /// Where the event of this number was, if it was read.
    pub(super) fn place(&self, number: Offset) -> Option<Place> {
        self.places.get(&number.0).copied()
    }

    /// What the wire calls an offset of a partition: the same, except in the queue; `None` for an event of the queue that
    /// was not read yet.
    pub(super) fn shown(&self, partition: PartitionId, offset: Offset) -> Option<Place> {
        if partition == self.partition { self.place(offset) } else { Some(Place { partition, offset }) }
    }

    /// A verb about an event of the queue, as the rules of delivery know it; `None` if it is about no such event.
    pub(super) fn verb(&self, state: &Subscription, verb: &Verb) -> Option<Verb> {
        let (first, last) = self.named(state, verb.token, verb.partition, (verb.first, verb.last))?;
        Some(Verb { partition: self.partition, first, last, ..verb.clone() })
    }

    /// The same for what a transaction acknowledges.
    pub(super) fn acked(&self, state: &Subscription, acked: Acked) -> Acked {
        match self.named(state, acked.token, acked.partition, (acked.first, acked.last)) {
            Some((first, last)) => Acked { partition: self.partition, first, last, ..acked },
            None => acked,
        }
    }

    /// What a consumer is told of events whose verb could not be committed.
    pub(super) fn came_back(&self, back: CameBack) -> CameBack {
        match self.place(back.first).filter(|_| back.partition == self.partition) {
            Some(Place { partition, offset }) => CameBack { partition, first: offset, last: offset, ..back },
            None => back,
        }
    }

    /// The numbers of what is named by its delivery and its place in the topic: none, if the delivery is of the queue and
    /// holds another event. `None` if it is of no queue.
    fn named(
        &self,
        state: &Subscription,
        token: DeliveryToken,
        partition: PartitionId,
        (first, last): (Offset, Offset),
    ) -> Option<(Offset, Offset)> {
        if self.places.is_empty() {
            return None;
        }
        let (_, number) = state.place_of(token).filter(|(of, _)| *of == self.partition)?;
        let is_it = self
            .place(number)
            .is_some_and(|place| place.partition == partition && (first..=last).contains(&place.offset));
        // No event has the last number.
        Some(if is_it { (number, number) } else { (Offset(u64::MAX), Offset(u64::MAX)) })
    }
}

impl Queued {
    /// An event for consumers, where there is no chain.
    pub(super) fn stored(number: Offset, event: QueuedEvent) -> Result<Self, Error> {
        let place = Place::of(&event);
        let piece = piece_at(number, event)?;
        let found = FoundSlices::stored(Slices::stored(number, vec![piece])?);
        Ok(Self { place: Some(place), found, ahead: Vec::new() })
    }

    /// What a chain makes of an event, which it is given as of its place in the topic.
    async fn filtered(
        number: Offset,
        event: QueuedEvent,
        chain: &Chain,
        needs_keys: bool,
    ) -> Result<Self, Error> {
        let place = Place::of(&event);
        let Place { partition, offset } = place;
        let piece = piece_at(offset, event)?;
        let keys = needs_keys.then(|| keys_of(std::slice::from_ref(&piece))).transpose()?;
        let sources = [Source::of(piece)?];
        let input = Input { partition, offsets: offset..offset.plus(1), sources: &sources };
        let mut filtered = chain.filter(input).await;
        let paused = filtered.progress.paused.take().map(Box::new);
        let mut dead_letters = filtered.progress.dead_letters.clone();
        dead_letters.iter_mut().for_each(|it| it.offset = number);
        // A dead letter has no time to live.
        let slices = Slices::filtered(offset, filtered, keys, Vec::new())?.renumbered(number);
        let found = FoundSlices { slices, dead_letters, paused };
        Ok(Self { place: Some(place), found, ahead: Vec::new() })
    }
}

impl Place {
    fn of(event: &QueuedEvent) -> Self {
        Self { partition: event.partition, offset: event.offset }
    }
}

/// Reads the event at the front of `numbers` unless it `is_read`, and runs it through the chain if there is one.
pub(super) async fn bring(
    of: Of,
    numbers: Range<Offset>,
    is_read: Option<QueuedEvent>,
    chain: Option<Arc<chains::Attached>>,
    needs_keys: bool,
) -> Result<Queued, Error> {
    let number = numbers.start;
    let (event, ahead) = match is_read {
        Some(event) => (Some(event), Vec::new()),
        None => {
            let mut rows = read(of.clone(), numbers.clone()).await?.into_iter().peekable();
            let event = rows.next_if(|(found, _)| *found == number.0).map(|(_, event)| event);
            (event, rows.collect())
        }
    };
    let Some(event) = event else {
        tracing::warn!(
            subscription = of.subscription.0,
            number = number.0,
            "an event that was redriven is not in its subscription's queue: a commit that settled it was stored although its \
             outcome was unknown, or the row is lost"
        );
        let found = FoundSlices::stored(Slices::without_events(number..number.plus(1)));
        return Ok(Queued { place: None, found, ahead });
    };
    let queued = match chain {
        Some(attached) => Queued::filtered(number, event, &attached.chain, needs_keys).await?,
        None => Queued::stored(number, event)?,
    };
    Ok(Queued { ahead, ..queued })
}

/// The event of this number and its place, if it is there.
pub(super) async fn read_event(of: Of, number: Offset) -> Result<Option<(Place, Event)>, Error> {
    let found = read(of, number..number.plus(1)).await?.into_iter().next();
    let Some((_, event)) = found else { return Ok(None) };
    let place = Place::of(&event);
    Ok(event_in(&piece_at(number, event)?, number)?.map(|event| (place, event)))
}

async fn read(of: Of, numbers: Range<Offset>) -> Result<Vec<(u64, QueuedEvent)>, Error> {
    blocking(move || {
        let Of { store, subscription } = of;
        let range = QueuedEvent::between(subscription, numbers.start.0, numbers.end.0);
        let rows = rows::first::<QueuedEvent>(store.as_ref(), &range, READ_ROWS, READ_BYTES)?;
        Ok(rows.into_iter().map(|((_, number), event)| (number, event)).collect())
    })
    .await
}

/// An event as a piece of a log that has it at `offset`.
fn piece_at(offset: Offset, event: QueuedEvent) -> Result<LogSlice, Error> {
    let run = Run { base: offset, append_time: event.time, hops: 0, batches: event.batch };
    Ok(LogSlice::of(run, true)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use levada_delivery::subscription::ConsumerId;
    use levada_protocol::ids::Timestamp;
    use levada_store::MemoryStore;

    use super::*;
    use crate::queue_ends::QueueEnds;

    const ID: SubscriptionId = SubscriptionId(7);

    fn queue(ends: &QueueEnds) -> Queue {
        let of = Of { store: Arc::new(MemoryStore::default()), subscription: ID };
        Queue::new(of, PartitionId(4), ends.of(ID))
    }

    fn event(offset: u64) -> QueuedEvent {
        let (partition, offset, time) = (PartitionId(1), Offset(offset), Timestamp(0));
        QueuedEvent { partition, offset, time, batch: Bytes::new() }
    }

    #[test]
    fn the_rules_learn_of_so_many_events_above_the_floor_and_of_more_once_it_rises() {
        let ends = QueueEnds::default();
        let mut queue = queue(&ends);
        assert!(!queue.is_ahead(), "nothing was redriven");
        ends.set(ID, WINDOW);
        assert!(queue.is_ahead());
        assert_eq!((queue.next_end(Offset(0)), queue.is_ahead()), (Some(Offset(WINDOW)), false));
        ends.set(ID, WINDOW + 5);
        assert_eq!((queue.next_end(Offset(0)), queue.is_ahead()), (None, true));
        assert_eq!(queue.next_end(Offset(3)), Some(Offset(WINDOW + 3)));
        assert_eq!((queue.next_end(Offset(9)), queue.is_ahead()), (Some(Offset(WINDOW + 5)), false));
    }

    #[test]
    fn what_is_known_of_events_goes_when_the_floor_passes_and_what_is_read_ahead_is_bounded() {
        let mut queue = queue(&QueueEnds::default());
        let reads =
            |from: u64| (from..from + READ_ROWS as u64).map(|number| (number, event(number))).collect();
        queue.keep(Offset(0), Some(Place { partition: PartitionId(1), offset: Offset(40) }), reads(1));
        queue.keep(Offset(1_000), None, reads(1_000));
        assert_eq!(queue.ahead.len(), 2 * READ_ROWS);
        assert_eq!(queue.take_ahead(5), Some(event(5)));
        assert_eq!(queue.take_ahead(5), None);
        queue.keep(Offset(2_000), None, reads(2_000));
        assert_eq!((queue.ahead.len(), queue.take_ahead(6)), (READ_ROWS, None), "it is read again");
        queue.settle(Offset(2_010));
        assert_eq!((queue.ahead.len(), queue.place(Offset(0))), (READ_ROWS - 10, None));
        queue.settle(Offset(2_500));
        let large = QueuedEvent { batch: vec![0; READ_BYTES].into(), ..event(3_000) };
        queue.keep(Offset(2_999), None, vec![(3_000, large.clone())]);
        queue.keep(Offset(3_000), None, vec![(3_001, large.clone())]);
        assert_eq!(queue.ahead.len(), 2, "as many bytes as two reads bring");
        queue.keep(Offset(3_001), None, vec![(3_002, large)]);
        assert_eq!(queue.ahead.len(), 1);
    }

    #[test]
    fn an_event_of_the_queue_is_shown_where_it_was_and_any_other_where_it_is() {
        let mut queue = queue(&QueueEnds::default());
        let place = Place { partition: PartitionId(1), offset: Offset(40) };
        queue.keep(Offset(3), Some(place), Vec::new());
        assert_eq!(queue.shown(PartitionId(4), Offset(3)), Some(place));
        assert_eq!(queue.shown(PartitionId(4), Offset(5)), None, "it was not read yet");
        let other = Place { partition: PartitionId(2), offset: Offset(3) };
        assert_eq!(queue.shown(other.partition, other.offset), Some(other));
        let back = CameBack {
            consumer: ConsumerId(1),
            partition: PartitionId(4),
            first: Offset(3),
            last: Offset(3),
        };
        let told = queue.came_back(back);
        assert_eq!((told.partition, told.first, told.last), (place.partition, place.offset, place.offset));
        let of_log = CameBack { partition: PartitionId(2), ..back };
        assert_eq!(queue.came_back(of_log), of_log);
    }
}
