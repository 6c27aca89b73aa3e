//! One event as a subscriber hands it out: the event, where it is stored, and the verb for it.
//!
//! Ensures that an event gets one verb. Must not know streams.

use std::{collections::VecDeque, fmt, ops::Deref, sync::Arc, time::Duration};

use levada_protocol::{
    event::Event,
    ids::{Offset, PartitionId, Timestamp},
    request::AckedDelivery,
    verbs::{Rejection, VerbKind},
};

use crate::{
    delivery::{Delivery, nack_delay_ms},
    subscriber::{Lease, Of},
};

/// An event that was delivered, to be acknowledged once it is processed.
///
/// It reads like an [`Event`]. While it is held the client extends its delivery by itself, so that it is not given to
/// another consumer, for as long as [`crate::SubscribeOptions::max_processing`] allows. Settle it with
/// [`DeliveredEvent::ack`], [`DeliveredEvent::nack`] or [`DeliveredEvent::reject`], here or in another task; an event
/// that is dropped without a verb is delivered again after the subscription's `ack_timeout`. The verbs return at once
/// and are sent together, within a millisecond; [`crate::Subscriber::confirmed`] completes when they have taken effect.
///
/// ```no_run
/// # use levada_client::Event;
/// # enum Failed { Later, ForEver(String) }
/// # fn charge(event: &Event) -> Result<(), Failed> {
/// #     match event.payload.as_deref() {
/// #         Some(b"no money") => Err(Failed::Later),
/// #         Some(b"no account") => Err(Failed::ForEver("no such account".to_owned())),
/// #         _ => Ok(()),
/// #     }
/// # }
/// # async fn pay(mut orders: levada_client::Subscriber) -> Result<(), levada_client::Error> {
/// while let Some(order) = orders.next().await? {
///     match charge(order.event()) {
///         Ok(()) => order.ack(),
///         // Delivered again after the subscription's backoff.
///         Err(Failed::Later) => order.nack(None),
///         // A dead letter, with the reason.
///         Err(Failed::ForEver(reason)) => order.reject(&reason),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "ack, nack or reject it; dropped without a word, it is delivered again after `ack_timeout`"]
pub struct DeliveredEvent {
    lease: Arc<Lease>,
    partition: PartitionId,
    attempt: u8,
    appended: Timestamp,
    /// The first offset that its verb covers: those before its own hold no event of its delivery.
    from: Offset,
    offset: Offset,
    event: Event,
    spoken: bool,
}

impl DeliveredEvent {
    /// One event of a delivery by itself, with its own copy of its bytes, to be settled later than its neighbours: the
    /// memory of those is free once `delivery` is dropped. `None` if the delivery has no such event, if that was settled or set
    /// aside before, or if it was lost with its connection; and for a delivery of a [`crate::Reader`].
    ///
    /// From now on verbs for the event are to be said here: one that the delivery says first holds, and this one's has no
    /// effect. Settle its neighbours, too: while an event of a delivery is held, those without a verb are not delivered again.
    ///
    /// ```no_run
    /// # async fn set_aside(mut subscriber: levada_client::Subscriber) -> Result<(), levada_client::Error> {
    /// use levada_client::DeliveredEvent;
    ///
    /// let mut waiting = Vec::new();
    /// while let Some(delivery) = subscriber.next_delivery().await? {
    ///     for (offset, _, event) in delivery.events() {
    ///         match event.header("wait-for") {
    ///             Some(_) => waiting.extend(DeliveredEvent::set_aside(&delivery, offset)),
    ///             None => delivery.ack_range(offset..=offset),
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_aside(delivery: &Delivery, offset: Offset) -> Option<Self> {
        let lease = Arc::clone(delivery.lease()?);
        let (from, appended, event) = delivery.copied_event(offset)?;
        lease.set_aside(offset).then_some(())?;
        let (partition, attempt) = (delivery.partition(), delivery.attempt());
        Some(Self { lease, partition, attempt, appended, from, offset, event, spoken: false })
    }

    /// The event. Its fields can be read without this, too.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The partition that it is stored in.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Its offset there.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was appended.
    pub fn appended(&self) -> Timestamp {
        self.appended
    }

    /// Which delivery of this event this is, from 1; 255 means 255 or more.
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// Done: never deliver it again.
    pub fn ack(mut self) {
        self.say(&VerbKind::Ack);
    }

