//! `levada publish`: events from lines of a file or of stdin, pipelined, each acknowledged before the end. How lines
//! become events is `lines.rs`.

use std::{cell::Cell, collections::BTreeMap, convert::Infallible, pin::pin, thread, time::Duration};

use levada_client::{Client, Publisher, PublisherOptions, Ticket};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId},
};
use levada_terminal::{
    Failure, interrupted,
    output::{self, Output},
};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};

use super::{
    lines::{Input, Lines},
    stops::Reason,
};
use crate::{args::PublishArgs, client, failure::code_of};

/// Last offsets of up to this many partitions are shown to people.
const OFFSETS_SHOWN_MAX: usize = 16;
/// Lines read ahead of their publishing.
const LINES_AHEAD: usize = 1_024;
/// Events published ahead of their acknowledgement, at most; the client's own buffer is a limit in bytes.
const TICKETS_AHEAD: usize = 65_536;
/// How often the progress of acknowledgements is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// After this time without one, the reason is printed.
const DELAYED: Duration = Duration::from_millis(1_500);
/// The same reason is printed again after this.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

pub(super) async fn run(output: &Output, args: PublishArgs) -> anyhow::Result<()> {
    if !args.words.is_empty() {
        let (topic, words) = (&args.topic, args.words.join(" "));
        let message =
            format!("expected no event behind the topic, got {words:?}: events come from standard input");
        let raw = if levada_json::read_event(words.as_bytes()).is_ok() { "" } else { " --raw" };
        let hint = format!("`echo '{}' | levada publish {topic}{raw}`", words.replace('\'', "'\\''"));
        return Err(Failure::usage(message).hint(hint).into());
    }
    let lines = Lines::open(output, &args)?;
    client::with(&args.client, async |client| publish(output, client, &args, lines).await).await
}

async fn publish(output: &Output, client: &Client, args: &PublishArgs, lines: Lines) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let options = PublisherOptions { delivery_timeout: args.timeout.into(), ..PublisherOptions::default() };
    let publisher = tokio::select! {
        biased;
        () = &mut stop => return Err(Failure::interrupted().into()),
        publisher = client.publisher(args.topic.as_str(), options) => publisher?,
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new().name("input".to_owned()).spawn(move || lines.read(&sender))?;

    let published = Cell::new(0);
    let (tickets, awaited) = mpsc::channel(TICKETS_AHEAD);
    let both = async {
        // A failed acknowledgement ends it all; a wrong line is reported once all before it is acknowledged.
        let sent = async { Ok(send_all(&publisher, receiver, tickets, args.rate).await) };
        tokio::try_join!(sent, await_tickets(awaited, args.topic.as_str(), &published))
    };
    let done = tokio::select! {
        biased;
        () = &mut stop => Err(Failure::interrupted().into()),
        both = both => both.map_err(anyhow::Error::from).and_then(|(sent, summary)| sent.map(|()| summary)),
        never = report_delays(output, client, &publisher, args, &published) => match never {},
    };
    match done {
        Ok(summary) => Ok(output.result(&summary, || summary.text())?),
        Err(error) => Err(match published.get() {
            0 => error,
            some => error.context(format!("{} stored, then", events(some))),
        }),
    }
}

async fn send_all(
    publisher: &Publisher,
    mut lines: mpsc::Receiver<Input>,
    tickets: mpsc::Sender<Ticket>,
    rate: Option<f64>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut sent = 0_u32;
    while let Some(input) = lines.recv().await {
        let (number, event) = input?;
        if let Some(rate) = rate {
            sleep_until(begun + Duration::from_secs_f64(f64::from(sent) / rate)).await;
        }
        let at_line =
            |error: levada_client::Error| Failure::new(code_of(&error), format!("line {number}: {error}"));
        let ticket = publisher.publish(event).await.map_err(at_line)?;
        sent = sent.saturating_add(1);
        if tickets.send(ticket).await.is_err() {
            // An acknowledgement failed; its error is the one to report.
            return Ok(());
        }
    }
    Ok(())
}

