//! `levada dlq`: lists, counts, shows, redrives and purges dead letters.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    pin::{Pin, pin},
    time::Duration,
};

use levada_client::{
    Client, DeadLetter, DeadLetterGroup, DeadLetterTopic, DeadLettersOf, Delivery, Error, Event, Found,
    Grouping, Offset, PartitionId, Purge, Purged, RedriveInfo, RedriveOptions, RedriveOutcome,
    RedriveSelection, RedriveTarget, Redriving, SearchEnd, SearchOptions, SearchScope, Start, Timestamp,
    protocol::{
        batch::{BatchBuilder, Stamp},
        dead_letters::DEAD_LETTER_HEADER_PREFIX,
        error::ErrorCode,
        ids::TopicName,
    },
};
use levada_json::{Location, write_event};
use levada_terminal::{
    Failure, FailureKind, interrupted,
    output::{self, Output, Rows},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    again::CommandLine,
    asking::{self, Question},
    no_dead_letters::{NoDeadLetters, unless_none},
};
use crate::{
    args::{ClientArgs, CountArgs, DlqAction, DlqArgs, UntilArgs, WhichArgs, Whose},
    client, failure,
};

/// How long a step that is under way may still take once the user wishes to stop.
const LAST_STEP: Duration = Duration::from_secs(10);

pub(super) async fn run(output: &Output, args: DlqArgs) -> anyhow::Result<()> {
    let DlqArgs { client: reach, action } = args;
    match &action {
        // It ends with a whole step, so that what was done is told.
        DlqAction::Redrive { of, which, to, force, from, until } => {
            let to = target(&of.of, to.as_ref())?;
            let options = RedriveOptions {
                of: of.of.clone(),
                select: selection(which),
                to,
                force: *force,
                from: Offset(from.unwrap_or(0)),
                until: until.map(Offset),
            };
            client::with(&reach, async |client| redrive(output, client, &reach, options).await).await
        }
        action => {
            client::with_interruptible(&reach, async |client| act(output, client, &reach, action).await).await
        }
    }
}

async fn act(output: &Output, client: &Client, reach: &ClientArgs, action: &DlqAction) -> anyhow::Result<()> {
    match action {
        DlqAction::List { of: Some(Whose::One(of)), count } => {
            count_groups(output, client, reach, of, count).await
        }
        DlqAction::List { of, count } => {
            if count.is_given() {
                let message = "--where and --from count the dead letters of one subscription or route";
                return Err(Failure::usage(message).hint("name it: TOPIC/SUBSCRIPTION").into());
            }
            let topic = match of {
                Some(Whose::Topic(topic)) => Some(topic.as_str()),
                _ => None,
            };
            let topics = client.list_dead_letters(topic).await?;
            let listed: Vec<Listed<'_>> = topics.iter().map(Listed::of).collect();
            output.rows(&listed, || table(&listed))?;
            Ok(())
        }
        DlqAction::Show { of, condition, offset, from, max } => {
            let wanted = Wanted { condition: condition.as_deref(), offset: *offset, from: *from, max: *max };
            show(output, client, reach, &of.of, &wanted).await
        }
        DlqAction::Purge { of, until, force } => purge(output, client, &of.of, until, *force).await,
        DlqAction::Redrive { .. } => unreachable!("a redrive is run on its own"),
    }
}

fn target(of: &DeadLettersOf, to: Option<&TopicName>) -> anyhow::Result<RedriveTarget> {
    match (to, of.route()) {
        (Some(to), _) => Ok(RedriveTarget::Topic(to.to_string())),
        (None, None) => Ok(RedriveTarget::Subscription),
        (None, Some(route)) => {
            let message = format!("route {route} has no subscription that its dead letters could go back to");
            let hint = "--to TOPIC redrives them to a topic";
            Err(Failure::usage(message).hint(hint).into())
        }
    }
}

fn selection(which: &WhichArgs) -> RedriveSelection {
    match &which.condition {
        Some(condition) => RedriveSelection::Where(condition.clone()),
        None if which.all => RedriveSelection::All,
        None => RedriveSelection::Offsets(which.offsets.iter().copied().map(Offset).collect()),
    }
}

