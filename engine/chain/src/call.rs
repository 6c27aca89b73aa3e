//! The bytes of a call: the events as a plugin gets them.
//!
//! Knows how a part of a batch becomes a batch of its own. Must not know what is answered.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch},
    deliver::{RUN_HEADER_BYTES, RunHeader},
    ids::{Offset, Timestamp},
};

use crate::cut::{Flat, Part};

/// The bytes of a call: runs, as a delivery frame would carry them.
pub(crate) fn call_runs(flats: &[Flat], parts: &[Part]) -> Bytes {
    let mut out = BytesMut::with_capacity(parts.iter().map(Part::call_bytes).sum());
    let mut open: Option<OpenRun> = None;
    for part in parts {
        let flat = &flats[part.flat];
        let base = match flat.batch.header().is_selection() {
            true => flat.base,
            false => flat.base.plus(u64::from(part.first)),
        };
        let mut run = match open.take() {
            Some(run) if run.next == base && run.append_time == flat.append_time && run.hops == flat.hops => {
                run
            }
            before => {
                before.into_iter().for_each(|run| run.close(&mut out));
                let start = out.len();
                out.put_bytes(0, RUN_HEADER_BYTES);
                OpenRun { start, base, next: base, append_time: flat.append_time, hops: flat.hops }
            }
        };
        let span = if part.is_whole(flats) {
            out.put_slice(flat.batch.bytes());
            flat.batch.span()
        } else {
            put_part(&mut out, &flat.batch, part)
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

/// Writes neighbouring events of a batch as a batch of their own and answers its span.
///
/// The records are copied as they are: the earliest and latest time stay the whole batch's, as bounds, and only
/// the header's count, span, lengths, first sequence and checksum change. A plain batch's part begins at its first
/// event's offset, a selection's keeps the base that its deltas count from.
fn put_part(out: &mut BytesMut, batch: &Batch, part: &Part) -> u32 {
    let header = batch.header();
    let span = if header.is_selection() {
        let last = batch.events().nth((part.first + part.count - 1) as usize);
        last.map_or(header.span, |event| event.offset_delta() + 1)
    } else {
        part.count
    };
    let at = out.len();
    out.put_slice(&batch.bytes()[..BATCH_HEADER_BYTES]);
    out.put_slice(&batch.bytes()[BATCH_HEADER_BYTES..][part.start..part.start + part.len]);
    let body_len = u32::try_from(part.len).expect("a part of a body of at most 1 MiB");
    let part_bytes = &mut out[at..];
    for (field, value) in [(4, part.count), (8, span), (12, body_len), (16, body_len)] {
        part_bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
    }
    let first_sequence = header.first_sequence.wrapping_add(u64::from(part.first));
    part_bytes[48..56].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&part_bytes[..20]), &part_bytes[24..]);
    part_bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    span
}