/// Says on stderr why no acknowledgements come, when none have come for a while.
async fn report_delays(
    output: &Output,
    client: &Client,
    publisher: &Publisher,
    args: &PublishArgs,
    published: &Cell<u64>,
) -> Infallible {
    let reason = Reason::default();
    tokio::select! {
        never = reason.follow(client) => never,
        never = watch_for_delays(output, client, publisher, args, published, &reason) => never,
    }
}

async fn watch_for_delays(
    output: &Output,
    client: &Client,
    publisher: &Publisher,
    args: &PublishArgs,
    published: &Cell<u64>,
    reason: &Reason,
) -> Infallible {
    let mut checks = interval(CHECK_INTERVAL);
    let (mut seen, mut since) = (published.get(), Instant::now());
    let mut reported: Option<(Option<ErrorCode>, Instant)> = None;
    loop {
        checks.tick().await;
        if published.get() != seen || publisher.stats().buffered_bytes == 0 {
            (seen, since) = (published.get(), Instant::now());
        }
        if since.elapsed() < DELAYED {
            continue;
        }
        let (code, why) = match publisher.refusal() {
            _ if !client.is_connected() => {
                (Some(ErrorCode::ConnectionLost), reason.sentence(&args.client.addr))
            }
            Some(refusal) => (Some(refusal.code), refusal.to_string()),
            None => (None, "the engine has not answered yet".to_owned()),
        };
        // A sentence may hold numbers that change all the time; the code distinguishes reasons.
        let is_due = |(before, at): &(Option<ErrorCode>, Instant)| {
            at.elapsed() >= if *before == code { REPEAT_AFTER } else { DELAYED }
        };
        if reported.as_ref().is_none_or(is_due) {
            output.remark(&format!(
                "waiting: {why}; each event is tried again for {} (--timeout)",
                output::duration_ms(args.timeout.0)
            ));
            reported = Some((code, Instant::now()));
        }
    }
}

/// `1 event`, `5 events`.
fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "event" } else { "events" })
}

/// What became of the events.
#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    /// Events stored.
    published: u64,
    /// The last offset in each partition that got any.
    last: Vec<Last>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Last {
    partition: u16,
    offset: u64,
}

impl Summary {
    fn text(&self) -> String {
        let published = format!("published {} to {}", events(self.published), self.topic);
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
    mut tickets: mpsc::Receiver<Ticket>,
    topic: &str,
    published: &Cell<u64>,
) -> Result<Summary, levada_client::Error> {
    let mut last = BTreeMap::<PartitionId, Option<Offset>>::new();
    while let Some(ticket) = tickets.recv().await {
        let receipt = ticket.await?;
        published.set(published.get() + 1);
        let known = last.entry(receipt.partition).or_default();
        *known = (*known).max(receipt.offset);
    }
    let position = |(partition, offset): (&PartitionId, &Option<Offset>)| {
        offset.map(|offset| Last { partition: partition.0, offset: offset.0 })
    };
    Ok(Summary {
        topic: topic.to_owned(),
        published: published.get(),
        last: last.iter().filter_map(position).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_offsets_of_few_partitions_are_shown_and_of_many_counted() {
        let text = |partitions: u16| {
            let last = (0..partitions).map(|partition| Last { partition, offset: 7 }).collect();
            Summary { topic: "t".to_owned(), published: 9, last }.text()
        };
        assert_eq!(text(0), "published 9 events to t");
        assert_eq!(text(1), "published 9 events to t, last offset 7");
        assert_eq!(text(2), "published 9 events to t, last offsets by partition 0:7 1:7");
        assert!(text(16).ends_with(" 14:7 15:7"));
        assert_eq!(
            text(17),
            "published 9 events to t, in 17 partitions (--output json has their last offsets)"
        );
    }
}
