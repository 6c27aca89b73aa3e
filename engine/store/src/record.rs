//! The log's rows: the key that says where batches are, and the engine's prefix before their bytes. It knows
//! neither which topics exist nor where a log begins and ends.
//!
//! Key, 14 bytes, big endian so that the order of bytes is the order of the log:
//!
//! ```text
//!  0          4           6             14
//!  +----------+-----------+-------------+
//!  | topic    | partition | base_offset |
//!  | u32      | u16       | u64         |
//!  +----------+-----------+-------------+
//! ```
//!
//! Value: 36 bytes, little endian, then batches back to back, each beginning where the one before it ends:
//!
//! ```text
//!  0         1       2      3          4             12             20             28     32       36
//!  +---------+-------+------+----------+-------------+--------------+--------------+------+--------+---------+
//!  | version | flags | hops | reserved | append_time | commit_index | bytes_before | span | crc32c | batches |
//!  | u8 = 2  | u8 = 0| u8   | u8 = 0   | u64 (ms)    | u64          | u64          | u32  | u32    |         |
//!  +---------+-------+------+----------+-------------+--------------+--------------+------+--------+---------+
//! ```
//!
//! - `crc32c` covers the key, the 32 bytes before it, and the checksum field of each batch in turn. So it binds the
//!   batches to their offsets without reading their bodies; those are covered by the batches' own checksums.
//! - `hops` is how many routes the events have passed.
//! - `span` is how many offsets the record covers, at least 1: as many as its batches, or more where events behind them
//!   are no more, down to a record without a batch: compaction writes such records.
//! - `bytes_before` is how many bytes of batches were appended to the partition before this record since the topic was
//!   made, so that the size of any stretch, before events of it were superseded, is a difference of two records.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch, BatchHeader, Batches},
    deliver::Run,
    ids::{CommitIndex, Offset, PartitionId, Timestamp, TopicId},
};

/// Bytes of a log key.
pub const LOG_KEY_BYTES: usize = 14;
/// Bytes of a record before its batches.
pub const RECORD_PREFIX_BYTES: usize = 36;
/// Those of them before the checksum.
const CHECKED_PREFIX_BYTES: usize = RECORD_PREFIX_BYTES - 4;
/// The layout version in the first byte of every record.
pub const RECORD_VERSION: u8 = 2;

/// The position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionId,
    /// The offset of the record's first event.
    pub base: Offset,
}

impl LogKey {
    /// The key's bytes.
    pub fn encode(&self) -> [u8; LOG_KEY_BYTES] {
        let mut key = [0; LOG_KEY_BYTES];
        let mut out = &mut key[..];
        out.put_u32(self.topic.0);
        out.put_u16(self.partition.0);
        out.put_u64(self.base.0);
        key
    }

    /// Reads a key; `None` if it does not have 14 bytes.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let mut rest: &[u8] = key.first_chunk::<LOG_KEY_BYTES>().filter(|_| key.len() == LOG_KEY_BYTES)?;
        Some(Self {
            topic: TopicId(rest.get_u32()),
            partition: PartitionId(rest.get_u16()),
            base: Offset(rest.get_u64()),
        })
    }
}

/// A range of log keys, `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRange {
    /// The first key of it.
    pub from: Bytes,
    /// The first key after it.
    pub to: Bytes,
}

impl LogRange {
    /// The records of one partition whose base offset is in `[from, to)`.
    pub fn offsets(topic: TopicId, partition: PartitionId, from: Offset, to: Offset) -> Self {
        let key = |base| Bytes::copy_from_slice(&LogKey { topic, partition, base }.encode());
        Self { from: key(from), to: key(to) }
    }

    /// Every record of one partition.
    pub fn partition(topic: TopicId, partition: PartitionId) -> Self {
        let from = LogKey { topic, partition, base: Offset(0) }.encode();
        Self { from: Bytes::copy_from_slice(&from), to: after(&from[..6]) }
    }

    /// Every record of one topic.
    pub fn topic(topic: TopicId) -> Self {
        let from = LogKey { topic, partition: PartitionId(0), base: Offset(0) }.encode();
        Self { from: Bytes::copy_from_slice(&from), to: after(&from[..4]) }
    }
}

/// The least bytes that are above every log key beginning with `prefix`.
fn after(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte != u8::MAX) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end.into()
        }
        None => Bytes::from_static(&[u8::MAX; LOG_KEY_BYTES + 1]),
    }
}

