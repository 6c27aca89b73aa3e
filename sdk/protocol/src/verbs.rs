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
//!  | verb | flags   | partition | delay_ms| token  | first | last | extra_len | extra |
//!  | u8   | u8      | u16       | u32     | u64    | u64   | u64  | u16       |       |
//!  +------+---------+-----------+---------+--------+-------+------+-----------+-------+
//! ```
//!
//! `verb`: 1 ack, 2 nack (after `delay_ms`; all ones: by the subscription's backoff), 3 in progress, 4 reject.
//! `first` and `last` are offsets, both included; offsets between them that were not delivered do not matter.
//! Only a reject has an `extra`: its reason, of which a reader keeps the first 1,024 bytes. `flags` of a reject: 1, its
//! consumer could not decode the event; 2, it could not be pushed on. A reader does not look at other flags, nor at those of other verbs.
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
const UNDECODABLE: u8 = 1;
const NOT_PUSHED: u8 = 2;

/// How much more an engine may deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        let credit = (|| Some(Self { events: reader.u64()?, bytes: reader.u64()? }))();
        credit.filter(|_| reader.is_empty()).ok_or_else(|| {
            FrameError::payload(format!("a credit frame has {} bytes, expected 16", payload.len()))
        })
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
    /// Still at work: the acknowledgement timeout starts again.
    InProgress,
    /// Never again: to the dead-letter topic.
    Reject {
        /// Why, for the person who reads the dead letter.
        reason: String,
        /// What kind of reason it is.
        kind: Rejection,
    },
}

/// What kind of reason a reject has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The consumer does not do what the event asks for.
    Refused,
    /// The consumer could not decode it: it is the publisher that is wrong, not what the event asks for.
    Undecodable,
    /// The consumer passes events on, and the receiver of this one took it in none of its attempts.
    PushFailed,
}

impl Rejection {
    fn flags(self) -> u8 {
        match self {
            Self::Refused => 0,
            Self::Undecodable => UNDECODABLE,
            Self::PushFailed => NOT_PUSHED,
        }
    }

    fn of_flags(flags: u8) -> Self {
        match flags {
            flags if flags & UNDECODABLE != 0 => Self::Undecodable,
            flags if flags & NOT_PUSHED != 0 => Self::PushFailed,
            _ => Self::Refused,
        }
    }
}

impl VerbKind {
    /// A reject by a consumer that understands the event.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into(), kind: Rejection::Refused }
    }

    fn flags(&self) -> u8 {
        match self {
            Self::Reject { kind, .. } => kind.flags(),
            Self::Ack | Self::Nack { .. } | Self::InProgress => 0,
        }
    }
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
                VerbKind::Reject { reason, .. } => (4, 0, clip(reason, REASON_BYTES_MAX)),
            };
            bytes.put_u8(number);
            bytes.put_u8(verb.kind.flags());
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
    let (number, flags, partition) = (reader.u8()?, reader.u8()?, PartitionId(reader.u16()?));
    let (delay, token) = (reader.u32()?, DeliveryToken(reader.u64()?));
    let (first, last, extra_len) = (Offset(reader.u64()?), Offset(reader.u64()?), reader.u16()?);
    let extra = reader.take(usize::from(extra_len))?;
    if number != 4 && !extra.is_empty() {
        let what = format!("only a reject carries a text, verb {number} has one of {extra_len} bytes");
        return Some(Err(FrameError::payload(what)));
    }
    let kind = match number {
        1 => VerbKind::Ack,
        2 => VerbKind::Nack { delay_ms: (delay != BY_BACKOFF).then_some(delay) },
        3 => VerbKind::InProgress,
        4 => {
            let reason = clip(&String::from_utf8_lossy(extra), REASON_BYTES_MAX).to_owned();
            VerbKind::Reject { reason, kind: Rejection::of_flags(flags) }
        }
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
    /// The error code of the reason.
    pub code: ErrorCode,
}

impl Settled {
    /// Bytes of a whole frame that names so many refused verbs.
    pub fn frame_len_of(refused: usize) -> usize {
        FRAME_HEADER_BYTES + 8 + refused * 24
    }

