//! What is attached, where, and why that may be refused.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use levada_protocol::error::ErrorCode;

/// The plugin interface that an artefact exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// Batch bytes in, verdict bytes out.
    Batch,
    /// Typed events in, typed verdicts out.
    Events,
}

impl Interface {
    /// The word used on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Events => "events",
        }
    }
}

/// What is known of a valid artefact before it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// The interface that it exports.
    pub interface: Interface,
    /// The SHA-256 of its bytes, which identifies it.
    pub sha256: [u8; 32],
}

/// Where a chain is applied to events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachmentPoint {
    /// Before a topic's commit, when events have no offsets yet.
    Publish,
    /// Between a topic and the topics that a route appends to.
    Route,
    /// In front of the consumers of one subscription.
    Subscription,
    /// In front of one who reads through a permission with a mask.
    Read,
}

impl AttachmentPoint {
    /// The word that plugins, logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Route => "route",
            Self::Subscription => "subscription",
            Self::Read => "read",
        }
    }
}

/// A plugin's component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artefact {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read only if its compiled form is not available.
    File {
        /// The file.
        path: PathBuf,
        /// The SHA-256 that its bytes must have.
        sha256: [u8; 32],
    },
}

/// How a plugin is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// The plugin's name, for its setup, the log and errors.
    pub plugin: String,
    /// Its version, from 1; 0 for a trial before the plugin is stored.
    pub version: u32,
    /// The configuration that its `init` reads: JSON text.
    pub config: String,
    /// The topic whose events it gets.
    pub topic: String,
    /// The kind of attachment point.
    pub point: AttachmentPoint,
    /// The identity among the attachment points of this kind; a trial has one of its own. A host divides its time
    /// between them, so all attachments with the same identity share its turns.
    pub point_id: u64,
    /// How much processor time one call may take. On a busy machine it may last up to ten times as long, and the time
    /// in which others have their turn is added.
    pub deadline: Duration,
    /// Most memory of one instance, in bytes.
    pub memory_bytes_max: u64,
}

/// Why an artefact was not accepted or not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AttachError {
    /// One of the `PLUGIN_` codes, or why the artefact could not be read.
    pub code: ErrorCode,
    /// One sentence: what was expected and what was found.
    pub message: String,
}

impl AttachError {
    /// An error with this code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}
