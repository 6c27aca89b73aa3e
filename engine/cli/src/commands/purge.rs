//! `levada topic purge`: drops events of a topic, the oldest first.

use levada_client::{Client, DeadLettersOf, PurgeOptions};
use levada_protocol::{
    error::ErrorCode,
    ids::{Timestamp, TopicName},
    request::{PartitionInfo, Position, PurgedTopic, Start, TopicInfo},
};
use levada_terminal::{
    Failure,
    output::{self, Output},
};
use serde::Serialize;

use super::{
    asking::{self, Question},
    attachment,
};
use crate::{args::PurgeArgs, failure};

/// A purge as it is printed.
#[derive(Serialize)]
struct Printed<'a> {
    topic: &'a str,
    #[serde(flatten)]
    purged: &'a PurgedTopic,
}

pub(super) async fn run(
    output: &Output,
    client: &Client,
    topic: &TopicName,
    args: &PurgeArgs,
) -> anyhow::Result<()> {
    if let Some(of) = DeadLettersOf::of(topic) {
        let message = format!("{topic} holds the dead letters of {of}, expected a topic of events");
        return Err(Failure::usage(message).hint(format!("`levada dlq purge {of}` purges them")).into());
    }
    let described = client.describe_topic(topic.as_str()).await?;
    let before = match args.what.before {
        Some(Start::Time(time)) => Some(Timestamp(time)),
        _ => None,
    };
    // What is stored while a question is asked was not agreed to.
    let until = until(&described, args)?;
    let question = Question {
        overruled: &[ErrorCode::TopicInUse],
        question: "Purge it all the same?",
        declined: format!("nothing of topic {topic} was purged"),
        hint: "y purges it, and --force does not ask",
    };
    let purge = async |force| {
        client.purge_topic(topic.as_str(), PurgeOptions { until: until.clone(), before, force }).await
    };
    let purged = asking::unless_refused(output, args.force, &question, purge).await;
    let purged = purged.map_err(|error| match failure::code(&error) {
        Some(ErrorCode::TopicInUse) => failure::with_default_hint(&error, "--force purges it all the same"),
        _ => error,
    })?;
    output.result(&Printed { topic: topic.as_str(), purged: &purged }, || {
        let counted = output::counted(purged.purged, "event");
        let begins = attachment::positions_text(&purged.positions);
        format!("purged {counted} of {topic}, which begins at {begins}")
    })?;
    Ok(())
}

/// The partitions to purge, and how far.
fn until(topic: &TopicInfo, args: &PurgeArgs) -> Result<Vec<Position>, Failure> {
    let chosen: Vec<_> = match args.partition {
        None => topic.partitions.iter().collect(),
        Some(number) => topic.partitions.iter().filter(|part| part.partition == number).collect(),
    };
    if chosen.is_empty() {
        let has = match topic.partitions.len() {
            1 => "one partition, 0".to_owned(),
            more => format!("partitions 0 to {}", more.saturating_sub(1)),
        };
        let number = args.partition.unwrap_or_default();
        let message = format!("topic {} has {has}, got partition {number}", topic.name);
        return Err(Failure::new(ErrorCode::PartitionNotFound, message));
    }
    if args.what.until.is_some() && chosen.len() > 1 {
        let message = format!(
            "--until names an offset of one partition, and topic {} has {} partitions",
            topic.name,
            chosen.len()
        );
        return Err(Failure::usage(message).hint("--partition says which one"));
    }
    if let (Some(until), [part]) = (args.what.until, chosen.as_slice())
        && until > part.end
    {
        let message = format!(
            "topic {} partition {} holds offsets {} to {} (the next one), got {until}",
            topic.name, part.partition, part.start, part.end
        );
        return Err(
            Failure::new(ErrorCode::OffsetOutOfRange, message).hint("--all purges all that is stored")
        );
    }
    let position = |part: &PartitionInfo| Position {
        partition: part.partition,
        offset: args.what.until.unwrap_or(part.end),
    };
    Ok(chosen.into_iter().map(position).collect())
}
