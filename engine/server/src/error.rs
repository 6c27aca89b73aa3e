//! Why a server does not start, or does not end well.

use std::net::SocketAddr;

use levada_protocol::error::ErrorCode;

use crate::{config, tls};

/// Why a server does not start, or does not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The port is taken.
    #[error("address {address} ({protocol}) is in use by another program")]
    AddressInUse {
        /// The configured address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on {address} ({protocol})")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// The underlying error.
        #[source]
        source: std::io::Error,
    },
    /// The data directory cannot be made.
    #[error("data directory {path} cannot be made")]
    DataDir {
        /// The file or directory.
        path: std::path::PathBuf,
        /// The underlying error.
        #[source]
        source: std::io::Error,
    },
    /// The file for an administrator's token cannot be made.
    #[error(
        "{path} cannot be created for the administrator's token; name a file that does not exist, in a directory that does"
    )]
    AdminToken {
        /// The file.
        path: std::path::PathBuf,
        /// The underlying error.
        #[source]
        source: std::io::Error,
    },
    /// What receivers' certificates may be of cannot be read.
    #[error("{0}")]
    Push(String),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] levada_store::Error),
    /// There is no certificate to serve with.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The plugin host does not start.
    #[error("the plugin host does not start")]
    Plugins(#[from] levada_plugin_host::Error),
    /// The broker does not start.
    #[error(transparent)]
    Broker(#[from] levada_broker::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(error) => error.code(),
            Self::AddressInUse { .. } => ErrorCode::AddressInUse,
            Self::Listen { .. } | Self::DataDir { .. } | Self::AdminToken { .. } | Self::Push(_) => {
                ErrorCode::ConfigInvalid
            }
            Self::Store(error) => error.code(),
            Self::Tls(error) => error.code(),
            Self::Plugins(_) => ErrorCode::Internal,
            Self::Broker(error) => error.code(),
        }
    }
}