/// A dead-letter topic as it is printed.
#[derive(Serialize)]
struct Listed<'a> {
    of: String,
    #[serde(flatten)]
    found: &'a DeadLetterTopic,
}

impl<'a> Listed<'a> {
    fn of(found: &'a DeadLetterTopic) -> Self {
        let of = DeadLettersOf::of(&found.name).map_or_else(|| found.name.to_string(), |of| of.to_string());
        Self { of, found }
    }
}

fn time_or_none(milliseconds: Option<u64>) -> String {
    milliseconds.map_or_else(|| "-".to_owned(), output::time_ms)
}

fn table(listed: &[Listed<'_>]) -> Rows {
    let mut rows = Rows::new(&["of", "dead letters", "bytes", "oldest", "newest"]);
    for Listed { of, found } in listed {
        rows.push([
            of.clone(),
            output::count(found.count),
            output::bytes(found.bytes),
            time_or_none(found.oldest_ms),
            time_or_none(found.newest_ms),
        ]);
    }
    rows
}

async fn count_groups(
    output: &Output,
    client: &Client,
    reach: &ClientArgs,
    of: &DeadLettersOf,
    args: &CountArgs,
) -> anyhow::Result<()> {
    let from = Offset(args.from.unwrap_or(0));
    let mut counting = client.group_dead_letters(of, args.condition.as_deref(), from);
    let bar = output.progress(None, "dead letters");
    let counted = async {
        while counting.step().await? && counting.scanned_bytes() < args.scan_max.get() {
            bar.set_position(counting.scanned());
        }
        anyhow::Ok(())
    };
    let counted = unless_none(client, of, counted.await).await?;
    bar.finish_and_clear();
    let groups: Vec<&DeadLetterGroup> = counting.groups().collect();
    let next = counting.cursor().filter(|_| counted.is_some()).map(|cursor| {
        CommandLine::new(&["dlq", "list", &of.to_string()])
            .flag("where", args.condition.as_ref())
            .flag("scan-max", Some(args.scan_max))
            .flag("from", Some(cursor))
            .like(reach, output.is_json())
            .finish()
    });
    let summary = Counted::of(&counting, next);
    let none = groups.is_empty() && summary.next.is_none();
    if !none {
        output.rows(&groups, || group_table(&groups))?;
    }
    output.summary(&serde_json::json!({ "count": &summary }), || {
        let (matching, from) = (args.condition.is_some(), args.from);
        let nothing = NoDeadLetters { matching, from, ..NoDeadLetters::at_all(of) };
        match (none, summary.scanned) {
            (false, _) => summary.sentence(),
            (true, 0) => nothing.to_string(),
            (true, _) => format!("{nothing}; {}", summary.sentence()),
        }
    });
    Ok(())
}

fn group_table(groups: &[&DeadLetterGroup]) -> Rows {
    let headings =
        ["reason", "plugin", "count", "redriven", "first", "last", "newest", "error of the newest"];
    let mut rows = Rows::new(&headings);
    for group in groups {
        rows.push([
            group.reason.clone(),
            group.plugin.clone().unwrap_or_else(|| "-".to_owned()),
            output::count(group.count),
            output::count(group.redriven),
            group.first.to_string(),
            group.last.to_string(),
            output::time_ms(group.newest_ms),
            output::brief(&group.error),
        ]);
    }
    rows
}

/// What a count comes to.
#[derive(Debug, Serialize)]
struct Counted {
    scanned: u64,
    scanned_bytes: u64,
    undecodable: u64,
    /// The command that goes on, unless all was counted.
    next: Option<String>,
}

impl Counted {
    fn of(counting: &Grouping, next: Option<String>) -> Self {
        let (scanned, scanned_bytes) = (counting.scanned(), counting.scanned_bytes());
        Self { scanned, scanned_bytes, undecodable: counting.undecodable(), next }
    }

    fn sentence(&self) -> String {
        let (bytes, scanned) = (output::bytes(self.scanned_bytes), output::count(self.scanned));
        let mut sentence = format!("scanned {bytes}; dead letters: {scanned}");
        if self.undecodable > 0 {
            sentence.push_str(&format!(", payload not JSON {}", output::count(self.undecodable)));
        }
        if let Some(next) = &self.next {
            sentence.push_str(&format!("; there are more: {next}"));
        }
        sentence
    }
}

/// Which dead letters are shown.
struct Wanted<'a> {
    condition: Option<&'a str>,
    offset: Option<u64>,
    from: Option<u64>,
    max: NonZeroU64,
}

