//! `levada publish`: events from lines of a file or of stdin, pipelined, each acknowledged before the end.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
    thread,
    time::Duration,
};

use bytes::Bytes;
use levada_client::{Publisher, PublisherOptions, Ticket};
use levada_protocol::{
    error::ErrorCode,
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
    limits::EVENT_BYTES_MAX,
};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{args::PublishArgs, client, failure::Failure, ndjson::Defaults, output::Output};

/// Longest line: the largest event in base64, and room for its headers' names and quotes.
const LINE_BYTES_MAX: u64 = 2 * EVENT_BYTES_MAX as u64;
/// Lines read ahead of their publishing.
const LINES_AHEAD: usize = 1_024;
/// Events published ahead of their acknowledgement, at most; the client's own buffer is a limit in bytes.
const TICKETS_AHEAD: usize = 65_536;

/// An event and the line it came from, or what was wrong with that line.
type Input = Result<(u64, Event), Failure>;

pub(super) async fn run(output: &Output, args: PublishArgs) -> anyhow::Result<()> {
    let lines = open(&args.file)?;
    let client = client::connect(&args.client).await?;
    let publisher = client.publisher(args.topic.as_str(), PublisherOptions::default()).await?;
    let headers =
        args.headers.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone()))).collect();
    let defaults = Defaults { key: args.key.clone().map(Bytes::from), headers };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let raw = args.raw;
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || read_lines(lines, &defaults, raw, &sender))?;

    let (tickets, awaited) = mpsc::channel(TICKETS_AHEAD);
    let mut acknowledged = JoinSet::new();
    acknowledged.spawn(await_tickets(awaited));
    let sent = send_all(&publisher, receiver, tickets, args.rate).await;
    let summary = acknowledged.join_next().await.expect("one task was spawned")??;
    if let Err(failure) = sent {
        let before = summary.published;
        return Err(anyhow::Error::new(failure).context(format!("{before} events were published, then")));
    }
    client.close().await;
    output.result(&summary, || summary.text(args.topic.as_str()))?;
    Ok(())
}

fn open(file: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    match File::open(file) {
        Ok(opened) => Ok(Box::new(BufReader::new(opened))),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", file.display());
            Err(Failure::new(ErrorCode::InvalidArgument, message))
        }
    }
}

/// Turns lines into events until the input ends, a line is wrong, or nobody takes them.
fn read_lines(
    mut lines: Box<dyn BufRead + Send>,
    defaults: &Defaults,
    raw: bool,
    sender: &mpsc::Sender<Input>,
) {
    let mut line = Vec::new();
    for number in 1.. {
        let input = match next_line(&mut lines, &mut line) {
            Ok(false) => return,
            Ok(true) if !raw && line.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(true) if raw => Ok((number, defaults.raw_event(&line, now()))),
            Ok(true) => defaults.event_of(&line, now()).map(|event| (number, event)),
            Err(problem) => Err(problem),
        };
        let input = input.map_err(|problem| {
            Failure::new(ErrorCode::InvalidArgument, format!("line {number}: {problem}"))
                .hint("nothing of this line and after it was published")
        });
        let wrong = input.is_err();
        if sender.blocking_send(input).is_err() || wrong {
            return;
        }
    }
}

/// Reads a line without its end into `line`; false at the end of the input.
fn next_line(lines: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, String> {
    line.clear();
    let got = lines.take(LINE_BYTES_MAX).read_until(b'\n', line).map_err(|error| error.to_string())?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if got as u64 == LINE_BYTES_MAX {
        return Err(format!("expected at most {LINE_BYTES_MAX} bytes, got more"));
    }
    Ok(got > 0)
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

async fn send_all(
    publisher: &Publisher,
    mut lines: mpsc::Receiver<Input>,
    tickets: mpsc::Sender<Ticket>,
    rate: Option<f64>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut sent = 0_u32;
    while let Some(input) = lines.recv().await {
        let (number, event) = input?;
        if let Some(rate) = rate {
            sleep_until(begun + Duration::from_secs_f64(f64::from(sent) / rate)).await;
        }
        let at_line =
            |error: levada_client::Error| Failure::new(error.code(), format!("line {number}: {error}"));
        let ticket = publisher.publish(event).await.map_err(at_line)?;
        sent = sent.saturating_add(1);
        if tickets.send(ticket).await.is_err() {
            // An acknowledgement failed; its error is the one to report.
            return Ok(());
        }
    }
    Ok(())
}

/// What became of the events.
#[derive(Debug, Default, Serialize)]
struct Summary {
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
    fn text(&self, topic: &str) -> String {
        let events = if self.published == 1 { "event" } else { "events" };
        let published = format!("published {} {events} to {topic}", self.published);
        match self.last.as_slice() {
            [] => published,
            [only] if only.partition == 0 => format!("{published}, last offset {}", only.offset),
            [only] => format!("{published}, last offset {} in partition {}", only.offset, only.partition),
            many => {
                let places: Vec<String> =
                    many.iter().map(|last| format!("{}:{}", last.partition, last.offset)).collect();
                format!("{published}, last offsets by partition {}", places.join(" "))
            }
        }
    }
}

async fn await_tickets(mut tickets: mpsc::Receiver<Ticket>) -> Result<Summary, levada_client::Error> {
    let mut published = 0;
    let mut last = BTreeMap::<PartitionId, Option<Offset>>::new();
    while let Some(ticket) = tickets.recv().await {
        let receipt = ticket.await?;
        published += 1;
        let known = last.entry(receipt.partition).or_default();
        *known = (*known).max(receipt.offset);
    }
    let place = |(partition, offset): (&PartitionId, &Option<Offset>)| {
        offset.map(|offset| Last { partition: partition.0, offset: offset.0 })
    };
    Ok(Summary { published, last: last.iter().filter_map(place).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(text: &'static str, raw: bool) -> Vec<Input> {
        let (sender, mut receiver) = mpsc::channel(100);
        read_lines(Box::new(text.as_bytes()), &Defaults::default(), raw, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn a_wrong_line_is_named_and_ends_the_input() {
        let read = inputs("{\"payload\":1}\n\n{\"payload\":2}\r\nnonsense\n{\"payload\":3}\n", false);
        let lines: Vec<u64> =
            read.iter().filter_map(|input| input.as_ref().ok()).map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3]);
        assert_eq!(read.len(), 3);
        assert!(read[2].as_ref().is_err_and(|failure| failure.to_string().starts_with("line 4: ")));
    }

    #[test]
    fn raw_lines_are_payloads_with_or_without_a_last_line_end() {
        let read = inputs("one\n\nthree", true);
        let payloads: Vec<Bytes> = read.into_iter().map(|input| input.unwrap().1.payload.unwrap()).collect();
        assert_eq!(payloads, ["one", "", "three"]);
    }

    #[test]
    fn a_line_without_end_is_refused_at_its_limit() {
        let mut endless: Box<dyn BufRead + Send> = Box::new(BufReader::new(io::repeat(b'x')));
        assert!(next_line(&mut *endless, &mut Vec::new()).is_err());
    }
}
