//! How a subscription delivers.

use levada_protocol::request::{Order, SubscriptionOptions};

use super::consumer::Room;
use crate::backoff::Backoff;

/// How a subscription delivers.
#[derive(Debug, Clone)]
pub struct Options {
    /// How several consumers share it.
    pub order: Order,
    /// Milliseconds after which an unacknowledged delivery is given again, without any further wait.
    pub ack_timeout_ms: u64,
    /// Failed deliveries after which an event becomes a dead letter; 0 is as 1.
    pub max_attempts: u16,
    /// Most unacknowledged events of one consumer.
    pub max_in_flight: u64,
    /// Most unacknowledged bytes of one consumer, exceeded by one delivery at most. Default 16 MiB (decision 45).
    pub max_in_flight_bytes: u64,
    /// How long an event waits that was given back without a delay or that lost its consumer while it was alone.
    pub backoff: Backoff,
    /// Events delivered per second, over all consumers and with redeliveries, at once a tenth of them at most; `None`: as many
    /// as there is credit for.
    pub rate: Option<u64>,
    /// Events whose time to live is over become dead letters; else they settle as if they were acknowledged.
    pub dead_letter_expired: bool,
    /// Most memory that events take which wait for an earlier one of their key, in bytes, over all partitions; with as
    /// much, nothing new is delivered. Default 80 MiB: more than the events of one partition can take that wait for a few
    /// keys, as far as the window of offsets reaches, and 65,536 events of which each has another key and lies far from the
    /// others.
    pub waiting_bytes_max: usize,
    /// Runs of failed offsets over all partitions from which on nothing new is delivered, neighbours that ended alike being
    /// one run. Default 131,072: about 250 bytes of memory each.
    pub failed_runs_max: usize,
    /// Most dead letters in one commit, so that a commit stays small. Default 64.
    pub dead_letters_max: u64,
    /// Where delivery tokens and the random part of waits begin. To be chosen at random, so that a token of an earlier life
    /// means nothing in this one.
    pub seed: u64,
}

/// How much memory the deliveries of a subscription may take: what the engine's configuration says, for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// [`Options::max_in_flight_bytes`]. Default 16 MiB.
    pub consumer_bytes_max: u64,
    /// [`Options::waiting_bytes_max`]. Default 80 MiB.
    pub waiting_bytes_max: usize,
    /// [`Options::failed_runs_max`]. Default 131,072.
    pub failed_runs_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { consumer_bytes_max: 16 << 20, waiting_bytes_max: 80 << 20, failed_runs_max: 131_072 }
    }
}

impl Options {
    /// What the subscription's catalogue record says, within these bounds.
    pub fn new(options: &SubscriptionOptions, bounds: Bounds, seed: u64) -> Self {
        Self {
            order: options.order(),
            ack_timeout_ms: u64::from(options.ack_timeout_ms()),
            max_attempts: options.max_attempts(),
            max_in_flight: u64::from(options.max_in_flight()),
            max_in_flight_bytes: bounds.consumer_bytes_max,
            backoff: Backoff::new(options.backoff_ms().iter().map(|wait| u64::from(*wait)).collect()),
            rate: options.rate().map(u64::from),
            dead_letter_expired: options.dead_letter_expired(),
            waiting_bytes_max: bounds.waiting_bytes_max,
            failed_runs_max: bounds.failed_runs_max,
            dead_letters_max: 64,
            seed,
        }
    }

    /// What one consumer may have in flight.
    pub(super) fn in_flight_max(&self) -> Room {
        Room { events: self.max_in_flight, bytes: self.max_in_flight_bytes }
    }
}
