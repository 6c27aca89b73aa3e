//! The log of commands other than `serve`: warnings, or more with -v, on stderr, in the form of everything there.

use std::io;

use levada_server::telemetry::LossyStderr;
use levada_terminal::choices::Format;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry,
    util::SubscriberInitExt as _,
};

/// Parts of the client library whose warnings a command prints itself, as its error or as a remark.
const COMMANDS_TELL: [&str; 3] =
    ["levada_client::publisher", "levada_client::subscriber", "levada_client::reader"];

/// Sets up the process's log for a command that talks to an engine.
pub(crate) fn for_client(verbose: u8, format: Format) {
    let filter = match verbose {
        0 => {
            let silent = COMMANDS_TELL.map(|target| (target, LevelFilter::OFF));
            Targets::new().with_default(LevelFilter::WARN).with_targets(silent)
        }
        1 => Targets::new().with_target("levada", LevelFilter::INFO),
        2 => Targets::new().with_target("levada", LevelFilter::DEBUG),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    };
    let lines = fmt::layer().with_writer(|| LossyStderr).log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines).with(filter).init();
}
