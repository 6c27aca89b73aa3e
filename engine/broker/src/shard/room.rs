//! Room in a topic's backlog: what finds none is refused, or the oldest events are dropped for it.

use std::sync::Arc;

use levada_delivery::backlog::{Charge, Quota, Reached};
use levada_protocol::{
    batch::Batch,
    error::{ErrorCode, Refusal},
    ids::{Timestamp, TopicId},
    request::OnFull,
};

use levada_store::Store;

use super::{
    draft::Draft,
    proposal::{AppendRequest, AppendTarget, ProposalRefused},
    tables::{Full, Holder, Tables},
};
use crate::{
    catalogue::Catalogue, depth::Depth, error::Error, rows::TopicRecord, topics::Topics, words::counted,
};

/// How soon a publisher may try again, in milliseconds.
const RETRY_AFTER_MS: u32 = 100;
/// How many records one publish drops at most. What is left then, after a limit was lowered by much, goes with the next ones.
const DROPS_MAX: usize = 64;

/// The backlogs of all topics, and what it takes to make room in them.
pub(super) struct Room<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) topics: &'a Topics,
    pub(super) catalogue: &'a Catalogue,
    pub(super) tables: &'a mut Tables,
}

/// What a batch adds to a backlog.
pub(super) fn charge_of(batch: &Batch) -> Charge {
    Charge { events: u64::from(batch.span()), bytes: batch.bytes().len() as u64 }
}

impl Room<'_> {
    /// Takes room in a topic's backlog for what is to be appended, scheduled or prepared in this commit.
    ///
    /// # Errors
    /// `BACKLOG_FULL`; or why the log could not be read.
    pub(super) fn admit(
        &mut self,
        topic: TopicId,
        charge: Charge,
        draft: &mut Draft,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(record) = self.catalogue.topics.by_id(topic) else { return Ok(()) };
        let Some(quota) = Quota::new(&record.settings) else { return Ok(()) };
        let record = Arc::clone(record);
        for _ in 0..DROPS_MAX {
            let admitted = self.tables.admit(self.store, (topic, quota), charge, now);
            let Err(full) = admitted.map_err(|error| error.refusal())? else { return Ok(()) };
            // Nothing that is dropped makes room for what waits alone fills the topic with.
            let is_in_vain = quota.check(self.tables.waiting(topic), charge).is_err();
            if quota.on_full != OnFull::DropOldest || is_in_vain {
                if let Some(topic) = self.topics.get(topic) {
                    topic.backlog.add_refused(charge.events);
                }
                return Err(self.backlog_full(&record, full));
            }
            if !self.drop_oldest(topic, full.holder, draft).map_err(|error| error.refusal())? {
                break;
            }
        }
        Ok(())
    }

    /// The same for everything that a proposal appends to topics: all of it finds room, or it is refused.
    ///
    /// # Errors
    /// Which target has no room.
    pub(super) fn admit_appends(
        &mut self,
        appends: &[AppendRequest],
        draft: &mut Draft,
        now: Timestamp,
    ) -> Result<(), ProposalRefused> {
        // A dead letter is part of what was accepted long ago.
        let to_topics = appends.iter().filter_map(|append| match append.target {
            AppendTarget::Topic(id) => Some((id, &append.batch)),
            AppendTarget::DeadLetters(_) => None,
        });
        self.admit_all(to_topics, draft, now).map_err(|(id, refusal)| {
            let target = self.catalogue.topics.by_id(id).map(|record| record.name.clone());
            ProposalRefused::Blocked { target, error: Error::Refused(refusal) }
        })
    }

    /// The same for batches of any topics.
    ///
    /// # Errors
    /// Which topic has no room, and why.
    pub(super) fn admit_all<'b>(
        &mut self,
        batches: impl Iterator<Item = (TopicId, &'b Batch)>,
        draft: &mut Draft,
        now: Timestamp,
    ) -> Result<(), (TopicId, Refusal)> {
        let mut charges: Vec<(TopicId, OnFull, Charge)> = Vec::new();
        for (id, batch) in batches {
            let Some(record) = self.catalogue.topics.by_id(id) else { continue };
            if !record.settings.has_backlog_quota() {
                continue;
            }
            let charge = charge_of(batch);
            match charges.iter_mut().find(|(of, ..)| *of == id) {
                Some((.., sum)) => *sum = sum.plus(charge),
                None => charges.push((id, record.settings.on_full, charge)),
            }
        }
        // Nothing is dropped for what is refused after all.
        charges.sort_by_key(|(_, on_full, _)| *on_full == OnFull::DropOldest);
        for (id, _, charge) in charges {
            self.admit(id, charge, draft, now).map_err(|refusal| (id, refusal))?;
        }
        Ok(())
    }

    /// Drops the oldest record that this subscription or route has yet to acknowledge, and all before it; false if there is
    /// none.
    fn drop_oldest(&mut self, topic: TopicId, holder: Holder, draft: &mut Draft) -> Result<bool, Error> {
        let store = self.store;
        let oldest = self.tables.backlogs.oldest((store, &self.tables.partitions), topic, holder)?;
        let (Some((number, first)), Some(live)) = (oldest, self.topics.get(topic)) else { return Ok(false) };
        let place = (topic, number);
        let (start, dropped_bytes) = match Depth::find(store, place, first)? {
            Some(depth) => (depth.record_end, depth.bytes_to_end),
            None => {
                // It is of this commit, whose records end where they are closed.
                self.tables.partitions.flush(draft);
                let reach = self.tables.partitions.reach(place);
                (reach.next, reach.bytes)
            }
        };
        live.backlog.add_dropped(start.0.saturating_sub(first.0));
        let live = live.partition(number)?;
        if live.end() >= start && self.tables.partitions.is_worth_trimming(place, dropped_bytes) {
            // A reader must not read events that the commit takes away before it is announced.
            live.hide_before(start);
            self.tables.trim(place, start, dropped_bytes, draft);
        } else {
            self.tables.advance_start(place, start, dropped_bytes, draft);
        }
        Ok(true)
    }

    /// The refusal of a publish to a topic whose backlog has reached a limit.
    fn backlog_full(&self, record: &TopicRecord, full: Full) -> Refusal {
        let name = &record.name;
        let holder = match full.holder {
            Holder::Subscription(id) => {
                let found = self.catalogue.subscriptions.by_id(id);
                found.map(|record| format!("subscription {}/{}", record.topic, record.name))
            }
            Holder::Route(id) => {
                self.catalogue.routes.by_id(id).map(|record| format!("route {}", record.spec.name))
            }
        };
        let holder = holder.unwrap_or_default();
        let (has, option) = match full.reached {
            Reached::Events { has, max } => (
                format!(
                    "{holder} has {} to acknowledge, delayed and prepared ones included, of at most {max}",
                    counted(has, "event")
                ),
                "--backlog-max-events",
            ),
            Reached::Bytes { has, max } => (
                format!(
                    "{holder} has {} to acknowledge, delayed and prepared ones included, of at most {max}",
                    counted(has, "byte")
                ),
                "--backlog-max-bytes",
            ),
            Reached::Age { has_ms, max_ms } => (
                format!(
                    "the oldest event that {holder} has to acknowledge is {has_ms} ms old, of at most {max_ms} ms"
                ),
                "--backlog-max-age",
            ),
        };
        let message = format!(
            "topic {name} is full: {has}; try again once it has acknowledged more, or raise the limit \
             (`levada topic set {name} {option}`)"
        );
        Refusal::new(ErrorCode::BacklogFull, message).retry_after(RETRY_AFTER_MS)
    }
}
