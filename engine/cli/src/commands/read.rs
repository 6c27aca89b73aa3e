//! `levada read`: prints stored events and leaves no trace; says so when there is no connection to read on.

use std::{cell::Cell, collections::BTreeMap, pin::pin};

use levada_client::{Client, ReadOptions, Reader, Start};
use levada_protocol::ids::{Offset, Timestamp};

use super::{events::Printer, stops::Waiting};
use crate::{
    args::{Beginning, ReadArgs},
    client,
    interrupt::interrupted,
    output::Output,
};

pub(super) async fn run(output: &Output, args: ReadArgs) -> anyhow::Result<()> {
    client::with(&args.client, async |client| read(output, client, &args).await).await
}

async fn read(output: &Output, client: &Client, args: &ReadArgs) -> anyhow::Result<()> {
    let printed = Cell::new(0);
    let mut stop = pin!(interrupted());
    let waiting =
        Waiting { output, client, addr: &args.client.addr, what: format!("reading {}", args.topic) };
    let topic = args.topic.as_str();
    // A topic has no stops of its own; that the engine answers is what counts.
    let ask = async || client.describe_topic(topic).await.map(|_| None);
    let printing = Printing {
        output,
        printer: Printer { topic, subscription: None, payload_alone: args.payload },
        args,
        printed: &printed,
    };
    tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        () = output.closed() => Ok(()),
        ended = printing.run(client) => ended,
        never = waiting.tell_stops(|| printed.get(), ask) => match never {},
    }
}

struct Printing<'a> {
    output: &'a Output,
    printer: Printer<'a>,
    args: &'a ReadArgs,
    /// Events printed so far.
    printed: &'a Cell<u64>,
}

impl Printing<'_> {
    async fn run(&self, client: &Client) -> anyhow::Result<()> {
        match self.args.beginning() {
            Beginning::At(from) => {
                let mut reader = client.read(self.options(from)).await?;
                self.print_all(&mut reader).await
            }
            Beginning::Last(count) => {
                // Opened first: where it begins is where the last events end.
                let mut following = client.read(self.options(Start::Latest)).await?;
                self.print_last(client, &following, count).await?;
                self.print_all(&mut following).await
            }
        }
    }

    fn options(&self, from: Start) -> ReadOptions {
        ReadOptions {
            partitions: self.args.partitions.clone(),
            from,
            follow: self.args.follow,
            ..ReadOptions::new(self.args.topic.as_str())
        }
    }

    fn left(&self) -> u64 {
        self.args.max.unwrap_or(u64::MAX) - self.printed.get()
    }

    async fn print_all(&self, reader: &mut Reader) -> anyhow::Result<()> {
        while self.left() > 0 {
            let Some(delivery) = reader.next().await? else { break };
            let (count, _) = self.printer.print(self.output, &delivery, self.left())?;
            self.printed.set(self.printed.get() + count);
        }
        Ok(())
    }

    /// Prints the last `count` events before those that `following` brings, in the order in which they were stored.
    async fn print_last(&self, client: &Client, following: &Reader, count: u64) -> anyhow::Result<()> {
        let stored = client.read(ReadOptions { follow: false, ..self.options(Start::Earliest) }).await?;
        let begins: BTreeMap<u16, u64> =
            stored.began_at().iter().map(|begin| (begin.partition, begin.offset)).collect();
        drop(stored);
        let mut last: BTreeMap<(Timestamp, u16, Offset), Vec<u8>> = BTreeMap::new();
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        for end in following.began_at() {
            let begin = begins.get(&end.partition).copied().unwrap_or(0);
            let from = end.offset.saturating_sub(count).max(begin);
            if from >= end.offset {
                continue;
            }
            let options = ReadOptions {
                partitions: vec![end.partition],
                follow: false,
                ..self.options(Start::Offset(from))
            };
            let mut reader = client.read(options).await?;
            while let Some(delivery) = reader.next().await? {
                for (offset, appended, event) in delivery.events() {
                    if offset.0 >= end.offset {
                        break;
                    }
                    let mut line = Vec::new();
                    self.printer.write(&mut line, &delivery, offset, &event);
                    last.insert((appended, end.partition, offset), line);
                    if last.len() > most {
                        last.pop_first();
                    }
                }
            }
        }
        let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX);
        for line in last.values().take(wanted) {
            self.output.bytes(line)?;
            self.printed.set(self.printed.get() + 1);
        }
        Ok(())
    }
}
