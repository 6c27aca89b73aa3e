//! Lines as one transaction: `levada transaction publish`, and `levada publish --prepare`, whose lines all have one topic.

use std::{collections::HashSet, convert::Infallible, future::Future, pin::pin, thread, time::Duration};

use levada_client::{Client, Error, LastRefusal, PartitionId, TopicInfo, Transaction};
use levada_protocol::{
    error::ErrorCode,
    limits::{TRANSACTION_BATCHES_MAX, TRANSACTION_EVENTS_MAX},
};
use levada_server::nearest;
use levada_terminal::{
    Failure, FailureKind, interrupted,
    output::{self, Output},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    delays::Delays,
    lines::{Form, Line, Lines},
    place::{Place, Placed},
    published::Published,
};
use crate::{
    args::{ClientArgs, PublishArgs, TransactionPath, TransactionPublishArgs},
    client, failure,
};

/// Lines read ahead.
const LINES_AHEAD: usize = 1_024;
/// How long finding the line that names what is not there may take; the failure is printed without it then.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);

/// A transaction, and where each of its events is to go.
struct Filled {
    transaction: Transaction,
    events: Vec<Placed>,
}

/// `levada publish --prepare`.
pub(super) async fn prepare_for_topic(
    output: &Output,
    client: &Client,
    args: &PublishArgs,
    of: &TransactionPath,
    lines: Lines,
) -> anyhow::Result<()> {
    let all = Place { topic: args.topic.clone(), partition: args.partition.map(PartitionId) };
    let transaction = client.producer_group(of.group.as_str())?.transaction(of.id.as_str())?;
    let mut stop = pin!(interrupted());
    let filled = unless(&mut stop, fill(transaction, lines, Some(&all))).await?;
    let prepared = unless(&mut stop, prepare(output, client, filled, of, args.check_after())).await;
    prepared.inspect_err(|error| remark_interrupted(output, error, &of.typed()))
}

/// `levada transaction publish`.
pub(super) async fn run(
    output: &Output,
    engine: &ClientArgs,
    args: TransactionPublishArgs,
) -> anyhow::Result<()> {
    let lines = Lines::open(output, &args.input, Form::Placed, "nothing was published")?;
    client::within(engine, args.timeout.into(), async |client| {
        publish(output, client, engine, &args, lines).await
    })
    .await
}

async fn publish(
    output: &Output,
    client: &Client,
    engine: &ClientArgs,
    args: &TransactionPublishArgs,
    lines: Lines,
) -> anyhow::Result<()> {
    let transaction = match &args.transaction {
        Some(of) => client.producer_group(of.group.as_str())?.transaction(of.id.as_str())?,
        None => client.transaction()?,
    };
    let typed = match &args.transaction {
        Some(of) => of.typed(),
        None => format!("default/{}", transaction.id()),
    };
    let mut stop = pin!(interrupted());
    let filled = unless(&mut stop, fill(transaction, lines, None)).await?;
    let last_refusal = filled.transaction.last_refusal();
    let storing = async {
        match &args.transaction {
            Some(of) if args.prepare => prepare(output, client, filled, of, args.check_after()).await,
            of => commit(output, client, filled, of.as_ref()).await,
        }
    };
    let storing = async {
        tokio::select! {
            biased;
            stored = storing => stored,
            never = report_delays(output, client, engine, args, &last_refusal) => match never {},
        }
    };
    unless(&mut stop, Box::pin(storing)).await.inspect_err(|error| remark_interrupted(output, error, &typed))
}

/// Does this unless the user wishes to stop before it is done.
async fn unless<T>(
    stop: impl Future<Output = ()>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        () = stop => Err(Failure::interrupted().into()),
        done = work => done,
    }
}

/// Says where to look for the outcome of what was interrupted on its way.
fn remark_interrupted(output: &Output, error: &anyhow::Error, typed: &str) {
    let is_interrupted = |failure: &Failure| failure.kind() == FailureKind::Interrupted;
    if error.downcast_ref().is_some_and(is_interrupted) {
        output.remark(&format!("`levada transaction describe {typed}` shows whether it was stored"));
    }
}

/// Adds the lines' events to a transaction: each for its own place, or all for one.
async fn fill(mut transaction: Transaction, lines: Lines, all: Option<&Place>) -> anyhow::Result<Filled> {
    let (sender, mut receiver) = mpsc::channel(LINES_AHEAD);
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new().name("input".to_owned()).spawn(move || lines.read(&sender))?;
    let mut events: Vec<Placed> = Vec::new();
    let mut batches = HashSet::new();
    while let Some(input) = receiver.recv().await {
        let Line { number, event, place } = input?;
        let place = place.or_else(|| all.cloned()).expect("a line has a place of its own, or all have one");
        if events.len() == TRANSACTION_EVENTS_MAX {
            return Err(too_large(number, "event", TRANSACTION_EVENTS_MAX).into());
        }
        // Events whose key chooses their partition may take more batches than this: then the engine refuses.
        if batches.insert(place.clone()) && batches.len() > TRANSACTION_BATCHES_MAX {
            return Err(too_large(number, "batch", TRANSACTION_BATCHES_MAX).into());
        }
        let topic = place.topic.as_str();
        let added = match place.partition {
            Some(partition) => transaction.publish_to(topic, partition, event),
            None => transaction.publish(topic, event),
        };
        added.map_err(|error| anyhow::Error::from(error).context(format!("line {number}")))?;
        events.push(Placed { line: number, place });
    }
    Ok(Filled { transaction, events })
}

