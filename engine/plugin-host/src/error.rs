//! Why a host did not start or a plugin was not accepted.

use std::{error::Error as _, io, path::PathBuf};

use levada_protocol::error::ErrorCode;
use levada_stage::{AttachError, CallError};

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
        /// The underlying error.
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
    /// The stable code for clients.
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

impl From<&Error> for AttachError {
    /// One sentence with all causes: the receiver passes only the sentence on.
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(&format!(": {source}"));
            cause = source.source();
        }
        Self::new(error.code(), message)
    }
}

/// The longest prefix of `text` of at most `bytes_max` bytes that is still UTF-8.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_in_the_sentence() {
        let error = AttachError::from(&Error::InitFailed(CallError::Stack));
        assert_eq!(error.code(), ErrorCode::PluginInitRefused);
        assert_eq!(error.message, "the plugin did not start: the plugin's stack overflowed");
    }
}
