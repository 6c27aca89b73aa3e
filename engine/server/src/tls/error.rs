//! Why there is no certificate to serve with.

use std::{io, path::PathBuf};

use levada_protocol::error::ErrorCode;

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path} cannot be {action}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} holds no usable {expected}: {got}; put the file back, or {remedy}")]
    Content {
        /// The file or directory.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The mistake.
        got: String,
        /// What else helps.
        remedy: &'static str,
    },
    /// A file is missing, and what it should hold cannot be made here.
    #[error(
        "{path} holds no usable {expected}: it is missing, and without ca.pem and ca.key none can be made; put \
         server.pem and server.key in place, or remove them and ca.pem to have all created again"
    )]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// No certificate could be made.
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not go together, or the library refuses them.
    #[error("{certificate} and {key} do not go together; put both back, or {remedy}")]
    Serve {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What else helps.
        remedy: &'static str,
        /// The underlying error.
        #[source]
        source: Box<rustls::Error>,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File { .. }
            | Self::Content { .. }
            | Self::Missing { .. }
            | Self::Make(_)
            | Self::Serve { .. }
            | Self::Random(_) => ErrorCode::TlsFailed,
        }
    }
}
