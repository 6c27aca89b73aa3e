//! `levada publish --prepare`: all lines as one transaction, which waits for its decision.

use std::{pin::pin, thread};

use levada_client::{Client, PartitionId};
use levada_protocol::{error::ErrorCode, limits::TRANSACTION_EVENTS_MAX};
use levada_terminal::{
    Failure, interrupted,
    output::{self, Output},
};
use tokio::sync::mpsc;

use super::{lines::Lines, transaction};
use crate::args::{PublishArgs, TransactionPath};

/// Lines read ahead.
const LINES_AHEAD: usize = 1_024;

pub(super) async fn run(
    output: &Output,
    client: &Client,
    args: &PublishArgs,
    of: &TransactionPath,
    lines: Lines,
) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    tokio::select! {
        biased;
        () = &mut stop => {
            let typed = of.typed();
            let hint = format!("`levada transaction describe {typed}` shows whether {of} was prepared");
            Err(Failure::interrupted().hint(hint).into())
        }
        prepared = prepare(output, client, args, of, lines) => prepared,
    }
}

async fn prepare(
    output: &Output,
    client: &Client,
    args: &PublishArgs,
    of: &TransactionPath,
    lines: Lines,
) -> anyhow::Result<()> {
    let (sender, mut receiver) = mpsc::channel(LINES_AHEAD);
    // A thread of its own, left behind at the end: a read of stdin cannot be called off.
    thread::Builder::new().name("input".to_owned()).spawn(move || lines.read(&sender))?;
    let mut transaction = client.producer_group(of.group.as_str())?.transaction(of.id.as_str())?;
    let (topic, mut events) = (args.topic.as_str(), 0_u64);
    while let Some(input) = receiver.recv().await {
        let (number, event) = input?;
        events += 1;
        if events > TRANSACTION_EVENTS_MAX as u64 {
            let message =
                format!("line {number} is one event too many: the limit is {TRANSACTION_EVENTS_MAX}");
            let failure = Failure::new(ErrorCode::TransactionTooLarge, message);
            return Err(failure.hint("divide the lines over several transactions").into());
        }
        let added = match args.partition {
            Some(partition) => transaction.publish_to(topic, PartitionId(partition), event),
            None => transaction.publish(topic, event),
        };
        added.map_err(|error| anyhow::Error::from(error).context(format!("line {number}")))?;
    }
    if events == 0 {
        let failure = Failure::usage("expected at least one event to prepare, got none");
        return Err(failure.hint("one line of standard input is one event").into());
    }
    let prepared = match args.check_after() {
        Some(after) => transaction.prepare_and_check_after(after).await,
        None => transaction.prepare().await,
    };
    let prepared = prepared.map_err(|error| transaction::with_hint(error, of))?;
    let info = prepared.info();
    output.result(info, || {
        let (done, events) =
            (if info.repeat { "had prepared" } else { "prepared" }, output::counted(events, "event"));
        let typed = of.typed();
        format!(
            "{done} {events} for {topic} as {of}: `levada transaction commit {typed}` publishes them, `levada transaction \
             rollback {typed}` drops them"
        )
    })?;
    Ok(())
}
