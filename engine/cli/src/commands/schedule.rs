//! `levada schedule`: lists, shows and cancels delayed events.

use levada_client::{Client, Error, ErrorCode, ScheduledInfo};
use levada_protocol::ids::TopicName;
use levada_terminal::output::{self, Output, Rows};
use serde::Serialize;

use crate::{
    args::{ScheduleAction, ScheduleArgs},
    client,
};

/// What was cancelled.
#[derive(Debug, Serialize)]
struct Cancelled<'a> {
    topic: &'a TopicName,
    cancelled: u64,
    /// True if it was cancelled before, and nothing was done now.
    repeat: bool,
}

impl Cancelled<'_> {
    fn text(&self) -> String {
        let Self { topic, cancelled: id, repeat } = self;
        match repeat {
            true => format!("event {id} of {topic} was cancelled already: it will not be delivered"),
            false => format!("cancelled event {id} of {topic}: it will not be delivered"),
        }
    }
}

pub(super) async fn run(output: &Output, args: ScheduleArgs) -> anyhow::Result<()> {
    client::with_interruptible(&args.client, async |client| act(output, client, args.action).await).await
}

async fn act(output: &Output, client: &Client, action: ScheduleAction) -> anyhow::Result<()> {
    match action {
        ScheduleAction::List { topic, max } => {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let events = client.list_scheduled(topic.as_str(), max).await?;
            output.rows(&events, || table(&events))?;
            if !output.is_json() && events.len() == max {
                let all = client.describe_topic(topic.as_str()).await?.scheduled;
                if all > u64::try_from(events.len()).unwrap_or(u64::MAX) {
                    output.remark(&format!("{all} events wait in {topic}; --max shows more of them"));
                }
            }
        }
        ScheduleAction::Show { topic, id } => {
            let event = client.describe_scheduled(topic.as_str(), id).await?;
            if output.is_json() {
                output.json(&event)?;
            } else {
                output.line(&describe(&topic, &event))?;
            }
        }
        ScheduleAction::Cancel { topic, id } => {
            let repeat = waits_no_more(client, &topic, id).await;
            client.cancel_scheduled(topic.as_str(), id).await?;
            let cancelled = Cancelled { topic: &topic, cancelled: id, repeat };
            output.result(&cancelled, || cancelled.text())?;
        }
    }
    Ok(())
}

/// True if no such event waits, by an engine that answers: one that can be cancelled all the same was cancelled before, which
/// the answer to a repeat does not say.
async fn waits_no_more(client: &Client, topic: &TopicName, id: u64) -> bool {
    let described = client.describe_scheduled(topic.as_str(), id).await;
    described.as_ref().err().map(Error::code) == Some(ErrorCode::ScheduleNotFound)
}

fn text(value: Option<&String>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| output::brief(value))
}

fn table(events: &[ScheduledInfo]) -> Rows {
    let mut rows = Rows::new(&["id", "due", "partition", "key", "event id", "bytes"]);
    for event in events {
        rows.push([
            event.id.to_string(),
            output::time_ms(event.deliver_at_ms),
            event.partition.to_string(),
            text(event.key.as_ref()),
            text(event.event_id.as_ref()),
            output::bytes(event.payload_bytes),
        ]);
    }
    rows
}

fn describe(topic: &TopicName, event: &ScheduledInfo) -> String {
    output::fields([
        ("id", event.id.to_string()),
        ("topic", topic.to_string()),
        ("due", output::time_ms(event.deliver_at_ms)),
        ("partition", event.partition.to_string()),
        ("key", text(event.key.as_ref())),
        ("event id", text(event.event_id.as_ref())),
        ("payload", output::bytes(event.payload_bytes)),
    ])
}
