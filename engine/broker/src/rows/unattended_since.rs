//! Since when a subscription has no consumer: written in the commit that makes the subscription, and when its last consumer has
//! left. No row: a consumer was attached when the engine stopped, or the subscription was made by a version that did not
//! keep this.
//!
//! ```text
//!  0         1        9
//!  +---------+--------+
//!  | version | time   |
//!  | u8 = 1  | u64 ms |
//!  +---------+--------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{SubscriptionId, Timestamp};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// When the last consumer left, or the subscription was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnattendedSince(pub(crate) Timestamp);

impl UnattendedSince {
    /// Those of all subscriptions.
    pub(crate) fn all() -> KeyRange {
        KeyBuilder::new(1).u8(tag::CURSOR_UNATTENDED).range()
    }
}

impl Row for UnattendedSince {
    const NAME: &'static str = "unattended subscription";
    const FAMILY: Family = Family::Cursors;
    const VERSION: u8 = 1;
    type Key = SubscriptionId;

    fn key(id: &SubscriptionId) -> Bytes {
        KeyBuilder::new(9).u8(tag::CURSOR_UNATTENDED).u64(id.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<SubscriptionId> {
        let mut fields = KeyFields::after(&[tag::CURSOR_UNATTENDED], key)?;
        let id = SubscriptionId(fields.u64()?);
        fields.finish(id)
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(Timestamp(fields.u64()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let row = UnattendedSince(Timestamp(258));
        check::bytes(&SubscriptionId(9), &row, "04 0000000000000009", "01 0201000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(id: u64, time: u64) {
            let key = SubscriptionId(id);
            check::comes_back(&key, &UnattendedSince(Timestamp(time)));
            check::is_within::<UnattendedSince>(&key, &UnattendedSince::all());
        }
    }
}
