//! `levada publish`: events from lines of a file or of stdin, pipelined, each acknowledged before the end. How lines
//! become events is `lines.rs`.

use std::{cell::Cell, convert::Infallible, pin::pin, thread, time::Duration};

use levada_client::{
    AfterFailure, Client, Event, Publisher, PublisherOptions, Receipt, ScheduleReceipt, ScheduleTicket,
    Ticket, WhenFull,
};
use levada_protocol::ids::{Offset, PartitionId};
use levada_terminal::{
    Failure, interrupted,
    output::{self, Output},
};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    append,
    delays::Delays,
    lines::{Form, Input, Line, Lines},
    transact,
};
use crate::{args::PublishArgs, client, outcome::Partly};

/// Last offsets of up to this many partitions are shown to people.
const OFFSETS_SHOWN_MAX: usize = 16;
/// Lines read ahead of their publishing.
const LINES_AHEAD: usize = 1_024;
/// Events published ahead of their acknowledgement, at most; the client's own buffer is a limit in bytes.
const TICKETS_AHEAD: usize = 65_536;

pub(super) async fn run(output: &Output, args: PublishArgs) -> anyhow::Result<()> {
    if !args.words.is_empty() {
        let (topic, words) = (&args.topic, args.words.join(" "));
        let message =
            format!("expected no event behind the topic, got {words:?}: events come from standard input");
        let raw = if levada_json::read_event(words.as_bytes()).is_ok() { "" } else { " --raw" };
        let hint = format!("`echo '{}' | levada publish {topic}{raw}`", words.replace('\'', "'\\''"));
        return Err(Failure::usage(message).hint(hint).into());
    }
    let is_whole = args.prepare.is_some() || args.expect_offset.is_some();
    let undone =
        if is_whole { "nothing was published" } else { "neither this line nor any after it was published" };
    let form = if args.raw { Form::Raw } else { Form::Json };
    let lines = Lines::open(output, &args.input, form, undone)?;
    client::with(&args.client, async |client| match &args.prepare {
        Some(of) => transact::prepare_for_topic(output, client, &args, of, lines).await,
        None => publish(output, client, &args, lines).await,
    })
    .await
}

async fn publish(output: &Output, client: &Client, args: &PublishArgs, lines: Lines) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let publisher = tokio::select! {
        biased;
        () = &mut stop => return Err(Failure::interrupted().into()),
        publisher = client.publisher(args.topic.as_str(), options(args)) => publisher?,
    };
    if let Some(epoch) = publisher.epoch().filter(|epoch| *epoch > 1) {
        output.remark(&format!("took over from an earlier producer of this name (epoch {epoch})"));
    }
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new().name("input".to_owned()).spawn(move || lines.read(&sender))?;

    // Events that were acknowledged, and those of them that were stored.
    let (published, stored) = (Cell::new(0), Cell::new(0));
    let (tickets, awaited) = mpsc::channel(TICKETS_AHEAD);
    let topic = args.topic.as_str();
    let all = async {
        if let Some(expected) = args.expect_offset {
            let receipts = append::append_all(&publisher, receiver, args, Offset(expected)).await?;
            let mut summary = Summary::new(topic);
            receipts.iter().try_for_each(|(line, receipt)| summary.add(output, *line, receipt))?;
            return Ok(summary);
        }
        // A failed acknowledgement ends it all, once those of other lines are in; a wrong line is reported once all before
        // it is acknowledged.
        let sent = async { Ok(send_all(&publisher, receiver, tickets, args).await) };
        let awaiting = await_tickets(output, awaited, topic, (&published, &stored));
        tokio::try_join!(sent, awaiting).and_then(|(sent, summary)| sent.map(|()| summary))
    };
    let done = tokio::select! {
        biased;
        () = &mut stop => Err(Failure::interrupted().into()),
        all = all => all,
        never = report_delays(output, client, &publisher, args, &published) => match never {},
    };
    match done {
        Ok(summary) => {
            let summary = Summary { epoch: publisher.epoch(), ..summary };
            Ok(output.result(&summary, || summary.text())?)
        }
        Err(error) => Err(match stored.get() {
            0 => error,
            some => error.context(Partly(format!("{} stored, then", events(some)))),
        }),
    }
}

fn options(args: &PublishArgs) -> PublisherOptions {
    PublisherOptions {
        delivery_timeout: args.timeout.into(),
        when_full: if args.no_wait { WhenFull::Fail } else { WhenFull::Wait },
        // What is stored of a partition's lines is a beginning of them: whoever repeats the rest gets no line twice.
        after_failure: AfterFailure::Stop,
        durability: args.durability.map(Into::into),
        producer: args.producer.clone(),
        ..PublisherOptions::default()
    }
}

