//! The input of a chain: stored batches of one partition.
//!
//! Must not know stages.

use std::ops::Range;

use levada_protocol::{
    batch::Batch,
    deliver::Run,
    ids::{Offset, PartitionId},
};

use crate::{
    batches::ChainBatch,
    position::{Origin, Position},
    slice::{LogSlice, SliceBatches, SliceError},
};

/// A slice of a partition, divided into batches.
#[derive(Debug, Clone)]
pub struct Source {
    slice: LogSlice,
    batches: Vec<(Offset, Batch)>,
}

impl Source {
    /// Divides a slice. Its checksums are not compared: a slice was checked when it arrived or was read.
    ///
    /// # Errors
    /// If a batch is malformed.
    pub fn of(slice: LogSlice) -> Result<Self, SliceError> {
        let batches = SliceBatches::new(&slice.run, false).collect::<Result<_, _>>()?;
        Ok(Self { slice, batches })
    }

    /// The bytes, and the offset at which they begin.
    pub fn run(&self) -> &Run {
        &self.slice.run
    }

    /// True if the engine built its batches.
    pub(crate) fn is_built(&self) -> bool {
        self.slice.built
    }

    /// The offset behind the last one that the slice covers.
    pub fn end(&self) -> Offset {
        self.slice.end()
    }
}

/// Events of one partition, in offset order.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The partition that they are from.
    pub partition: PartitionId,
    /// The offsets to take; events of the sources outside of it are ignored.
    pub offsets: Range<Offset>,
    /// The stored batches, ascending.
    pub sources: &'a [Source],
}

impl Input<'_> {
    /// The offset of position 0.
    pub(crate) fn origin(&self) -> Origin {
        let start = self.offsets.start;
        Origin(self.sources.first().map_or(start, |source| source.run().base.min(start)))
    }

    /// The positions to take, up to the end of what is given.
    pub(crate) fn positions(&self) -> Range<Position> {
        let Range { start, end } = self.offsets;
        let given = self.sources.last().map_or(start, Source::end);
        let origin = self.origin();
        origin.position(start)..origin.position(given.min(end).max(start))
    }

    /// All batches of the sources.
    pub(crate) fn batches(&self) -> Vec<ChainBatch> {
        let origin = self.origin();
        let mut batches = Vec::with_capacity(self.sources.iter().map(|source| source.batches.len()).sum());
        for (index, source) in self.sources.iter().enumerate() {
            let mut start = 0;
            for (base, batch) in &source.batches {
                batches.push(ChainBatch {
                    base: origin.position(*base),
                    append_time: source.run().append_time,
                    hops: source.run().hops,
                    batch: batch.clone(),
                    stored: Some((index, start)),
                    rekeyed: false,
                });
                start += batch.bytes().len();
            }
        }
        batches
    }
}
