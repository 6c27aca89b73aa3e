//! The batches of a transaction, and which event is where in them. Pure.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, Stamp},
    event::Event,
    ids::{Offset, PartitionId, TopicName},
    partition::partition_of,
    publish::PublishHeader,
    request::{TransactionBatch, TransactionInfo},
};

use crate::{error::Error, publisher::Receipt};

/// What a transaction holds.
pub(super) struct Plan<'a> {
    pub(super) topics: &'a [TopicName],
    pub(super) events: &'a [Planned],
    pub(super) expected: &'a HashMap<(usize, PartitionId), Offset>,
    /// Chooses the partition of an event without key and id.
    pub(super) spread: u32,
}

/// An event and where it is to go.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) topic: usize,
    pub(super) partition: Option<PartitionId>,
    pub(super) event: Event,
}

/// The batches of a transaction.
#[derive(Debug)]
pub(crate) struct Layout {
    batches: Vec<Laid>,
    /// For each event of the transaction its batch and its index in there.
    places: Vec<(usize, u32)>,
}

/// A batch and where it goes.
#[derive(Debug)]
struct Laid {
    topic: usize,
    partition: PartitionId,
    expected: Option<Offset>,
    batch: Batch,
}

/// The batch of a partition that is being filled.
struct Open {
    topic: usize,
    partition: PartitionId,
    /// The batches of the partition that are full come before.
    number: usize,
    builder: BatchBuilder,
}

impl Layout {
    /// Divides a transaction whose topics have so many partitions.
    pub(super) fn new(plan: &Plan<'_>, counts: &[u16]) -> Result<Self, Error> {
        let (mut open, mut done): (Vec<Open>, Vec<Option<Laid>>) = (Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(plan.events.len());
        for planned in plan.events {
            let (topic, event) = (planned.topic, &planned.event);
            let by_event = || partition_of_event(event, counts[topic], plan.spread);
            let partition = planned.partition.unwrap_or_else(by_event);
            let at = open.iter().position(|it| (it.topic, it.partition) == (topic, partition));
            let at = at.unwrap_or_else(|| {
                open.push(Open { topic, partition, number: done.len(), builder: BatchBuilder::new() });
                done.push(None);
                open.len() - 1
            });
            let filling = &mut open[at];
            match filling.builder.push(event) {
                Ok(()) => {}
                Err(BatchFull::TooLarge(error)) => return Err(error.into()),
                Err(BatchFull::HeaderReserved(error)) => return Err(error.into()),
                Err(BatchFull::Full) => {
                    done[filling.number] = Some(filling.finish());
                    filling.number = done.len();
                    done.push(None);
                    if let Err(full) = filling.builder.push(event) {
                        return Err(Error::Config { what: format!("an event fits no batch: {full}") });
                    }
                }
            }
            places.push((filling.number, filling.builder.count() - 1));
        }
        for mut filling in open {
            done[filling.number] = Some(filling.finish());
        }
        let mut batches: Vec<Laid> = done.into_iter().flatten().collect();
        for (place, offset) in plan.expected {
            let first = batches.iter_mut().find(|it| (it.topic, it.partition) == *place);
            let Some(first) = first else {
                let (topic, partition) = (&plan.topics[place.0], place.1);
                let what = format!(
                    "offset {offset} is expected of partition {partition} of topic {topic}, for which the transaction has no \
                     event"
                );
                return Err(Error::Config { what });
            };
            first.expected = Some(*offset);
        }
        Ok(Self { batches, places })
    }

    /// How many bytes the batches have.
    pub(super) fn bytes(&self) -> u64 {
        self.batches.iter().map(|laid| laid.batch.bytes().len() as u64).sum()
    }

    /// The frames of the batches.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        let frame = |laid: &Laid| {
            let header = PublishHeader {
                correlation: u32::try_from(laid.topic).unwrap_or(u32::MAX),
                partition: laid.partition,
                durability: None,
                expect_offset: laid.expected,
                due: None,
            };
            let batch = laid.batch.bytes();
            let prefix = header.frame_prefix(batch.len());
            let mut frame = BytesMut::with_capacity(prefix.len() + batch.len());
            frame.put_slice(&prefix);
            frame.put_slice(batch);
            frame.freeze()
        };
        self.batches.iter().map(frame).collect()
    }

    /// Where each event is, in the order in which they were added.
    pub(crate) fn receipts(&self, info: &TransactionInfo) -> Vec<Receipt> {
        let receipt = |(batch, index): &(usize, u32)| {
            let (partition, told) = (self.batches[*batch].partition, info.batches.get(*batch));
            let (offset, same_id) = told.map_or((None, false), |told| placed(told, *index));
            Receipt { partition, offset, duplicate: info.repeat || same_id, same_id }
        };
        self.places.iter().map(receipt).collect()
    }
}

/// The offset of a batch's event, and whether that is the one of another event with its id.
fn placed(batch: &TransactionBatch, index: u32) -> (Option<Offset>, bool) {
    let before = batch.duplicates.partition_point(|duplicate| duplicate.index < index);
    match batch.duplicates.get(before).filter(|duplicate| duplicate.index == index) {
        Some(duplicate) => (duplicate.offset.map(Offset), true),
        None => {
            let nth = u64::from(index) - before as u64;
            (batch.offset.map(|first| Offset(first).plus(nth)), false)
        }
    }
}

fn partition_of_event(event: &Event, count: u16, spread: u32) -> PartitionId {
    match (&event.key, &event.id) {
        _ if count <= 1 => PartitionId(0),
        (Some(key), _) => partition_of(key, count),
        (None, Some(id)) => partition_of(id.as_bytes(), count),
        (None, None) => PartitionId(u16::try_from(spread % u32::from(count)).unwrap_or(0)),
    }
}

impl Open {
    /// Ends the batch.
    fn finish(&mut self) -> Laid {
        // The transaction's id tells repeats, not a producer's sequence.
        let batch = self.builder.finish(Stamp::ENGINE);
        Laid { topic: self.topic, partition: self.partition, expected: None, batch }
    }
}
