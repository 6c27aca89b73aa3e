//! Which version numbers of a plugin were given, once its newest version is removed: none is given twice. The key holds
//! the plugin's name.

use serde::{Deserialize, Serialize};

use super::{record::Record, tag};

/// The version numbers of a plugin, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PluginNumbers {
    pub(crate) name: String,
    /// The last one that was given.
    pub(crate) last: u32,
}

impl Record for PluginNumbers {
    const NAME: &'static str = "plugin numbers";
    const TAG: u8 = tag::CATALOGUE_PLUGIN_NUMBERS;
    type Key = String;
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
