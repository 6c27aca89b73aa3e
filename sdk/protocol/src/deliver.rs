//! Delivery frames: events for a consumer or a reader, and in the same layout for a plugin.
//!
//! `Deliver` payload: 24 bytes, then runs.
//!
//! ```text
//!  0           2       3         4        8       16       20         24
//!  +-----------+-------+---------+--------+--------+--------+----------+--------+
//!  | partition | flags | attempt | count  | token  | span   | reserved | runs   |
//!  | u16       | u8    | u8      | u32    | u64    | u32    | u32      |        |
//!  +-----------+-------+---------+--------+--------+--------+----------+--------+
//! ```
//!
//! `count` is the number of events in the frame. `attempt` counts from 1 and stays at 255. `flags` 1: the batches
//! were built by the engine (filtered, transformed or cut); without it they are the publisher's bytes.
//! `span` is how many offsets the frame covers from the first run's base offset; what it does not hold was
//! filtered or is in other deliveries, and needs no verb here.
//!
//! A run is 24 bytes and then one or more batches back to back, each beginning where the one before it ends:
//!
//! ```text
//!  0             8              16      20      21         24
//!  +-------------+--------------+-------+-------+----------+---------+
//!  | base_offset | append_time  | len   | hops  | reserved | batches |
//!  | u64         | u64 (ms)     | u32   | u8    | 3 bytes  | `len`   |
//!  +-------------+--------------+-------+-------+----------+---------+
//! ```
//!
//! `End` payload: one entry of 16 bytes per partition, `partition u16, reserved 6 bytes, next_offset u64`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    batch::{Batch, BatchError, Batches},
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType},
    ids::{DeliveryToken, Offset, PartitionId, Timestamp},
    wire::Reader,
};

/// Bytes of a delivery frame before its runs.
pub const DELIVER_HEADER_BYTES: usize = 24;
/// Bytes of a run before its batches.
pub const RUN_HEADER_BYTES: usize = 24;
const FLAG_BUILT: u8 = 1;

/// The header of a delivery frame, before its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverHeader {
    /// Which partition the events are from.
    pub partition: PartitionId,
    /// True if the engine built the batches, false if they are the publisher's bytes.
    pub built: bool,
    /// Which delivery of these events this is, from 1; 255 means 255 or more.
    pub attempt: u8,
    /// The number of events.
    pub count: u32,
    /// The token that verbs about these events must carry.
    pub token: DeliveryToken,
    /// How many offsets the frame covers from its first run's base.
    pub span: u32,
}

impl DeliverHeader {
    /// The frame header and this header, to be followed by `runs_len` bytes of runs.
    pub fn frame_prefix(&self, runs_len: usize) -> [u8; FRAME_HEADER_BYTES + DELIVER_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES + DELIVER_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&FrameHeader::bytes(FrameType::Deliver, DELIVER_HEADER_BYTES + runs_len));
        out.put_u16_le(self.partition.0);
        out.put_u8(if self.built { FLAG_BUILT } else { 0 });
        out.put_u8(self.attempt);
        out.put_u32_le(self.count);
        out.put_u64_le(self.token.0);
        out.put_u32_le(self.span);
        out.put_u32_le(0);
        bytes
    }

    /// Reads a delivery frame's payload; what is left of it are the runs.
    pub fn read(payload: &mut Bytes) -> Result<Self, FrameError> {
        if payload.len() < DELIVER_HEADER_BYTES {
            return Err(FrameError::payload("a delivery frame is shorter than its header"));
        }
        let head = payload.split_to(DELIVER_HEADER_BYTES);
        let mut reader = Reader::new(&head);
        let fields = (|| {
            Some((reader.u16()?, reader.u8()?, reader.u8()?, reader.u32()?, reader.u64()?, reader.u32()?))
        })();
        let (partition, flags, attempt, count, token, span) = fields.expect("24 bytes were cut off above");
        Ok(Self {
            partition: PartitionId(partition),
            built: flags & FLAG_BUILT != 0,
            attempt,
            count,
            token: DeliveryToken(token),
            span,
        })
    }
}

/// The header of a run, before its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunHeader {
    /// The first batch's base offset.
    pub base: Offset,
    /// When the batches were appended.
    pub append_time: Timestamp,
    /// Bytes of the batches.
    pub len: u32,
    /// How many routes the events have passed.
    pub hops: u8,
}

impl RunHeader {
    /// The header's bytes.
    pub fn bytes(&self) -> [u8; RUN_HEADER_BYTES] {
        let mut bytes = [0; RUN_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.append_time.0);
        out.put_u32_le(self.len);
        out.put_u8(self.hops);
        bytes
    }
}

