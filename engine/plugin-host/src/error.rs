//! Why a plugin was not accepted, and what a call came to.

use std::{io, path::PathBuf};

use levada_protocol::error::ErrorCode;

/// Why a host was not made, or a plugin not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than an artefact may be.
    #[error("the artefact is {got} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        got: u64,
        /// The limit.
        limit: usize,
    },
    /// No component, or a broken one.
    #[error("the artefact is no plugin: {0}")]
    Invalid(String),
    /// A component of another purpose.
    #[error(
        "the component exports {found}, expected levada:plugin/batch@0.1.0 or levada:plugin/events@0.1.0"
    )]
    ExportMissing {
        /// What it exports.
        found: String,
    },
    /// It wants more of its host than plugins get.
    #[error("the component imports {import}, which no plugin is granted")]
    ImportDenied {
        /// The import's name.
        import: String,
    },
    /// Its `init` answered with an error.
    #[error("the plugin refused its configuration: {0}")]
    InitRefused(String),
    /// Its instantiation or `init` broke a limit or trapped.
    #[error("the plugin did not start")]
    InitFailed(#[source] CallError),
    /// A configuration that is too large for any plugin.
    #[error("the plugin's configuration is {got} bytes, the limit is {limit}")]
    ConfigTooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// An artefact's file that could not be read, or the folder of compiled plugins.
    #[error("{} can not be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An artefact's file that is not what its name says.
    #[error("the artefact {} does not have the hash that names it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The machine cannot run plugins.
    #[error("the plugin host could not be started: {0}")]
    Unavailable(String),
}

impl Error {
    /// The stable code that a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::PluginTooLarge,
            Self::Invalid(_) => ErrorCode::PluginInvalid,
            Self::ExportMissing { .. } => ErrorCode::PluginExportMissing,
            Self::ImportDenied { .. } => ErrorCode::PluginImportDenied,
            Self::InitRefused(_) | Self::InitFailed(_) => ErrorCode::PluginInitRefused,
            Self::ConfigTooLarge { .. } => ErrorCode::InvalidArgument,
            Self::Io { .. } => ErrorCode::StorageFailed,
            Self::Damaged { .. } => ErrorCode::StorageCorrupt,
            Self::Unavailable(_) => ErrorCode::Internal,
        }
    }
}

/// Why a call has no verdicts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took too long and was stopped.
    #[error("the plugin took longer than its deadline")]
    Deadline,
    /// It wanted more memory than it may have.
    #[error("the plugin wanted more memory than it may have")]
    Memory,
    /// It called itself too deep.
    #[error("the plugin's stack overflowed")]
    Stack,
    /// It trapped; a panic's message comes with it.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// It asked for the same events again, later.
    #[error("the plugin asked for a retry: {0}")]
    Retry(String),
    /// It refused the whole call.
    #[error("the plugin refused the events: {0}")]
    Reject(String),
    /// Its answer is malformed, over a limit, or not about these events.
    #[error("the plugin's answer is unusable: {0}")]
    Output(String),
}

/// The longest prefix of `text` of at most `bytes_max` bytes that is still UTF-8.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
