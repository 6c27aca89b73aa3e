//! `levada publish`: events from lines of a file or of stdin, pipelined, each acknowledged before the end. What the
//! lines hold is `ndjson.rs`.

use std::{
    cell::Cell,
    collections::BTreeMap,
    convert::Infallible,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
    pin::pin,
    thread,
    time::Duration,
};

use bytes::Bytes;
use levada_client::{Client, Publisher, PublisherOptions, Ticket};
use levada_protocol::{
    error::ErrorCode,
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
    limits::EVENT_BYTES_MAX,
};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};

use super::stops::Reason;
use crate::{
    args::PublishArgs,
    client,
    failure::{Failure, code_of},
    interrupt::interrupted,
    ndjson::Defaults,
    output::{self, Output},
};

/// Longest line: the largest event in base64, and room for its headers' names and quotes.
const LINE_BYTES_MAX: u64 = 2 * EVENT_BYTES_MAX as u64;
/// Lines read ahead of their publishing.
const LINES_AHEAD: usize = 1_024;
/// Events published ahead of their acknowledgement, at most; the client's own buffer is a limit in bytes.
const TICKETS_AHEAD: usize = 65_536;
/// How often it is looked whether acknowledgements come.
const LOOK: Duration = Duration::from_millis(250);
/// If none came for so long, the user is told why.
const DELAYED: Duration = Duration::from_millis(1_500);
/// The same reason is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// An event and the line it came from, or what was wrong with that line.
type Input = Result<(u64, Event), Failure>;

pub(super) async fn run(output: &Output, args: PublishArgs) -> anyhow::Result<()> {
    let lines = open(&args.file)?;
    client::with(&args.client, async |client| publish(output, client, &args, lines).await).await
}

async fn publish(
    output: &Output,
    client: &Client,
    args: &PublishArgs,
    lines: Box<dyn BufRead + Send>,
) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let options = PublisherOptions { delivery_timeout: args.timeout.into(), ..PublisherOptions::default() };
    let publisher = tokio::select! {
        biased;
        () = &mut stop => return Err(Failure::interrupted().into()),
        publisher = client.publisher(args.topic.as_str(), options) => publisher?,
    };
    let headers =
        args.headers.iter().map(|(name, value)| (name.clone(), Bytes::from(value.clone()))).collect();
    let defaults = Defaults { key: args.key.clone().map(Bytes::from), headers };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    let raw = args.raw;
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || read_lines(lines, &defaults, raw, &sender))?;

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
        never = tell_delays(output, client, &publisher, args, &published) => match never {},
    };
    match done {
        Ok(summary) => Ok(output.result(&summary, || summary.text())?),
        Err(error) => Err(match published.get() {
            0 => error,
            some => error.context(format!("{} stored, then", events(some))),
        }),
    }
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
                .hint("neither this line nor any after it was published")
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
async fn tell_delays(
    output: &Output,
    client: &Client,
    publisher: &Publisher,
    args: &PublishArgs,
    published: &Cell<u64>,
) -> Infallible {
    let reason = Reason::default();
    tokio::select! {
        never = reason.follow(client) => never,
        never = look_for_delays(output, client, publisher, args, published, &reason) => never,
    }
}

async fn look_for_delays(
    output: &Output,
    client: &Client,
    publisher: &Publisher,
    args: &PublishArgs,
    published: &Cell<u64>,
    reason: &Reason,
) -> Infallible {
    let mut looks = interval(LOOK);
    let (mut seen, mut since) = (published.get(), Instant::now());
    let mut told: Option<(Option<ErrorCode>, Instant)> = None;
    loop {
        looks.tick().await;
        if published.get() != seen || publisher.figures().buffered_bytes == 0 {
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
        // A sentence may hold figures that change all the time; the code tells reasons apart.
        let is_due = |(before, at): &(Option<ErrorCode>, Instant)| {
            at.elapsed() >= if *before == code { TELL_AGAIN } else { DELAYED }
        };
        if told.as_ref().is_none_or(is_due) {
            output.remark(&format!(
                "waiting: {why}; each event is tried again for {} (--timeout)",
                output::duration_ms(args.timeout.0)
            ));
            told = Some((code, Instant::now()));
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
            many => {
                let places: Vec<String> =
                    many.iter().map(|last| format!("{}:{}", last.partition, last.offset)).collect();
                format!("{published}, last offsets by partition {}", places.join(" "))
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
    let place = |(partition, offset): (&PartitionId, &Option<Offset>)| {
        offset.map(|offset| Last { partition: partition.0, offset: offset.0 })
    };
    Ok(Summary {
        topic: topic.to_owned(),
        published: published.get(),
        last: last.iter().filter_map(place).collect(),
    })
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
