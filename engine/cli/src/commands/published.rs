//! What became of a transaction's events, as it is printed.

use std::collections::BTreeMap;

use levada_client::Receipt;
use levada_protocol::ids::TransactionId;
use levada_terminal::output::{self, Rows};
use serde::Serialize;

use super::place::Placed;
use crate::args::TransactionPath;

/// A transaction that was committed.
#[derive(Debug, Serialize)]
pub(super) struct Published<'a> {
    group: &'a str,
    id: &'a str,
    /// True if it had been committed before, and nothing was stored now.
    repeat: bool,
    /// Events stored, now or by the earlier commit.
    published: u64,
    /// Events that were not stored because the topic's dedup window held their ids.
    duplicates: u64,
    /// Where they are: each partition that has any of them.
    batches: Vec<Batch<'a>>,
    /// The user did not name it.
    #[serde(skip)]
    is_anonymous: bool,
}

/// The events of one partition.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Batch<'a> {
    topic: &'a str,
    partition: u16,
    /// All of them, duplicates included.
    events: u64,
    /// The first stored event's offset; none if all are duplicates.
    offset: Option<u64>,
    last_offset: Option<u64>,
    duplicates: Vec<Duplicate>,
}

/// An event that was not stored, with the place of the first one of its id.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Duplicate {
    line: u64,
    /// Absent if there are so many that the engine did not name it.
    offset: Option<u64>,
}

impl<'a> Published<'a> {
    /// Of these events, with a receipt for each.
    pub(super) fn new(
        of: Option<&'a TransactionPath>,
        id: &'a TransactionId,
        events: &'a [Placed],
        receipts: &[Receipt],
    ) -> Self {
        let mut batches = BTreeMap::<(&str, u16), Batch<'_>>::new();
        let (mut published, mut duplicates) = (0, 0);
        for (Placed { line, place }, receipt) in events.iter().zip(receipts) {
            let (topic, partition) = (place.topic.as_str(), receipt.partition.0);
            let batch = batches.entry((topic, partition)).or_insert_with(|| Batch {
                topic,
                partition,
                events: 0,
                offset: None,
                last_offset: None,
                duplicates: Vec::new(),
            });
            batch.events += 1;
            let offset = receipt.offset.map(|offset| offset.0);
            if receipt.same_id {
                duplicates += 1;
                batch.duplicates.push(Duplicate { line: *line, offset });
            } else {
                published += 1;
                batch.offset = batch.offset.or(offset);
                batch.last_offset = offset.or(batch.last_offset);
            }
        }
        Self {
            group: of.map_or("default", |of| of.group.as_str()),
            id: id.as_str(),
            // What nobody named can only be a repeat of what this command has sent itself.
            repeat: of.is_some() && receipts.iter().any(|receipt| receipt.duplicate && !receipt.same_id),
            published,
            duplicates,
            batches: batches.into_values().collect(),
            is_anonymous: of.is_none(),
        }
    }

    /// A sentence, and a table of where the events are.
    pub(super) fn text(&self) -> String {
        let Self { group, id, published, .. } = self;
        if self.batches.is_empty() {
            return "published 0 events: there were none in the input".to_owned();
        }
        let events = output::counted(*published, "event");
        let text = match (self.repeat, self.is_anonymous) {
            (true, _) => {
                format!("{group}/{id} was committed before: nothing was stored now, its {events} are there")
            }
            (false, true) => format!("published {events} as one transaction"),
            (false, false) => format!("published {events} as {group}/{id}"),
        };
        let text = match self.duplicates {
            some @ 1.. if self.repeat => format!("{text}, without {}", output::counted(some, "duplicate")),
            some => output::with_left_out(text, some),
        };
        let mut rows = Rows::new(&["topic", "partition", "events", "offset", "last offset", "duplicates"]);
        let offset = |offset: Option<u64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        for batch in &self.batches {
            rows.push([
                batch.topic.to_owned(),
                batch.partition.to_string(),
                output::count(batch.events),
                offset(batch.offset),
                offset(batch.last_offset),
                output::count(batch.duplicates.len() as u64),
            ]);
        }
        format!("{text}\n{}", rows.render())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_events_are_published_as_no_transaction() {
        let (of, id) = ("shop/1".parse().unwrap(), "1".parse().unwrap());
        let published = Published::new(Some(&of), &id, &[], &[]);
        assert_eq!(published.text(), "published 0 events: there were none in the input");
        let json = r#"{"group":"shop","id":"1","repeat":false,"published":0,"duplicates":0,"batches":[]}"#;
        assert_eq!(serde_json::to_string(&published).unwrap(), json);
    }
}