async fn send_all(
    publisher: &Publisher,
    mut lines: mpsc::Receiver<Input>,
    tickets: mpsc::Sender<(u64, Sent)>,
    args: &PublishArgs,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut sent = 0_u32;
    while let Some(input) = lines.recv().await {
        let Line { number, event, .. } = input?;
        if let Some(rate) = args.rate {
            sleep_until(begun + Duration::from_secs_f64(f64::from(sent) / rate)).await;
        }
        let at_line = |error| anyhow::Error::from(error).context(format!("line {number}"));
        let ticket = publish_one(publisher, event, args).await.map_err(at_line)?;
        sent = sent.saturating_add(1);
        if tickets.send((number, ticket)).await.is_err() {
            // An acknowledgement failed; its error is the one to report.
            return Ok(());
        }
    }
    Ok(())
}

/// An event on its way.
enum Sent {
    Now(Ticket),
    Later(ScheduleTicket),
}

async fn publish_one(
    publisher: &Publisher,
    event: Event,
    args: &PublishArgs,
) -> Result<Sent, levada_client::Error> {
    match (args.due(), args.partition.map(PartitionId)) {
        (None, None) => publisher.publish(event).await.map(Sent::Now),
        (None, Some(partition)) => publisher.publish_to(partition, event).await.map(Sent::Now),
        (Some(due), None) => publisher.schedule(event, due).await.map(Sent::Later),
        (Some(due), Some(partition)) => publisher.schedule_to(partition, event, due).await.map(Sent::Later),
    }
}

/// Says on stderr why no acknowledgements come, when none have come for a while.
async fn report_delays(
    output: &Output,
    client: &Client,
    publisher: &Publisher,
    args: &PublishArgs,
    published: &Cell<u64>,
) -> Infallible {
    let time = output::duration_ms(args.timeout.0);
    let delays = Delays {
        output,
        client,
        addr: &args.client.reach.addr,
        unanswered: "the engine has not answered yet",
        tried: format!("each event is tried again for {time} (--timeout)"),
    };
    let mut seen = published.get();
    let has_moved = || {
        let before = std::mem::replace(&mut seen, published.get());
        before != seen || publisher.stats().buffered_bytes == 0
    };
    delays.report(has_moved, || publisher.refusal()).await
}

/// `1 event`, `5 events`.
fn events(count: u64) -> String {
    output::counted(count, "event")
}

/// What became of the events.
#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    /// Events stored.
    published: u64,
    /// Events that were not stored because the topic's dedup window held their ids.
    duplicates: u64,
    /// The last offset in each partition that got any.
    last: Vec<Last>,
    /// How often the producer's name was taken, this time included; absent without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    /// The schedule ids of the first delayed events: one more than are shown to people.
    #[serde(skip)]
    ids: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Last {
    partition: u16,
    offset: u64,
}

/// An event that was not stored, with the place of the first one of its id.
#[derive(Debug, Serialize)]
struct Duplicate {
    line: u64,
    duplicate: bool,
    partition: u16,
    /// Absent if there are so many that the engine did not name it.
    offset: Option<u64>,
}

/// An event that was stored for later.
#[derive(Debug, Serialize)]
struct Scheduled {
    line: u64,
    /// Its schedule id; absent if the engine no longer knows it.
    scheduled: Option<u64>,
    partition: u16,
}

impl Summary {
    fn new(topic: &str) -> Self {
        let (last, ids) = (Vec::new(), Vec::new());
        Self { topic: topic.to_owned(), published: 0, duplicates: 0, last, epoch: None, ids }
    }

    /// Counts an event; as JSON a duplicate is printed at once.
    fn add(&mut self, output: &Output, line: u64, receipt: &Receipt) -> anyhow::Result<()> {
        let (partition, offset) = (receipt.partition.0, receipt.offset.map(|offset| offset.0));
        if receipt.same_id {
            self.duplicates += 1;
            if output.is_json() {
                output.json(&Duplicate { line, duplicate: true, partition, offset })?;
            }
            return Ok(());
        }
        self.published += 1;
        let Some(offset) = offset else { return Ok(()) };
        match self.last.binary_search_by_key(&partition, |last| last.partition) {
            Ok(at) => self.last[at].offset = self.last[at].offset.max(offset),
            Err(at) => self.last.insert(at, Last { partition, offset }),
        }
        Ok(())
    }

    /// Counts a delayed event; as JSON its id is printed at once.
    fn add_scheduled(&mut self, output: &Output, line: u64, receipt: &ScheduleReceipt) -> anyhow::Result<()> {
        self.published += 1;
        if output.is_json() {
            let (scheduled, partition) = (receipt.id, receipt.partition.0);
            output.json(&Scheduled { line, scheduled, partition })?;
        } else if self.ids.len() <= OFFSETS_SHOWN_MAX {
            self.ids.extend(receipt.id);
        }
        Ok(())
    }

