//! The process's log: what is written, and how. Nothing else of the engine writes to stderr, panics included.

use std::{
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
    thread,
    time::Duration,
};

use tracing_subscriber::{
    Layer as _, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

pub use crate::log_writer::LossyStderr;
use crate::{
    config::{LogFormat, ServerConfig},
    log_writer::LogWriter,
    units::filter,
};

/// How long the end of the process waits for the last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's text is no filter.
    #[error("log_filter is {got:?}, expected {}", filter::EXPECTED)]
    Filter {
        /// The text that was given.
        got: String,
    },
    /// This process has a log already.
    #[error("the process has a log already")]
    Installed,
    /// The thread that writes the log cannot be started.
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(io::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> levada_protocol::error::ErrorCode {
        match self {
            Self::Filter { .. } => levada_protocol::error::ErrorCode::ConfigInvalid,
            Self::Installed | Self::Thread(_) => levada_protocol::error::ErrorCode::Internal,
        }
    }
}

/// The process's log. Dropping it waits a moment for the last lines.
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct Log {
    writer: LogWriter,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.flush(LAST_LINES);
    }
}

/// Sets up the log on stderr, once per process. Panics go there too.
///
/// # Errors
/// If the filter is none, or there is a log already.
pub fn install(config: &ServerConfig) -> Result<Log, Error> {
    let text = &config.telemetry.log_filter;
    let filter = filter::parse(text).ok_or_else(|| Error::Filter { got: text.clone() })?;
    let writer = LogWriter::start(io::stderr()).map_err(Error::Thread)?;
    // What the library says about a line that it could not write, it says on stderr and panics if it cannot.
    let lines = fmt::layer().with_writer(writer.clone()).with_target(true).log_internal_errors(false);
    let lines = match config.telemetry.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines).with(filter).try_init().map_err(|_| Error::Installed)?;
    panic::set_hook(Box::new(log_panic));
    Ok(Log { writer })
}

/// The standard hook writes to stderr itself, and waits for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(thread, location, message, "a thread panicked");
}
