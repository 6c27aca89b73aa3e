//! Dead letters: source events that could not be delivered, with the reason, for a topic of their own.
//!
//! A dead letter is part of the commit that ends the delivery, so nothing is lost in between. It holds the whole event:
//! the limits leave room for the headers that are added.

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, Stamp},
    dead_letters::DEAD_LETTER_HEADER_PREFIX as PREFIX,
    event::Event,
    ids::{Offset, PartitionId, Timestamp, TopicName},
    limits::{BATCH_BYTES_TARGET, REASON_BYTES_MAX},
};

use crate::shard::{AppendRequest, AppendTarget};

/// Why an event became a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Reason {
    /// `max_attempts`, `rejected`, `undecodable`, `expired`, `plugin_error`, `loop` or `consumer_lost`.
    pub(crate) word: &'static str,
    /// What happened, for people.
    pub(crate) error: String,
    pub(crate) plugin: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) first_failure: Timestamp,
    pub(crate) last_failure: Timestamp,
}

/// Where an event was when it failed.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a TopicName,
    pub(crate) partition: PartitionId,
    /// The subscription's or route's name.
    pub(crate) name: &'a str,
}

/// Collects dead letters into batches for one topic.
pub(crate) struct DeadLetters {
    target: TopicName,
    builder: BatchBuilder,
    batches: Vec<Batch>,
}

impl DeadLetters {
    pub(crate) fn new(target: TopicName) -> Self {
        Self { target, builder: BatchBuilder::of_engine(), batches: Vec::new() }
    }

    /// Adds the event at `offset`.
    pub(crate) fn push(&mut self, origin: &Origin<'_>, offset: Offset, event: Event, reason: &Reason) {
        let dead_letter = dead_letter(origin, offset, event, reason);
        let pushed = match self.builder.push(&dead_letter) {
            Err(BatchFull::Full) => {
                self.finish();
                self.builder.push(&dead_letter)
            }
            other => other,
        };
        if let Err(error) = pushed {
            // The limits leave room for the headers that are added, so this event was over them before.
            let bare = bare(dead_letter);
            self.finish();
            if self.builder.push(&bare).is_err() {
                tracing::error!(topic = %self.target, %offset, %error, "a dead letter does not fit an event");
            }
        }
        self.finish_if_large();
    }

    fn finish_if_large(&mut self) {
        if self.builder.len() >= BATCH_BYTES_TARGET {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if !self.builder.is_empty() {
            self.batches.push(self.builder.finish(Stamp::ENGINE));
        }
    }

    /// The appends that store the dead letters.
    pub(crate) fn into_appends(mut self) -> Vec<AppendRequest> {
        self.finish();
        let target = AppendTarget::DeadLetters(self.target);
        self.batches
            .into_iter()
            .map(|batch| AppendRequest {
                target: target.clone(),
                partition: PartitionId(0),
                batch,
                hops: 0,
                redrives: None,
            })
            .collect()
    }
}

/// The event with the headers that say why it failed. They replace those of an earlier dead letter that it was, except for
/// what that one did not hold of its event: this one does not hold it either.
fn dead_letter(origin: &Origin<'_>, offset: Offset, mut event: Event, reason: &Reason) -> Event {
    event.headers.retain(|(name, _)| !name.starts_with(PREFIX) || is_missing(name));
    event.ttl_ms = None;
    let mut add =
        |name: &str, value: String| event.headers.push((format!("{PREFIX}{name}"), Bytes::from(value)));
    add("reason", reason.word.to_owned());
    add("topic", origin.topic.to_string());
    add("partition", origin.partition.to_string());
    add("offset", offset.to_string());
    add("subscription", origin.name.to_owned());
    add("attempts", reason.attempts.to_string());
    add("first-failure", reason.first_failure.to_string());
    add("last-failure", reason.last_failure.to_string());
    let mut error = reason.error.clone();
    error.truncate(error.floor_char_boundary(REASON_BYTES_MAX));
    add("error", error);
    if let Some(plugin) = &reason.plugin {
        add("plugin", plugin.clone());
    }
    event
}

fn is_missing(name: &str) -> bool {
    name.strip_prefix(PREFIX) == Some("missing")
}

/// A dead letter without its event's own headers and payload, with a header that says so. The event itself is in the
/// source topic for as long as that is retained.
fn bare(mut dead_letter: Event) -> Event {
    let all = dead_letter.headers.len();
    // What was missing before is the lesser part of what is missing now.
    dead_letter.headers.retain(|(name, _)| name.starts_with(PREFIX) && !is_missing(name));
    let headers = all - dead_letter.headers.len();
    let bytes = dead_letter.payload.as_ref().map_or(0, Bytes::len);
    let missing = format!("{headers} headers, {bytes} bytes of payload");
    dead_letter.headers.push((format!("{PREFIX}missing"), Bytes::from(missing)));
    dead_letter.payload = dead_letter.payload.map(|_| Bytes::new());
    dead_letter
}

#[cfg(test)]
mod tests {
    use levada_protocol::limits::{
        EVENT_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX,
    };

