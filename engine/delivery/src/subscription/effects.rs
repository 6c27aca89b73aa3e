//! What a subscription returns to its owner, to be carried out or passed on.

use std::ops::Range;

use levada_protocol::ids::{DeliveryToken, Offset, PartitionId};

use super::{consumer::ConsumerId, dead_letter::DeadLetter};
use crate::progress::RowChange;

/// A verb that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// How many events it was about.
    pub events: u64,
    /// It has taken effect durably once [`super::Subscription::confirmed`] reaches this.
    pub ticket: u64,
}

/// Events of a delivery that are acknowledged together with others, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// The delivery.
    pub token: DeliveryToken,
    /// Its partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
    /// How many events of the delivery are between them.
    pub events: u64,
}

/// What one commit must write. Hand its outcome to [`super::Subscription::settled`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    /// Names this commit.
    pub id: u64,
    /// The commit holds only if this is still the subscription's generation (decision 5).
    pub generation: u64,
    /// Rows of progress that change, by partition.
    pub rows: Vec<(PartitionId, Vec<RowChange>)>,
    /// Events to append to the dead-letter topic in the same commit.
    pub dead_letters: Vec<DeadLetter>,
    /// What of it was lost, one range for each partition. It is lost once the commit is durable, and reported again if
    /// that fails.
    pub lost: Vec<LostRange>,
    /// What of the queue comes to its end with the commit, in no order; see [`super::Subscription::set_queue`].
    pub dequeued: Vec<Range<Offset>>,
    /// The transaction that this is the acknowledging part of, as [`super::Subscription::acknowledge_all`] was told.
    pub transaction: Option<u64>,
}

/// Offsets whose ack or reject could not be committed: the verb is void, and they are in flight again with their
/// token, or wait for redelivery if their consumer is gone or is no longer the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CameBack {
    /// Whose verb it was.
    pub consumer: ConsumerId,
    /// The partition.
    pub partition: PartitionId,
    /// The first offset.
    pub first: Offset,
    /// The last offset, included.
    pub last: Offset,
}

/// Offsets that retention took before they were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    /// The partition.
    pub partition: PartitionId,
    /// The lowest lost offset.
    pub first: Offset,
    /// The highest lost offset; those between that were acknowledged or filtered are not lost.
    pub last: Offset,
    /// How many are lost.
    pub events: u64,
}
