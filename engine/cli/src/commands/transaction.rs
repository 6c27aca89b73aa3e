//! `levada transaction`: lists, shows and decides prepared transactions. How lines become one is `transact.rs`.

use levada_client::{Client, TransactionBatch, TransactionInfo};
use levada_terminal::output::{self, Output, Rows};

use super::transact::{self, with_hint};
use crate::{
    args::{self, TransactionAction, TransactionArgs, TransactionPath},
    client,
};

pub(super) async fn run(output: &Output, args: TransactionArgs) -> anyhow::Result<()> {
    match args.action {
        TransactionAction::Publish(publish) => transact::run(output, &args.client, publish).await,
        action => {
            client::with_interruptible(&args.client, async |client| act(output, client, action).await).await
        }
    }
}

async fn act(output: &Output, client: &Client, action: TransactionAction) -> anyhow::Result<()> {
    match action {
        TransactionAction::Publish(_) => unreachable!("what is published has a connection of its own"),
        TransactionAction::List { group, all, max } => {
            let group = group.as_ref().map(|group| group.as_str());
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let (transactions, more) = client.list_transactions(group, all, max).await?;
            output.rows(&transactions, || table(&transactions))?;
            if !output.is_json() && more {
                output.remark("there are more; --max shows more of them");
            }
        }
        TransactionAction::Describe { transaction } => {
            let group = client.producer_group(transaction.group.as_str())?;
            let info = group.describe(transaction.id.as_str()).await;
            let info = info.map_err(|error| with_hint(error, &transaction))?;
            if output.is_json() {
                output.json(&info)?;
            } else {
                output.line(&describe(&info))?;
                output.rows(&info.batches, || batches(&info.batches))?;
            }
        }
        TransactionAction::Commit { transaction } => {
            let group = client.producer_group(transaction.group.as_str())?;
            let info = group.commit(transaction.id.as_str()).await;
            let info = info.map_err(|error| with_hint(error, &transaction))?;
            output.result(&info, || committed(&transaction, &info))?;
        }
        TransactionAction::Rollback { transaction } => {
            let group = client.producer_group(transaction.group.as_str())?;
            let info = group.rollback(transaction.id.as_str()).await;
            let info = info.map_err(|error| with_hint(error, &transaction))?;
            output.result(&info, || {
                let dropped = || format!("{} dropped", output::counted(event_count(&info), "event"));
                decided(&transaction, &info, "rolled back", dropped)
            })?;
        }
    }
    Ok(())
}

/// What became of a transaction that was committed, in a sentence.
fn committed(transaction: &TransactionPath, info: &TransactionInfo) -> String {
    decided(transaction, info, "committed", || {
        let (mut stored, mut duplicates, mut dropped) = (0, 0, 0);
        for batch in &info.batches {
            let left_out = batch.duplicates.len() as u64;
            duplicates += left_out;
            match batch.offset {
                Some(_) => stored += u64::from(batch.events) - left_out,
                None => dropped += u64::from(batch.events) - left_out,
            }
        }
        let mut text = format!("{} stored", output::counted(stored, "event"));
        if duplicates > 0 {
            text = format!("{text}, {} left out", output::counted(duplicates, "duplicate"));
        }
        if dropped > 0 {
            text = format!("{text}, {} dropped: their topic was deleted", output::counted(dropped, "event"));
        }
        text
    })
}

fn decided(
    transaction: &TransactionPath,
    info: &TransactionInfo,
    done: &str,
    what: impl FnOnce() -> String,
) -> String {
    if info.repeat {
        let when = info.decided_ms.map_or_else(|| "before".to_owned(), output::time_ms);
        return format!("{transaction} was {done} before: {when}");
    }
    format!("{done} {transaction}: {}", what())
}

fn event_count(info: &TransactionInfo) -> u64 {
    info.batches.iter().map(|batch| u64::from(batch.events)).sum()
}

/// When the next check is; one that is due is sent once a producer of the group is connected.
fn next_check(info: &TransactionInfo) -> String {
    match info.next_check_ms {
        Some(at) if at < args::now().0 => "due".to_owned(),
        at => time(at),
    }
}

fn time(milliseconds: Option<u64>) -> String {
    milliseconds.map_or_else(|| "-".to_owned(), output::time_ms)
}

fn table(transactions: &[TransactionInfo]) -> Rows {
    let mut rows = Rows::new(&[
        "transaction",
        "state",
        "prepared",
        "decided",
        "events",
        "topics",
        "checks",
        "next check",
    ]);
    for info in transactions {
        let mut topics: Vec<&str> = info.batches.iter().map(topic).collect();
        topics.sort_unstable();
        topics.dedup();
        rows.push([
            format!("{}/{}", info.group, info.id),
            info.state.as_words().to_owned(),
            time(info.prepared_ms),
            time(info.decided_ms),
            output::count(event_count(info)),
            output::brief(&topics.join(" ")),
            info.checks.to_string(),
            next_check(info),
        ]);
    }
    rows
}

fn describe(info: &TransactionInfo) -> String {
    output::fields([
        ("transaction", format!("{}/{}", info.group, info.id)),
        ("state", info.state.as_words().to_owned()),
        ("prepared", time(info.prepared_ms)),
        ("decided", time(info.decided_ms)),
        ("checks", info.checks.to_string()),
        ("next check", next_check(info)),
        ("events", output::count(event_count(info))),
    ])
}

fn topic(batch: &TransactionBatch) -> &str {
    batch.topic.as_ref().map_or("(deleted)", |topic| topic.as_str())
}

fn batches(batches: &[TransactionBatch]) -> Rows {
    let mut rows = Rows::new(&["topic", "partition", "events", "offset", "duplicates"]);
    for batch in batches {
        rows.push([
            topic(batch).to_owned(),
            batch.partition.to_string(),
            output::count(batch.events.into()),
            batch.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            output::count(batch.duplicates.len() as u64),
        ]);
    }
    rows
}
