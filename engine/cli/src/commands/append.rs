//! `levada publish --expect-offset`: all lines as one batch, at one offset of one partition or not at all.

use levada_client::{Error, Publisher, Receipt};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX},
};
use levada_terminal::Failure;
use tokio::sync::mpsc;

use super::lines::{Input, Line};
use crate::args::PublishArgs;

/// Appends the lines' events if the partition's next offset is the expected one. Returns the line and the receipt of each.
pub(super) async fn append_all(
    publisher: &Publisher,
    mut lines: mpsc::Receiver<Input>,
    args: &PublishArgs,
    expected: Offset,
) -> anyhow::Result<Vec<(u64, Receipt)>> {
    let partition = partition(publisher.partitions(), args)?;
    let (mut numbers, mut events, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(input) = lines.recv().await {
        let Line { number, event, .. } = input?;
        bytes += event.payload.as_ref().map_or(0, |payload| payload.len());
        numbers.push(number);
        events.push(event);
        // More than fits is not read: the client says what does.
        if events.len() > BATCH_EVENTS_MAX || bytes > BATCH_BODY_BYTES_MAX {
            break;
        }
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    match publisher.append_at(partition, expected, events).await {
        Ok(receipts) => Ok(numbers.into_iter().zip(receipts).collect()),
        Err(error) => Err(refused(error, args)),
    }
}

fn partition(partitions: u16, args: &PublishArgs) -> Result<PartitionId, Failure> {
    match args.partition {
        Some(partition) => Ok(PartitionId(partition)),
        None if partitions == 1 => Ok(PartitionId(0)),
        None => {
            let (topic, last) = (&args.topic, partitions.saturating_sub(1));
            let message = format!("--expect-offset needs --partition: topic {topic} has {partitions}");
            Err(Failure::usage(message).hint(format!("--partition 0 to {last} says whose offset it is")))
        }
    }
}

fn refused(error: Error, args: &PublishArgs) -> anyhow::Error {
    match &error {
        Error::OffsetMismatch { partition, expected, found } => {
            let hint = if found > expected {
                let topic = &args.topic;
                format!(
                    "`levada read {topic} --partition {partition} --from {expected}` shows what has come since"
                )
            } else {
                format!("the partition ends there: --expect-offset {found} appends")
            };
            Failure::new(ErrorCode::OffsetMismatch, error.to_string()).hint(hint).into()
        }
        Error::RequestTooLarge { .. } | Error::EventTooLarge(_) => {
            let hint = "--expect-offset appends all lines as one batch, of 10,000 events and 1 MiB at most";
            Failure::new(error.code(), error.to_string()).hint(hint).into()
        }
        _ => error.into(),
    }
}
