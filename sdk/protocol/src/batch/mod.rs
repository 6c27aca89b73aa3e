//! The batch: events laid out as bytes, the same on the wire, on disk and in front of a plugin.
//!
//! All numbers are little endian. A batch is a header of 64 bytes and a body of `body_len` bytes:
//!
//! ```text
//!  0        1        2        4        8        12         16                20
//!  +--------+--------+--------+--------+--------+----------+-----------------+---------+
//!  | version| codec  | flags  | count  | span   | body_len | uncompressed_len| crc32c  |
//!  | u8 = 1 | u8 = 0 | u16    | u32    | u32    | u32      | u32             | u32     |
//!  +--------+--------+--------+--------+--------+----------+-----------------+---------+
//!  24                40       44            48                56               64
//!  +-----------------+--------+-------------+-----------------+----------------+
//!  | producer_id u128| epoch  | time_span_ms| first_sequence  | max_event_time |
//!  |                 | u32    | u32         | u64             | u64 (ms)       |
//!  +-----------------+--------+-------------+-----------------+----------------+
//! ```
//!
//! - `count` events follow. `span` is the last event's offset delta + 1: `count`, unless the batch is a selection.
//! - `crc32c` (RFC 3720) covers the header without itself, then the body.
//! - The batch's base time is `max_event_time - time_span_ms`.
//! - flags: 1 = every event carries `offset_delta` (a selection); 2 = every event carries an id;
//!   4 = every event carries a ttl; 8 = some event carries a trace context, in a header `traceparent` (or did in the
//!   batch that this one was cut from). Other bits are refused.
//!
//! Each event of the body:
//!
//! ```text
//!  0       4         6         8             12
//!  +-------+---------+---------+-------------+------------------+------------+----------+
//!  | len   | key_len | headers | time_delta  | offset_delta u32 | id_len u16 | ttl_ms   |
//!  | u32   | u16     | u16     | u32 (ms)    | if flag 1        | if flag 2  | u32, if 4|
//!  +-------+---------+---------+-------------+------------------+------------+----------+
//!  | key | id | headers: (name_len u8, value_len u16, name, value) each | payload       |
//!  +-----+----+---------------------------------------------------------+---------------+
//! ```
//!
//! - `len` counts the whole record, itself included; the payload is what is left of it.
//! - `key_len` 0xffff means no key. Bit 15 of `headers` means no payload (a tombstone); the rest is the header count.
//! - `id_len` 0 means no id.

mod builder;
mod check;
mod view;

pub use builder::{BatchBuilder, BatchFull, EventParts, Stamp, record_bytes};
pub use check::BatchError;
pub use view::{Batch, BatchRef, Batches, EventRef, Events, Headers};

/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 64;
/// Bytes of an event's fixed part, without the optional fields.
pub const EVENT_HEADER_BYTES: usize = 12;
/// The layout version in the first byte of every batch.
pub const BATCH_VERSION: u8 = 1;

const FLAG_SELECTION: u16 = 1;
const FLAG_IDS: u16 = 2;
const FLAG_TTLS: u16 = 4;
const FLAG_TRACED: u16 = 8;
const FLAGS_KNOWN: u16 = FLAG_SELECTION | FLAG_IDS | FLAG_TTLS | FLAG_TRACED;
const NO_KEY: u16 = u16::MAX;
const NO_PAYLOAD: u16 = 1 << 15;

/// A batch header's fields, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// 0: none; 1 is reserved for LZ4 and refused by this version.
    pub codec: u8,
    /// Which optional fields every event carries.
    pub flags: u16,
    /// How many events follow.
    pub count: u32,
    /// How many offsets the batch covers from its base.
    pub span: u32,
    /// Bytes after the header.
    pub body_len: u32,
    /// Bytes of the body once expanded; equal to `body_len` without a codec.
    pub uncompressed_len: u32,
    /// CRC-32C of the header without this field, then the body.
    pub crc: u32,
    /// Whose sequence this is; 0 for a batch that the engine built.
    pub producer_id: u128,
    /// The producer's fencing epoch.
    pub epoch: u32,
    /// Milliseconds between the earliest event time and the latest.
    pub time_span_ms: u32,
    /// The producer's sequence of the first event.
    pub first_sequence: u64,
    /// The latest event time in milliseconds since the Unix epoch.
    pub max_event_time: u64,
}

impl BatchHeader {
    /// Reads the fields; `None` if there are fewer than 64 bytes. Checks nothing else.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; BATCH_HEADER_BYTES] = bytes.first_chunk()?;
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Some(Self {
            codec: header[1],
            flags: u16_at(2),
            count: u32_at(4),
            span: u32_at(8),
            body_len: u32_at(12),
            uncompressed_len: u32_at(16),
            crc: u32_at(20),
            producer_id: u128::from(u64_at(24)) | u128::from(u64_at(32)) << 64,
            epoch: u32_at(40),
            time_span_ms: u32_at(44),
            first_sequence: u64_at(48),
            max_event_time: u64_at(56),
        })
    }

    /// True if every event carries its own offset delta.
    #[inline]
    pub fn is_selection(&self) -> bool {
        self.flags & FLAG_SELECTION != 0
    }

    /// True if some event may have an id.
    #[inline]
    pub fn has_ids(&self) -> bool {
        self.flags & FLAG_IDS != 0
    }

    /// True if some event may carry a trace context: without it, the headers of its events need not be searched.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.flags & FLAG_TRACED != 0
    }

    /// The earliest time that an event of this batch can have.
    #[inline]
    pub fn base_time(&self) -> u64 {
        self.max_event_time.saturating_sub(u64::from(self.time_span_ms))
    }

    /// Header and body together, in bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        BATCH_HEADER_BYTES + self.body_len as usize
    }
}

/// CRC-32C of a whole batch: header without the checksum field, then body.
pub(crate) fn checksum(batch: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&batch[..20]);
    crc32c::crc32c_append(crc, &batch[24..])
}

#[cfg(test)]
mod tests;
