//! The event ids that one commit has brought to one partition with a dedup window. The key holds the offset of the first
//! event with one of them.
//!
//! ```text
//!  0         1        2          4        8             16               24       24 + 16 * count
//!  +---------+--------+----------+--------+-------------+----------------+--------+---------+
//!  | version | deltas | reserved | count  | append_time | complete_since | hashes | deltas  |
//!  | u8 = 1  | u8     | u16      | u32    | u64 (ms)    | u64 (ms)       | u128   | u32     |
//!  |         |        |          |        |             |                | each   | each    |
//!  +---------+--------+----------+--------+-------------+----------------+--------+---------+
//! ```
//!
//! `deltas` 0: the events follow on each other from the key's offset. 1: each is so many offsets behind it. All ids of
//! the partition that were appended after `complete_since` are remembered.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyRange, offset_key, parse_offset_key, partition_keys, topic_keys},
    tag,
};

const HASH_BYTES: usize = 16;
const DELTA_BYTES: usize = 4;
const FIXED_BYTES: usize = 23;

/// See the file's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DedupIds {
    pub(crate) append_time: Timestamp,
    pub(crate) complete_since: Timestamp,
    hashes: Vec<u128>,
    /// One a hash, from 0 on; empty while they follow on each other.
    deltas: Vec<u32>,
}

impl DedupIds {
    /// Bytes of a key.
    pub(crate) const KEY_BYTES: usize = 15;
    /// Bytes that one more id takes at most.
    pub(crate) const ID_BYTES_MAX: usize = HASH_BYTES + DELTA_BYTES;

    /// A row without ids yet.
    pub(crate) fn new(append_time: Timestamp, complete_since: Timestamp) -> Self {
        Self { append_time, complete_since, hashes: Vec::new(), deltas: Vec::new() }
    }

    /// Adds the id of the event that is `delta` offsets behind the first one; deltas begin at 0 and rise.
    pub(crate) fn push(&mut self, hash: u128, delta: u32) {
        let count = u32::try_from(self.hashes.len()).expect("a commit has less than 2^32 events");
        if self.deltas.is_empty() && delta != count {
            self.deltas.extend(0..count);
        }
        if delta != count || !self.deltas.is_empty() {
            self.deltas.push(delta);
        }
        self.hashes.push(hash);
    }

    /// The hashes, with how far behind the first one their events are.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u128, u32)> {
        let delta = |index: u32| self.deltas.get(index as usize).copied().unwrap_or(index);
        (0..).zip(&self.hashes).map(move |(index, hash)| (*hash, delta(index)))
    }

    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::DEDUP_IDS, topic)
    }

    /// Those of a partition.
    pub(crate) fn of_partition(topic: TopicId, partition: PartitionId) -> KeyRange {
        partition_keys(tag::DEDUP_IDS, topic, partition)
    }
}

impl Row for DedupIds {
    const NAME: &'static str = "event ids";
    const FAMILY: Family = Family::Dedup;
    const VERSION: u8 = 1;
    type Key = (TopicId, PartitionId, Offset);

    fn key(key: &Self::Key) -> Bytes {
        offset_key(tag::DEDUP_IDS, key)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_offset_key(tag::DEDUP_IDS, key)
    }

    fn len(&self) -> usize {
        FIXED_BYTES + self.hashes.len() * HASH_BYTES + self.deltas.len() * DELTA_BYTES
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(!self.deltas.is_empty()));
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(self.hashes.len()).expect("a commit has less than 2^32 events"));
        out.put_u64_le(self.append_time.0);
        out.put_u64_le(self.complete_since.0);
        self.hashes.iter().for_each(|hash| out.put_u128_le(*hash));
        self.deltas.iter().for_each(|delta| out.put_u32_le(*delta));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let has_deltas = match fields.u8()? {
            0 => false,
            1 => true,
            other => return Err(format!("its deltas are of kind {other}").into()),
        };
        fields.reserved::<2>()?;
        let count = fields.u32()? as usize;
        let (append_time, complete_since) = (Timestamp(fields.u64()?), Timestamp(fields.u64()?));
        let id_bytes = HASH_BYTES + if has_deltas { DELTA_BYTES } else { 0 };
        if count.checked_mul(id_bytes) != Some(fields.left()) {
            return Err(format!("{count} ids in {} bytes", fields.left()).into());
        }
        let hashes = (0..count).map(|_| fields.array().map(u128::from_le_bytes)).collect::<Result<_, _>>()?;
        let count = if has_deltas { count } else { 0 };
        let deltas = (0..count).map(|_| fields.u32()).collect::<Result<Vec<_>, _>>()?;
        let begins = deltas.first().is_none_or(|first| *first == 0);
        if !begins || !deltas.is_sorted_by(|one, next| one < next) {
            return Err("its offsets do not rise".into());
        }
        Ok(Self { append_time, complete_since, hashes, deltas })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let mut row = DedupIds::new(Timestamp(7), Timestamp(5));
        (0..2).for_each(|at| row.push(0x0a + u128::from(at), at));
        let key = (TopicId(1), PartitionId(2), Offset(3));
        let expected = "01 00 0000 02000000 0700000000000000 0500000000000000 \
            0a000000000000000000000000000000 0b000000000000000000000000000000";
        check::bytes(&key, &row, "01 00000001 0002 0000000000000003", expected);
        row.push(0x0c, 9);
        let expected = "01 01 0000 03000000 0700000000000000 0500000000000000 \
            0a000000000000000000000000000000 0b000000000000000000000000000000 \
            0c000000000000000000000000000000 00000000 01000000 09000000";
        check::bytes(&key, &row, "01 00000001 0002 0000000000000003", expected);
        assert_eq!(row.ids().collect::<Vec<_>>(), [(0x0a, 0), (0x0b, 1), (0x0c, 9)]);
    }

    proptest! {
        #[test]
        fn it_comes_back(
            topic in any::<u32>(), partition in any::<u16>(), base in 0..u64::MAX, append_time in any::<u64>(),
            ids in vec((any::<u128>(), 0..3_u32), 1..40), complete_since in any::<u64>(),
        ) {
            let key = (TopicId(topic), PartitionId(partition), Offset(base));
            let mut row = DedupIds::new(Timestamp(append_time), Timestamp(complete_since));
            let (mut delta, mut pushed) = (0, Vec::new());
            for (hash, gap) in ids {
                delta += if pushed.is_empty() { 0 } else { gap };
                row.push(hash, delta);
                pushed.push((hash, delta));
                delta += 1;
            }
            prop_assert_eq!(row.ids().collect::<Vec<_>>(), pushed);
            check::comes_back(&key, &row);
            check::is_within::<DedupIds>(&key, &DedupIds::of_topic(key.0));
            check::is_within::<DedupIds>(&key, &DedupIds::of_partition(key.0, key.1));
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..120)) {
            check::garbage::<DedupIds>(&garbage);
        }
    }
}
