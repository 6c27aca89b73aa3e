//! A batch of a transaction that is not decided: the bytes that its producer sent. The key holds the transaction, and the
//! batch's index in it.

use bytes::{BufMut, Bytes, BytesMut};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
    transaction_key::TransactionKey,
};

/// The bytes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreparedBatch(pub(crate) Bytes);

impl PreparedBatch {
    /// Those of one transaction, in order.
    pub(crate) fn of(key: &TransactionKey) -> KeyRange {
        key.put(KeyBuilder::new(1 + key.len()).u8(tag::PREPARED_BATCH)).range()
    }
}

impl Row for PreparedBatch {
    const NAME: &'static str = "prepared batch";
    const FAMILY: Family = Family::Prepared;
    const VERSION: u8 = 1;
    type Key = (TransactionKey, u16);

    fn key((key, index): &Self::Key) -> Bytes {
        key.put(KeyBuilder::new(3 + key.len()).u8(tag::PREPARED_BATCH)).u16(*index).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::PREPARED_BATCH], key)?;
        let key = (TransactionKey::read(&mut fields)?, fields.u16()?);
        fields.finish(key)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(Bytes::copy_from_slice(fields.rest())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let key = (TransactionKey { group: "a".parse().unwrap(), id: "b".parse().unwrap() }, 3);
        assert_eq!(PreparedBatch::key(&key)[..], [2, b'a', 0, b'b', 0, 0, 3]);
        assert_eq!(PreparedBatch(Bytes::from_static(&[7, 8])).encode()[..], [1, 7, 8]);
    }

    proptest! {
        #[test]
        fn it_comes_back(group in "[a-z0-9]{1,20}", id in "[!-~]{1,40}", index: u16, batch in vec(any::<u8>(), 0..60)) {
            let key = (TransactionKey { group: group.parse().unwrap(), id: id.parse().unwrap() }, index);
            let row = PreparedBatch(batch.into());
            prop_assert_eq!(PreparedBatch::parse_key(&PreparedBatch::key(&key)), Some(key.clone()));
            prop_assert_eq!(PreparedBatch::decode(&row.encode()), Ok(row));
            check::is_within::<PreparedBatch>(&key, &PreparedBatch::of(&key.0));
        }
    }
}
