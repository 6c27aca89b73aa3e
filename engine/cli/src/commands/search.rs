//! `levada read` with something to look for: prints what matches, and says how far it came and how to go on.

use std::{cell::Cell, num::NonZeroU64, pin::pin};

use indicatif::ProgressBar;
use levada_client::{Client, Found, Scanned, Search, SearchBound, SearchEnd, SearchOptions, SearchScope};
use levada_terminal::{
    Failure, interrupted,
    output::{self, Output},
};
use serde::Serialize;

use super::{
    again::CommandLine,
    events::{Printer, withheld_remark},
    stops::{Waiting, stopped},
};
use crate::args::{Beginning, ReadArgs};

pub(super) async fn run(output: &Output, client: &Client, args: &ReadArgs) -> anyhow::Result<()> {
    let mut search = client.search(options(args)?).await?;
    let printed = Cell::new(0);
    let bar = output.progress(None, "bytes");
    let mut stop = pin!(interrupted());
    let waiting =
        Waiting { output, client, addr: &args.client.reach.addr, what: format!("searching {}", args.topic) };
    let (topic, told) = (args.topic.as_str(), Cell::new(0));
    let ask = async || client.describe_topic(topic).await.map(|_| None);
    let progress = || printed.get() + told.get();
    let ended = tokio::select! {
        biased;
        () = &mut stop => stopped(args.follow && args.max.is_none()),
        () = output.closed() => return Ok(()),
        ended = print_all(output, args, &mut search, (&printed, &told), &bar) => ended,
        never = waiting.report_stops(progress, ask) => match never {},
    };
    bar.finish_and_clear();
    // Also of a search that failed: it says where to go on.
    let summary = Summary::of(&search, printed.get(), args, output.is_json());
    output.summary(&Summed { search: &summary }, || summary.sentence());
    ended
}

fn options(args: &ReadArgs) -> Result<SearchOptions, Failure> {
    let looked_for = &args.search;
    let start = match args.beginning() {
        Beginning::At(start) => start,
        Beginning::Last(_) => {
            let message = "expected a place or time as --from of a search, got a number of last events";
            return Err(Failure::usage(message).hint("--since 1h searches what was stored in the last hour"));
        }
    };
    let scope = match (&looked_for.cursor, args.partitions.is_empty()) {
        (Some(cursor), _) => SearchScope::Cursor(cursor.clone()),
        (None, true) => SearchScope::All(start),
        (None, false) => SearchScope::Partitions(args.partitions.clone(), start),
    };
    let bound = match looked_for.scan_max {
        _ if args.follow => SearchBound::Follow,
        Some(bytes) => SearchBound::Bytes(bytes),
        None => SearchBound::Engine,
    };
    Ok(SearchOptions {
        condition: looked_for.condition.clone(),
        key: looked_for.key.clone().map(Into::into),
        scope,
        bound,
        events_max: args.max.and_then(NonZeroU64::new),
        ..SearchOptions::of_all(args.topic.as_str())
    })
}

async fn print_all(
    output: &Output,
    args: &ReadArgs,
    search: &mut Search,
    (printed, told): (&Cell<u64>, &Cell<u64>),
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let printer = Printer { topic: args.topic.as_str(), subscription: None, payload_alone: args.payload };
    while let Some(found) = search.next().await? {
        match found {
            Found::Events(delivery) => {
                let count = bar.suspend(|| printer.print(output, &delivery, u64::MAX, u64::MAX))?.count;
                printed.set(printed.get() + count);
            }
            Found::Progress(scanned) => {
                bar.set_position(scanned.bytes);
                told.set(scanned.bytes);
            }
        }
    }
    Ok(())
}

/// What a search comes to.
#[derive(Debug, Serialize)]
struct Summary {
    scanned_bytes: u64,
    scanned_events: u64,
    matched: u64,
    undecodable: u64,
    withheld: u64,
    /// Everything that was stored when it began was searched.
    complete: bool,
    cursor: String,
    /// The command that goes on, unless there is nothing more.
    next: Option<String>,
}

/// The summary under its name, so that programs know it among what else is on stderr.
#[derive(Serialize)]
struct Summed<'a> {
    search: &'a Summary,
}

impl Summary {
    fn of(search: &Search, printed: u64, args: &ReadArgs, json: bool) -> Self {
        let Scanned { bytes, events, undecodable, withheld, .. } = search.scanned();
        let complete = search.ended() == Some(SearchEnd::Complete);
        let cursor = search.cursor().to_string();
        let next = (!complete).then(|| next_command(args, &cursor, json));
        Self {
            scanned_bytes: bytes,
            scanned_events: events,
            matched: printed,
            undecodable,
            withheld,
            complete,
            cursor,
            next,
        }
    }

    fn sentence(&self) -> String {
        let (bytes, events) = (output::bytes(self.scanned_bytes), output::count(self.scanned_events));
        let mut sentence =
            format!("scanned {bytes}; events: {events}, matched {}", output::count(self.matched));
        if self.undecodable > 0 {
            sentence.push_str(&format!(", payload not JSON {}", output::count(self.undecodable)));
        }
        if self.withheld > 0 {
            sentence.push_str(&format!(", {}", withheld_remark(self.withheld)));
        }
        if let Some(next) = &self.next {
            sentence.push_str(&format!("; there may be more: {next}"));
        }
        sentence
    }
}

/// The command that goes on where this one has stopped.
fn next_command(args: &ReadArgs, cursor: &str, json: bool) -> String {
    CommandLine::new(&["read", args.topic.as_str()])
        .flag("where", args.search.condition.as_ref())
        .flag("key", args.search.key.as_ref())
        .flag("scan-max", args.search.scan_max)
        .flag("max", args.max)
        .flag("cursor", Some(cursor))
        .like(&args.client, json)
        .switch("follow", args.follow)
        .switch("payload", args.payload)
        .finish()
}
