//! What `levada subscribe` says of each event, as it is typed.

use std::time::Duration;

use super::values::parse_duration_u32;

/// What is said of an event that was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb<'a> {
    /// It is done.
    Ack,
    /// It is to come again: after so long, or after the subscription's backoff.
    Nack(Option<Duration>),
    /// It cannot be processed: it becomes a dead letter.
    Reject(&'a str),
    /// Nothing: it comes again, to the next consumer.
    Nothing,
}

/// The flags for what is not an acknowledgement.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct VerbArgs {
    /// Print without acknowledging: the events are delivered again, to the next consumer
    #[arg(long)]
    no_ack: bool,
    /// Give each event back instead of acknowledging it, as a consumer does that failed: it is delivered again after DELAY, 1ms
    /// to 49d, or after the subscription's --backoff, and is a dead letter after --max-attempts. Without DELAY it goes behind TOPIC/SUBSCRIPTION
    #[arg(long, value_name = "DELAY", num_args = 0..=1, value_parser = parse_duration_u32)]
    nack: Option<Option<u32>>,
    /// Reject each event instead of acknowledging it: it is a dead letter at once, with this reason
    #[arg(long, value_name = "REASON")]
    reject: Option<String>,
}

impl VerbArgs {
    /// What is said of each event.
    pub(crate) fn verb(&self) -> Verb<'_> {
        match (self.nack, &self.reject) {
            (Some(delay), _) => {
                Verb::Nack(delay.map(|milliseconds| Duration::from_millis(milliseconds.into())))
            }
            (None, Some(reason)) => Verb::Reject(reason),
            (None, None) if self.no_ack => Verb::Nothing,
            (None, None) => Verb::Ack,
        }
    }
}
