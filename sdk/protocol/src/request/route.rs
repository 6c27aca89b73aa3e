//! Routes, as they are asked for and shown.

use serde::{Deserialize, Serialize};

use super::{Position, RunState, StageSpec, Start};
use crate::ids::{RouteName, TopicName};

/// What a route is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// The source topic.
    pub from: TopicName,
    /// The target topics, 1 to 64; the first takes outputs that name none.
    pub to: Vec<TopicName>,
    /// Plugins that events pass, in order; only the last may choose a target.
    #[serde(default)]
    pub chain: Vec<StageSpec>,
    /// Where it begins.
    #[serde(default)]
    pub start: Start,
}

impl RouteSpec {
    /// A route without plugins that begins at the end of its source.
    pub fn new(name: RouteName, from: TopicName, to: impl IntoIterator<Item = TopicName>) -> Self {
        Self { name, from, to: to.into_iter().collect(), chain: Vec::new(), start: Start::default() }
    }
}

/// The description and current state of a route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The options that it was created with, defaults filled in.
    pub spec: RouteSpec,
    /// Its id.
    #[serde(default)]
    pub id: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_ms: u64,
    /// Per source partition: the next offset to take.
    #[serde(default)]
    pub positions: Vec<Position>,
    /// Source events not yet taken, over all partitions.
    #[serde(default)]
    pub lag: u64,
    /// Events that went to the dead-letter topic, since the engine started.
    #[serde(default)]
    pub dead_lettered: u64,
    /// Events whose time to live ended before it took them, since the engine started.
    #[serde(default)]
    pub events_expired: u64,
    /// Whether it goes on, and why not.
    #[serde(default)]
    pub state: RunState,
}

impl RouteInfo {
    /// A route that has taken nothing yet.
    pub fn new(spec: RouteSpec) -> Self {
        let (positions, state) = (Vec::new(), RunState::default());
        Self { spec, id: 0, created_ms: 0, positions, lag: 0, dead_lettered: 0, events_expired: 0, state }
    }
}