async fn show(
    output: &Output,
    client: &Client,
    reach: &ClientArgs,
    of: &DeadLettersOf,
    wanted: &Wanted<'_>,
) -> anyhow::Result<()> {
    let start = wanted.offset.or(wanted.from).map_or(Start::Earliest, Start::Offset);
    let max = wanted.offset.map_or(wanted.max, |_| NonZeroU64::MIN);
    let options = SearchOptions {
        condition: wanted.condition.map(str::to_owned),
        scope: SearchScope::Partitions(vec![0], start),
        events_max: Some(max),
        ..SearchOptions::of_all(of.dead_letter_topic().as_str())
    };
    let search = client.search(options).await.map_err(Into::into);
    let Some(mut search) = unless_none(client, of, search).await? else {
        return nothing_shown(output, of, wanted);
    };
    let mut shown = 0;
    while let Some(found) = search.next().await? {
        let Found::Events(delivery) = found else { continue };
        let noted = redrives_of(client, of, &delivery).await?;
        for (offset, event) in delivery.to_events() {
            if wanted.offset.is_some_and(|wanted| wanted != offset.0) {
                continue;
            }
            let text = print(output, offset, &event, noted.get(&offset.0))?;
            if !output.is_json() {
                let blank = if shown > 0 { "\n" } else { "" };
                output.line(&format!("{blank}{text}"))?;
            }
            shown += 1;
        }
    }
    let is_limited = search.ended() == Some(SearchEnd::Limited);
    if shown == 0 && (wanted.offset.is_some() || !is_limited) {
        return nothing_shown(output, of, wanted);
    }
    if is_limited && wanted.offset.is_none() {
        let cursor = search.cursor().to_string();
        let from = cursor.rsplit(':').next().unwrap_or_default();
        let next = CommandLine::new(&["dlq", "show", &of.to_string()])
            .flag("where", wanted.condition)
            .flag("max", Some(wanted.max))
            .flag("from", Some(from))
            .like(reach, output.is_json());
        output.remark(&format!("there may be more: {}", next.finish()));
    }
    Ok(())
}

/// Says that there is nothing to show; as JSON, that no line comes says it.
fn nothing_shown(output: &Output, of: &DeadLettersOf, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    if let Some(offset) = wanted.offset {
        return Err(NoDeadLetters::at_offset(of, offset).into());
    }
    if !output.is_json() {
        let (matching, from) = (wanted.condition.is_some(), wanted.from);
        let nothing = NoDeadLetters { matching, from, ..NoDeadLetters::at_all(of) };
        output.remark(&nothing.to_string());
    }
    Ok(())
}

async fn redrives_of(
    client: &Client,
    of: &DeadLettersOf,
    delivery: &Delivery,
) -> Result<HashMap<u64, RedriveInfo>, Error> {
    let offsets = delivery.first()..Offset(delivery.last().0.saturating_add(1));
    let redrives = client.list_redrives(of, offsets).await?;
    Ok(redrives.into_iter().map(|info| (info.offset, info)).collect())
}

/// A dead letter as it is printed.
#[derive(Serialize)]
struct Shown<'a> {
    offset: u64,
    reason: &'a str,
    error: &'a str,
    plugin: Option<&'a str>,
    subscription: &'a str,
    topic: &'a str,
    partition: Option<u16>,
    source_offset: Option<u64>,
    attempts: Option<u32>,
    first_failure: Option<String>,
    last_failure: Option<String>,
    missing: Option<&'a str>,
    /// How often its event was redriven before it became this dead letter.
    redrives: u32,
    /// When and where to this dead letter was redriven.
    redriven: Option<&'a RedriveInfo>,
    /// The event as it was where it failed.
    event: Box<RawValue>,
}

