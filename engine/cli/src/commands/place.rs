//! Where a line says that its event is to go: the fields of a line that are no part of the event.

use levada_json::InvalidEvent;
use levada_protocol::ids::{PartitionId, TopicName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::args::parse_free_topic;

/// As many characters of a value as an error repeats.
const SHOWN_CHARS: usize = 40;

/// Where an event is to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) topic: TopicName,
    /// `None`: the one of its key, else of its id.
    pub(super) partition: Option<PartitionId>,
}

/// The line of an event, and where that is to go.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) line: u64,
    pub(super) place: Place,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    partition: Option<&'a RawValue>,
}

/// Reads the place of a line that is an event.
pub(super) fn read_place(line: &[u8]) -> Result<Place, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    // Of an event's line nothing but a field that is there twice can be wrong.
    let Fields { topic, partition } = serde_json::from_slice(line).map_err(|error| {
        let field = if error.to_string().contains("`topic`") { "topic" } else { "partition" };
        InvalidEvent::RepeatedField(field.to_owned()).to_string()
    })?;
    let topic = topic.ok_or("expected a field `topic`, got none")?;
    let name: String = serde_json::from_str(topic.get())
        .map_err(|_| format!("expected a topic's name as `topic`, got {}", shown(topic)))?;
    let partition = partition.map(|partition| {
        let number = serde_json::from_str(partition.get());
        number.map(PartitionId).map_err(|_| {
            format!("expected a partition's number as `partition`, 0 or more, got {}", shown(partition))
        })
    });
    Ok(Place { topic: parse_free_topic(&name)?, partition: partition.transpose()? })
}

fn shown(value: &RawValue) -> String {
    let text = value.get();
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_its_event_goes() {
        let place = |topic: &str, partition: Option<u16>| {
            Ok(Place { topic: topic.parse().unwrap(), partition: partition.map(PartitionId) })
        };
        for (line, expected) in [
            (r#"{"topic":"orders","payload":1}"#, place("orders", None)),
            ("\u{feff}{\"payload\":1,\"topic\":\"a.b\",\"partition\":65535}", place("a.b", Some(65_535))),
            (r#"{"topic":"orders","partition":null,"offset":7,"payload":1}"#, place("orders", None)),
        ] {
            assert_eq!(read_place(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_place_that_is_missing_or_wrong_is_told_with_what_was_expected() {
        for (line, said) in [
            (r#"{"payload":1}"#, "expected a field `topic`, got none"),
            (r#"{"topic":null,"payload":1}"#, "expected a field `topic`, got none"),
            (r#"{"topic":5,"payload":1}"#, "expected a topic's name as `topic`, got 5"),
            (r#"{"topic":"Orders","payload":1}"#, "topic name \"Orders\" is invalid: expected"),
            (r#"{"topic":"dlq.a.b","payload":1}"#, "dlq.a.b"),
            (
                r#"{"topic":"a","partition":"0","payload":1}"#,
                "expected a partition's number as `partition`, 0 or more, got \"0\"",
            ),
            (r#"{"topic":"a","partition":65536,"payload":1}"#, "got 65536"),
            (r#"{"topic":"a","topic":"b","payload":1}"#, "expected each field once, got `topic` twice"),
            (
                r#"{"partition":1,"topic":"a","partition":1}"#,
                "expected each field once, got `partition` twice",
            ),
        ] {
            let refused = read_place(line.as_bytes()).unwrap_err();
            assert!(refused.contains(said), "{line}: {refused}");
        }
    }
}
