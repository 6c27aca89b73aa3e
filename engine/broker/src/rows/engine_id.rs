//! What a data directory is known by, for good.
//!
//! ```text
//!  0         1         9
//!  +---------+---------+
//!  | version | id      |
//!  | u8 = 1  | 8 bytes |
//!  +---------+---------+
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    tag,
};
use crate::artefacts::hex;

/// A random id; people see it as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineId(pub(crate) [u8; 8]);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Row for EngineId {
    const NAME: &'static str = "engine id";
    const FAMILY: Family = Family::Meta;
    const VERSION: u8 = 1;
    type Key = ();

    fn key((): &()) -> Bytes {
        Bytes::from_static(&[tag::META_ENGINE_ID])
    }

    fn parse_key(key: &[u8]) -> Option<()> {
        (key == [tag::META_ENGINE_ID]).then_some(())
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(fields.array()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let id = EngineId([1, 2, 3, 4, 5, 6, 7, 0xff]);
        check::bytes(&(), &id, "02", "01 01020304050607ff");
        assert_eq!(id.to_string(), "01020304050607ff");
    }

    proptest! {
        #[test]
        fn it_comes_back(id: [u8; 8]) {
            check::comes_back(&(), &EngineId(id));
        }
    }
}