/// A run borrowed from bytes that were checked before; see [`crate::batch::BatchRef`].
#[derive(Debug, Clone, Copy)]
pub struct RunRef<'a> {
    /// The run's header.
    pub header: RunHeader,
    /// The batches back to back, `header.len` bytes.
    pub batches: &'a [u8],
}

impl<'a> RunRef<'a> {
    /// Cuts the run at the front of `bytes` off; `None` if they are fewer than its header says.
    #[inline]
    pub fn split_first(bytes: &mut &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (base, append_time) = (Offset(reader.u64()?), Timestamp(reader.u64()?));
        let (len, hops) = (reader.u32()?, reader.u8()?);
        reader.take(3)?;
        let batches = reader.take(len as usize)?;
        *bytes = reader.rest();
        Some(Self { header: RunHeader { base, append_time, len, hops }, batches })
    }
}

/// Consecutive batches, and where in their partition they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The first batch's base offset.
    pub base: Offset,
    /// When the batches were appended.
    pub append_time: Timestamp,
    /// How many routes the events have passed.
    pub hops: u8,
    /// The batches.
    pub batches: Bytes,
}

impl Run {
    /// The header that travels before the batches.
    ///
    /// # Panics
    /// If the batches are over 4 GiB; runs are far below.
    pub fn header(&self) -> RunHeader {
        let len = u32::try_from(self.batches.len()).expect("a run is far below 4 GiB");
        RunHeader { base: self.base, append_time: self.append_time, len, hops: self.hops }
    }

    /// The batches with their base offsets, each checked as it is reached.
    pub fn batches(&self) -> Batches {
        Batches::new(self.base, self.batches.clone())
    }

    /// Writes header and batches behind `out`.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.header().bytes());
        out.put_slice(&self.batches);
    }
}

/// The runs of a delivery frame or of a plugin call, one after the other.
#[derive(Debug, Clone)]
pub struct Runs {
    rest: Bytes,
}

impl Runs {
    /// Walks `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Runs {
    type Item = Result<Run, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let cut_off = || Some(Err(FrameError::payload("a run is cut off")));
        if self.rest.len() < RUN_HEADER_BYTES {
            self.rest = Bytes::new();
            return cut_off();
        }
        let head = self.rest.split_to(RUN_HEADER_BYTES);
        let mut reader = Reader::new(&head);
        let fields = (|| Some((reader.u64()?, reader.u64()?, reader.u32()?, reader.u8()?)))();
        let (base, append_time, len, hops) = fields.expect("24 bytes were cut off above");
        if len as usize > self.rest.len() {
            self.rest = Bytes::new();
            return cut_off();
        }
        let batches = self.rest.split_to(len as usize);
        Some(Ok(Run { base: Offset(base), append_time: Timestamp(append_time), hops, batches }))
    }
}

/// All batches of some runs, each with its base offset and append time.
///
/// # Errors
/// If a run is cut off or a batch is not one.
pub fn checked_batches(runs: Bytes) -> Result<Vec<PlacedBatch>, DeliverError> {
    let mut placed = Vec::new();
    for run in Runs::new(runs) {
        let run = run?;
        for batch in run.batches() {
            let (base, batch) = batch?;
            placed.push(PlacedBatch { base, append_time: run.append_time, hops: run.hops, batch });
        }
    }
    Ok(placed)
}

/// A checked batch and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBatch {
    /// The offset that the batch's offset deltas count from.
    pub base: Offset,
    /// When it was appended.
    pub append_time: Timestamp,
    /// How many routes its events have passed.
    pub hops: u8,
    /// The events.
    pub batch: Batch,
}

/// Why a delivery's bytes are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// The frame or a run does not fit its lengths.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A batch is malformed or damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// Where a reader that does not follow has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndEntry {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset that was not delivered.
    pub next: Offset,
}

