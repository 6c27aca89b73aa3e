//! How far one subscription or route has come in a topic.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_delivery::progress::{CHUNK_OFFSETS, Chunk};
use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::Store;

use crate::{
    depth::Depth,
    error::Error,
    rows::Row,
    shard::tables::partitions::{Partitions, Reach},
};

/// Where a partition's log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Start {
    pub(super) offset: Offset,
    /// Bytes of batches before it.
    pub(super) dropped_bytes: u64,
}

/// A topic's log, to find out where an event lies in it.
pub(super) struct View<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) partitions: &'a Partitions,
    pub(super) topic: TopicId,
    pub(super) starts: &'a [Start],
    /// How far each partition reaches.
    pub(super) reaches: Vec<Reach>,
}

/// What a subscription or a route is done with, in every partition of its topic.
#[derive(Debug, Default)]
pub(super) struct Standing {
    places: Vec<Place>,
    /// Places that are to be counted anew.
    stale: Vec<usize>,
    /// How many offsets are settled, over all places; as of the last count.
    settled: u64,
}

/// The same in one partition.
#[derive(Debug, Default)]
struct Place {
    /// Everything below is settled.
    floor: u64,
    /// What is settled above it: the rows that hold it, of at most 8 KiB each, by the index of their chunk.
    chunks: BTreeMap<u64, Bytes>,
    is_stale: bool,
    /// As of the last count: the first offset that is neither settled nor dropped, and how many above it are settled.
    first: u64,
    above: u64,
    known: Known,
}

/// What was found out last about where the first unsettled event lies. As that event only moves on, except by a seek, it
/// lies there or further on.
#[derive(Debug, Default)]
struct Known {
    /// The event that it is about; `None` if it is about none.
    of: Option<u64>,
    bytes_before: u64,
    /// `None` if it is of the commit in the making.
    time: Option<Timestamp>,
}

impl Standing {
    /// One that begins at these offsets.
    pub(super) fn new(floors: impl IntoIterator<Item = Offset>) -> Self {
        let places: Vec<Place> = floors.into_iter().map(Place::new).collect();
        Self { stale: (0..places.len()).collect(), places, settled: 0 }
    }

    fn change(&mut self, number: PartitionId, change: impl FnOnce(&mut Place)) {
        let index = usize::from(number.0);
        let Some(place) = self.places.get_mut(index) else { return };
        change(place);
        if !std::mem::replace(&mut place.is_stale, true) {
            self.stale.push(index);
        }
    }

    /// Everything below is settled.
    pub(super) fn raise(&mut self, number: PartitionId, floor: Offset) {
        self.change(number, |place| place.floor = place.floor.max(floor.0));
    }

    /// What is settled of a chunk above the floor: the bytes of its row, or nothing.
    pub(super) fn set_chunk(&mut self, number: PartitionId, index: u64, row: Option<Bytes>) {
        self.change(number, |place| {
            match row {
                Some(row) => place.chunks.insert(index, row),
                None => place.chunks.remove(&index),
            };
        });
    }

    /// It begins anew in a partition.
    pub(super) fn move_to(&mut self, number: PartitionId, floor: Offset) {
        self.change(number, |place| {
            let Place { is_stale, first, above, .. } = *place;
            *place = Place { is_stale, first, above, ..Place::new(floor) };
        });
    }

    /// The log begins elsewhere.
    pub(super) fn trimmed(&mut self, number: PartitionId) {
        self.change(number, |_| {});
    }

    /// Counts what has changed since the last count.
    pub(super) fn count(&mut self, starts: &[Start]) {
        for index in std::mem::take(&mut self.stale) {
            let place = &mut self.places[index];
            self.settled -= place.first + place.above;
            place.count(starts[index].offset.0);
            self.settled += place.first + place.above;
        }
    }

    /// How many events are unsettled, as of the last count.
    pub(super) fn events(&self, view: &View<'_>) -> u64 {
        let ends: u64 = view.reaches.iter().map(|reach| reach.next.0).sum();
        ends.saturating_sub(self.settled)
    }