    /// Deliver it again: after `delay`, at most 49 days, or after the subscription's backoff.
    ///
    /// Where order matters, later events that this consumer has already, by key those of the same key, are delivered again
    /// behind it, and verbs about them have no effect. A program that must not work on them too early takes
    /// one event at a time: [`crate::SubscriptionOptions::max_in_flight`] 1.
    pub fn nack(mut self, delay: Option<Duration>) {
        self.say(&VerbKind::Nack { delay_ms: nack_delay_ms(delay) });
    }

    /// It cannot be processed: to the dead-letter topic, with the reason (cut to 1 KiB).
    pub fn reject(mut self, reason: &str) {
        self.say(&VerbKind::reject(reason));
    }

    /// It cannot be decoded: to the dead-letter topic with the reason `undecodable` and what is wrong with it (cut to
    /// 1 KiB), so that it can be told apart from events that were rejected for their content.
    pub fn reject_undecodable(mut self, error: &str) {
        self.say(&VerbKind::Reject { reason: error.to_owned(), kind: Rejection::Undecodable });
    }

    /// Still at work on it: `max_processing` and the subscription's `ack_timeout` start again.
    pub fn in_progress(&self) {
        self.lease.say((self.from, self.offset), &VerbKind::InProgress, |_, _| 1);
    }

    /// What a transaction that acknowledges it tells the engine; `None` if it cannot be acknowledged any more.
    pub(crate) fn acked(&self) -> Option<AckedDelivery> {
        let (partition, token) = self.lease.names()?;
        let (first, last) = (self.from.0, self.offset.0);
        Some(AckedDelivery { token: token.0, partition: partition.0, first, last, events: 1 })
    }

    /// Which subscription it was delivered to.
    pub(crate) fn of(&self) -> &Of {
        self.lease.of()
    }

    /// A transaction has acknowledged it.
    pub(crate) fn settle(mut self) {
        self.spoken = true;
        self.lease.settle((self.from, self.offset), |_, _| 1);
    }

    fn say(&mut self, kind: &VerbKind) {
        self.spoken = true;
        self.lease.say((self.from, self.offset), kind, |_, _| 1);
    }
}

impl Deref for DeliveredEvent {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

impl fmt::Debug for DeliveredEvent {
    /// Leaves the payload out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveredEvent")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl Drop for DeliveredEvent {
    fn drop(&mut self) {
        if !self.spoken {
            self.lease.drop_event((self.from, self.offset));
        }
    }
}

/// A delivery whose events are handed out one by one.
#[derive(Debug)]
pub(crate) struct Handing {
    delivery: Delivery,
    lease: Arc<Lease>,
    events: VecDeque<(Offset, Timestamp, Event)>,
    /// The first offset behind those that were handed out.
    from: Offset,
}

impl Handing {
    pub(crate) fn new(delivery: Delivery, lease: Arc<Lease>) -> Self {
        let events = delivery.to_appended_events().collect();
        Self { from: delivery.first(), delivery, lease, events }
    }

    /// The next one; `None` after the last, or if the others were lost meanwhile: they are delivered again.
    pub(crate) fn next(&mut self) -> Option<DeliveredEvent> {
        if !self.events.is_empty() && !self.lease.take_event() {
            self.lease.skip((self.from, self.delivery.last()), self.left());
            self.events.clear();
        }
        let (offset, appended, event) = self.events.pop_front()?;
        let from = std::mem::replace(&mut self.from, offset.plus(1));
        Some(DeliveredEvent {
            lease: self.lease.clone(),
            partition: self.delivery.partition(),
            attempt: self.delivery.attempt(),
            appended,
            from,
            offset,
            event,
            spoken: false,
        })
    }

    /// How many were not handed out.
    pub(crate) fn left(&self) -> u64 {
        u64::try_from(self.events.len()).expect("a length fits 64 bits")
    }

    /// What was not handed out, as a delivery of its own.
    pub(crate) fn into_rest(self) -> Option<Delivery> {
        let (first, _, _) = self.events.front()?;
        let count = u32::try_from(self.events.len()).ok()?;
        if !self.lease.take_rest(self.left()) {
            return None;
        }
        Some(self.delivery.rest_from(*first, count).leased(self.lease))
    }
}
