//! A plugin version: its record under an id of its own.

use levada_protocol::ids::PluginName;
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// A plugin version, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PluginRecord {
    pub(crate) id: u64,
    pub(crate) name: PluginName,
    pub(crate) version: u32,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) interface: String,
    pub(crate) created_ms: u64,
    pub(crate) owner: String,
}

impl Record for PluginRecord {
    const NAME: &'static str = "plugin";
    const TAG: u8 = tag::CATALOGUE_PLUGIN;
    type Key = u64;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let plugin = PluginRecord {
            id: 3,
            name: "json-filter".parse().unwrap(),
            version: 2,
            sha256: "ab".to_owned(),
            size: 5,
            interface: "levada:plugin/raw@1.0.0".to_owned(),
            created_ms: 7,
            owner: "me".to_owned(),
        };
        let expected = "0188a2696403a46e616d65ab6a736f6e2d66696c746572a776657273696f6e02a6736861323536a26162a473 \
            697a6505a9696e74657266616365b76c65766164613a706c7567696e2f72617740312e302e30aa6372656174 \
            65645f6d7307a56f776e6572a26d65";
        check::bytes(&3, &plugin, "03 0000000000000003", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(
            (id, version, size, created_ms) in any::<(u64, u32, u64, u64)>(), name in "[a-z0-9_-]{0,20}", sha256 in "[0-9a-f]{64}",
            interface in ".{0,20}", owner in ".{0,20}",
        ) {
            let name = format!("p{name}").parse().unwrap();
            let record = PluginRecord { id, name, version, sha256, size, interface, created_ms, owner };
            check::comes_back(&id, &record);
        }
    }
}