    use levada_protocol::limits::TOPIC_NAME_BYTES_MAX_INTERNAL;

    use super::*;

    /// Makes a dead letter whose added headers are as long as they can be, and reads it back.
    fn longest_of(event: Event) -> Event {
        let topic =
            TopicName::parse_any(&format!("dlq.{}", "t".repeat(TOPIC_NAME_BYTES_MAX_INTERNAL - 4))).unwrap();
        let name = "p".repeat(NAME_BYTES_MAX + "route-".len());
        let origin = Origin { topic: &topic, partition: PartitionId(1_023), name: &name };
        let last = Timestamp(u64::MAX);
        let reason = Reason {
            word: "consumer_lost",
            error: "ö".repeat(5_000),
            plugin: Some(format!("{}@{}", "n".repeat(NAME_BYTES_MAX), u32::MAX)),
            attempts: u32::MAX,
            first_failure: last,
            last_failure: last,
        };
        let mut dead_letters = DeadLetters::new(TopicName::parse_any("dlq.t.s").unwrap());
        dead_letters.push(&origin, Offset(u64::MAX), event, &reason);
        let appends = dead_letters.into_appends();
        let mut stored = appends[0].batch.bytes().clone();
        let batch = Batch::check_first(&mut stored).unwrap();
        batch.events().next().unwrap().to_event(&batch)
    }

    #[test]
    fn a_dead_letter_holds_the_whole_event_whatever_its_size() {
        let value = (HEADERS_BYTES_MAX - HEADERS_MAX * 5) / HEADERS_MAX;
        let headers: Vec<_> =
            (10..10 + HEADERS_MAX).map(|at| (at.to_string(), Bytes::from(vec![7; value]))).collect();
        let rest = EVENT_BYTES_MAX - 12 - KEY_BYTES_MAX - headers.len() * (5 + value);
        let event = Event {
            key: Some(Bytes::from(vec![1; KEY_BYTES_MAX])),
            headers: headers.clone(),
            ..Event::new(vec![2; rest])
        };
        BatchBuilder::new().push(&event).unwrap();
        let dead_letter = longest_of(event.clone());
        assert_eq!((&dead_letter.key, &dead_letter.payload), (&event.key, &event.payload));
        assert_eq!(dead_letter.headers[..HEADERS_MAX], headers[..]);
        assert_eq!(dead_letter.headers.len(), HEADERS_MAX + 10);
    }

    #[test]
    fn a_dead_letter_of_a_dead_letter_has_every_header_once() {
        let once = longest_of(Event::new("x").with_header("own", "1"));
        let twice = longest_of(once.clone());
        assert_eq!(once.headers, twice.headers);
    }

    #[test]
    fn a_dead_letter_of_one_that_does_not_hold_its_whole_event_still_says_so() {
        let missing = ("lv-dlq-missing", "3 headers, 9 bytes of payload");
        let again = longest_of(longest_of(Event::new("")).with_header(missing.0, missing.1));
        let said: Vec<_> = again.headers.iter().filter(|(name, _)| name == missing.0).collect();
        assert_eq!(said, [&(missing.0.to_owned(), Bytes::from(missing.1))]);
        assert_eq!(again.headers.iter().filter(|(name, _)| name == "lv-dlq-reason").count(), 1);
    }
}
