//! One file per command. Each takes its arguments and the output, and talks to an engine through the client.

mod again;
mod append;
mod asking;
mod attachment;
mod ca;
mod completion;
mod context;
mod dead_letters;
mod delays;
mod deleting;
mod events;
mod forward;
mod lines;
mod mismatch;
mod nearest;
mod no_dead_letters;
mod place;
mod plugin;
mod principal;
mod publish;
mod published;
mod purge;
mod push;
mod read;
mod route;
mod schedule;
mod search;
pub(crate) mod serve;
mod stops;
mod stored_dead_letters;
mod subscribe;
mod subscription;
mod token;
mod topic;
mod transact;
mod transaction;

use levada_client::Ensured;
use levada_json::Made;
use levada_terminal::output::Output;
use nearest::Names;

use crate::args::Command;

/// Runs any command but `serve`, which needs a runtime of its own shape.
pub(crate) async fn run(output: &Output, command: Command) -> anyhow::Result<()> {
    let names = Names::of(&command);
    match dispatch(output, command).await {
        Ok(()) => Ok(()),
        Err(error) => Err(Box::pin(names.explain(error)).await),
    }
}

async fn dispatch(output: &Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(_) => unreachable!("serve is run before a runtime is made"),
        Command::Demo(args) => Box::pin(levada_demo::run(output, args)).await,
        Command::Topic(args) => Box::pin(topic::run(output, args)).await,
        Command::Publish(args) => Box::pin(publish::run(output, args)).await,
        Command::Subscribe(args) => Box::pin(subscribe::run(output, args)).await,
        Command::Read(args) => Box::pin(read::run(output, args)).await,
        Command::Subscription(args) => Box::pin(subscription::run(output, args)).await,
        Command::Dlq(args) => Box::pin(dead_letters::run(output, args)).await,
        Command::Plugin(args) => Box::pin(plugin::run(output, args)).await,
        Command::Route(args) => Box::pin(route::run(output, args)).await,
        Command::Schedule(args) => Box::pin(schedule::run(output, args)).await,
        Command::Transaction(args) => Box::pin(transaction::run(output, args)).await,
        Command::Principal(args) => Box::pin(principal::run(output, args)).await,
        Command::Token(args) => Box::pin(token::run(output, args)).await,
        Command::Ca(args) => Box::pin(ca::run(output, args)).await,
        Command::Context(args) => context::run(output, args),
        Command::Bench(args) => Box::pin(levada_bench::run(output, args)).await,
        Command::Completion { shell } => completion::run(output, shell),
    }
}

/// What a command made, or found there as it was to be.
fn made<T>(ensured: &Ensured<T>) -> Made<'_, T> {
    Made { found: &ensured.found, created: ensured.created }
}
