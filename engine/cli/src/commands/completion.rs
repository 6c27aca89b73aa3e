//! `levada completion`: what a shell needs to complete this command line.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};
use levada_terminal::output::Output;

use crate::args::Args;

pub(super) fn run(output: &Output, shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "levada", &mut script);
    Ok(output.bytes(&script)?)
}
