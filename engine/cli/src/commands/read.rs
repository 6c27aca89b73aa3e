//! `levada read`: prints stored events and leaves no trace.

use levada_client::ReadOptions;

use super::events;
use crate::{args::ReadArgs, client, interrupt::interrupted, output::Output};

pub(super) async fn run(output: &Output, args: ReadArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.client).await?;
    let options = ReadOptions {
        partitions: args.partitions.clone(),
        from: args.from,
        follow: args.follow,
        ..ReadOptions::new(args.topic.as_str())
    };
    let mut reader = client.read(options).await?;
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let next = tokio::select! {
            biased;
            () = interrupted() => break,
            next = reader.next() => next?,
        };
        let Some(delivery) = next else { break };
        left -= events::print(output, args.topic.as_str(), None, &delivery, left)?.0;
    }
    client.close().await;
    Ok(())
}
