//! Plugin versions, as they are shown.

use serde::{Deserialize, Serialize};

use crate::ids::PluginName;

/// Which of the plugin interfaces a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// Bytes in, bytes out.
    Batch,
    /// Typed events.
    Events,
    /// An interface of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Interface {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Events => "events",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&str> for Interface {
    /// The interface of this word; `Unknown` for any other.
    fn from(word: &str) -> Self {
        match word {
            "batch" => Self::Batch,
            "events" => Self::Events,
            _ => Self::Unknown,
        }
    }
}

/// The description of a plugin version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// Its name.
    pub name: PluginName,
    /// Its version, rising from 1.
    #[serde(default)]
    pub version: u32,
    /// Chains that name no version run this one. One version of each plugin is active.
    #[serde(default)]
    pub active: bool,
    /// SHA-256 of the artefact, in hexadecimal.
    #[serde(default)]
    pub sha256: String,
    /// The artefact's length in bytes.
    #[serde(default)]
    pub size: u64,
    /// The plugin interface that it exports.
    #[serde(default)]
    pub interface: Interface,
    /// When it was deployed, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub deployed_ms: u64,
    /// In the answer to a deployment: this version was these very bytes already, and no other was made.
    #[serde(default)]
    pub already_deployed: bool,
    /// The subscriptions and routes that use it; at most 1,000 of them.
    #[serde(default)]
    pub used_by: Vec<String>,
    /// How many subscriptions and routes use it.
    #[serde(default)]
    pub used_by_count: u64,
    /// Calls, since the engine started.
    #[serde(default)]
    pub calls: u64,
    /// Events handed in, since the engine started.
    #[serde(default)]
    pub events_in: u64,
    /// Calls that failed, and events whose verdict could not be followed, such as one for a target that the route does
    /// not declare; since the engine started.
    #[serde(default)]
    pub errors: u64,
    /// The last of these errors.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Instances that were replaced because earlier calls had left no memory for the next one, which was then repeated;
    /// no errors, since the engine started.
    #[serde(default)]
    pub memory_restarts: u64,
    /// Seconds spent in it, since the engine started.
    #[serde(default)]
    pub seconds: f64,
}

impl PluginInfo {
    /// A version about which nothing else is known.
    pub fn new(name: PluginName, version: u32) -> Self {
        Self {
            name,
            version,
            active: false,
            sha256: String::new(),
            size: 0,
            interface: Interface::default(),
            deployed_ms: 0,
            already_deployed: false,
            used_by: Vec::new(),
            used_by_count: 0,
            calls: 0,
            events_in: 0,
            errors: 0,
            last_error: None,
            memory_restarts: 0,
            seconds: 0.0,
        }
    }
}
