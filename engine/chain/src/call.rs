//! The bytes of a call: the events as a plugin gets them, with their offsets.
//!
//! Knows how neighbouring events of a batch become a batch of their own. Must not know what is answered.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch},
    deliver::{RUN_HEADER_BYTES, RunHeader},
    ids::{Offset, Timestamp},
};

use crate::{
    batches::{CallEvents, EventRange},
    position::Origin,
};

/// The bytes of a call: runs, as a delivery frame would carry them.
pub(crate) fn call_runs(events: CallEvents<'_>, origin: Origin) -> Bytes {
    let mut out = BytesMut::with_capacity(events.ranges.iter().map(EventRange::call_bytes).sum());
    let mut open: Option<OpenRun> = None;
    for range in events.ranges {
        let from = &events.batches[range.batch];
        let base = origin.offset(match from.batch.header().is_selection() {
            true => from.base,
            false => from.base.plus(u64::from(range.first)),
        });
        let mut run = match open.take() {
            Some(run) if run.next == base && run.append_time == from.append_time && run.hops == from.hops => {
                run
            }
            before => {
                before.into_iter().for_each(|run| run.close(&mut out));
                let start = out.len();
                out.put_bytes(0, RUN_HEADER_BYTES);
                OpenRun { start, base, next: base, append_time: from.append_time, hops: from.hops }
            }
        };
        let span = if range.is_whole(events.batches) {
            out.put_slice(from.batch.bytes());
            from.batch.span()
        } else {
            put_range(&mut out, &from.batch, range)
        };
        run.next = base.plus(u64::from(span));
        open = Some(run);
    }
    open.into_iter().for_each(|run| run.close(&mut out));
    out.freeze()
}

/// A run whose batches are being written.
struct OpenRun {
    start: usize,
    base: Offset,
    next: Offset,
    append_time: Timestamp,
    hops: u8,
}

impl OpenRun {
    fn close(self, out: &mut BytesMut) {
        let len = out.len() - self.start - RUN_HEADER_BYTES;
        let len = u32::try_from(len).expect("a call is at most 256 KiB or one event");
        let header = RunHeader { base: self.base, append_time: self.append_time, len, hops: self.hops };
        out[self.start..self.start + RUN_HEADER_BYTES].copy_from_slice(&header.bytes());
    }
}

/// Writes neighbouring events of a batch as a batch of their own and returns its span.
///
/// The records are copied as they are: the earliest and latest time stay the whole batch's, as bounds, and only
/// the header's count, span, lengths, first sequence and checksum change. A part of a plain batch begins at its first
/// event's offset, a part of a selection keeps the base that its deltas count from.
fn put_range(out: &mut BytesMut, batch: &Batch, range: &EventRange) -> u32 {
    let header = batch.header();
    let span = if header.is_selection() {
        let last = batch.events().nth((range.first + range.count - 1) as usize);
        last.map_or(header.span, |event| event.offset_delta() + 1)
    } else {
        range.count
    };
    let at = out.len();
    out.put_slice(&batch.bytes()[..BATCH_HEADER_BYTES]);
    out.put_slice(&batch.bytes()[BATCH_HEADER_BYTES..][range.start..range.start + range.len]);
    let body_len = u32::try_from(range.len).expect("a range of a body of at most 1 MiB");
    let part_bytes = &mut out[at..];
    for (field, value) in [(4, range.count), (8, span), (12, body_len), (16, body_len)] {
        part_bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
    }
    let first_sequence = header.first_sequence.wrapping_add(u64::from(range.first));
    part_bytes[48..56].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&part_bytes[..20]), &part_bytes[24..]);
    part_bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    span
}
