//! All attached consumers by their number.

use std::{collections::BTreeMap, time::Duration};

use levada_delivery::subscription::{CameBack, ConsumerId, LostRange, Wanted};
use levada_protocol::{error::ErrorCode, ids::Timestamp, verbs::RefusedVerb};
use tokio::time::Instant;

use super::{attached::Attached, attending::Attending};
use crate::{error::Error, outbound::Held, outgoing::Outgoing, rows::SubscriptionRecord};

/// The attached consumers.
#[derive(Debug)]
pub(super) struct Consumers {
    attached: BTreeMap<u64, Attached>,
    attending: Attending,
}

impl Consumers {
    /// Without any, since the time that `attending` says.
    pub(super) fn new(attending: Attending) -> Self {
        Self { attached: BTreeMap::new(), attending }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.attached.len()
    }

    pub(super) fn add(&mut self, consumer: u64, attached: Attached) {
        self.attached.insert(consumer, attached);
        self.attending.begin();
    }

    /// Removes a consumer; returns how many deliveries its stream has taken.
    pub(super) fn remove(&mut self, consumer: u64, now: Timestamp) -> Option<u64> {
        let gone = self.attached.remove(&consumer)?;
        // One that the engine sends away comes back after its start, from which on that counts.
        if self.attached.is_empty() && !gone.is_sent_away() {
            self.attending.end(now);
        }
        Some(gone.taken())
    }

    /// Proposes to store since when there is no consumer, unless that is stored or under way.
    pub(super) fn store_attendance(&mut self, at: Instant) {
        self.attending.store(at);
    }

    /// When that is tried again after it failed.
    pub(super) fn attendance_at(&self) -> Option<Instant> {
        self.attending.ready_at()
    }

    /// Waits until it is stored, or could not be; for ever if nothing is to be stored. Cancel safe.
    pub(super) async fn attendance_stored(&mut self) {
        self.attending.stored().await;
    }

    pub(super) fn get_mut(&mut self, consumer: u64) -> Option<&mut Attached> {
        self.attached.get_mut(&consumer)
    }

    /// The names of some consumers.
    pub(super) fn names(&self, consumers: impl Iterator<Item = ConsumerId>) -> Vec<String> {
        consumers.filter_map(|id| Some(self.attached.get(&id.0)?.name().to_owned())).collect()
    }

    /// How many of a consumer's deliveries its stream has taken.
    pub(super) fn taken(&self, consumer: ConsumerId) -> u64 {
        self.attached.get(&consumer.0).map_or(0, Attached::taken)
    }

    /// Sets bytes aside for a consumer's next frame; `None` if it has to wait for them.
    pub(super) fn take_room(&mut self, consumer: ConsumerId, wanted: Wanted) -> Option<Held> {
        self.attached.get_mut(&consumer.0)?.take_room(wanted)
    }

    /// Hands a delivery to a consumer's stream; false if it is gone or takes no frames that it gave credit for.
    pub(super) fn send(&mut self, consumer: ConsumerId, delivery: Outgoing) -> bool {
        self.attached.get_mut(&consumer.0).is_some_and(|attached| attached.send(delivery))
    }

    /// Notes a loss for every consumer.
    pub(super) fn add_loss(&mut self, lost: LostRange) {
        let LostRange { partition, first, last, events } = lost;
        tracing::warn!(%partition, %first, %last, events, "events were dropped before they were acknowledged: by retention, a purge or a full backlog");
        self.attached.values_mut().for_each(|consumer| consumer.add_loss(partition, (first, last)));
    }

    /// Tells a consumer that a verb took no effect after all.
    pub(super) fn refuse(&mut self, back: CameBack) {
        if let Some(consumer) = self.attached.get_mut(&back.consumer.0) {
            let (partition, first, last) = (back.partition, back.first, back.last);
            let code = ErrorCode::OutcomeUnknown;
            consumer.refuse_earlier(RefusedVerb { partition, first, last, code });
        }
    }

    /// Consumers for which it has changed whether they may get something, and whether they are held.
    pub(super) fn refresh(&mut self, stuck_after: Duration) -> Vec<(ConsumerId, bool)> {
        let changed = self.attached.iter_mut().filter_map(|(id, consumer)| {
            consumer.refresh(stuck_after).then(|| (ConsumerId(*id), consumer.is_held()))
        });
        changed.collect()
    }

    /// Tells what is confirmed up to a ticket and what is lost, and gives back room that was not used.
    pub(super) fn confirm(&mut self, ticket: u64, record: &SubscriptionRecord) {
        for consumer in self.attached.values_mut() {
            consumer.confirm(ticket);
            consumer.tell_losses(record);
            consumer.leave_room();
        }
    }

    /// True if one could not be told of all that is confirmed.
    pub(super) fn have_untold_verbs(&self) -> bool {
        self.attached.values().any(Attached::has_untold_verbs)
    }

    /// Ends those that are to end and of which nothing is under way; returns them.
    pub(super) fn end_finished(&mut self, in_flight: impl Fn(ConsumerId) -> u64) -> Vec<u64> {
        let may_end =
            |(id, consumer): &(&u64, &Attached)| consumer.may_end() && in_flight(ConsumerId(**id)) == 0;
        let finished: Vec<u64> = self.attached.iter().filter(may_end).map(|(id, _)| *id).collect();
        for consumer in finished.iter().map(|id| &self.attached[id]).filter(|it| it.is_sent_away()) {
            consumer.end(Error::ShuttingDown);
        }
        finished
    }

    /// Tells all consumers why they get nothing more. Until one attaches again there is none, unless the engine sends them
    /// away.
    pub(super) fn end_all(&self, error: &Error, now: Timestamp) {
        self.attached.values().for_each(|consumer| consumer.end(error.clone()));
        if !self.attached.is_empty() && !matches!(error, Error::ShuttingDown) {
            self.attending.end(now);
        }
    }
}
