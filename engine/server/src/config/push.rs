//! Settings of pushes: where deliveries may be sent beside the public internet, and whom their receivers are vouched for by.

use std::path::PathBuf;

use levada_webhook::{Allowed, Network};

use super::{
    Error,
    section::{require, section},
};
use crate::units;

const NETWORKS: &str = "networks such as 10.0.0.0/8, fd00::/8 or 127.0.0.1";

section! {
    /// Pushes: deliveries that the engine sends to URLs.
    PushConfig {
        /// Networks that deliveries may be pushed to although their addresses are not public, such as
        /// `["10.1.0.0/16"]`. One of loopback permits http to it as well, for programs beside the engine. Empty: none, and
        /// every address of a private network, of this machine or of a cloud's metadata is refused.
        allow: Vec<String> = Vec::new();
        /// Certificate authorities that receivers' certificates may be of, beside those that the system trusts: a PEM file.
        #[serde(with = "units::file")]
        ca: Option<PathBuf> = None;
    }
}

/// The network that a text means.
///
/// # Errors
/// What was expected and what came.
pub fn parse_network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error: levada_webhook::InvalidNetwork| error.to_string())
}

impl PushConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.allow
            .iter()
            .try_for_each(|text| require("push.allow", parse_network(text).is_ok(), text, NETWORKS))
    }

    /// The networks, which were checked.
    pub(crate) fn allowed(&self) -> Allowed {
        Allowed::new(self.allow.iter().filter_map(|text| text.parse().ok()).collect())
    }
}
