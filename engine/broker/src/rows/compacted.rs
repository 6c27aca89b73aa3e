//! How far a partition is compacted; no row as long as it never was.
//!
//! ```text
//!  0         1       9                17              25             33         41              49              57
//!  +---------+-------+----------------+---------------+--------------+----------+---------------+---------------+-----------------+
//!  | version | until | appended_bytes | dropped_bytes | stored_bytes | ended    | earlier_until | earlier_ended | first_tombstone |
//!  | u8 = 1  | u64   | u64            | u64           | u64          | u64 (ms) | u64           | u64 (ms)      | u64             |
//!  +---------+-------+----------------+---------------+--------------+----------+---------------+---------------+-----------------+
//!  65            73             81
//!  +-------------+--------------+
//!  | saved_bytes | saved_before |
//!  | u64         | u64          |
//!  +-------------+--------------+
//! ```
//!
//! `first_tombstone` is an offset, all ones if there is none.

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::compaction::{Passes, Reached};
use levada_protocol::ids::{Offset, PartitionId, Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange, topic_keys},
    tag,
};

/// The last pass over a partition. Bytes are those of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Compacted {
    /// The offset up to which each key has one event at most.
    pub(crate) until: Offset,
    /// When it ended.
    pub(crate) ended: Timestamp,
    /// How far that pass, or an earlier one, came; see [`Passes`].
    pub(crate) earlier: Reached,
    /// Bytes appended to the partition before that since the topic was made.
    pub(crate) appended_bytes: u64,
    /// Those of them that were before the log's start when it was compacted.
    pub(crate) dropped_bytes: u64,
    /// Bytes that the pass left between the log's start and `until`.
    pub(crate) stored_bytes: u64,
    /// The first tombstone that is left.
    pub(crate) first_tombstone: Option<Offset>,
    /// By how many bytes records were shortened since, by a pass that is under way or ended early.
    pub(crate) saved_bytes: u64,
    /// Bytes appended to the partition before the end of where that was.
    pub(crate) saved_before: u64,
}

impl Compacted {
    /// Those of a topic.
    pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
        topic_keys(tag::META_COMPACTED, topic)
    }

    /// The passes that are known of.
    pub(crate) fn passes(&self) -> Passes {
        Passes { last: Reached { until: self.until, at: self.ended }, earlier: self.earlier }
    }

    /// Notes that records with no more than so many bytes before their ends were shortened.
    pub(crate) fn add_saved(&mut self, bytes: u64, before: u64) {
        self.saved_bytes += bytes;
        self.saved_before = self.saved_before.max(before);
    }

    /// What the last pass left that is stored still, where the log begins behind so many bytes.
    pub(crate) fn clean_bytes(&self, before: u64) -> u64 {
        let dropped = before.saturating_sub(self.dropped_bytes);
        self.stored_bytes.saturating_sub(dropped).min(self.appended_bytes.saturating_sub(before))
    }

    /// Bytes that are stored of what was appended from `before` to `appended` bytes of the partition. It is too many if
    /// `before` is within what is compacted, where it is not known.
    pub(crate) fn stored_between(&self, before: u64, appended: u64) -> u64 {
        let above = appended.saturating_sub(before.max(self.appended_bytes));
        above + self.appended_bytes.saturating_sub(before).min(self.stored_bytes)
    }

    /// The same, and too few where it is not known: `before` is where the log begins now.
    pub(crate) fn stored_at_least(&self, before: u64, appended: u64) -> u64 {
        let above = appended.saturating_sub(before.max(self.appended_bytes));
        let saved = self.saved_bytes.min(self.saved_before.saturating_sub(before));
        (above + self.clean_bytes(before)).saturating_sub(saved)
    }
}

impl Row for Compacted {
    const NAME: &'static str = "compaction";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = (TopicId, PartitionId);

