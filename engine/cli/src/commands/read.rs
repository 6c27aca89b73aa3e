//! `levada read`: prints stored events and leaves no trace; says so when there is no connection to read on.

use std::{cell::Cell, pin::pin};

use levada_client::{Client, ReadOptions, Reader};

use super::{events, stops::Waiting};
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
    let printed = Cell::new(0);
    let waiting =
        Waiting { output, client, addr: &args.client.addr, what: format!("reading {}", args.topic) };
    let topic = args.topic.as_str();
    // A topic has no stops of its own; that the engine answers is what counts.
    let ask = async || client.describe_topic(topic).await.map(|_| None);
    tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        ended = print_all(output, args, &mut reader, &printed) => ended,
        never = waiting.tell_stops(|| printed.get(), ask) => match never {},
    }
}

async fn print_all(
    output: &Output,
    args: &ReadArgs,
    reader: &mut Reader,
    printed: &Cell<u64>,
) -> anyhow::Result<()> {
    let all = args.max.unwrap_or(u64::MAX);
    while printed.get() < all {
        let Some(delivery) = reader.next().await? else { break };
        let left = all - printed.get();
        let (count, _) = events::print(output, args.topic.as_str(), None, &delivery, left)?;
        printed.set(printed.get() + count);
    }
    Ok(())
}
