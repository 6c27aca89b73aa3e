//! What a consumer sends: how much it can take, and what became of what it got.
//!
//! `Credit` payload, 16 bytes: `events u64, bytes u64`. Each grant adds to what is left of earlier ones. A delivery
//! takes its events and its frame payload's bytes; the engine sends while both are above zero, never more
//! events than were granted, and at most one frame beyond the bytes.
//!
//! `Verbs` payload: `sequence u64`, then entries of 34 bytes, each followed by `extra_len` bytes (a reject's reason).
//!
//! ```text
//!  0      1         2           4         8        16      24     32           34
//!  +------+---------+-----------+---------+--------+-------+------+-----------+-------+
//!  | verb | reserved| partition | delay_ms| token  | first | last | extra_len | extra |
//!  | u8   | u8      | u16       | u32     | u64    | u64   | u64  | u16       |       |
//!  +------+---------+-----------+---------+--------+-------+------+-----------+-------+
//! ```
//!
//! `verb`: 1 ack, 2 nack (after `delay_ms`; all ones: by the subscription's backoff), 3 in progress, 4 reject.
//! `first` and `last` are offsets, both included; offsets between them that were not delivered do not matter.
//!
//! `Settled` payload: `sequence u64` (every verbs frame up to it has taken effect, durably), then entries of 24 bytes
//! for refused verbs: `partition u16, code u16, reserved u32, first u64, last u64`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    error::ErrorCode,
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType},
    ids::{DeliveryToken, Offset, PartitionId},
    limits::{REASON_BYTES_MAX, VERBS_MAX},
    publish::clip,
    wire::Reader,
};

const BY_BACKOFF: u32 = u32::MAX;

/// How much more an engine may deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Events.
    pub events: u64,
    /// Bytes of delivery frame payloads.
    pub bytes: u64,
}

impl Credit {
    /// A whole `Credit` frame.
    pub fn frame(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + 16);
        bytes.put_slice(&FrameHeader::bytes(FrameType::Credit, 16));
        bytes.put_u64_le(self.events);
        bytes.put_u64_le(self.bytes);
        bytes.freeze()
    }

    /// Reads a `Credit` frame's payload.
    pub fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(payload);
        (|| Some(Self { events: reader.u64()?, bytes: reader.u64()? }))()
            .ok_or_else(|| FrameError::payload("a credit frame is cut off"))
    }
}

/// What a consumer says about a range of offsets of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verb {
    /// What to do.
    pub kind: VerbKind,
    /// The partition of the delivery.
    pub partition: PartitionId,
    /// The delivery's token.
    pub token: DeliveryToken,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
}

/// What to do with delivered events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerbKind {
    /// Done: never deliver again.
    Ack,
    /// Deliver again, after this many milliseconds or by the subscription's backoff.
    Nack {
        /// `None`: by the backoff.
        delay_ms: Option<u32>,
    },
    /// Still at work: the acknowledgement timeout begins anew.
    InProgress,
    /// Never again: to the dead-letter topic.
    Reject {
        /// Why, for the person who reads the dead letter.
        reason: String,
    },
}

/// A verbs frame: numbered, so that its effect can be awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verbs {
    /// The consumer's own count of its verbs frames, rising from 1.
    pub sequence: u64,
    /// In the order in which they take effect.
    pub verbs: Vec<Verb>,
}

