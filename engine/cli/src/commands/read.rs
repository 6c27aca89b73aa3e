//! `levada read`: prints stored events and leaves no trace; says so when there is no connection to read on.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    pin::pin,
    time::Duration,
};

use levada_client::{Client, Delivery, Error, ErrorCode, ReadOptions, Reader, Start};
use levada_protocol::{ids::Timestamp, request::Position};
use levada_terminal::{interrupted, output::Output};
use tokio::time::timeout;

use super::{
    events::{Printer, withheld_remark},
    search,
    stops::{Waiting, stopped},
};
use crate::{
    args::{Beginning, ReadArgs},
    client,
};

/// How long nothing may come before it is said why, if it is known.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes that each partition may send ahead while the last events of all are brought into their order.
const LAST_CREDIT_BYTES: u64 = 256 * 1024;

pub(super) async fn run(output: &Output, args: ReadArgs) -> anyhow::Result<()> {
    client::with(&args.client, async |client| read(output, client, &args).await).await
}

async fn read(output: &Output, client: &Client, args: &ReadArgs) -> anyhow::Result<()> {
    if args.search.is_given() {
        return search::run(output, client, args).await;
    }
    let printed = Cell::new(0);
    let mut stop = pin!(interrupted());
    let waiting =
        Waiting { output, client, addr: &args.client.reach.addr, what: format!("reading {}", args.topic) };
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
        () = &mut stop => stopped(args.follow && args.max.is_none()),
        () = output.closed() => Ok(()),
        ended = printing.run(client) => ended,
        never = waiting.report_stops(|| printed.get(), ask) => match never {},
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
        let mut warned = false;
        while self.left() > 0 {
            let next = match timeout(SILENCE, reader.next()).await {
                Ok(next) => next?,
                // While nothing comes, the reason may be that nothing may be shown.
                Err(_) => {
                    if !warned && reader.withheld() > 0 {
                        self.output.remark(&format!("{}, so far", withheld_remark(reader.withheld())));
                        warned = true;
                    }
                    continue;
                }
            };
            let Some(delivery) = next else { break };
            let count = self.printer.print(self.output, &delivery, self.left(), u64::MAX)?.count;
            self.printed.set(self.printed.get() + count);
        }
        let withheld = reader.withheld();
        if withheld > 0 {
            self.output.remark(&withheld_remark(withheld));
        }
        Ok(())
    }

    /// Prints the last `count` events before those that `following` brings, in the order in which they were stored.
    ///
    /// They are read twice: first to find out which they are, and then to print them as they come, so that no
    /// more than what is under way is held.
    async fn print_last(&self, client: &Client, following: &Reader, count: u64) -> anyhow::Result<()> {
        let mut stored: Vec<(Timestamp, u16)> = Vec::new();
        let mut partitions = BTreeMap::new();
        for end in following.began_at() {
            let mut last = LastOf::open(client, self, end, count).await?;
            let mut times: Vec<Timestamp> = Vec::new();
            while let Some(delivery) = last.next().await? {
                let before_end = delivery.events().take_while(|(offset, ..)| offset.0 < end.offset);
                times.extend(before_end.map(|(_, appended, _)| appended));
            }
            // Times within a partition rise, but for those of a clock that ran ahead and was set back.
            let mut after = Timestamp(u64::MAX);
            for time in times.iter_mut().rev() {
                after = after.min(*time);
                *time = after;
            }
            stored.extend(times.iter().map(|time| (*time, end.partition)));
            partitions.insert(end.partition, times.len() as u64);
        }
        // Stable: events of one partition stay in their order.
        stored.sort_by_key(|(time, _)| *time);
        let skipped = stored.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        for (_, partition) in &stored[..skipped] {
            partitions.entry(*partition).and_modify(|count| *count -= 1);
        }
        let mut readers = BTreeMap::new();
        for end in following.began_at() {
            let wanted = partitions.get(&end.partition).copied().unwrap_or(0);
            if wanted > 0 {
                readers.insert(end.partition, LastOf::open(client, self, end, wanted).await?);
            }
        }
        for (_, partition) in &stored[skipped..] {
            if self.left() == 0 {
                break;
            }
            let Some(reader) = readers.get_mut(partition) else { continue };
            if let Some(line) = reader.next_line(&self.printer).await? {
                self.output.bytes(&line)?;
                self.printed.set(self.printed.get() + 1);
            }
        }
        Ok(())
    }
}

/// The last events of one partition.
struct LastOf {
    reader: Reader,
    end: u64,
    /// Lines of those that have come and were not printed.
    lines: VecDeque<Vec<u8>>,
}

impl LastOf {
    async fn open(
        client: &Client,
        printing: &Printing<'_>,
        end: &Position,
        count: u64,
    ) -> Result<Self, Error> {
        let open = async |from| {
            let options = ReadOptions {
                partitions: vec![end.partition],
                follow: false,
                credit_bytes: LAST_CREDIT_BYTES,
                ..printing.options(from)
            };
            client.read(options).await
        };
        let reader = match open(Start::Offset(end.offset.saturating_sub(count))).await {
            // There are fewer.
            Err(error) if error.code() == ErrorCode::OffsetOutOfRange => open(Start::Earliest).await?,
            other => other?,
        };
        Ok(Self { reader, end: end.offset, lines: VecDeque::new() })
    }

    /// The next delivery with events before the end.
    async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        let delivery = self.reader.next().await?;
        Ok(delivery.filter(|delivery| delivery.first().0 < self.end))
    }

    /// The next event's line.
    async fn next_line(&mut self, printer: &Printer<'_>) -> Result<Option<Vec<u8>>, Error> {
        while self.lines.is_empty() {
            let Some(delivery) = self.next().await? else { return Ok(None) };
            let before_end = delivery.events().take_while(|(offset, ..)| offset.0 < self.end);
            self.lines.extend(before_end.map(|(offset, _, event)| {
                let mut line = Vec::new();
                printer.write(&mut line, &delivery, offset, &event);
                line
            }));
        }
        Ok(self.lines.pop_front())
    }
}
