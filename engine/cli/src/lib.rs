//! The command line of Levada: every command. The demo and the bench are crates of their own.
//!
//! One file per command; each turns arguments into calls of the client (or of the server, for `serve`) and answers
//! into text or JSON. Nothing here decides what the engine does.

mod args;
mod commands;

mod client;
mod contexts;
mod failure;
mod logging;
mod outcome;
mod reach;

use std::{ffi::OsString, process::ExitCode};

use levada_terminal::Output;

use crate::args::{Args, Command, Named};

/// Runs the command that the process's arguments name.
///
/// Exit codes: 0 done, or interrupted in order where only that ends the command, 1 refused or failed, 2 wrong usage, 130
/// interrupted before the work was done. Data goes to stdout, everything else to stderr.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let (args, named) = match Named::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let format = failure::format_wanted(&arguments);
            // An empty variable is behind some of what is wrong with arguments.
            return match levada_server::config::check_environment() {
                Err(wrong) if error.use_stderr() => failure::of_environment(&wrong, format),
                _ => failure::usage(&error, format),
            };
        }
    };
    let output = Output::new(args.common.output, args.common.quiet);
    match dispatch(&output, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, &output, &named),
    }
}

fn dispatch(output: &Output, mut args: Args) -> anyhow::Result<()> {
    let verbose = args.common.verbose;
    if let Command::Serve(serve) = args.command {
        return commands::serve::run(output, serve, verbose);
    }
    levada_server::config::check_environment().map_err(levada_server::Error::from)?;
    logging::for_client(verbose, args.common.output);
    if let Some(client) = args.command.client_mut() {
        reach::resolve(client)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(commands::run(output, args.command));
    // A thread that still waits for an answer at the terminal must not keep the command from ending.
    runtime.shutdown_background();
    done
}
