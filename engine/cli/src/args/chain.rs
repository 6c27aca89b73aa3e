//! A chain of plugins as it is typed: the stages, and what happens to an event that one fails on.

use levada_protocol::request::{OnError, StageSpec};

use super::values::parse_stage;

/// The flags that make up a chain.
#[derive(Debug, clap::Args)]
pub(crate) struct ChainArgs {
    /// A plugin that events pass, if the place is made now: NAME, NAME@VERSION, NAME:{JSON configuration}; repeatable
    #[arg(long = "plugin", value_name = "P[@V][:CONFIG]", value_parser = parse_stage)]
    plugins: Vec<StageSpec>,
    /// What happens to an event that a plugin fails on or rejects
    #[arg(long, value_enum, default_value_t = OnErrorArg::DeadLetter)]
    on_error: OnErrorArg,
    /// How often a failing event is tried again before that
    #[arg(long, value_name = "N", default_value_t = StageSpec::default().retries)]
    retries: u8,
}

/// [`OnError`] as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnErrorArg {
    /// It goes to the dead-letter topic
    DeadLetter,
    /// It is dropped and counted
    Skip,
    /// The place stops until somebody resumes it
    Pause,
    /// It goes on unchanged
    Pass,
}

impl ChainArgs {
    /// True if no plugin was named.
    pub(crate) fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// The stages in order, each with the policy.
    pub(crate) fn stages(&self) -> Vec<StageSpec> {
        let on_error = match self.on_error {
            OnErrorArg::DeadLetter => OnError::DeadLetter,
            OnErrorArg::Skip => OnError::Skip,
            OnErrorArg::Pause => OnError::Pause,
            OnErrorArg::Pass => OnError::Pass,
        };
        let stage = |stage: &StageSpec| StageSpec { on_error, retries: self.retries, ..stage.clone() };
        self.plugins.iter().map(stage).collect()
    }
}
