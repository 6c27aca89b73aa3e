//! The log of commands other than `serve`: warnings, or more with -v, as text on stderr.

use std::io;

use tracing_subscriber::EnvFilter;

/// Sets up the process's log for a command that talks to an engine.
pub(crate) fn for_client(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "levada=info",
        2 => "levada=debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
}
