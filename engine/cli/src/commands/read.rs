//! `levada read`: prints stored events and leaves no trace.

use std::pin::pin;

use levada_client::{Client, ReadOptions};

use super::events;
use crate::{args::ReadArgs, client, interrupt::interrupted, output::Output};

pub(super) async fn run(output: &Output, args: ReadArgs) -> anyhow::Result<()> {
    client::with(&args.client, async |client| read(output, client, &args).await).await
}

async fn read(output: &Output, client: &Client, args: &ReadArgs) -> anyhow::Result<()> {
    let options = ReadOptions {
        partitions: args.partitions.clone(),
        from: args.from,
        follow: args.follow,
        ..ReadOptions::new(args.topic.as_str())
    };
    let mut stop = pin!(interrupted());
    let mut reader = tokio::select! {
        biased;
        () = &mut stop => return Ok(()),
        reader = client.read(options) => reader?,
    };
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let next = tokio::select! {
            biased;
            () = &mut stop => break,
            next = reader.next() => next?,
        };
        let Some(delivery) = next else { break };
        left -= events::print(output, args.topic.as_str(), None, &delivery, left)?.0;
    }
    Ok(())
}