    /// A whole `Settled` frame.
    pub fn frame(&self) -> Bytes {
        let len = Self::frame_len_of(self.refused.len());
        let mut bytes = BytesMut::with_capacity(len);
        bytes.put_slice(&FrameHeader::bytes(FrameType::Settled, len - FRAME_HEADER_BYTES));
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn any_kind() -> impl Strategy<Value = VerbKind> {
        prop_oneof![
            Just(VerbKind::Ack),
            option::of(0..BY_BACKOFF).prop_map(|delay_ms| VerbKind::Nack { delay_ms }),
            Just(VerbKind::InProgress),
            (".{0,40}", any_rejection()).prop_map(|(reason, kind)| VerbKind::Reject { reason, kind }),
        ]
    }

    fn any_rejection() -> impl Strategy<Value = Rejection> {
        prop_oneof![Just(Rejection::Refused), Just(Rejection::Undecodable), Just(Rejection::PushFailed)]
    }

    fn any_verb() -> impl Strategy<Value = Verb> {
        (any_kind(), any::<u16>(), any::<u64>(), any::<(u64, u64)>()).prop_map(
            |(kind, partition, token, (one, other))| Verb {
                kind,
                partition: PartitionId(partition),
                token: DeliveryToken(token),
                first: Offset(one.min(other)),
                last: Offset(one.max(other)),
            },
        )
    }

    fn ack(first: u64, last: u64) -> Verb {
        let (first, last) = (Offset(first), Offset(last));
        Verb { kind: VerbKind::Ack, partition: PartitionId(0), token: DeliveryToken(1), first, last }
    }

    proptest! {
        #[test]
        fn credit_is_read_back(events in any::<u64>(), bytes in any::<u64>()) {
            let credit = Credit { events, bytes };
            let frame = credit.frame();
            prop_assert_eq!(Credit::read(&frame[FRAME_HEADER_BYTES..]), Ok(credit));
            for len in 0..16 {
                prop_assert!(Credit::read(&frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len]).is_err());
            }
        }

        #[test]
        fn verbs_are_read_back_and_every_cut_is_noticed(sequence in any::<u64>(), list in vec(any_verb(), 0..6)) {
            let verbs = Verbs { sequence, verbs: list.clone() };
            let frame = verbs.frame();
            let payload = &frame[FRAME_HEADER_BYTES..];
            prop_assert_eq!(Verbs::read(payload), Ok(verbs));
            let part = |count: usize| Verbs { sequence, verbs: list[..count].to_vec() }.frame().len();
            let boundaries: Vec<usize> = (0..=list.len()).map(|count| part(count) - FRAME_HEADER_BYTES).collect();
            for len in 0..payload.len() {
                prop_assert_eq!(Verbs::read(&payload[..len]).is_ok(), boundaries.contains(&len), "cut to {}", len);
            }
        }

        #[test]
        fn settled_is_read_back(sequence in any::<u64>(), entries in vec(any::<(u16, u16, u64, u64)>(), 0..8)) {
            let refused = |(partition, code, first, last)| RefusedVerb {
                partition: PartitionId(partition),
                first: Offset(first),
                last: Offset(last),
                code: ErrorCode::from_number(code),
            };
            let settled = Settled { sequence, refused: entries.into_iter().map(refused).collect() };
            let frame = settled.frame();
            let payload = &frame[FRAME_HEADER_BYTES..];
            prop_assert_eq!(Settled::read(payload), Ok(settled));
            for len in 0..payload.len() {
                let whole = len >= 8 && (len - 8) % 24 == 0;
                prop_assert_eq!(Settled::read(&payload[..len]).is_ok(), whole, "cut to {}", len);
            }
        }
    }

    #[test]
    fn so_many_verbs_fit_one_frame_and_one_more_does_not() {
        let mut verbs = Verbs { sequence: 1, verbs: vec![ack(0, 1); VERBS_MAX] };
        assert_eq!(Verbs::read(&verbs.frame()[FRAME_HEADER_BYTES..]).as_ref(), Ok(&verbs));
        verbs.verbs.push(ack(0, 1));
        assert!(Verbs::read(&verbs.frame()[FRAME_HEADER_BYTES..]).is_err());
    }

    #[test]
    fn long_reasons_are_clipped_by_writer_and_reader() {
        let reason = "x".repeat(REASON_BYTES_MAX + 1);
        let kind = VerbKind::reject(reason.clone());
        let frame = Verbs { sequence: 1, verbs: vec![Verb { kind, ..ack(0, 0) }] }.frame();
        let clipped = VerbKind::reject(&reason[..REASON_BYTES_MAX]);
        assert_eq!(Verbs::read(&frame[FRAME_HEADER_BYTES..]).unwrap().verbs[0].kind, clipped);
        // A writer that does not clip: its reader does.
        let mut payload = frame[FRAME_HEADER_BYTES..].to_vec();
        payload.push(b'x');
        payload[8 + 32..8 + 34].copy_from_slice(&1_025_u16.to_le_bytes());
        assert_eq!(Verbs::read(&payload).unwrap().verbs[0].kind, clipped);
    }

    #[test]
    fn unknown_verbs_and_ranges_that_run_backwards_are_refused() {
        let frame = Verbs { sequence: 1, verbs: vec![ack(5, 5)] }.frame();
        let read = |at: usize, value: u8| {
            let mut payload = frame[FRAME_HEADER_BYTES..].to_vec();
            payload[at] = value;
            Verbs::read(&payload)
        };
        assert!(read(8 + 1, 9).is_ok(), "the reserved byte");
        for (at, value) in [(8, 0), (8, 5), (8 + 24, 4)] {
            assert!(read(at, value).is_err(), "byte {at} is {value}");
        }
    }

    #[test]
    fn a_text_beside_any_verb_but_a_reject_is_refused() {
        let reject = VerbKind::reject("bad");
        let frame = Verbs { sequence: 1, verbs: vec![Verb { kind: reject, ..ack(5, 5) }] }.frame();
        for verb in 1..=4 {
            let mut payload = frame[FRAME_HEADER_BYTES..].to_vec();
            payload[8] = verb;
            assert_eq!(Verbs::read(&payload).is_ok(), verb == 4, "verb {verb}");
        }
    }
}