/// Prints a dead letter as JSON, or returns it as text.
fn print(
    output: &Output,
    offset: Offset,
    event: &Event,
    noted: Option<&RedriveInfo>,
) -> anyhow::Result<String> {
    let mut builder = BatchBuilder::of_engine();
    builder.push(event)?;
    let batch = builder.finish(Stamp::ENGINE);
    let Some(stored) = batch.events().next() else { return Ok(String::new()) };
    let letter = DeadLetter::of(&stored);
    let shown = Shown {
        offset: offset.0,
        reason: letter.reason,
        error: letter.error,
        plugin: letter.plugin,
        subscription: letter.subscription,
        topic: letter.topic,
        partition: letter.partition,
        source_offset: letter.offset,
        attempts: letter.attempts,
        first_failure: letter.first_failure_ms.map(output::time_ms),
        last_failure: letter.last_failure_ms.map(output::time_ms),
        missing: letter.missing,
        redrives: letter.redrives,
        redriven: noted,
        event: source_event(event, &letter)?,
    };
    if output.is_json() {
        output.json(&shown)?;
    }
    Ok(text(&shown))
}

/// The event without the headers of a dead letter, as JSON.
fn source_event(event: &Event, letter: &DeadLetter<'_>) -> anyhow::Result<Box<RawValue>> {
    let mut event = event.clone();
    event.headers.retain(|(name, _)| !name.starts_with(DEAD_LETTER_HEADER_PREFIX));
    let mut builder = BatchBuilder::of_engine();
    builder.push(&event)?;
    let batch = builder.finish(Stamp::ENGINE);
    let mut line = Vec::new();
    let location = Location {
        topic: letter.topic,
        partition: PartitionId(letter.partition.unwrap_or(0)),
        offset: Offset(letter.offset.unwrap_or(0)),
        delivery: None,
    };
    batch.events().for_each(|event| write_event(&mut line, location, &event));
    Ok(RawValue::from_string(String::from_utf8(line)?.trim_end().to_owned())?)
}

fn text(shown: &Shown<'_>) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let source = format!(
        "topic {}, partition {}, offset {}",
        shown.topic,
        number(shown.partition.map(u64::from)),
        number(shown.source_offset)
    );
    let when = [&shown.first_failure, &shown.last_failure].map(|time| time.clone().unwrap_or_default());
    let failed = if when[0] == when[1] { when[0].clone() } else { when.join(" to ") };
    let attempts = number(shown.attempts.map(u64::from));
    let before = if shown.redrives == 0 {
        String::new()
    } else {
        format!("; its event had been redriven {}", times(shown.redrives))
    };
    let redriven = match shown.redriven {
        None => format!("no{before}"),
        Some(info) => format!("{}, {}{before}", times(info.times), destination(info)),
    };
    output::fields([
        ("offset", shown.offset.to_string()),
        ("reason", shown.reason.to_owned()),
        ("error", shown.error.to_owned()),
        ("plugin", shown.plugin.unwrap_or("-").to_owned()),
        ("from", source),
        ("failed", format!("{failed}, attempts: {attempts}")),
        ("redriven", redriven),
        ("event", shown.event.get().to_owned()),
    ])
}

