//! What the model's world is like: its partitions, the keys of its events, and consumers whose streams take nothing.

use super::super::ConsumerId;

pub(super) const PARTITIONS: usize = 2;
/// The partition that is a log.
pub(super) const LOG: usize = 0;
/// The partition that is a queue.
pub(super) const QUEUE: usize = 1;
pub(super) const IN_FLIGHT_MAX: u64 = 24;
/// Commits full of dead letters that may be queued before nothing more is read.
pub(super) const DEAD_COMMITS_MAX: u64 = 16;
/// Events of one chunk: they are stored together, and are of one size.
pub(super) const CHUNK: u64 = 4;

pub(super) const EVENT_BYTES_MAX: u64 = 30;

/// How large an event is that is sent.
pub(super) fn bytes_of(partition: usize, offset: u64) -> u64 {
    if (offset / CHUNK + partition as u64) % 3 == 1 { EVENT_BYTES_MAX } else { 10 }
}

pub(super) const KEYS: u64 = 4;

/// Every third event has no key, the others have one of a few.
pub(super) fn key_of(partition: usize, offset: u64) -> Option<u64> {
    let mixed = (offset + 7 * partition as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (!mixed.is_multiple_of(3)).then_some(mixed / 3 % KEYS)
}

/// Some consumers' streams take no delivery at all, though their verbs come through.
pub(super) fn takes(consumer: ConsumerId) -> bool {
    !consumer.0.is_multiple_of(4)
}
