//! The line of a plugin's versions: which one is active, and the last number that was given. It outlives the versions,
//! so that no number is given twice. The key holds the plugin's name.

use levada_protocol::ids::PluginName;
use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// The line of a plugin's versions, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PluginLineRecord {
    pub(crate) name: PluginName,
    /// The version that chains run which name none; 0 if there is no version.
    pub(crate) active: u32,
    /// The last number that was given.
    pub(crate) last: u32,
}

impl Record for PluginLineRecord {
    const NAME: &'static str = "plugin line";
    const TAG: u8 = tag::CATALOGUE_PLUGIN_LINE;
    type Key = PluginName;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let line = PluginLineRecord { name: "ab".parse().unwrap(), active: 2, last: 3 };
        let expected = "0183a46e616d65a26162a661637469766502a46c61737403";
        check::bytes(&"ab".parse().unwrap(), &line, "05 6162", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(name in "[a-z0-9]{1,20}", active in any::<u32>(), last in any::<u32>()) {
            let name: PluginName = name.parse().unwrap();
            check::comes_back(&name.clone(), &PluginLineRecord { name, active, last });
        }
    }
}
