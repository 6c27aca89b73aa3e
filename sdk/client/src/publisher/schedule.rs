//! Publishing for later: what it says, and what it gives back.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use levada_protocol::ids::PartitionId;

use super::Ticket;
use crate::error::Error;

/// What a delayed event got: it is stored and waits, and has no offset before it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleReceipt {
    /// The partition that it will be appended to.
    pub partition: PartitionId,
    /// Its id within the topic, for [`crate::Client::cancel_scheduled`]. `None` if the engine no longer knows it: it
    /// stored the event long ago, and this was a resend.
    pub id: Option<u64>,
    /// True if an earlier send of the same batch had stored the event. It is stored once all the same.
    pub duplicate: bool,
}

/// A delayed event on its way: a future that resolves once it is stored, not when it is due.
///
/// Dropping it does not take the event back; [`crate::Client::cancel_scheduled`] does. Cancel safe: it may be polled
/// on after its wait was dropped.
#[derive(Debug)]
#[must_use = "the ticket tells whether the event was stored, and the id by which it is cancelled"]
pub struct ScheduleTicket(pub(super) Ticket);

impl Future for ScheduleTicket {
    type Output = Result<ScheduleReceipt, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_ok(|receipt| ScheduleReceipt {
            partition: receipt.partition,
            id: receipt.offset.map(|id| id.0),
            duplicate: receipt.duplicate,
        })
    }
}
