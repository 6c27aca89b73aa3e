//! What changes of topics, subscriptions, routes and plugins are shown as: what there is, and what has become of it.

use levada_protocol::request::{Deleted, PluginInfo};
use serde::Serialize;

/// What was made, or is there as it was to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made<'a, T> {
    /// As it is.
    #[serde(flatten)]
    pub found: &'a T,
    /// False if it was there already.
    pub created: bool,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion<'a> {
    /// What was named.
    pub deleted: &'a str,
    /// All that is gone.
    #[serde(flatten)]
    pub gone: &'a Deleted,
}

/// A plugin version that was deployed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment<'a> {
    /// The version.
    #[serde(flatten)]
    pub plugin: &'a PluginInfo,
    /// False if this version had the same artefact already.
    pub deployed: bool,
}
