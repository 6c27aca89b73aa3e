//! The first schedule id of a topic that gets its first delayed event: above those of every topic that was deleted, so that
//! an id never names another event under the same topic's name.
//!
//! ```text
//!  0         1       9
//!  +---------+-------+
//!  | version | begin |
//!  | u8 = 1  | u64   |
//!  +---------+-------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    tag,
};

/// Where the ids of a new topic begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScheduleBegin(pub(crate) u64);

impl Row for ScheduleBegin {
    const NAME: &'static str = "schedule begin";
    const FAMILY: Family = Family::Schedule;
    const VERSION: u8 = 1;
    type Key = ();

    fn key((): &()) -> Bytes {
        Bytes::from_static(&[tag::SCHEDULE_BEGIN])
    }

    fn parse_key(key: &[u8]) -> Option<()> {
        (key == [tag::SCHEDULE_BEGIN]).then_some(())
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(fields.u64()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        check::bytes(&(), &ScheduleBegin(0x0102), "04", "01 0201000000000000");
    }

    proptest! {
        #[test]
        fn it_comes_back(begin: u64) {
            check::comes_back(&(), &ScheduleBegin(begin));
        }
    }
}
