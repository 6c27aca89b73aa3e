//! `levada read` with something to look for: prints what matches, and says how far it came and how to go on.

use std::{borrow::Cow, cell::Cell, num::NonZeroU64, pin::pin};

use indicatif::ProgressBar;
use levada_client::{Client, Found, Scanned, Search, SearchBound, SearchEnd, SearchOptions, SearchScope};
use levada_terminal::{
    Failure, interrupted,
    output::{self, Output},
};
use serde::Serialize;

use super::{events::Printer, stops::Waiting};
use crate::args::{Beginning, DEFAULT_ADDR, ReadArgs};

pub(super) async fn run(output: &Output, client: &Client, args: &ReadArgs) -> anyhow::Result<()> {
    let mut search = client.search(options(args)?).await?;
    let printed = Cell::new(0);
    let bar = output.progress(None, "bytes");
    let mut stop = pin!(interrupted());
    let waiting =
        Waiting { output, client, addr: &args.client.addr, what: format!("searching {}", args.topic) };
    let (topic, told) = (args.topic.as_str(), Cell::new(0));
    let ask = async || client.describe_topic(topic).await.map(|_| None);
    let progress = || printed.get() + told.get();
    let ended = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
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
                let (count, _) = bar.suspend(|| printer.print(output, &delivery, u64::MAX))?;
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
        let Scanned { bytes, events, undecodable, .. } = search.scanned();
        let complete = search.ended() == Some(SearchEnd::Complete);
        let cursor = search.cursor().to_string();
        let next = (!complete).then(|| next_command(args, &cursor, json));
        Self {
            scanned_bytes: bytes,
            scanned_events: events,
            matched: printed,
            undecodable,
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
        if let Some(next) = &self.next {
            sentence.push_str(&format!("; there may be more: {next}"));
        }
        sentence
    }
}

/// The command that goes on where this one has stopped.
fn next_command(args: &ReadArgs, cursor: &str, json: bool) -> String {
    let mut words = vec!["levada".to_owned(), "read".to_owned(), args.topic.to_string()];
    // The form with = takes values that begin with a dash, too.
    let mut flag = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("--{name}={}", quoted(&value))));
    };
    flag("where", args.search.condition.clone());
    flag("key", args.search.key.clone());
    flag("scan-max", args.search.scan_max.map(|bytes| bytes.to_string()));
    flag("max", args.max.map(|max| max.to_string()));
    flag("cursor", Some(cursor.to_owned()));
    flag("addr", Some(args.client.addr.clone()).filter(|addr| addr != DEFAULT_ADDR));
    flag("ca", args.client.ca.as_ref().map(|ca| ca.display().to_string()));
    flag("output", json.then(|| "json".to_owned()));
    words.extend(args.follow.then(|| "--follow".to_owned()));
    words.extend(args.payload.then(|| "--payload".to_owned()));
    words.join(" ")
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:,/@%+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        for (word, expected) in [
            ("0:1,3:0", "0:1,3:0"),
            ("", "''"),
            ("a > 1", "'a > 1'"),
            ("it's", r"'it'\''s'"),
            (r#"a = "$x""#, r#"'a = "$x"'"#),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
