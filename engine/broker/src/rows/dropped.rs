//! A range of rows that was dropped, or some of them, and whose space is to be given back; see `crate::reclaim`. All of it is
//! in the key: family u8, its highest bit set if rows of the range live, length of the first bound u8, both bounds. The value
//! is the version byte alone.

use bytes::{Bytes, BytesMut};
use levada_store::{Deleted, Family, Op};

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// The bit of the family's number that says that rows of the range live.
const LIVE: u8 = 0x80;

/// The space of a dropped range was not given back yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

/// Which range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DroppedRange {
    pub(crate) family: Family,
    /// At most 255 bytes.
    pub(crate) from: Bytes,
    pub(crate) to: Bytes,
    /// Whether all of its rows are deleted.
    pub(crate) deleted: Deleted,
}

/// Drops the rows of a range, and notes that their space is to be given back.
pub(crate) fn drop_rows(mut push: impl FnMut(Op), family: Family, (from, to): KeyRange) {
    let dropped = DroppedRange { family, from: from.clone(), to: to.clone(), deleted: Deleted::All };
    push(Dropped.put(&dropped));
    push(Op::DeleteRange { family, from, to });
}

impl Dropped {
    /// All of them.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::META_DROPPED).range()
    }
}

impl Row for Dropped {
    const NAME: &'static str = "dropped range";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = DroppedRange;

    fn key(DroppedRange { family, from, to, deleted }: &DroppedRange) -> Bytes {
        let len = u8::try_from(from.len()).expect("a dropped range begins with a short key");
        let key = KeyBuilder::new(3 + from.len() + to.len()).u8(tag::META_DROPPED);
        let live = if *deleted == Deleted::Some { LIVE } else { 0 };
        key.u8(family.number() | live).u8(len).bytes(from).bytes(to).finish()
    }

    fn parse_key(key: &[u8]) -> Option<DroppedRange> {
        let mut fields = KeyFields::after(&[tag::META_DROPPED], key)?;
        let [family, len] = fields.array()?;
        let (from, to) = key[3..].split_at_checked(usize::from(len))?;
        let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
        let deleted = if family & LIVE == 0 { Deleted::All } else { Deleted::Some };
        Some(DroppedRange { family: Family::from_number(family & !LIVE)?, from, to, deleted })
    }

    fn len(&self) -> usize {
        0
    }

    fn write(&self, _out: &mut BytesMut) {}

    fn read(_fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let range = DroppedRange {
            family: Family::Log,
            from: Bytes::from_static(&[0, 0, 0, 1]),
            to: Bytes::from_static(&[0, 0, 0, 2]),
            deleted: Deleted::All,
        };
        check::bytes(&range, &Dropped, "12 02 04 00000001 00000002", "01");
        let range = DroppedRange { deleted: Deleted::Some, ..range };
        check::bytes(&range, &Dropped, "12 82 04 00000001 00000002", "01");
    }

    proptest! {
        #[test]
        fn it_comes_back(
            family in 0..10u8, from in vec(any::<u8>(), 0..256), to in vec(any::<u8>(), 0..40), all: bool,
        ) {
            let family = Family::from_number(family).unwrap();
            let deleted = if all { Deleted::All } else { Deleted::Some };
            let range = DroppedRange { family, from: from.into(), to: to.into(), deleted };
            check::comes_back(&range, &Dropped);
            check::is_within::<Dropped>(&range, &Dropped::all());
        }
    }
}