    fn text(&self) -> String {
        let published = format!("published {} to {}", events(self.published), self.topic);
        let published = output::with_left_out(published, self.duplicates);
        match self.ids.as_slice() {
            [] => {}
            [only] => return format!("{published}, scheduled under id {only}"),
            many if many.len() > OFFSETS_SHOWN_MAX => {
                return format!("{published}, scheduled (--output json has their ids)");
            }
            many => {
                let ids: Vec<String> = many.iter().map(u64::to_string).collect();
                return format!("{published}, scheduled under ids {}", ids.join(" "));
            }
        }
        match self.last.as_slice() {
            [] => published,
            [only] if only.partition == 0 => format!("{published}, last offset {}", only.offset),
            [only] => format!("{published}, last offset {} in partition {}", only.offset, only.partition),
            many if many.len() > OFFSETS_SHOWN_MAX => {
                format!("{published}, in {} partitions (--output json has their last offsets)", many.len())
            }
            many => {
                let offsets: Vec<String> =
                    many.iter().map(|last| format!("{}:{}", last.partition, last.offset)).collect();
                format!("{published}, last offsets by partition {}", offsets.join(" "))
            }
        }
    }
}

async fn await_tickets(
    output: &Output,
    mut tickets: mpsc::Receiver<(u64, Sent)>,
    topic: &str,
    (published, stored): (&Cell<u64>, &Cell<u64>),
) -> anyhow::Result<Summary> {
    let mut summary = Summary::new(topic);
    let mut failed: Option<Unstored> = None;
    while let Some((line, sent)) = tickets.recv().await {
        let entered = match sent {
            Sent::Now(ticket) => ticket.await.map(|receipt| summary.add(output, line, &receipt)),
            Sent::Later(ticket) => ticket.await.map(|receipt| summary.add_scheduled(output, line, &receipt)),
        };
        match (entered, &mut failed) {
            (Ok(entered), failed) => {
                entered?;
                published.set(published.get() + 1);
                let more = summary.published - stored.replace(summary.published);
                failed.iter_mut().for_each(|failed| failed.stored_behind += more);
            }
            (Err(error), None) => {
                failed = Some(Unstored { line, error, stored_behind: 0 });
                // Nothing more goes out; what was on its way has its answer before long.
                tickets.close();
            }
            (Err(_), Some(_)) => {}
        }
    }
    failed.map_or(Ok(summary), |failed| Err(failed.into_error()))
}

/// The first line that was not stored.
struct Unstored {
    line: u64,
    error: levada_client::Error,
    /// Later lines that were stored all the same, in other partitions.
    stored_behind: u64,
}

impl Unstored {
    fn into_error(self) -> anyhow::Error {
        let Self { line, error, stored_behind } = self;
        let context = match stored_behind {
            0 => format!("line {line}"),
            some => format!(
                "line {line} is the first that is not stored, {} of other partitions are",
                output::counted(some, "later line")
            ),
        };
        anyhow::Error::from(error).context(context)
    }
}

#[cfg(test)]
mod tests {
    use levada_client::Durability;

    use super::*;
    use crate::args::{Command, Named};

    #[test]
    fn events_are_published_as_durably_as_the_flag_says() {
        for (flags, durability) in [
            ("", None),
            (" --durability os", Some(Durability::Os)),
            (" --durability sync", Some(Durability::Sync)),
        ] {
            let line = format!("levada publish orders{flags}");
            let (args, _) = Named::parse(&line.split(' ').map(Into::into).collect::<Vec<_>>()).unwrap();
            let Command::Publish(publish) = args.command else { panic!("it publishes") };
            assert_eq!(options(&publish).durability, durability, "{line}");
        }
    }

    #[test]
    fn last_offsets_of_few_partitions_are_shown_and_of_many_counted() {
        let text = |partitions: u16| {
            let last = (0..partitions).map(|partition| Last { partition, offset: 7 }).collect();
            Summary { published: 9, last, ..Summary::new("t") }.text()
        };
        assert_eq!(text(0), "published 9 events to t");
        let repeated = Summary { published: 1, duplicates: 2, ..Summary::new("t") };
        assert_eq!(repeated.text(), "published 1 event to t and left out 2 duplicates");
        assert_eq!(text(1), "published 9 events to t, last offset 7");
        assert_eq!(text(2), "published 9 events to t, last offsets by partition 0:7 1:7");
        assert!(text(16).ends_with(" 14:7 15:7"));
        assert_eq!(
            text(17),
            "published 9 events to t, in 17 partitions (--output json has their last offsets)"
        );
    }
}
