//! The publish stream's frames: batches up, acknowledgements down, in any depth of pipelining.
//!
//! `Publish` payload: 24 bytes, then one batch.
//!
//! ```text
//!  0             4           6            7         8               16            24
//!  +-------------+-----------+------------+---------+---------------+-------------+-------+
//!  | correlation | partition | durability | due     | expect_offset | deliver_at  | batch |
//!  | u32         | u16       | u8         | u8      | u64           | u64 (ms)    |       |
//!  +-------------+-----------+------------+---------+---------------+-------------+-------+
//! ```
//!
//! `expect_offset` of all ones means none. `deliver_at` of 0 means at once; else `due` says what it is: 0 a time, 1 a delay.
//!
//! `Ack` payload: one or more entries of 32 bytes, each followed by `extra_len` bytes: the text of a refusal, or
//! [`Duplicates`].
//!
//! ```text
//!  0             4         5       6           8        16        20     22          24              28          32
//!  +-------------+---------+-------+-----------+--------+---------+------+-----------+---------------+-----------+-------+
//!  | correlation | outcome | flags | partition | value  | count   | code | extra_len | retry_after_ms| reserved  | extra |
//!  | u32         | u8      | u8    | u16       | u64    | u32     | u16  | u16       | u32           | u32       |       |
//!  +-------------+---------+-------+-----------+--------+---------+------+-----------+---------------+-----------+-------+
//! ```
//!
//! `outcome`: 0 appended (`value` = first offset), 1 scheduled (`value` = the first event's schedule id), 2 prepared
//! (`value` = transaction id, reserved), 3 refused (`code` = error code; `value` = the partition's next offset if that was
//! not the expected one). `flags` 1: a repeat of an earlier publish; 2: some events are duplicates by their ids, `extra`
//! says which, and they do not count.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{
    duplicates::Duplicates,
    error::{ErrorCode, Refusal},
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameType},
    ids::{Offset, PartitionId},
    limits::REASON_BYTES_MAX,
    schedule::Due,
    wire::Reader,
};

/// Bytes of a publish frame before its batch.
pub const PUBLISH_HEADER_BYTES: usize = 24;
const ACK_ENTRY_BYTES: usize = 32;
const NO_OFFSET: u64 = u64::MAX;
const FLAG_REPEAT: u8 = 1;
const FLAG_DUPLICATES: u8 = 2;

/// What an acknowledgement means for the disk. Ordered: a later one promises more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Written to the operating system: survives the engine's crash, not the machine's.
    Os,
    /// The write-ahead log was synced: survives a power cut.
    Sync,
    /// One of a newer version. An engine refuses it.
    #[serde(other)]
    Unknown,
}

impl Durability {
    /// The word used on the wire, in configuration and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Sync => "sync",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a publish frame says beside its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHeader {
    /// The client's own number for this publish; its acknowledgement carries it.
    pub correlation: u32,
    /// Where to append.
    pub partition: PartitionId,
    /// More than the topic's default, if given; never less.
    pub durability: Option<Durability>,
    /// Refused unless the partition's next offset is this one.
    pub expect_offset: Option<Offset>,
    /// Appended then, and not at once.
    pub due: Option<Due>,
}

impl PublishHeader {
    /// The frame header and this header, to be followed by the batch's bytes.
    pub fn frame_prefix(&self, batch_len: usize) -> [u8; FRAME_HEADER_BYTES + PUBLISH_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES + PUBLISH_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&FrameHeader::bytes(FrameType::Publish, PUBLISH_HEADER_BYTES + batch_len));
        out.put_u32_le(self.correlation);
        out.put_u16_le(self.partition.0);
        out.put_u8(match self.durability {
            None => 0,
            Some(Durability::Os) => 1,
            Some(Durability::Sync) => 2,
            Some(Durability::Unknown) => u8::MAX,
        });
        let (due, deliver_at) = Due::fields(self.due);
        out.put_u8(due);
        out.put_u64_le(self.expect_offset.map_or(NO_OFFSET, |offset| offset.0));
        out.put_u64_le(deliver_at);
        bytes
    }

    /// Reads a publish frame's payload; the batch is cut off and not yet checked.
    pub fn read(payload: &mut Bytes) -> Result<Self, FrameError> {
        if payload.len() < PUBLISH_HEADER_BYTES {
            return Err(FrameError::payload("a publish frame is shorter than its header"));
        }
        let head = payload.split_to(PUBLISH_HEADER_BYTES);
        let mut reader = Reader::new(&head);
        let fields = (|| {
            Some((reader.u32()?, reader.u16()?, reader.u8()?, reader.u8()?, reader.u64()?, reader.u64()?))
        })();
        let (correlation, partition, durability, due, expect_offset, deliver_at) =
            fields.expect("24 bytes were cut off above");
        let durability = match durability {
            0 => None,
            1 => Some(Durability::Os),
            2 => Some(Durability::Sync),
            other => return Err(FrameError::payload(format!("durability is {other}, expected 0, 1 or 2"))),
        };
        let due = Due::from_fields(due, deliver_at).map_err(FrameError::payload)?;
        let expect_offset = (expect_offset != NO_OFFSET).then_some(Offset(expect_offset));
        Ok(Self { correlation, partition: PartitionId(partition), durability, expect_offset, due })
    }
}