fn times(times: u32) -> String {
    match times {
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

/// When and where to a dead letter was redriven.
fn destination(info: &RedriveInfo) -> String {
    format!("at {} {}", output::time_ms(info.time_ms), place(info))
}

/// Where to a dead letter was redriven.
fn place(info: &RedriveInfo) -> String {
    let RedriveInfo { to, to_partition, to_offset, alone, .. } = info;
    let place = format!("topic {to}, partition {to_partition}, offset {to_offset}");
    if *alone { format!("to the subscription alone, as {place}") } else { format!("to {place}") }
}

/// What a redrive comes to.
#[derive(Debug, Default, Serialize)]
struct Tally {
    redriven: u64,
    already_redriven: u64,
    over_limit: u64,
    refused: u64,
    /// Why the first of the refused was.
    #[serde(skip)]
    refused_as: Option<ErrorCode>,
    /// The command that goes on, if it did not come to its end.
    next: Option<String>,
}

impl Tally {
    fn add(&mut self, outcome: &RedriveOutcome) {
        match outcome {
            RedriveOutcome::Redriven(_) => self.redriven += 1,
            RedriveOutcome::AlreadyRedriven(_) => self.already_redriven += 1,
            RedriveOutcome::OverLimit { .. } => self.over_limit += 1,
            RedriveOutcome::Refused { refusal, .. } => self.refuse(refusal.code),
            RedriveOutcome::Unknown => self.refuse(ErrorCode::Unsupported),
        }
    }

    fn refuse(&mut self, code: ErrorCode) {
        self.refused += 1;
        self.refused_as.get_or_insert(code);
    }

    fn outcomes(&self) -> u64 {
        self.redriven + self.already_redriven + self.over_limit + self.refused
    }

    /// That some were not redriven, if so.
    fn failure(&self) -> Option<Failure> {
        let left = self.over_limit + self.refused;
        let code = self.refused_as.unwrap_or(ErrorCode::RedriveLoop);
        let failure = Failure::new(code, format!("{} not redriven", counted(left)));
        let hint = match self.over_limit {
            0 => "the lines above say why",
            _ => "the lines above say why; --force redrives what was redriven too often",
        };
        (left > 0).then(|| failure.hint(hint))
    }

    fn sentence(&self) -> String {
        let mut sentence = format!("redriven {}", output::count(self.redriven));
        for (count, what) in [
            (self.already_redriven, "already redriven before"),
            (self.over_limit, "redriven too often"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                sentence.push_str(&format!(", {what} {}", output::count(count)));
            }
        }
        if let Some(next) = &self.next {
            sentence.push_str(&format!("; to go on: {next}"));
        }
        sentence
    }
}

async fn redrive(
    output: &Output,
    client: &Client,
    reach: &ClientArgs,
    options: RedriveOptions,
) -> anyhow::Result<()> {
    let (mut redriving, mut tally) = (client.redrive(options.clone())?, Tally::default());
    let bar = output.progress(None, "dead letters");
    let mut stop = pin!(interrupted());
    let ended = loop {
        let (outcomes, stopped) = next_step(&mut redriving, stop.as_mut()).await;
        let Some(outcomes) = outcomes else { break Err(Failure::interrupted().into()) };
        match outcomes {
            Ok(None) => break Ok(()),
            Ok(Some(outcomes)) => bar.suspend(|| print_outcomes(output, &outcomes, &mut tally))?,
            Err(error) => break Err(with_own_hint(error)),
        }
        bar.set_position(redriving.scanned());
        if stopped {
            break Err(Failure::interrupted().into());
        }
    };
    bar.finish_and_clear();
    let ended = redriven_or_none(client, &options, ended).await;
    if ended.is_err() {
        let came = (redriving.cursor(), redriving.until());
        tally.next = Some(next_command(&options, came, reach, output.is_json()));
    }
    // What cannot be at all needs no going on.
    let is_begun = ended.is_ok() || redriving.scanned() + tally.outcomes() > 0;
    if is_begun || ended.as_ref().is_err_and(is_interruption) {
        output.summary(&serde_json::json!({ "redrive": &tally }), || match tally.outcomes() {
            0 if ended.is_ok() => nothing_redriven(&options).to_string(),
            _ => tally.sentence(),
        });
    }
    ended?;
    tally.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// The next step, and whether the user wishes to stop behind it. What a step does that is under way is told as well, unless
/// it takes too long: `None`.
async fn next_step(
    redriving: &mut Redriving,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> (Option<Result<Option<Vec<RedriveOutcome>>, Error>>, bool) {
    let mut step = pin!(redriving.next());
    tokio::select! {
        biased;
        outcomes = &mut step => (Some(outcomes), false),
        () = stop => (timeout(LAST_STEP, step).await.ok(), true),
    }
}

/// How a redrive ended; well, if it selected from dead letters of which there are none. Offsets that were named are to be there.
async fn redriven_or_none(
    client: &Client,
    options: &RedriveOptions,
    ended: anyhow::Result<()>,
) -> anyhow::Result<()> {
    match (unless_none(client, &options.of, ended).await?, &options.select) {
        (None, RedriveSelection::Offsets(offsets)) => {
            let first = offsets.first().map_or(0, |offset| offset.0);
            Err(NoDeadLetters::at_offset(&options.of, first).into())
        }
        _ => Ok(()),
    }
}

fn nothing_redriven(options: &RedriveOptions) -> NoDeadLetters<'_> {
    let matching = matches!(options.select, RedriveSelection::Where(_));
    let from = (options.from.0 > 0).then_some(options.from.0);
    NoDeadLetters { of: &options.of, matching, from, until: options.until.map(|until| until.0) }
}

/// That the subscription is gone leaves its dead letters another way.
fn with_own_hint(error: Error) -> anyhow::Error {
    match error.code() {
        ErrorCode::SubscriptionNotFound => failure::with_default_hint(
            &error.into(),
            "--to TOPIC redrives them to a topic, `levada subscription create` makes the subscription again",
        ),
        _ => error.into(),
    }
}

fn is_interruption(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|failure: &Failure| failure.kind() == FailureKind::Interrupted)
}

fn counted(number: u64) -> String {
    match number {
        1 => "1 dead letter was".to_owned(),
        more => format!("{} dead letters were", output::count(more)),
    }
}

fn print_outcomes(output: &Output, outcomes: &[RedriveOutcome], tally: &mut Tally) -> anyhow::Result<()> {
    for outcome in outcomes {
        tally.add(outcome);
        output.result(outcome, || sentence(outcome))?;
    }
    Ok(())
}

fn sentence(outcome: &RedriveOutcome) -> String {
    match outcome {
        RedriveOutcome::Redriven(info) => format!("offset {}: redriven {}", info.offset, place(info)),
        RedriveOutcome::AlreadyRedriven(info) => {
            format!(
                "offset {}: left alone, redriven {} before, {}",
                info.offset,
                times(info.times),
                destination(info)
            )
        }
        RedriveOutcome::OverLimit { offset, redrives } => {
            format!(
                "offset {offset}: left alone, its event was redriven {} and failed again",
                times(*redrives)
            )
        }
        RedriveOutcome::Refused { offset, refusal } => format!("offset {offset}: {refusal}"),
        RedriveOutcome::Unknown => "an outcome that this version does not know".to_owned(),
    }
}

/// The command that goes on. What was redriven is left alone, so that only a forced one has to begin where this one came, and
/// to end where this one would have.
fn next_command(
    options: &RedriveOptions,
    (cursor, end): (Offset, Option<Offset>),
    reach: &ClientArgs,
    json: bool,
) -> String {
    let RedriveOptions { of, select, to, force, from, until } = options;
    let mut line = CommandLine::new(&["dlq", "redrive", &of.to_string()]);
    let mut begin = if *force { cursor.max(*from) } else { *from };
    let mut until = until.or(end.filter(|_| *force));
    match select {
        RedriveSelection::All => line = line.switch("all", true),
        RedriveSelection::Where(condition) => line = line.flag("where", Some(condition)),
        RedriveSelection::Offsets(offsets) => {
            for offset in offsets.iter().filter(|offset| **offset >= begin) {
                line = line.flag("offset", Some(offset));
            }
            (begin, until) = (Offset(0), None);
        }
    }
    let to = match to {
        RedriveTarget::Topic(topic) => Some(topic),
        RedriveTarget::Subscription => None,
    };
    line.flag("to", to)
        .switch("force", *force)
        .flag("from", (begin.0 > 0).then_some(begin))
        .flag("until", until)
        .like(reach, json)
        .finish()
}

/// A purge as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    of: &'a str,
    #[serde(flatten)]
    purged: &'a Purged,
}

async fn purge(
    output: &Output,
    client: &Client,
    of: &DeadLettersOf,
    until: &UntilArgs,
    force: bool,
) -> anyhow::Result<()> {
    let purge = match until.before {
        Some(Start::Time(time)) => Purge::Before(Timestamp(time)),
        _ => Purge::All,
    };
    // What becomes a dead letter while the question is asked was not agreed to.
    let until = if !force && asking::is_possible(output) { end_of(client, of).await? } else { None };
    let question = Question {
        overruled: &[ErrorCode::NotRedriven, ErrorCode::TopicInUse],
        question: "Purge them all the same?",
        declined: format!("no dead letter of {of} was purged"),
        hint: "y purges them, and --force does not ask",
    };
    let ask_engine = async |force| client.purge_dead_letters(of, purge, until, force).await;
    let purged = asking::unless_refused(output, force, &question, ask_engine).await;
    let purged = unless_none(client, of, purged).await.map_err(|error| match failure::code(&error) {
        Some(ErrorCode::TopicInUse) => failure::with_default_hint(&error, "--force purges them all the same"),
        _ => error,
    })?;
    let is_none = purged.as_ref().is_none_or(|done| purge == Purge::All && done.purged == 0);
    let purged = purged.unwrap_or(Purged { purged: 0, not_redriven: 0, start: 0 });
    let name = of.to_string();
    output.result(&Printed { of: &name, purged: &purged }, || {
        let Purged { purged, not_redriven, .. } = purged;
        let counted = output::counted(purged, "dead letter");
        match not_redriven {
            _ if is_none => NoDeadLetters::at_all(of).to_string(),
            0 => format!("purged {counted} of {of}"),
            some => format!("purged {counted} of {of}, of which {} never redriven", was(some)),
        }
    })?;
    Ok(())
}

/// The offset behind the newest dead letter; `None` if there never was one.
async fn end_of(client: &Client, of: &DeadLettersOf) -> anyhow::Result<Option<Offset>> {
    match client.describe_topic(of.dead_letter_topic().as_str()).await {
        Ok(topic) => Ok(Some(Offset(topic.partitions.first().map_or(0, |partition| partition.end)))),
        Err(error) if error.code() == ErrorCode::TopicNotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn was(number: u64) -> String {
    match number {
        1 => "1 was".to_owned(),
        more => format!("{} were", output::count(more)),
    }
}

#[cfg(test)]
mod tests {
    use levada_client::protocol::error::Refusal;

    use super::*;

    fn tally(outcomes: &[RedriveOutcome]) -> Tally {
        let mut tally = Tally::default();
        outcomes.iter().for_each(|outcome| tally.add(outcome));
        tally
    }

    #[test]
    fn a_redrive_fails_as_its_first_refusal_did_and_advises_force_where_that_helps() {
        let refused = |code| RedriveOutcome::Refused { offset: 7, refusal: Refusal::new(code, "no") };
        let bare = [refused(ErrorCode::InvalidArgument), refused(ErrorCode::OffsetOutOfRange)];
        let failure = tally(&bare).failure().unwrap();
        assert_eq!(failure.code(), ErrorCode::InvalidArgument.into());
        assert_eq!(failure.advice(), Some("the lines above say why"));
        let over = RedriveOutcome::OverLimit { offset: 8, redrives: 8 };
        let failure = tally(&[over.clone(), bare[1].clone()]).failure().unwrap();
        assert_eq!(failure.code(), ErrorCode::OffsetOutOfRange.into());
        assert!(failure.advice().unwrap().contains("--force"));
        assert_eq!(tally(&[over]).failure().unwrap().code(), ErrorCode::RedriveLoop.into());
        assert!(tally(&[]).failure().is_none());
    }

    #[test]
    fn a_forced_redrive_goes_on_where_it_came_and_ends_where_it_would_have() {
        let reach = ClientArgs { addr: Some("host:1".to_owned()), ..ClientArgs::default() };
        let mut options = RedriveOptions::all("orders/payment".parse().unwrap(), "repaired");
        let next = |options: &RedriveOptions, came| next_command(options, came, &reach, false);
        let came = (Offset(9), Some(Offset(20)));
        let line = "levada dlq redrive orders/payment --all --to=repaired";
        assert_eq!(next(&options, came), format!("{line} --addr=host:1"));
        options.force = true;
        assert_eq!(next(&options, came), format!("{line} --force --from=9 --until=20 --addr=host:1"));
        options.until = Some(Offset(15));
        let unbegun = next(&options, (Offset(0), options.until));
        assert_eq!(unbegun, format!("{line} --force --until=15 --addr=host:1"));
        options.select = RedriveSelection::Offsets(vec![Offset(3), Offset(12)]);
        let line = "levada dlq redrive orders/payment --offset=12 --to=repaired";
        assert_eq!(next(&options, came), format!("{line} --force --addr=host:1"));
    }
}
