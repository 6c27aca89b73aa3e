//! When a decided transaction is forgotten. The key holds that time, then the transaction; the value is the version alone.

use bytes::{Bytes, BytesMut};
use levada_protocol::ids::Timestamp;
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
    transaction_key::TransactionKey,
};

/// The end of a transaction's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionEnd;

impl TransactionEnd {
    /// Those whose time is not after this one, in order.
    pub(crate) fn until(time: Timestamp) -> KeyRange {
        let from = KeyBuilder::new(1).u8(tag::TRANSACTION_END).finish();
        (from, KeyBuilder::new(9).u8(tag::TRANSACTION_END).u64(time.0.saturating_add(1)).finish())
    }
}

impl Row for TransactionEnd {
    const NAME: &'static str = "transaction's end";
    const FAMILY: Family = Family::Prepared;
    const VERSION: u8 = 1;
    type Key = (Timestamp, TransactionKey);

    fn key((time, key): &Self::Key) -> Bytes {
        key.put(KeyBuilder::new(9 + key.len()).u8(tag::TRANSACTION_END).u64(time.0)).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[tag::TRANSACTION_END], key)?;
        let key = (Timestamp(fields.u64()?), TransactionKey::read(&mut fields)?);
        fields.finish(key)
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
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let key = TransactionKey { group: "a".parse().unwrap(), id: "b".parse().unwrap() };
        check::bytes(&(Timestamp(2), key), &TransactionEnd, "04 0000000000000002 61 00 62 00", "01");
    }

    proptest! {
        #[test]
        fn it_comes_back(time in 0..u64::MAX - 1, group in "[a-z0-9]{1,20}", id in "[!-~]{1,40}") {
            let key = TransactionKey { group: group.parse().unwrap(), id: id.parse().unwrap() };
            let key = (Timestamp(time), key);
            check::comes_back(&key, &TransactionEnd);
            check::is_within::<TransactionEnd>(&key, &TransactionEnd::until(Timestamp(time)));
            let (_, before) = TransactionEnd::until(Timestamp(time.saturating_sub(1)));
            prop_assert!(time == 0 || TransactionEnd::key(&key) >= before);
        }
    }
}
