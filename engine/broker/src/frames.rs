//! Slices of the log for a consumer: stored bytes that are shared, or rebuilt where a batch is cut.

use std::{collections::VecDeque, ops::Range};

pub(crate) use levada_chain::{LogSlice, SliceBatches};
use levada_protocol::{
    deliver::{DELIVER_HEADER_BYTES, RUN_HEADER_BYTES},
    ids::Offset,
};
use levada_store::record::Record;

use crate::error::Error;

/// Payload bytes after which a delivery frame takes no further run.
pub(crate) const DELIVER_BYTES_TARGET: usize = 256 * 1024;

/// A stored record; its batches' checksums are compared.
pub(crate) fn slice_of(record: &Record) -> Result<LogSlice, Error> {
    Ok(LogSlice { span: record.span, ..LogSlice::of(record.run(), true)? })
}

/// Bytes of a delivery frame's payload around these pieces.
pub(crate) fn payload_len(pieces: &[LogSlice]) -> usize {
    DELIVER_HEADER_BYTES
        + pieces.iter().map(|piece| RUN_HEADER_BYTES + piece.run.batches.len()).sum::<usize>()
}

/// Takes pieces from the front of `queue` for one frame: events in `offsets`, at most `events_max`, and no further
/// piece beyond `bytes_max`. A piece that is not used up stays in front.
pub(crate) fn take(
    queue: &mut VecDeque<LogSlice>,
    offsets: Range<Offset>,
    events_max: u64,
    bytes_max: usize,
) -> Result<Vec<LogSlice>, Error> {
    let Range { start: mut from, end: until } = offsets;
    let (mut taken, mut left, mut bytes) = (Vec::new(), events_max, 0);
    while let Some(front) = queue.front() {
        if front.end() <= from {
            queue.pop_front();
            continue;
        }
        let over = bytes > 0 && bytes + front.run.batches.len() > bytes_max;
        if left == 0 || over || front.run.base >= until {
            break;
        }
        let end = front.end();
        for part in front.cut(&[from..until], left)? {
            left -= u64::from(part.events);
            bytes += part.run.batches.len();
            from = part.end();
            taken.push(part);
        }
        if from < end {
            break;
        }
        queue.pop_front();
    }
    Ok(taken)
}