impl Verbs {
    /// A whole `Verbs` frame; reasons are cut to 1 KiB.
    ///
    /// # Panics
    /// If it is over the limit of its type: callers split what they have to say.
    pub fn frame(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + 8 + self.verbs.len() * 34);
        bytes.put_bytes(0, FRAME_HEADER_BYTES);
        bytes.put_u64_le(self.sequence);
        for verb in &self.verbs {
            let (number, delay, reason) = match &verb.kind {
                VerbKind::Ack => (1, 0, ""),
                VerbKind::Nack { delay_ms } => (2, delay_ms.unwrap_or(BY_BACKOFF), ""),
                VerbKind::InProgress => (3, 0, ""),
                VerbKind::Reject { reason } => (4, 0, clip(reason, REASON_BYTES_MAX)),
            };
            bytes.put_u8(number);
            bytes.put_u8(0);
            bytes.put_u16_le(verb.partition.0);
            bytes.put_u32_le(delay);
            bytes.put_u64_le(verb.token.0);
            bytes.put_u64_le(verb.first.0);
            bytes.put_u64_le(verb.last.0);
            bytes.put_u16_le(u16::try_from(reason.len()).expect("clipped to 1 KiB"));
            bytes.put_slice(reason.as_bytes());
        }
        let header = FrameHeader::bytes(FrameType::Verbs, bytes.len() - FRAME_HEADER_BYTES);
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        bytes.freeze()
    }

    /// Reads a `Verbs` frame's payload.
    pub fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(payload);
        let cut_off = || FrameError::payload("a verbs frame is cut off");
        let sequence = reader.u64().ok_or_else(cut_off)?;
        let mut verbs = Vec::new();
        while !reader.is_empty() {
            if verbs.len() == VERBS_MAX {
                return Err(FrameError::payload(format!("more than {VERBS_MAX} verbs in one frame")));
            }
            verbs.push(read_verb(&mut reader).ok_or_else(cut_off)??);
        }
        Ok(Self { sequence, verbs })
    }
}

fn read_verb(reader: &mut Reader<'_>) -> Option<Result<Verb, FrameError>> {
    let (number, _, partition) = (reader.u8()?, reader.u8()?, PartitionId(reader.u16()?));
    let (delay, token) = (reader.u32()?, DeliveryToken(reader.u64()?));
    let (first, last, extra_len) = (Offset(reader.u64()?), Offset(reader.u64()?), reader.u16()?);
    let extra = reader.take(usize::from(extra_len))?;
    let kind = match number {
        1 => VerbKind::Ack,
        2 => VerbKind::Nack { delay_ms: (delay != BY_BACKOFF).then_some(delay) },
        3 => VerbKind::InProgress,
        4 => VerbKind::Reject { reason: clip(&String::from_utf8_lossy(extra), REASON_BYTES_MAX).to_owned() },
        other => return Some(Err(FrameError::payload(format!("verb {other} is unknown")))),
    };
    if first > last {
        return Some(Err(FrameError::payload(format!("a verb's range is {first} to {last}"))));
    }
    Some(Ok(Verb { kind, partition, token, first, last }))
}

/// Which verbs frames have taken effect, and which of their verbs did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Every verbs frame up to this sequence has taken effect, durably.
    pub sequence: u64,
    /// The verbs that were refused.
    pub refused: Vec<RefusedVerb>,
}

/// A verb that took no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedVerb {
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
    /// Why.
    pub code: ErrorCode,
}

impl Settled {
    /// A whole `Settled` frame.
    pub fn frame(&self) -> Bytes {
        let len = 8 + self.refused.len() * 24;
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER_BYTES + len);
        bytes.put_slice(&FrameHeader::bytes(FrameType::Settled, len));
        bytes.put_u64_le(self.sequence);
        for refused in &self.refused {
            bytes.put_u16_le(refused.partition.0);
            bytes.put_u16_le(refused.code.number());
            bytes.put_u32_le(0);
            bytes.put_u64_le(refused.first.0);
            bytes.put_u64_le(refused.last.0);
        }
        bytes.freeze()
    }

    /// Reads a `Settled` frame's payload.
    pub fn read(payload: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(payload);
        let cut_off = || FrameError::payload("a settled frame is cut off");
        let sequence = reader.u64().ok_or_else(cut_off)?;
        let mut refused = Vec::new();
        while !reader.is_empty() {
            let entry = (|| {
                let (partition, code, _) = (PartitionId(reader.u16()?), reader.u16()?, reader.u32()?);
                let (first, last) = (Offset(reader.u64()?), Offset(reader.u64()?));
                Some(RefusedVerb { partition, first, last, code: ErrorCode::from_number(code) })
            })();
            refused.push(entry.ok_or_else(cut_off)?);
        }
        Ok(Self { sequence, refused })
    }
}
