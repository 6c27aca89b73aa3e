//! Requests about delayed events: list, describe, cancel.

use std::sync::Arc;

use levada_protocol::{
    error::ErrorCode,
    ids::{Timestamp, TopicName},
    request::Response,
    schedule::ScheduledInfo,
};
use levada_store::{ScanLimit, Store};

use super::pages::{self, Page};
use crate::{
    clock::Clock,
    error::Error,
    log::blocking,
    rows::Place,
    scheduler::{self, Waiting},
    shard::{ShardHandle, already_due},
    topic::Topic,
};

/// Batches that a list reads at a time.
const READ: ScanLimit = ScanLimit { rows: 256, bytes: 1024 * 1024 };
/// After so many reads a page ends, however short it is.
const PAGE_READS_MAX: usize = 16;

/// Where a page begins: behind an event.
#[derive(Debug, Clone, Copy)]
struct Behind {
    place: Place,
    id: u64,
}

impl Behind {
    fn parse(after: &str) -> Result<Self, Error> {
        let mut numbers = after.split('.').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok);
        let parsed = (next(), next(), next());
        match (parsed, numbers.next()) {
            ((Some(due), Some(first), Some(id)), None) => {
                Ok(Self { place: Place { due: Timestamp(due), first }, id })
            }
            _ => Err(pages::not_a_page(after, "a page's next")),
        }
    }
}

/// What answers requests about delayed events.
pub(super) struct ScheduleRequests<'a> {
    pub(super) shard: &'a ShardHandle,
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) clock: &'a Clock,
}

/// What has become of an event that was scheduled.
enum Found {
    /// It waits there, unless it was cancelled.
    Waits(Place),
    /// Its time has come; it had been cancelled before.
    Cancelled,
}

impl ScheduleRequests<'_> {
    pub(super) async fn list(
        &self,
        name: &TopicName,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Response, Error> {
        let topic = self.shard.topic(name)?;
        let behind = after.map(Behind::parse).transpose()?;
        let store = Arc::clone(self.store);
        let (events, next) = blocking(move || {
            let mut page = Page::new(limit);
            // Before the head are only deleted rows, which are slow to pass.
            let Some(head) = topic.schedule().and_then(|schedule| schedule.head) else {
                return Ok(page.finish());
            };
            let mut next = Some(behind.map_or(head, |behind| behind.place.max(head)));
            for _ in 0..PAGE_READS_MAX {
                let Some(from) = next else { return Ok(page.finish()) };
                let (found, more) = scheduler::read_from(store.as_ref(), topic.id, from, READ)?;
                for waiting in found {
                    let place = waiting.place;
                    for event in events_of(&waiting)? {
                        let is_behind =
                            behind.is_none_or(|behind| (place, event.id) > (behind.place, behind.id));
                        if is_behind && !page.add(cursor(place, event.id), event) {
                            return Ok(page.finish());
                        }
                    }
                }
                next = more;
            }
            // Ids begin at 1.
            Ok((page.finish().0, next.map(|next| cursor(next, 0))))
        })
        .await?;
        Ok(Response::ScheduledEvents { events, next })
    }

    pub(super) async fn describe(&self, name: &TopicName, id: u64) -> Result<Response, Error> {
        let topic = self.shard.topic(name)?;
        let cancelled = || {
            let message = format!("scheduled event {id} of topic {name} was cancelled");
            Error::refused(ErrorCode::ScheduleNotFound, message)
        };
        let Found::Waits(place) = self.find(&topic, id).await? else { return Err(cancelled()) };
        let (store, of) = (Arc::clone(self.store), topic.id);
        let found = blocking(move || {
            let (found, _) = scheduler::read_from(store.as_ref(), of, place, ScanLimit::rows(2))?;
            let found = found.into_iter().next().filter(|found| found.place == place);
            found.map(|found| events_of(&found)).transpose()
        });
        let events = found.await?.ok_or_else(|| already_due(id))?;
        events.into_iter().find(|event| event.id == id).map(Response::Scheduled).ok_or_else(cancelled)
    }

    pub(super) async fn cancel(&self, name: &TopicName, id: u64) -> Result<Response, Error> {
        let topic = self.shard.topic(name)?;
        let reading = self.shard.reading();
        match self.find(&topic, id).await? {
            Found::Waits(place) => self.shard.cancel(topic.id, place, id).await?,
            // As the store shows it, which a crash may take back.
            Found::Cancelled => reading.confirm().await?,
        }
        Ok(Response::Done)
    }

    /// What has become of an event, if it is not in the log.
    async fn find(&self, topic: &Topic, id: u64) -> Result<Found, Error> {
        // Asked before the store is: what has been given out by now is there, or was. What is there may have been given out
        // without being durable yet.
        let was_given =
            topic.schedule().is_some_and(|schedule| (schedule.begin..schedule.next).contains(&id));
        let (store, of, now) = (Arc::clone(self.store), topic.id, self.clock.now());
        let found = blocking(move || {
            if let Some(place) = scheduler::place_of(store.as_ref(), of, id)? {
                return Ok(Some(Found::Waits(place)));
            }
            let was_cancelled = scheduler::was_cancelled(store.as_ref(), of, id, now)?;
            Ok(was_cancelled.then_some(Found::Cancelled))
        });
        found.await?.ok_or_else(|| match was_given {
            _ if topic.is_deleting() => topic.deleted_error(),
            true => already_due(id),
            false => {
                let message = format!("topic {} has never scheduled an event {id}", topic.name);
                Error::refused(ErrorCode::ScheduleNotFound, message)
            }
        })
    }
}

/// Where the page behind an event begins.
fn cursor(place: Place, id: u64) -> String {
    format!("{}.{}.{id}", place.due.0, place.first)
}

/// The events of a batch that were not cancelled.
fn events_of(waiting: &Waiting) -> Result<Vec<ScheduledInfo>, Error> {
    let Waiting { place, row, cancelled } = waiting;
    let Some(batch) = row.checked(*place)? else { return Ok(Vec::new()) };
    let left = (0..).zip(batch.events()).filter(|(index, _)| !cancelled.holds(*index));
    Ok(left
        .map(|(index, event)| ScheduledInfo {
            id: place.first + u64::from(index),
            partition: row.partition.0,
            deliver_at_ms: place.due.0,
            key: event.key().map(|key| String::from_utf8_lossy(key).into_owned()),
            event_id: event.id().map(str::to_owned),
            payload_bytes: event.payload().map_or(0, |payload| payload.len() as u64),
        })
        .collect())
}
