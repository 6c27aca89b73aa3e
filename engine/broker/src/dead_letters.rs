//! Dead letters: a source event that could not be delivered, with why, on its way to its own topic.
//!
//! The letter is part of the commit that ends the delivery; nothing is lost in between.

use bytes::Bytes;
use levada_protocol::{
    batch::{Batch, BatchBuilder, BatchFull, Stamp},
    event::Event,
    ids::{Offset, PartitionId, Timestamp, TopicName},
    limits::{BATCH_BYTES_TARGET, HEADERS_MAX},
};

use crate::shard::{AppendTarget, FragmentAppend};

/// Headers that a letter adds; the source's own may be cut to make room for them.
const OWN_HEADERS_MAX: usize = 12;
/// Payload bytes kept of an event that is too large to carry the added headers.
const CUT_PAYLOAD_BYTES: usize = 900 * 1024;

/// Why an event became a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Reason {
    /// `max_attempts`, `rejected`, `expired`, `plugin_error`, `loop` or `consumer_lost`.
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
    pub(crate) place: &'a str,
}

/// Collects letters into batches for one dead-letter topic.
pub(crate) struct Letters {
    target: TopicName,
    builder: BatchBuilder,
    batches: Vec<Batch>,
}

impl Letters {
    pub(crate) fn new(target: TopicName) -> Self {
        Self { target, builder: BatchBuilder::new(), batches: Vec::new() }
    }

    /// Adds the event at `offset`.
    pub(crate) fn push(&mut self, origin: &Origin<'_>, offset: Offset, event: Event, reason: &Reason) {
        let letter = letter(origin, offset, event, reason);
        let letter = match self.builder.push(&letter) {
            Ok(()) => return self.finish_if_large(),
            Err(BatchFull::Full) => letter,
            Err(BatchFull::TooLarge(_)) => cut(letter),
        };
        self.finish();
        // It is within every limit now: its headers and its payload were cut.
        if let Err(error) = self.builder.push(&letter) {
            let letter = cut(letter);
            if self.builder.push(&letter).is_err() {
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

    /// The appends that store the letters.
    pub(crate) fn into_appends(mut self) -> Vec<FragmentAppend> {
        self.finish();
        let target = AppendTarget::DeadLetters(self.target);
        self.batches
            .into_iter()
            .map(|batch| FragmentAppend { target: target.clone(), partition: PartitionId(0), batch, hops: 0 })
            .collect()
    }
}

fn letter(origin: &Origin<'_>, offset: Offset, mut event: Event, reason: &Reason) -> Event {
    event.headers.truncate(HEADERS_MAX - OWN_HEADERS_MAX);
    event.ttl_ms = None;
    let mut add = |name: &str, value: String| event.headers.push((name.to_owned(), Bytes::from(value)));
    add("lv-dlq-reason", reason.word.to_owned());
    add("lv-dlq-topic", origin.topic.to_string());
    add("lv-dlq-partition", origin.partition.to_string());
    add("lv-dlq-offset", offset.to_string());
    add("lv-dlq-subscription", origin.place.to_owned());
    add("lv-dlq-attempts", reason.attempts.to_string());
    add("lv-dlq-first-failure", reason.first_failure.to_string());
    add("lv-dlq-last-failure", reason.last_failure.to_string());
    add("lv-dlq-error", reason.error.clone());
    if let Some(plugin) = &reason.plugin {
        add("lv-dlq-plugin", plugin.clone());
    }
    event
}

/// A letter that was over a limit: the added headers stay, the source's go, and a huge payload is cut. The whole
/// event is in the source topic for as long as that keeps it.
fn cut(mut letter: Event) -> Event {
    letter.headers.retain(|(name, _)| name.starts_with("lv-dlq-"));
    letter.headers.push(("lv-dlq-cut".to_owned(), Bytes::from_static(b"true")));
    if let Some(payload) = &mut letter.payload {
        payload.truncate(CUT_PAYLOAD_BYTES);
    }
    letter
}