/// A record that was read: its prefix is checked and its batches are bound to their offsets.
///
/// The batches themselves, headers included, are checked when [`Record::batches`] or another walk over them gets
/// there; until then `count` is what their headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key under which it is stored.
    pub key: LogKey,
    /// When it was appended.
    pub append_time: Timestamp,
    /// How many routes its events have passed.
    pub hops: u8,
    /// The commit that it came in.
    pub commit_index: CommitIndex,
    /// How many events it holds.
    pub count: u64,
    /// How many offsets it covers.
    pub span: u32,
    /// Bytes of batches appended to the partition before it.
    pub bytes_before: u64,
    /// The batches back to back.
    pub bytes: Bytes,
}

impl Record {
    /// The offset after its last one.
    pub fn end(&self) -> Offset {
        self.key.base.plus(u64::from(self.span))
    }

    /// The batches with their base offsets, each checked as it is reached.
    pub fn batches(&self) -> Batches {
        Batches::new(self.key.base, self.bytes.clone())
    }

    /// The record as a run of a delivery frame; the bytes are shared.
    pub fn run(&self) -> Run {
        Run {
            base: self.key.base,
            append_time: self.append_time,
            hops: self.hops,
            batches: self.bytes.clone(),
        }
    }
}

/// Why a row of the log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is none of the log's.
    #[error("a log key is {got} bytes, expected {LOG_KEY_BYTES}")]
    Key {
        /// Its length.
        got: usize,
    },
    /// The record was written by a later release.
    #[error("{} has format {got}, expected {RECORD_VERSION}", location(key))]
    Newer {
        /// The key under which it is stored.
        key: LogKey,
        /// The value that was read.
        got: u8,
    },
    /// The record is damaged, or is not the one that was stored under this key.
    #[error("{} is damaged: {what}", location(key))]
    Damaged {
        /// The key under which it is stored.
        key: LogKey,
        /// What does not fit.
        what: &'static str,
    },
}

fn location(key: &LogKey) -> String {
    format!("the record at topic {}, partition {}, offset {}", key.topic, key.partition, key.base)
}

/// Everything of a record but its key and its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// How many routes the events have passed.
    pub hops: u8,
    /// When they are appended.
    pub append_time: Timestamp,
    /// The commit that it comes in.
    pub commit_index: CommitIndex,
    /// Bytes of batches appended to the partition before it.
    pub bytes_before: u64,
    /// How many offsets it covers: at least as many as its batches.
    pub span: u32,
}

/// The value of a record.
pub fn encode(key: &LogKey, prefix: &Prefix, batches: &[&Batch]) -> Bytes {
    let len = batches.iter().map(|batch| batch.bytes().len()).sum::<usize>();
    let mut out = BytesMut::with_capacity(RECORD_PREFIX_BYTES + len);
    out.put_u8(RECORD_VERSION);
    out.put_u8(0);
    out.put_u8(prefix.hops);
    out.put_u8(0);
    out.put_u64_le(prefix.append_time.0);
    out.put_u64_le(prefix.commit_index.0);
    out.put_u64_le(prefix.bytes_before);
    out.put_u32_le(prefix.span);
    let mut crc = crc32c::crc32c_append(crc32c::crc32c(&key.encode()), &out);
    for batch in batches {
        crc = crc32c::crc32c_append(crc, &batch.header().crc.to_le_bytes());
    }
    out.put_u32_le(crc);
    for batch in batches {
        out.put_slice(batch.bytes());
    }
    out.freeze()
}