impl EndEntry {
    /// A whole `End` frame.
    pub fn frame(entries: &[Self]) -> Bytes {
        let len = Self::len_of(entries);
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + len);
        bytes.put_slice(&FrameHeader::bytes(FrameType::End, len));
        Self::put_all(entries, &mut bytes);
        bytes.freeze()
    }

    /// Bytes that these entries take.
    pub(crate) fn len_of(entries: &[Self]) -> usize {
        entries.len() * 16
    }

    /// Writes entries behind what `out` holds.
    pub(crate) fn put_all(entries: &[Self], out: &mut BytesMut) {
        for entry in entries {
            out.put_u16_le(entry.partition.0);
            out.put_bytes(0, 6);
            out.put_u64_le(entry.next.0);
        }
    }

    /// Reads an `End` frame's payload.
    pub fn read_all(payload: &[u8]) -> Result<Vec<Self>, FrameError> {
        let mut reader = Reader::new(payload);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            let entry = (|| {
                let partition = PartitionId(reader.u16()?);
                reader.take(6)?;
                Some(Self { partition, next: Offset(reader.u64()?) })
            })();
            entries.push(entry.ok_or_else(|| FrameError::payload("an end entry is cut off"))?);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        batch::{BatchBuilder, Stamp},
        event::Event,
    };

    fn any_run() -> impl Strategy<Value = Run> {
        (any::<u64>(), any::<u64>(), any::<u8>(), vec(any::<u8>(), 0..100)).prop_map(
            |(base, append_time, hops, batches)| Run {
                base: Offset(base),
                append_time: Timestamp(append_time),
                hops,
                batches: batches.into(),
            },
        )
    }

    fn written(runs: &[Run]) -> Bytes {
        let mut bytes = BytesMut::new();
        runs.iter().for_each(|run| run.write(&mut bytes));
        bytes.freeze()
    }

    proptest! {
        #[test]
        fn a_deliver_header_is_read_back_and_leaves_the_runs(
            fields in any::<(u16, bool, u8, u32, u64, u32)>(),
            runs in vec(any::<u8>(), 0..100),
        ) {
            let (partition, built, attempt, count, token, span) = fields;
            let (partition, token) = (PartitionId(partition), DeliveryToken(token));
            let header = DeliverHeader { partition, built, attempt, count, token, span };
            let prefix = header.frame_prefix(runs.len());
            let (head, rest) = prefix.split_first_chunk().unwrap();
            let frame = FrameHeader::read(head).unwrap();
            prop_assert_eq!((frame.kind, frame.len), (FrameType::Deliver, rest.len() + runs.len()));
            let mut payload = Bytes::from([rest, &runs].concat());
            prop_assert_eq!(DeliverHeader::read(&mut payload), Ok(header));
            prop_assert_eq!(payload, runs);
        }

        #[test]
        fn runs_are_read_back_by_both_readers_and_every_cut_is_noticed(runs in vec(any_run(), 0..5)) {
            let bytes = written(&runs);
            let read: Result<Vec<Run>, FrameError> = Runs::new(bytes.clone()).collect();
            prop_assert_eq!(read.as_ref(), Ok(&runs));
            let mut rest = &bytes[..];
            for run in &runs {
                let borrowed = RunRef::split_first(&mut rest).unwrap();
                prop_assert_eq!((borrowed.header, borrowed.batches), (run.header(), &run.batches[..]));
            }
            prop_assert!(RunRef::split_first(&mut rest).is_none());
            let boundaries: Vec<usize> = (0..=runs.len()).map(|count| written(&runs[..count]).len()).collect();
            for len in 0..bytes.len() {
                let whole = Runs::new(bytes.slice(..len)).all(|run| run.is_ok());
                prop_assert_eq!(whole, boundaries.contains(&len), "cut to {}", len);
            }
        }

        #[test]
        fn end_entries_are_read_back(entries in vec(any::<(u16, u64)>(), 0..10)) {
            let entries: Vec<EndEntry> = entries
                .into_iter()
                .map(|(partition, next)| EndEntry { partition: PartitionId(partition), next: Offset(next) })
                .collect();
            let frame = EndEntry::frame(&entries);
            prop_assert_eq!(EndEntry::read_all(&frame[FRAME_HEADER_BYTES..]), Ok(entries));
            for len in 0..frame.len() - FRAME_HEADER_BYTES {
                let read = EndEntry::read_all(&frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len]);
                prop_assert_eq!(read.is_ok(), len % 16 == 0, "cut to {}", len);
            }
        }
    }

    #[test]
    fn batches_of_a_run_follow_one_another_and_damage_is_noticed() {
        let mut builder = BatchBuilder::new();
        let mut batches = Vec::new();
        for _ in 0..2 {
            builder.push(&Event::new("a")).unwrap();
            builder.push(&Event::new("b")).unwrap();
            batches.extend_from_slice(builder.finish(Stamp::ENGINE).bytes());
        }
        let run = Run { base: Offset(10), append_time: Timestamp(5), hops: 1, batches: batches.into() };
        let far = Run { base: Offset(u64::MAX), ..run.clone() };
        let placed = checked_batches(written(&[run.clone(), far])).unwrap();
        let bases: Vec<u64> = placed.iter().map(|placed| placed.base.0).collect();
        assert_eq!(bases, [10, 12, u64::MAX, u64::MAX], "an absurd base ends at the largest offset");
        let mut damaged = written(&[run]).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let error = checked_batches(damaged.into()).unwrap_err();
        assert!(matches!(error, DeliverError::Batch(BatchError::Checksum { .. })), "{error}");
    }
}