    /// How many bytes lie behind the first unsettled event's batch, that included: exactly if they are more than
    /// `enough`, which may cost reads, else perhaps fewer than this.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) fn bytes(&mut self, view: &View<'_>, enough: u64) -> Result<u64, Error> {
        let mut all: u64 = (0..self.places.len()).map(|index| self.bytes_of(view, index)).sum();
        let mut tried = vec![false; if all > enough { self.places.len() } else { 0 }];
        while all > enough {
            // The most first, so that few reads are enough.
            let unsure =
                (0..self.places.len()).filter(|index| !tried[*index] && self.is_unsure(view, *index));
            let Some(index) = unsure.max_by_key(|index| self.bytes_of(view, *index)) else { break };
            tried[index] = true;
            let before = self.bytes_of(view, index);
            self.look_up(view, index)?;
            all = all - before + self.bytes_of(view, index);
        }
        Ok(all)
    }

    /// When the oldest unsettled event was appended: exactly if that is before `enough`, which may cost reads, else perhaps
    /// later than this; `None` if there is none, or none that is not of the commit in the making.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) fn oldest(
        &mut self,
        view: &View<'_>,
        enough: Timestamp,
    ) -> Result<Option<(PartitionId, Timestamp)>, Error> {
        let mut oldest: Option<(PartitionId, Timestamp)> = None;
        for (index, number) in (0..self.places.len()).zip((0..).map(PartitionId)) {
            if !self.is_open(view, index) {
                continue;
            }
            let known = &self.places[index].known;
            let is_sure = known.of == Some(self.places[index].first) && known.time.is_some();
            if !is_sure && known.time.is_none_or(|time| time < enough) {
                self.look_up(view, index)?;
            }
            let time = self.places[index].known.time;
            if let Some(time) = time.filter(|time| oldest.is_none_or(|(_, least)| *time < least)) {
                oldest = Some((number, time));
            }
        }
        Ok(oldest)
    }

    /// The first unsettled event of a partition, as of the last count.
    pub(super) fn first(&self, number: PartitionId) -> Offset {
        self.places.get(usize::from(number.0)).map_or(Offset(0), |place| Offset(place.first))
    }

    /// A partition with an unsettled event, if there is one.
    pub(super) fn any_open(&self, view: &View<'_>) -> Option<PartitionId> {
        let mut open = (0..self.places.len()).zip((0..).map(PartitionId));
        open.find(|(index, _)| self.is_open(view, *index)).map(|(_, number)| number)
    }

    /// Forgets when events were appended, as the clock was set back.
    pub(super) fn forget_times(&mut self) {
        self.places.iter_mut().for_each(|place| place.known.time = None);
    }

    fn is_open(&self, view: &View<'_>, index: usize) -> bool {
        self.places[index].first < view.reaches[index].next.0
    }

    /// True if the bytes of a place are perhaps fewer than is known.
    fn is_unsure(&self, view: &View<'_>, index: usize) -> bool {
        let place = &self.places[index];
        let at_start = place.first == view.starts[index].offset.0;
        self.is_open(view, index) && !at_start && place.known.of != Some(place.first)
    }

    fn bytes_of(&self, view: &View<'_>, index: usize) -> u64 {
        if !self.is_open(view, index) {
            return 0;
        }
        let before = self.places[index].known.bytes_before.max(view.starts[index].dropped_bytes);
        let number = PartitionId(u16::try_from(index).expect("a topic has few partitions"));
        view.partitions.bytes_behind((view.topic, number), before)
    }

    /// Finds out where a place's first unsettled event lies.
    fn look_up(&mut self, view: &View<'_>, index: usize) -> Result<(), Error> {
        let number = PartitionId(u16::try_from(index).expect("a topic has few partitions"));
        let (of, place) = ((view.topic, number), &mut self.places[index]);
        let first = place.first;
        let found = Depth::find(view.store, of, Offset(first))?;
        let written = view.partitions.written(of);
        if let Some(depth) = found {
            place.known = Known { of: Some(first), bytes_before: depth.bytes_before, time: Some(depth.time) };
        } else if written.next.0 == first {
            // It is the first of the commit in the making.
            place.known = Known { of: Some(first), bytes_before: written.bytes, time: None };
        }
        Ok(())
    }
}

impl Place {
    fn new(floor: Offset) -> Self {
        Self { floor: floor.0, is_stale: true, ..Self::default() }
    }

    fn count(&mut self, start: u64) {
        (self.is_stale, self.first, self.above) = (false, self.floor.max(start), 0);
        for (index, row) in &self.chunks {
            let base = index * CHUNK_OFFSETS;
            if base + CHUNK_OFFSETS <= self.first {
                continue;
            }
            // Whatever is kept was encoded here, or read and checked.
            let Ok(chunk) = Chunk::decode(row) else { continue };
            for run in chunk.runs() {
                let (from, to) = (base + run.start, base + run.end);
                if from <= self.first {
                    self.first = self.first.max(to);
                } else {
                    self.above += to - from;
                }
            }
        }
    }
}
