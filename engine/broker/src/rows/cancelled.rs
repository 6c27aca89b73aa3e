//! Which events of a delayed batch were cancelled: one bit an event, the first in the lowest bit of the first byte, behind
//! the version byte. The key is the batch's, and sorts right before it.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::TopicId;
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    scheduled::{KIND_CANCELLED, Place, parse_place_key, place_key},
};

/// The cancelled events of a delayed batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cancelled(Vec<u8>);

impl Cancelled {
    /// True if the event with this index was cancelled.
    pub(crate) fn holds(&self, index: u32) -> bool {
        let (at, bit) = place_of(index);
        self.0.get(at).is_some_and(|byte| byte & bit != 0)
    }

    /// Cancels an event; false if it was cancelled before.
    pub(crate) fn add(&mut self, index: u32) -> bool {
        let is_new = !self.holds(index);
        let (at, bit) = place_of(index);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= bit;
        is_new
    }

    /// The events whose bits are set.
    pub(super) fn of(bits: &[u8]) -> Self {
        Self(bits.to_vec())
    }

    pub(super) fn bits(&self) -> &[u8] {
        &self.0
    }

    /// How many were cancelled.
    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

fn place_of(index: u32) -> (usize, u8) {
    let at = usize::try_from(index / 8).expect("a batch has few events");
    (at, 1 << (index % 8))
}

impl Row for Cancelled {
    const NAME: &'static str = "cancelled events";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = (TopicId, Place);

    fn key(key: &Self::Key) -> Bytes {
        place_key(key, KIND_CANCELLED)
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        parse_place_key(key, KIND_CANCELLED)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self::of(fields.rest()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use levada_protocol::ids::Timestamp;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn the_bytes_are_these() {
        let mut row = Cancelled::default();
        assert!(row.add(9) && row.add(0) && !row.add(9));
        assert_eq!(row.encode()[..], [1, 0b1, 0b10]);
        let key = (TopicId(1), Place { due: Timestamp(3), first: 4 });
        let expected = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0];
        assert_eq!(Cancelled::key(&key)[..], expected);
        assert!(Cancelled::key(&key) < super::super::Scheduled::key(&key));
    }

    proptest! {
        #[test]
        fn it_comes_back(indexes in vec(0..10_000_u32, 0..40)) {
            let mut row = Cancelled::default();
            let set: BTreeSet<u32> = indexes.iter().copied().collect();
            for index in &indexes {
                row.add(*index);
            }
            let row = Cancelled::decode(&row.encode()).unwrap();
            prop_assert_eq!(row.count() as usize, set.len());
            prop_assert!((0..10_000).all(|index| row.holds(index) == set.contains(&index)));
        }
    }
}
