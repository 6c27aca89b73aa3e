//! The model's options: those that change while a subscription lives, in the model's own terms.

use levada_protocol::request::Order;

use super::{
    super::{Options, TIMEOUT, options},
    setting::IN_FLIGHT_MAX,
};
use crate::backoff::Backoff;

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) timeout_ms: u64,
    pub(super) max_attempts: u16,
    pub(super) backoff_ms: Vec<u64>,
    pub(super) rate: Option<u64>,
    pub(super) max_in_flight: u64,
    pub(super) max_in_flight_bytes: u64,
    /// Stays as it was at the start.
    pub(super) waiting_bytes_max: usize,
    /// So does this.
    pub(super) failed_runs_max: usize,
    /// And this.
    pub(super) dead_letters_max: u64,
    pub(super) dead_letter_expired: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            timeout_ms: TIMEOUT,
            max_attempts: 3,
            backoff_ms: vec![100, 500],
            rate: None,
            max_in_flight: IN_FLIGHT_MAX,
            max_in_flight_bytes: 300,
            waiting_bytes_max: 4_000,
            failed_runs_max: usize::MAX,
            dead_letters_max: 3,
            dead_letter_expired: false,
        }
    }
}

impl Rules {
    /// The options that say the same.
    pub(super) fn options(&self, order: Order, seed: u64) -> Options {
        Options {
            ack_timeout_ms: self.timeout_ms,
            max_attempts: self.max_attempts,
            backoff: Backoff::new(self.backoff_ms.clone()),
            rate: self.rate,
            max_in_flight: self.max_in_flight,
            max_in_flight_bytes: self.max_in_flight_bytes,
            dead_letter_expired: self.dead_letter_expired,
            waiting_bytes_max: self.waiting_bytes_max,
            failed_runs_max: self.failed_runs_max,
            dead_letters_max: self.dead_letters_max,
            seed,
            ..options(order)
        }
    }

    /// The shortest and the longest wait after so many failures.
    pub(super) fn backoff(&self, attempts: u16) -> (u64, u64) {
        let step = usize::from(attempts).min(self.backoff_ms.len());
        let wait = step.checked_sub(1).map_or(0, |step| self.backoff_ms[step]);
        (wait * 9 / 10, wait * 11 / 10)
    }
}
