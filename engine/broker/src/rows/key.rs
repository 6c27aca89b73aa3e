//! Making and reading keys: numbers are big endian, so that the order of bytes is the order of values.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, TopicId};

/// A half-open range of keys.
pub(crate) type KeyRange = (Bytes, Bytes);

/// Everything in a family of the broker's.
pub(crate) fn whole_family() -> KeyRange {
    (Bytes::from_static(&[0x00]), Bytes::from_static(&[0xff; 64]))
}

/// A key in the making.
pub(crate) struct KeyBuilder(BytesMut);

impl KeyBuilder {
    /// An empty key that will have `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self(BytesMut::with_capacity(len))
    }

    pub(super) fn u8(mut self, value: u8) -> Self {
        self.0.put_u8(value);
        self
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.0.put_u16(value);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    pub(super) fn u128(mut self, value: u128) -> Self {
        self.0.put_u128(value);
        self
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.put_slice(value);
        self
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// All keys that begin with what was put so far.
    pub(super) fn range(self) -> KeyRange {
        let from = self.finish();
        let to = match from.iter().rposition(|byte| *byte != u8::MAX) {
            Some(at) => {
                let mut to = from[..=at].to_vec();
                to[at] += 1;
                to.into()
            }
            None => whole_family().1,
        };
        (from, to)
    }
}

/// What of a key was not read yet.
pub(crate) struct KeyFields<'a>(&'a [u8]);

impl<'a> KeyFields<'a> {
    /// The rest of a key that begins with `tag`.
    pub(super) fn after(tag: &[u8], key: &'a [u8]) -> Option<Self> {
        key.strip_prefix(tag).map(Self)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes before the next `end`, which is taken too.
    pub(super) fn until(&mut self, end: u8) -> Option<&'a [u8]> {
        let at = self.0.iter().position(|byte| *byte == end)?;
        let (head, rest) = self.0.split_at(at);
        self.0 = &rest[1..];
        Some(head)
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// `None` if there are bytes left.
    pub(super) fn finish<T>(self, key: T) -> Option<T> {
        self.0.is_empty().then_some(key)
    }
}

/// An offset of a partition as part of a key.
pub(super) fn offset_key(tag: u8, (topic, partition, offset): &(TopicId, PartitionId, Offset)) -> Bytes {
    KeyBuilder::new(15).u8(tag).u32(topic.0).u16(partition.0).u64(offset.0).finish()
}

/// Reads such a key.
pub(super) fn parse_offset_key(tag: u8, key: &[u8]) -> Option<(TopicId, PartitionId, Offset)> {
    let mut fields = KeyFields::after(&[tag], key)?;
    let position = (TopicId(fields.u32()?), PartitionId(fields.u16()?), Offset(fields.u64()?));
    fields.finish(position)
}

/// Such keys of one partition, before `below`.
pub(super) fn offset_keys_below(tag: u8, topic: TopicId, partition: PartitionId, below: Offset) -> KeyRange {
    (offset_key(tag, &(topic, partition, Offset(0))), offset_key(tag, &(topic, partition, below)))
}

/// All keys of one partition after `tag`.
pub(super) fn partition_keys(tag: u8, topic: TopicId, partition: PartitionId) -> KeyRange {
    KeyBuilder::new(7).u8(tag).u32(topic.0).u16(partition.0).range()
}

/// All keys of a topic after `tag`.
pub(super) fn topic_keys(tag: u8, topic: TopicId) -> KeyRange {
    KeyBuilder::new(5).u8(tag).u32(topic.0).range()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_holds_every_key_that_begins_so_and_no_other(
            prefix in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 1..6),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            other in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let (from, to) = KeyBuilder::new(0).bytes(&prefix).range();
            let holds = |key: &[u8]| from[..] <= *key && *key < to[..];
            prop_assert!(holds(&[&prefix[..], &rest].concat()));
            prop_assert_eq!(holds(&other), other.starts_with(&prefix));
        }
    }
}