/// Checks a row of the log: that its prefix is whole, and that these are the batches that were stored here.
pub fn check(key: &[u8], value: Bytes) -> Result<Record, RecordError> {
    let log_key = LogKey::decode(key).ok_or(RecordError::Key { got: key.len() })?;
    let damaged = |what| RecordError::Damaged { key: log_key, what };
    let Some((prefix, _)) = value.split_first_chunk::<RECORD_PREFIX_BYTES>() else {
        return Err(damaged("it is shorter than its prefix"));
    };
    let mut fields = &prefix[..];
    let (version, flags, hops, reserved) =
        (fields.get_u8(), fields.get_u8(), fields.get_u8(), fields.get_u8());
    let (append_time, commit_index) = (fields.get_u64_le(), fields.get_u64_le());
    let (bytes_before, span, crc) = (fields.get_u64_le(), fields.get_u32_le(), fields.get_u32_le());
    let bytes = value.slice(RECORD_PREFIX_BYTES..);
    let mut expected = crc32c::crc32c_append(crc32c::crc32c(key), &prefix[..CHECKED_PREFIX_BYTES]);
    let (mut count, mut held, mut rest) = (0, 0, &bytes[..]);
    while let Some(header) = BatchHeader::read(rest) {
        expected = crc32c::crc32c_append(expected, &header.crc.to_le_bytes());
        count += u64::from(header.count);
        held += u64::from(header.span);
        rest = rest
            .get(BATCH_HEADER_BYTES + header.body_len as usize..)
            .ok_or_else(|| damaged("a batch goes past its end"))?;
    }
    if crc != expected {
        return Err(damaged("its checksum does not match its key, prefix and batches"));
    }
    if version > RECORD_VERSION {
        return Err(RecordError::Newer { key: log_key, got: version });
    }
    if version != RECORD_VERSION || flags != 0 || reserved != 0 {
        return Err(damaged("its version never was, or a flag is set that this version does not know"));
    }
    if !rest.is_empty() {
        return Err(damaged("its last batch is cut off"));
    }
    if span == 0 || held > u64::from(span) {
        return Err(damaged("it covers fewer offsets than its batches"));
    }
    Ok(Record {
        key: log_key,
        append_time: Timestamp(append_time),
        hops,
        commit_index: CommitIndex(commit_index),
        count,
        span,
        bytes_before,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        event::Event,
    };
    use proptest::prelude::*;

    use super::*;

    fn batch(payloads: &[Vec<u8>]) -> Batch {
        let mut builder = BatchBuilder::new();
        for payload in payloads {
            builder
                .push(&Event { payload: Some(payload.clone().into()), ..Event::default() })
                .expect("small events fit");
        }
        builder.finish(Stamp::ENGINE)
    }

    prop_compose! {
        fn any_key()(topic: u32, partition: u16, base in 0..u64::MAX / 2) -> LogKey {
            LogKey { topic: TopicId(topic), partition: PartitionId(partition), base: Offset(base) }
        }
    }

    prop_compose! {
        fn any_batches()(
            batches in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5), 1..4)
        ) -> Vec<Batch> {
            batches.iter().map(|payloads| batch(payloads)).collect()
        }
    }

    fn prefix(span: u32) -> Prefix {
        Prefix {
            hops: 2,
            append_time: Timestamp(77),
            commit_index: CommitIndex(9),
            bytes_before: 0x0a0b,
            span,
        }
    }

    fn stored(key: &LogKey, batches: &[Batch]) -> Bytes {
        let span = batches.iter().map(Batch::span).sum();
        encode(key, &prefix(span), &batches.iter().collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_went(key in any_key(), batches in any_batches()) {
            let record = check(&key.encode(), stored(&key, &batches)).unwrap();
            prop_assert_eq!((record.key, record.hops), (key, 2));
            prop_assert_eq!((record.append_time, record.commit_index), (Timestamp(77), CommitIndex(9)));
            let events: u64 = batches.iter().map(|batch| u64::from(batch.count())).sum();
            prop_assert_eq!((record.count, u64::from(record.span)), (events, events));
            prop_assert_eq!(record.bytes_before, 0x0a0b);
            let read: Vec<_> = record.batches().map(|batch| batch.unwrap().1).collect();
            prop_assert_eq!(read, batches);
            prop_assert_eq!(record.run().base, key.base);
            prop_assert_eq!(record.end(), key.base.plus(events));
        }

        #[test]
        fn a_record_may_cover_more_offsets_than_it_holds_and_not_fewer(
            key in any_key(), batches in prop_oneof![any_batches(), Just(Vec::new())], more in 0..1_000u32,
        ) {
            let held: u32 = batches.iter().map(Batch::span).sum();
            let batches: Vec<&Batch> = batches.iter().collect();
            let record = check(&key.encode(), encode(&key, &prefix(held + more + 1), &batches)).unwrap();
            prop_assert_eq!(record.end(), key.base.plus(u64::from(held + more + 1)));
            prop_assert_eq!(record.batches().count(), batches.len());
            let fewer = held.saturating_sub(more + 1);
            prop_assert!(check(&key.encode(), encode(&key, &prefix(fewer), &batches)).is_err());
        }

        #[test]
        fn any_flipped_bit_is_noticed(key in any_key(), batches in any_batches(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut value = stored(&key, &batches).to_vec();
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            let noticed = match check(&key.encode(), value.into()) {
                Err(_) => true,
                Ok(record) => at >= RECORD_PREFIX_BYTES && record.batches().any(|batch| batch.is_err()),
            };
            prop_assert!(noticed);
        }

        #[test]
        fn any_flipped_bit_of_the_prefix_is_noticed_at_once(key in any_key(), batches in any_batches(), at in 0..RECORD_PREFIX_BYTES, bit in 0..8u8) {
            let mut value = stored(&key, &batches).to_vec();
            value[at] ^= 1 << bit;
            prop_assert!(check(&key.encode(), value.into()).is_err());
        }

        #[test]
        fn a_record_under_another_key_is_noticed(key in any_key(), other in any_key(), batches in any_batches()) {
            prop_assume!(key != other);
            prop_assert!(check(&other.encode(), stored(&key, &batches)).is_err());
        }

        #[test]
        fn a_swapped_batch_is_noticed(key in any_key(), batches in any_batches()) {
            let value = stored(&key, &batches);
            let mut other = value[..RECORD_PREFIX_BYTES].to_vec();
            other.extend_from_slice(batch(&[b"not what was stored".to_vec()]).bytes());
            prop_assert!(check(&key.encode(), other.into()).is_err());
        }

        #[test]
        fn a_cut_record_is_refused(key in any_key(), batches in any_batches(), at in any::<prop::sample::Index>()) {
            let value = stored(&key, &batches);
            prop_assert!(check(&key.encode(), value.slice(..at.index(value.len()))).is_err());
        }

        #[test]
        fn garbage_is_refused(key in any_key(), garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(check(&key.encode(), garbage.into()).is_err());
        }

        #[test]
        fn keys_sort_like_the_log(one in any_key(), two in any_key()) {
            prop_assert_eq!(one.encode().cmp(&two.encode()), one.cmp(&two));
            prop_assert_eq!(LogKey::decode(&one.encode()), Some(one));
        }

        #[test]
        fn ranges_hold_what_they_say(key in any_key(), other in any_key()) {
            let holds = |range: &LogRange, key: &LogKey| range.from[..] <= key.encode()[..] && key.encode()[..] < range.to[..];
            let (partition, topic) = (LogRange::partition(key.topic, key.partition), LogRange::topic(key.topic));
            prop_assert!(holds(&partition, &key) && holds(&topic, &key));
            prop_assert_eq!(holds(&topic, &other), other.topic == key.topic);
            prop_assert_eq!(holds(&partition, &other), (other.topic, other.partition) == (key.topic, key.partition));
            let last = LogKey { base: Offset(u64::MAX), ..key };
            prop_assert!(holds(&partition, &last));
            let offsets = LogRange::offsets(key.topic, key.partition, key.base, key.base.plus(1));
            prop_assert!(holds(&offsets, &key) && !holds(&offsets, &last));
        }
    }

    #[test]
    fn the_last_topic_and_partition_have_an_end() {
        let key =
            LogKey { topic: TopicId(u32::MAX), partition: PartitionId(u16::MAX), base: Offset(u64::MAX) };
        for range in [LogRange::partition(key.topic, key.partition), LogRange::topic(key.topic)] {
            assert!(key.encode()[..] < range.to[..]);
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let key = LogKey { topic: TopicId(1), partition: PartitionId(2), base: Offset(3) };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&key.encode()), "0000000100020000000000000003");
        let value = stored(&key, &[batch(&[b"x".to_vec()])]);
        let expected = "02000200 4d00000000000000 0900000000000000 0b0a000000000000 01000000 bb6560bd";
        assert_eq!(hex(&value[..RECORD_PREFIX_BYTES]), expected.replace(' ', ""));
    }

    #[test]
    fn a_record_of_a_later_format_says_so() {
        let key = LogKey { topic: TopicId(1), partition: PartitionId(0), base: Offset(0) };
        let batch = batch(&[b"x".to_vec()]);
        let mut value = stored(&key, std::slice::from_ref(&batch)).to_vec();
        value[0] = 3;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&key.encode()), &value[..CHECKED_PREFIX_BYTES]);
        let crc = crc32c::crc32c_append(crc, &batch.header().crc.to_le_bytes());
        value[CHECKED_PREFIX_BYTES..RECORD_PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        let error = check(&key.encode(), value.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the record at topic 1, partition 0, offset 0 has format 3, expected 2"
        );
    }
}