/// How one publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The number from the publish frame.
    pub correlation: u32,
    /// The partition from the publish frame.
    pub partition: PartitionId,
    /// What became of it.
    pub outcome: AckOutcome,
}

/// What became of one publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckOutcome {
    /// Stored, as durably as was asked for.
    Appended {
        /// The first stored event's offset; absent if none was stored, and for a repeat so old that its offset is no
        /// longer known.
        base: Option<Offset>,
        /// How many events are stored.
        count: u32,
        /// True if an earlier publish had stored them already.
        duplicate: bool,
        /// The events that were not stored because the topic's dedup window held their ids.
        duplicates: Option<Arc<Duplicates>>,
    },
    /// Not stored: the partition's next offset is not the one that was expected.
    OffsetMismatch {
        /// The partition's next offset.
        next: Offset,
        /// What was expected and what came.
        message: String,
    },
    /// Stored as durably as was asked for, to be appended when it is due.
    Scheduled {
        /// The first event's schedule id; those behind it have the ids that follow. Absent for a repeat so old that it is
        /// no longer known.
        first: Option<u64>,
        /// How many events.
        count: u32,
        /// True if an earlier publish had stored them already.
        duplicate: bool,
    },
    /// Not stored, and why.
    Refused(Refusal),
}

impl Ack {
    /// Writes this entry behind others.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.correlation);
        match &self.outcome {
            AckOutcome::Appended { base, count, duplicate, duplicates } => {
                let flags =
                    (u8::from(*duplicate) * FLAG_REPEAT) | (u8::from(duplicates.is_some()) * FLAG_DUPLICATES);
                let extra_len = duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len());
                out.put_u8(0);
                out.put_u8(flags);
                out.put_u16_le(self.partition.0);
                out.put_u64_le(base.map_or(NO_OFFSET, |base| base.0));
                out.put_u32_le(*count);
                out.put_u16_le(0);
                out.put_u16_le(u16::try_from(extra_len).expect("bounded by Duplicates::BYTES_MAX"));
                out.put_u64_le(0);
                if let Some(duplicates) = duplicates {
                    duplicates.write(out);
                }
            }
            AckOutcome::OffsetMismatch { next, message } => {
                self.write_refusal((ErrorCode::OffsetMismatch, message, None), next.0, out);
            }
            AckOutcome::Scheduled { first, count, duplicate } => {
                out.put_u8(1);
                out.put_u8(u8::from(*duplicate));
                out.put_u16_le(self.partition.0);
                out.put_u64_le(first.unwrap_or(NO_OFFSET));
                out.put_u32_le(*count);
                out.put_bytes(0, 12);
            }
            AckOutcome::Refused(refusal) => {
                let Refusal { code, message, retry_after_ms } = refusal;
                self.write_refusal((*code, message, *retry_after_ms), NO_OFFSET, out);
            }
        }
    }

    fn write_refusal(
        &self,
        (code, message, retry_after_ms): (ErrorCode, &str, Option<u32>),
        value: u64,
        out: &mut BytesMut,
    ) {
        let text = clip(message, REASON_BYTES_MAX).as_bytes();
        out.put_u8(3);
        out.put_u8(0);
        out.put_u16_le(self.partition.0);
        out.put_u64_le(value);
        out.put_u32_le(0);
        out.put_u16_le(code.number());
        out.put_u16_le(u16::try_from(text.len()).expect("clipped to 1 KiB"));
        out.put_u32_le(retry_after_ms.unwrap_or(0));
        out.put_u32_le(0);
        out.put_slice(text);
    }

    /// How many bytes [`Ack::write`] writes at most.
    pub fn encoded_len_max(&self) -> usize {
        ACK_ENTRY_BYTES
            + match &self.outcome {
                AckOutcome::Appended { duplicates, .. } => {
                    duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len())
                }
                AckOutcome::OffsetMismatch { message, .. } | AckOutcome::Refused(Refusal { message, .. }) => {
                    message.len().min(REASON_BYTES_MAX)
                }
                AckOutcome::Scheduled { .. } => 0,
            }
    }

    /// Reads all entries of an ack frame's payload.
    pub fn read_all(payload: &[u8]) -> Result<Vec<Self>, FrameError> {
        let mut reader = Reader::new(payload);
        let mut acks = Vec::with_capacity(payload.len() / ACK_ENTRY_BYTES);
        while !reader.is_empty() {
            acks.push(
                Self::read(&mut reader).ok_or_else(|| FrameError::payload("an ack entry is cut off"))??,
            );
        }
        Ok(acks)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Result<Self, FrameError>> {
        let (correlation, outcome, flags) = (reader.u32()?, reader.u8()?, reader.u8()?);
        let (partition, value, count) = (PartitionId(reader.u16()?), reader.u64()?, reader.u32()?);
        let (code, extra_len, retry_after_ms, _) =
            (reader.u16()?, reader.u16()?, reader.u32()?, reader.u32()?);
        let extra = reader.take(usize::from(extra_len))?;
        let (value, code) = ((value != NO_OFFSET).then_some(Offset(value)), ErrorCode::from_number(code));
        let text = || String::from_utf8_lossy(extra).into_owned();
        let outcome = match (outcome, value) {
            (0, base) => {
                let mut duplicates = None;
                if flags & FLAG_DUPLICATES != 0 {
                    let Some(read) = Duplicates::read(extra) else {
                        return Some(Err(FrameError::payload(
                            "the duplicates of an ack entry are malformed",
                        )));
                    };
                    duplicates = Some(Arc::new(read));
                }
                AckOutcome::Appended { base, count, duplicate: flags & FLAG_REPEAT != 0, duplicates }
            }
            (1, first) => AckOutcome::Scheduled {
                first: first.map(|Offset(first)| first),
                count,
                duplicate: flags & FLAG_REPEAT != 0,
            },
            (3, Some(next)) if code == ErrorCode::OffsetMismatch => {
                AckOutcome::OffsetMismatch { next, message: text() }
            }
            (3, _) => AckOutcome::Refused(Refusal {
                code,
                message: text(),
                retry_after_ms: (retry_after_ms != 0).then_some(retry_after_ms),
            }),
            (other, _) => return Some(Err(FrameError::payload(format!("ack outcome {other} is unknown")))),
        };
        Some(Ok(Self { correlation, partition, outcome }))
    }
}

