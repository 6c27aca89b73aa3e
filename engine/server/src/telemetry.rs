//! The process's log: what is written, and how.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

use crate::config::{LogFormat, ServerConfig};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's text is no filter.
    #[error("log_filter is {got:?}, expected a level or target=level pairs: {message}")]
    Filter {
        /// What came.
        got: String,
        /// What is wrong with it.
        message: String,
    },
    /// This process has a log already.
    #[error("the process has a log already")]
    Installed,
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> levada_protocol::error::ErrorCode {
        match self {
            Self::Filter { .. } => levada_protocol::error::ErrorCode::ConfigInvalid,
            Self::Installed => levada_protocol::error::ErrorCode::Internal,
        }
    }
}

/// Sets up the log on stderr, once per process.
///
/// # Errors
/// If the filter is none, or there is a log already.
pub fn install(config: &ServerConfig) -> Result<(), Error> {
    let filter = filter(&config.log_filter)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(true);
    let installed = match config.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    installed.map_err(|_| Error::Installed)
}

fn filter(text: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| Error::Filter { got: text.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_pairs() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,levada_server=debug").is_ok());
        let error = filter("levada_server=loud").unwrap_err();
        assert!(error.to_string().contains("levada_server=loud"), "{error}");
    }
}
