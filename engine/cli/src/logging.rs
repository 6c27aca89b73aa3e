//! The log of commands other than `serve`: warnings, or more with -v, on stderr, in the form of everything there.

use std::io;

use levada_server::telemetry::LossyStderr;
use levada_terminal::choices::Format;
use tracing_subscriber::EnvFilter;

/// Warnings, but those of the client library about what a command prints itself, as its error or as a remark.
const COMMANDS_TELL: &str =
    "warn,levada_client::publisher=off,levada_client::subscriber=off,levada_client::reader=off";

/// Sets up the process's log for a command that talks to an engine.
pub(crate) fn for_client(verbose: u8, format: Format) {
    let level = match verbose {
        0 => COMMANDS_TELL,
        1 => "levada=info",
        2 => "levada=debug",
        _ => "trace",
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(|| LossyStderr)
        .log_internal_errors(false);
    match format {
        Format::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
}
