//! Which version numbers of a plugin were given, once its newest version is removed: none is given twice. The key holds
//! the plugin's name.

use bytes::{Bytes, BytesMut};
use levada_store::Family;
use serde::{Deserialize, Serialize};

use super::{
    Row,
    codec::{Damage, Fields},
    key::KeyBuilder,
    record, tag,
};

/// The version numbers of a plugin, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PluginNumbers {
    pub(crate) name: String,
    /// The last one that was given.
    pub(crate) last: u32,
}

impl Row for PluginNumbers {
    const NAME: &'static str = "plugin numbers";
    const FAMILY: Family = Family::Catalogue;
    const VERSION: u8 = 1;
    type Key = String;

    fn key(name: &String) -> Bytes {
        KeyBuilder::new(1 + name.len()).u8(tag::CATALOGUE_PLUGIN_NUMBERS).bytes(name.as_bytes()).finish()
    }

    fn parse_key(key: &[u8]) -> Option<String> {
        let name = key.strip_prefix(&[tag::CATALOGUE_PLUGIN_NUMBERS])?;
        String::from_utf8(name.to_vec()).ok()
    }

    fn len(&self) -> usize {
        record::LEN
    }

    fn write(&self, out: &mut BytesMut) {
        record::write(self, out);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        record::read(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let numbers = PluginNumbers { name: "ab".to_owned(), last: 3 };
        check::bytes(&"ab".to_owned(), &numbers, "05 6162", "0182a46e616d65a26162a46c61737403");
    }

    proptest! {
        #[test]
        fn it_comes_back(name in ".{0,20}", last in any::<u32>()) {
            check::comes_back(&name.clone(), &PluginNumbers { name, last });
        }
    }
}