    fn key((topic, partition): &Self::Key) -> Bytes {
        KeyBuilder::new(7).u8(tag::META_COMPACTED).u32(topic.0).u16(partition.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::META_COMPACTED], key)?;
        let partition = (TopicId(fields.u32()?), PartitionId(fields.u16()?));
        fields.finish(partition)
    }

    fn len(&self) -> usize {
        80
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.until.0);
        out.put_u64_le(self.appended_bytes);
        out.put_u64_le(self.dropped_bytes);
        out.put_u64_le(self.stored_bytes);
        out.put_u64_le(self.ended.0);
        out.put_u64_le(self.earlier.until.0);
        out.put_u64_le(self.earlier.at.0);
        out.put_u64_le(self.first_tombstone.map_or(u64::MAX, |offset| offset.0));
        out.put_u64_le(self.saved_bytes);
        out.put_u64_le(self.saved_before);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            until: Offset(fields.u64()?),
            appended_bytes: fields.u64()?,
            dropped_bytes: fields.u64()?,
            stored_bytes: fields.u64()?,
            ended: Timestamp(fields.u64()?),
            earlier: Reached { until: Offset(fields.u64()?), at: Timestamp(fields.u64()?) },
            first_tombstone: Some(fields.u64()?).filter(|offset| *offset != u64::MAX).map(Offset),
            saved_bytes: fields.u64()?,
            saved_before: fields.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = Compacted {
            until: Offset(3),
            appended_bytes: 0x0405,
            dropped_bytes: 6,
            stored_bytes: 7,
            ended: Timestamp(8),
            earlier: Reached { until: Offset(9), at: Timestamp(10) },
            first_tombstone: Some(Offset(11)),
            saved_bytes: 12,
            saved_before: 13,
        };
        let key = (TopicId(1), PartitionId(2));
        let numbers = "01 0300000000000000 0504000000000000 0600000000000000 0700000000000000 \
                       0800000000000000 0900000000000000 0a00000000000000";
        let saved = "0c00000000000000 0d00000000000000";
        check::bytes(&key, &row, "14 00000001 0002", &format!("{numbers} 0b00000000000000 {saved}"));
        let none = Compacted { first_tombstone: None, ..row };
        check::bytes(&key, &none, "14 00000001 0002", &format!("{numbers} ffffffffffffffff {saved}"));
    }

    #[test]
    fn bytes_are_known_but_for_what_was_dropped_of_what_is_compacted() {
        let row =
            Compacted { appended_bytes: 1_000, dropped_bytes: 100, stored_bytes: 50, ..Compacted::default() };
        let both = |before| (row.stored_at_least(before, 1_200), row.stored_between(before, 1_200));
        assert_eq!(both(100), (250, 250));
        assert_eq!(both(130), (220, 250), "30 of the 50 are left, or all of them");
        assert_eq!(both(970), (200, 230));
        assert_eq!(both(1_000), (200, 200));
        assert_eq!(both(1_150), (50, 50));
        let mut row = row;
        row.add_saved(40, 1_100);
        let both = |before| (row.stored_at_least(before, 1_200), row.stored_between(before, 1_200));
        assert_eq!(both(100), (210, 250), "so much of both was dropped since");
        assert_eq!(both(1_000), (160, 200));
        assert_eq!(both(1_080), (100, 120), "no more than there was");
        assert_eq!(both(1_150), (50, 50));
        let never = Compacted::default();
        assert_eq!((never.stored_at_least(30, 100), never.stored_between(30, 100)), (70, 70));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            topic: u32, partition: u16, numbers: [u64; 9], tombstone in option::of(0..u64::MAX),
        ) {
            let [until, appended_bytes, dropped_bytes, stored_bytes, ended, earlier, at, saved_bytes, saved_before] =
                numbers;
            let row = Compacted {
                until: Offset(until),
                appended_bytes,
                dropped_bytes,
                stored_bytes,
                ended: Timestamp(ended),
                earlier: Reached { until: Offset(earlier), at: Timestamp(at) },
                first_tombstone: tombstone.map(Offset),
                saved_bytes,
                saved_before,
            };
            let key = (TopicId(topic), PartitionId(partition));
            check::comes_back(&key, &row);
            check::is_within::<Compacted>(&key, &Compacted::of_topic(key.0));
        }
    }
}
