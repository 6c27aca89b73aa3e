//! One file per command. Each takes its arguments and the output, and talks to an engine through the client.

mod bundled;
mod deleting;
mod events;
mod place;
mod plugin;
mod publish;
mod read;
mod route;
pub(crate) mod serve;
mod stops;
mod subscribe;
mod subscription;
mod topic;

pub(crate) use bundled::{CONTENT_ROUTER, JSON_FILTER, JSON_PROJECT, SAMPLE, deploy_bundled};

use crate::{args::Command, bench, demo, output::Output};

/// Runs any command but `serve`, which needs a runtime of its own shape.
pub(crate) async fn run(output: &Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(_) => unreachable!("serve is run before a runtime is made"),
        Command::Demo(args) => Box::pin(demo::run(output, args)).await,
        Command::Topic(args) => Box::pin(topic::run(output, args)).await,
        Command::Publish(args) => Box::pin(publish::run(output, args)).await,
        Command::Subscribe(args) => Box::pin(subscribe::run(output, args)).await,
        Command::Read(args) => Box::pin(read::run(output, args)).await,
        Command::Subscription(args) => Box::pin(subscription::run(output, args)).await,
        Command::Plugin(args) => Box::pin(plugin::run(output, args)).await,
        Command::Route(args) => Box::pin(route::run(output, args)).await,
        Command::Bench(args) => Box::pin(bench::run(output, args)).await,
    }
}
