//! The sink of a route's last stage: events become batches for the partitions of its targets.
//!
//! Must not know who appends them.

use levada_protocol::{
    batch::{BatchBuilder, EventRef, Stamp},
    ids::PartitionId,
    limits::{BATCH_BYTES_TARGET, CALL_OUTPUT_EVENTS_MAX},
    partition::partition_of,
};

use crate::{
    batches::ChainBatch,
    forward::Sink,
    outcome::{RouteBatch, Target},
    outputs::OutputRef,
    walk::EventReader,
};

/// Bytes after which a route's result is committed before more is made.
const COMMIT_BYTES_TARGET: usize = 1024 * 1024;

/// Collects events per target and partition.
#[derive(Debug)]
pub(crate) struct Router<'t> {
    targets: &'t [Target],
    source: PartitionId,
    /// Per target, once it was used: a slot per partition.
    slots: Vec<Vec<Slot>>,
    done: Vec<RouteBatch>,
    events: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    builder: BatchBuilder,
    hops: u8,
}

impl Slot {
    fn new() -> Self {
        // What comes may be a dead letter, with the engine's headers on top of a publisher's limits.
        Self { builder: BatchBuilder::of_engine(), hops: 0 }
    }
}

impl<'t> Router<'t> {
    /// A sink for events of the partition `source`; there is at least one target.
    pub(crate) fn new(targets: &'t [Target], source: PartitionId) -> Self {
        let slots = targets.iter().map(|_| Vec::new()).collect();
        Self { targets, source, slots, done: Vec::new(), events: 0, bytes: 0 }
    }

    /// The batches; those of one target's partition in order.
    pub(crate) fn finish(mut self) -> Vec<RouteBatch> {
        for (target, slots) in self.slots.iter_mut().enumerate() {
            for (partition, slot) in (0..).zip(slots) {
                slot.flush(target, PartitionId(partition), &mut self.done);
            }
        }
        self.done
    }

    /// By key, else by id, else as the source: a target's partition.
    #[inline]
    fn partition(&self, target: usize, key: Option<&[u8]>, id: Option<&str>) -> PartitionId {
        let partitions = self.targets[target].partitions.max(1);
        match key.or_else(|| id.map(str::as_bytes)) {
            _ if partitions == 1 => PartitionId(0),
            Some(bytes) => partition_of(bytes, partitions),
            None => PartitionId(self.source.0 % partitions),
        }
    }

    /// Pushes one event of about `len` bytes.
    #[inline]
    fn push(
        &mut self,
        target: usize,
        partition: PartitionId,
        from: &ChainBatch,
        len: usize,
        mut add: impl FnMut(&mut BatchBuilder) -> bool,
    ) {
        let slots = &mut self.slots[target];
        if slots.is_empty() {
            slots.resize_with(usize::from(self.targets[target].partitions.max(1)), Slot::new);
        }
        let slot = &mut slots[usize::from(partition.0)];
        let hops = from.hops.saturating_add(1);
        if slot.hops != hops || slot.builder.len() + len > BATCH_BYTES_TARGET {
            slot.flush(target, partition, &mut self.done);
        }
        slot.hops = hops;
        if !add(&mut slot.builder) {
            slot.flush(target, partition, &mut self.done);
            let added = add(&mut slot.builder);
            assert!(added, "an event that was measured, or came in a plain batch, fits an empty batch");
        }
        self.events += 1;
        self.bytes += len;
    }
}

impl Slot {
    fn flush(&mut self, target: usize, partition: PartitionId, done: &mut Vec<RouteBatch>) {
        if !self.builder.is_empty() {
            let batch = self.builder.finish(Stamp::ENGINE);
            done.push(RouteBatch { target, partition, hops: self.hops, batch });
        }
    }
}

impl Sink for Router<'_> {
    fn keep(&mut self, from: &ChainBatch, first: u32, count: u32, reader: &mut EventReader<'_>) {
        for index in first..first + count {
            let event = reader.get(index);
            let partition = self.partition(0, event.key(), event.id());
            let len = event.record().len();
            self.push(0, partition, from, len, |builder| builder.push_ref(0, &event).is_ok());
        }
    }

    fn emit<'a>(&mut self, from: &ChainBatch, event: &EventRef<'a>, output: OutputRef<'a>) {
        let (parts, headers) = (output.parts(event), output.headers(event));
        let partition = self.partition(output.target(), parts.key, parts.id);
        let len = parts.payload.map_or(0, <[u8]>::len);
        self.push(output.target(), partition, from, len, |builder| {
            builder.push_parts(0, &parts, headers.clone()).is_ok()
        });
    }

    fn is_full(&self) -> bool {
        self.bytes >= COMMIT_BYTES_TARGET || self.events >= CALL_OUTPUT_EVENTS_MAX
    }
}
