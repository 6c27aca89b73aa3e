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
    let is_compacted = record.count < u64::from(record.span);
    Ok(LogSlice { span: record.span, built: is_compacted, ..LogSlice::of(record.run(), true)? })
}

/// Bytes of a delivery frame's payload around these pieces.
pub(crate) fn payload_len(pieces: &[LogSlice]) -> usize {
    DELIVER_HEADER_BYTES
        + pieces.iter().map(|piece| RUN_HEADER_BYTES + piece.run.batches.len()).sum::<usize>()
}

/// Takes pieces from the front of `queue` for one frame: events in `offsets`, at most `events_max`, and no further
/// piece beyond `bytes_max`. A piece that is not used up stays in front; what is taken has events.
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
            if part.events > 0 {
                taken.push(part);
            }
        }
        // With room left there is no event behind what was taken of it; offsets without events need no room.
        if left == 0 && from < end && !front.cut(&[from..until], 1)?.is_empty() {
            break;
        }
        queue.pop_front();
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
        event::Event,
        ids::Timestamp,
    };

    use super::*;

    /// A piece of so many offsets that holds the first events of them.
    fn piece(base: u64, events: u32, span: u32) -> LogSlice {
        let mut builder = BatchBuilder::new();
        (0..events).for_each(|_| builder.push(&Event::new("x")).unwrap());
        let batches = if events == 0 { Bytes::new() } else { builder.finish(Stamp::ENGINE).bytes().clone() };
        let run = Run { base: Offset(base), append_time: Timestamp(0), hops: 0, batches };
        LogSlice { span, ..LogSlice::of(run, true).unwrap() }
    }

    #[test]
    fn what_is_taken_has_events_and_what_has_none_is_passed() {
        let mut queue = VecDeque::from([piece(0, 0, 5), piece(5, 2, 10), piece(15, 0, 1), piece(16, 1, 1)]);
        let taken = take(&mut queue, Offset(0)..Offset(100), 2, 1 << 20).unwrap();
        assert_eq!(taken.iter().map(|it| (it.run.base.0, it.events)).collect::<Vec<_>>(), [(5, 2)]);
        let next = taken.last().unwrap().end();
        let taken = take(&mut queue, next..Offset(100), 10, 1 << 20).unwrap();
        assert_eq!(taken.iter().map(|it| it.run.base.0).collect::<Vec<_>>(), [16]);
        assert!(queue.is_empty());
    }

    #[test]
    fn offsets_without_events_behind_the_last_one_that_fits_do_not_stay_in_front() {
        let mut queue = VecDeque::from([piece(0, 2, 10), piece(10, 1, 1)]);
        let first = take(&mut queue, Offset(0)..Offset(11), 1, 1 << 20).unwrap();
        assert_eq!(first[0].events, 1);
        let second = take(&mut queue, first[0].end()..Offset(11), 1, 1 << 20).unwrap();
        assert_eq!((second.len(), second[0].run.base.0), (1, 1));
        let third = take(&mut queue, second[0].end()..Offset(11), 1, 1 << 20).unwrap();
        assert_eq!((third.len(), third[0].run.base.0), (1, 10));
    }
    #[test]
    fn offsets_without_events_behind_the_last_one_that_is_wanted_need_no_room() {
        // All of its offsets are wanted, or fewer.
        for until in [10, 7] {
            let mut queue = VecDeque::from([piece(0, 3, 10)]);
            let first = take(&mut queue, Offset(0)..Offset(until), 1, 1 << 20).unwrap();
            let second = take(&mut queue, first[0].end()..Offset(until), 2, 1 << 20).unwrap();
            assert_eq!((second[0].run.base.0, second[0].events), (1, 2));
            assert!(queue.is_empty(), "nothing is left before {until}");
        }
    }
}