/// The longest prefix of `text` of at most `bytes_max` bytes that is still UTF-8.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::ids::Timestamp;

    fn any_durability() -> impl Strategy<Value = Option<Durability>> {
        option::of(prop_oneof![Just(Durability::Os), Just(Durability::Sync)])
    }

    /// Any acknowledgement that is distinct on the wire: all ones is no offset, and 0 no wait.
    fn any_ack() -> impl Strategy<Value = Ack> {
        let firsts = vec(option::of(0..9_u64), 0..20).prop_map(|firsts| {
            let mut found = None;
            let duplicates = (0..).zip(firsts).filter_map(|(index, first)| Some((index, first?)));
            duplicates.for_each(|(index, first)| Duplicates::note(&mut found, index, Offset(first)));
            found.map(Arc::new)
        });
        let appended = (option::of(0..u64::MAX), any::<u32>(), any::<bool>(), firsts).prop_map(
            |(base, count, duplicate, duplicates)| AckOutcome::Appended {
                base: base.map(Offset),
                count,
                duplicate,
                duplicates,
            },
        );
        let mismatch = (0..u64::MAX, ".{0,60}")
            .prop_map(|(next, message)| AckOutcome::OffsetMismatch { next: Offset(next), message });
        let scheduled = (option::of(0..u64::MAX), any::<u32>(), any::<bool>())
            .prop_map(|(first, count, duplicate)| AckOutcome::Scheduled { first, count, duplicate });
        let refused = (any::<u16>(), ".{0,60}", option::of(1..=u32::MAX)).prop_map(
            |(code, message, retry_after_ms)| {
                let code = ErrorCode::from_number(code);
                AckOutcome::Refused(Refusal { code, message, retry_after_ms })
            },
        );
        (any::<u32>(), any::<u16>(), prop_oneof![appended, scheduled, mismatch, refused]).prop_map(
            |(correlation, partition, outcome)| Ack {
                correlation,
                partition: PartitionId(partition),
                outcome,
            },
        )
    }

    fn written(acks: &[Ack]) -> BytesMut {
        let mut bytes = BytesMut::new();
        acks.iter().for_each(|ack| ack.write(&mut bytes));
        bytes
    }

    proptest! {
        #[test]
        fn a_publish_header_is_read_back_and_leaves_the_batch(
            correlation in any::<u32>(),
            partition in any::<u16>(),
            durability in any_durability(),
            expect_offset in option::of(0..u64::MAX),
            due in option::of((any::<bool>(), 1..=u64::MAX)),
            batch in vec(any::<u8>(), 0..100),
        ) {
            let header = PublishHeader {
                correlation,
                partition: PartitionId(partition),
                durability,
                expect_offset: expect_offset.map(Offset),
                due: due.map(|(is_time, ms)| if is_time { Due::At(Timestamp(ms)) } else { Due::After(ms) }),
            };
            let prefix = header.frame_prefix(batch.len());
            let (head, rest) = prefix.split_first_chunk().unwrap();
            let frame = FrameHeader::read(head).unwrap();
            prop_assert_eq!((frame.kind, frame.len), (FrameType::Publish, rest.len() + batch.len()));
            let mut payload = Bytes::from([rest, &batch].concat());
            prop_assert_eq!(PublishHeader::read(&mut payload), Ok(header));
            prop_assert_eq!(payload, batch);
        }

        #[test]
        fn acks_are_read_back_and_every_cut_is_noticed(acks in vec(any_ack(), 0..6)) {
            let bytes = written(&acks);
            prop_assert_eq!(Ack::read_all(&bytes), Ok(acks.clone()));
            prop_assert_eq!(bytes.len(), acks.iter().map(Ack::encoded_len_max).sum::<usize>());
            let boundaries: Vec<usize> = (0..=acks.len()).map(|count| written(&acks[..count]).len()).collect();
            for len in 0..bytes.len() {
                prop_assert_eq!(Ack::read_all(&bytes[..len]).is_ok(), boundaries.contains(&len), "cut to {}", len);
            }
        }
    }

    #[test]
    fn a_long_refusal_is_clipped_between_characters() {
        let refusal = Refusal::new(ErrorCode::Internal, "é".repeat(REASON_BYTES_MAX));
        let ack = Ack { correlation: 1, partition: PartitionId(2), outcome: AckOutcome::Refused(refusal) };
        let read = Ack::read_all(&written(&[ack])).unwrap();
        let AckOutcome::Refused(refusal) = &read[0].outcome else { panic!("{read:?}") };
        assert_eq!(refusal.message, "é".repeat(REASON_BYTES_MAX / 2));
        assert_eq!(clip("aé", 2), "a");
    }

    #[test]
    fn reserved_bytes_are_ignored_and_reserved_meanings_refused() {
        let header = PublishHeader {
            correlation: 1,
            partition: PartitionId(0),
            durability: None,
            expect_offset: None,
            due: None,
        };
        let read = |at: usize, value: u8| {
            let mut bytes = header.frame_prefix(0)[FRAME_HEADER_BYTES..].to_vec();
            bytes[at] = value;
            PublishHeader::read(&mut Bytes::from(bytes))
        };
        assert_eq!(read(7, 1), Ok(header), "how to read a deliver_at of 0");
        assert!(read(6, 3).is_err(), "a durability that does not exist");
        assert_eq!(read(16, 1), Ok(PublishHeader { due: Some(Due::At(Timestamp(1))), ..header }));
        let mut ack = written(&[Ack {
            correlation: 1,
            partition: PartitionId(0),
            outcome: AckOutcome::Appended { base: None, count: 0, duplicate: false, duplicates: None },
        }]);
        ack[28] = 1;
        ack[5] = 4;
        assert!(Ack::read_all(&ack).is_ok());
        ack[5] = 2;
        assert!(Ack::read_all(&ack).is_err(), "duplicates, of which there is none");
        ack[5] = 0;
        ack[4] = 2;
        assert!(Ack::read_all(&ack).is_err(), "prepared, which this version does not know");
    }
}