fn too_large(line: u64, what: &str, limit: usize) -> Failure {
    let message = format!("line {line} is one {what} too many: the limit is {limit}");
    let hint = match what {
        "batch" => {
            "a transaction has a batch for each partition of its topics; divide the lines over several"
        }
        _ => "divide the lines over several transactions",
    };
    Failure::new(ErrorCode::TransactionTooLarge, message).hint(hint)
}

async fn prepare(
    output: &Output,
    client: &Client,
    filled: Filled,
    of: &TransactionPath,
    check_after: Option<Duration>,
) -> anyhow::Result<()> {
    let Filled { mut transaction, events } = filled;
    if events.is_empty() {
        // What is not there cannot be decided either.
        let message = "expected at least one event to prepare, got none";
        let hint = "one line of standard input, or of --file, is one event";
        return Err(Failure::new(ErrorCode::InvalidArgument, message).hint(hint).into());
    }
    let prepared = match check_after {
        Some(after) => transaction.prepare_and_check_after(after).await,
        None => transaction.prepare().await,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(explained(client, error, &events, Some(of)).await),
    };
    let info = prepared.info();
    output.result(info, || {
        let done = if info.repeat { "had prepared" } else { "prepared" };
        let count = output::counted(events.len() as u64, "event");
        let mut topics: Vec<&str> = events.iter().map(|event| event.place.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let (topics, typed) = (output::brief(&topics.join(", ")), of.typed());
        format!(
            "{done} {count} for {topics} as {of}: `levada transaction commit {typed}` publishes them, `levada transaction \
             rollback {typed}` drops them"
        )
    })?;
    Ok(())
}

async fn commit(
    output: &Output,
    client: &Client,
    filled: Filled,
    of: Option<&TransactionPath>,
) -> anyhow::Result<()> {
    let Filled { mut transaction, events } = filled;
    if events.is_empty() {
        let published = Published::new(of, transaction.id(), &[], &[]);
        output.result(&published, || published.text())?;
        return Ok(());
    }
    match transaction.commit().await {
        Ok(receipts) => {
            let published = Published::new(of, transaction.id(), &events, &receipts);
            output.result(&published, || published.text())?;
            Ok(())
        }
        Err(error) if error.has_no_side_effects() => Err(explained(client, error, &events, of).await),
        Err(error) => {
            let id = transaction.id();
            let hint = match of {
                Some(of) => format!(
                    "the same command with the same lines stores nothing twice within 10 minutes; `levada transaction describe \
                     {}` shows whether it was committed",
                    of.typed()
                ),
                None => {
                    format!(
                        "`levada transaction describe default/{id}` shows for 10 minutes whether it was committed"
                    )
                }
            };
            Err(failure::with_hint(&error.into(), &hint))
        }
    }
}

/// Why nothing was stored, with the line that names what is not there, and what helps.
async fn explained(
    client: &Client,
    error: Error,
    events: &[Placed],
    of: Option<&TransactionPath>,
) -> anyhow::Error {
    if matches!(error.code(), ErrorCode::TopicNotFound | ErrorCode::PartitionNotFound)
        && let Ok(Ok(topics)) = timeout(SEARCH_TIMEOUT, client.list_topics()).await
        && let Some(Placed { line, place }) =
            events.iter().find(|event| is_missing(&event.place, error.code(), &topics))
    {
        let known = topics.iter().map(|topic| topic.name.as_str());
        let meant = (error.code() == ErrorCode::TopicNotFound).then(|| nearest(place.topic.as_str(), known));
        let at_line = anyhow::Error::from(error).context(format!("line {line}"));
        return match meant.flatten() {
            Some(name) => failure::with_hint(&at_line, &format!("the nearest name is {name}")),
            None => at_line,
        };
    }
    match of {
        Some(of) => with_hint(error, of),
        None => error.into(),
    }
}

/// An error about a transaction, with where to look.
pub(super) fn with_hint(error: Error, of: &TransactionPath) -> anyhow::Error {
    let hint = match error.code() {
        ErrorCode::TransactionNotFound => {
            format!("`levada transaction list --group {} --all` shows those that are known", of.group)
        }
        // TRANSACTION_EXISTS says so itself.
        ErrorCode::AlreadyDecided | ErrorCode::DeadlineExceeded => {
            format!("`levada transaction describe {}` shows it", of.typed())
        }
        _ => return error.into(),
    };
    Failure::new(error.code(), error.to_string()).hint(hint).into()
}

/// True if it is this place of which an error with this code says that there is no such topic, or partition.
fn is_missing(place: &Place, code: ErrorCode, topics: &[TopicInfo]) -> bool {
    let topic = topics.iter().find(|topic| topic.name == place.topic);
    match (topic, place.partition) {
        (None, _) => code == ErrorCode::TopicNotFound,
        (Some(topic), Some(PartitionId(partition))) => {
            code == ErrorCode::PartitionNotFound && topic.partitions.len() <= usize::from(partition)
        }
        (Some(_), None) => false,
    }
}

/// Says on stderr why it is not stored yet, after a while.
async fn report_delays(
    output: &Output,
    client: &Client,
    engine: &ClientArgs,
    args: &TransactionPublishArgs,
    last_refusal: &LastRefusal,
) -> Infallible {
    let time = output::duration_ms(args.timeout.0);
    let delays = Delays {
        output,
        client,
        addr: &engine.reach.addr,
        unanswered: "the engine has not stored it yet",
        tried: format!("the transaction is tried again for {time} (--timeout)"),
    };
    // All of it is stored at once.
    delays.report(|| false, || last_refusal.get()).await
}
