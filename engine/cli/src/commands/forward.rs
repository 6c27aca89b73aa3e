//! `levada subscribe --publish-to`: events go on to another topic in the commit that acknowledges them, so that each is there
//! once whatever dies when.

use std::{
    cell::Cell,
    future::Future,
    num::NonZeroU64,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use levada_client::{
    Client, DeliveredEvent, Delivery, Error, ErrorCode, Event, Offset, Subscriber, TopicInfo, TopicSettings,
    Transaction,
};
use levada_protocol::{
    event::is_engine_header,
    ids::{Timestamp, TopicName},
};
use levada_terminal::{
    Failure,
    output::{self, Output},
};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::{events::Printer, stops::Progress};
use crate::{
    args::{self, SubscribeArgs},
    outcome::Partly,
};

/// How long a commit is tried before the reason for its delay is printed, if the engine gave one; then it is tried again.
pub(super) const COMMIT_TRIED: Duration = Duration::from_secs(5);
/// How long a delivery waits for others that share its commit.
const LINGER: Duration = Duration::from_millis(2);
/// Bytes that are committed together, give or take an event: well below the limit of a transaction. The subscriber's credit
/// bounds the events, and so the batches.
const COMMIT_BYTES: usize = 1024 * 1024;
/// How often the reason why nothing comes is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before a commit is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a command that was told to stop waits for its last commit.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// Leads the events of a subscription to a topic.
pub(super) struct Forward<'a> {
    output: &'a Output,
    client: &'a Client,
    args: &'a SubscribeArgs,
    to: &'a TopicName,
    progress: &'a Progress,
    room: Cell<Room>,
    duplicates: Cell<u64>,
}

/// Events that are committed together.
struct Group {
    transaction: Transaction,
    /// How they are printed.
    lines: Vec<u8>,
    events: u64,
    /// Of payloads.
    bytes: u64,
    /// Bytes that count towards the limit of a transaction, about.
    size: usize,
}

/// What is left until the command ends by itself.
#[derive(Debug, Clone, Copy)]
struct Left {
    events: u64,
    bytes: u64,
}

/// The events of a delivery from this offset on.
struct Rest {
    delivery: Delivery,
    from: Offset,
}

/// How much is committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    events: u64,
    size: usize,
}

impl Room {
    /// What a topic takes at once: half of its backlog at most. What is larger than all of it would wait until there is none, and
    /// go beyond the limit then.
    fn of(settings: &TopicSettings) -> Self {
        let half = |limit: u64| if limit == 0 { u64::MAX } else { (limit / 2).max(1) };
        let size = usize::try_from(half(settings.backlog_max_bytes)).unwrap_or(usize::MAX);
        Self { events: half(settings.backlog_max_events), size: size.min(COMMIT_BYTES) }
    }

    fn is_taken(self, events: u64, size: usize) -> bool {
        events >= self.events || size >= self.size
    }
}

impl Left {
    fn less(self, event: &Event) -> Self {
        let bytes = event.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        Self { events: self.events - 1, bytes: self.bytes.saturating_sub(bytes) }
    }

    fn is_none(self) -> bool {
        self.events == 0 || self.bytes == 0
    }

    fn without(self, group: &Group) -> Self {
        Self {
            events: self.events.saturating_sub(group.events),
            bytes: self.bytes.saturating_sub(group.bytes),
        }
    }
}

/// What it comes to in the end.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    publish_to: &'a str,
    /// Events stored.
    published: u64,
    /// Events that were not stored because the topic's dedup window held their ids.
    duplicates: u64,
}

/// Refuses a topic that events cannot go to.
pub(super) fn check(args: &SubscribeArgs, to: &TopicName) -> Result<(), Failure> {
    if args.subscription.topic != *to {
        return Ok(());
    }
    let message = format!(
        "expected another topic than {to} for --publish-to: the subscription would consume what it has published, without end"
    );
    Err(Failure::usage(message))
}

impl<'a> Forward<'a> {
    pub(super) fn new(
        output: &'a Output,
        client: &'a Client,
        args: &'a SubscribeArgs,
        to: &'a TopicInfo,
        progress: &'a Progress,
    ) -> Self {
        let (room, duplicates) = (Cell::new(Room::of(&to.settings)), Cell::new(0));
        Self { output, client, args, to: &to.name, progress, room, duplicates }
    }

    /// Forwards events until there are as many as was said, or `stop` resolves; says how many.
    pub(super) async fn run(
        &self,
        subscriber: &mut Subscriber,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<()> {
        let ended = self.forward_all(subscriber, stop).await;
        let published = self.progress.done.get() - self.duplicates.get();
        if let Err(error) = ended {
            let said = format!("{} published to {}, then", output::counted(published, "event"), self.to);
            return Err(if published == 0 { error } else { error.context(Partly(said)) });
        }
        let summary = Summary { publish_to: self.to.as_str(), published, duplicates: self.duplicates.get() };
        self.output.summary(&summary, || summary.text());
        Ok(())
    }

    async fn forward_all(
        &self,
        subscriber: &mut Subscriber,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<()> {
        let bytes = self.args.max_bytes.map_or(u64::MAX, NonZeroU64::get);
        let mut left = Left { events: self.args.max.unwrap_or(u64::MAX), bytes };
        let mut rest = None;
        while !left.is_none() {
            let group = tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                group = self.gather(subscriber, &mut rest, left) => group?,
            };
            let Some(mut group) = group else { return Ok(()) };
            let (done, is_stopped) = {
                let mut committing = pin!(self.commit(&mut group.transaction));
                tokio::select! {
                    biased;
                    done = &mut committing => (Some(done), false),
                    // It may be on its way, and its outcome is to be told.
                    () = &mut stop => (timeout(LAST_COMMIT, committing).await.ok(), true),
                }
            };
            let Some(done) = done else {
                self.remark_unknown(group.events);
                return Ok(());
            };
            if done? {
                self.progress.done.set(self.progress.done.get() + group.events);
                self.output.bytes(&group.lines)?;
                left = left.without(&group);
            }
            if is_stopped {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The events that are committed next: those that are there already, as far as they fit. `None` once the client was closed.
    async fn gather(
        &self,
        subscriber: &mut Subscriber,
        rest: &mut Option<Rest>,
        left: Left,
    ) -> anyhow::Result<Option<Group>> {
        let transaction = self.client.transaction()?;
        let mut group = Group { transaction, lines: Vec::new(), events: 0, bytes: 0, size: 0 };
        loop {
            let wait = if group.events == 0 { CHECK_INTERVAL } else { LINGER };
            let next = match rest.take() {
                Some(rest) => rest,
                None => {
                    let next = timeout(wait, subscriber.next_delivery()).await;
                    self.progress.note(subscriber.interruption());
                    match next {
                        Err(_) if group.events == 0 => continue,
                        Err(_) => return Ok(Some(group)),
                        Ok(next) => {
                            let Some(delivery) = next? else { return Ok(None) };
                            Rest { from: delivery.first(), delivery }
                        }
                    }
                }
            };
            *rest = self.add(&mut group, next, left)?;
            if group.events > 0 && (rest.is_some() || left.without(&group).is_none()) {
                return Ok(Some(group));
            }
        }
    }

    /// Adds events of a delivery, as far as they fit, and returns what does not. What was lost with its connection is left
    /// out: it comes again.
    fn add(&self, group: &mut Group, rest: Rest, left: Left) -> Result<Option<Rest>, Error> {
        let mut left = left.without(group);
        let Rest { delivery, from } = rest;
        let (printer, room, now) = (Printer::of(self.args), self.room.get(), args::now());
        let (mut taken, mut size, mut behind) = (Vec::new(), group.size, None);
        let events =
            delivery.events().zip(delivery.to_events()).skip_while(|((offset, ..), _)| *offset < from);
        for ((offset, appended, printed), (_, event)) in events {
            let count = group.events + taken.len() as u64;
            if left.is_none() || count > 0 && room.is_taken(count, size) {
                behind = Some(offset);
                break;
            }
            left = left.less(&event);
            size += size_of(&event);
            let mut line = Vec::new();
            printer.write(&mut line, &delivery, offset, &printed);
            taken.push((offset, onward(event, appended, now), line));
        }
        if behind.is_none() && from == delivery.first() {
            if is_acked(group.transaction.ack_delivery(delivery))? {
                taken.into_iter().try_for_each(|(_, event, line)| group.publish(self.to, event, &line))?;
            }
            return Ok(None);
        }
        for (offset, event, line) in taken {
            let Some(own) = DeliveredEvent::set_aside(&delivery, offset) else { continue };
            if is_acked(group.transaction.ack(own))? {
                group.publish(self.to, event, &line)?;
            }
        }
        Ok(behind.map(|from| Rest { delivery, from }))
    }

    /// Commits events until that succeeds: true; or until they are this consumer's no more: false, and they come again.
    async fn commit(&self, transaction: &mut Transaction) -> Result<bool, Error> {
        let mut told = None;
        loop {
            let error = match transaction.commit().await {
                Ok(receipts) => {
                    let duplicates = receipts.iter().filter(|receipt| receipt.same_id).count() as u64;
                    self.duplicates.set(self.duplicates.get() + duplicates);
                    return Ok(true);
                }
                Err(error) => error,
            };
            match &error {
                Error::Refused(refusal) if refusal.code == ErrorCode::DeliveryExpired => {
                    self.output.remark(
                        "events were no longer this consumer's when they were to be committed: they come again, unless an \
                         earlier try has committed them",
                    );
                    return Ok(false);
                }
                _ if !error.is_retryable() => return Err(error),
                Error::Refused(refusal) | Error::TimedOut { last: Some(refusal), .. } => {
                    if told.replace(refusal.code) != Some(refusal.code) {
                        self.output.remark(&format!("waiting: {refusal}; trying again"));
                    }
                    // Its limits may have been changed.
                    if let Ok(to) = self.client.describe_topic(self.to.as_str()).await {
                        self.room.set(Room::of(&to.settings));
                    }
                }
                // That there is no connection is said elsewhere.
                _ => {}
            }
            sleep(PAUSE).await;
        }
    }

    fn remark_unknown(&self, events: u64) {
        let (count, to) = (output::counted(events, "event"), self.to);
        self.output.remark(&format!(
            "whether the last {count} are in {to} is not known: they are there and acknowledged, or neither, and come again"
        ));
    }
}

impl Group {
    fn publish(&mut self, to: &TopicName, event: Event, line: &[u8]) -> Result<(), Error> {
        let (bytes, size) =
            (event.payload.as_ref().map_or(0, |payload| payload.len() as u64), size_of(&event));
        self.transaction.publish(to.as_str(), event)?;
        self.events += 1;
        self.bytes += bytes;
        self.size += size;
        self.lines.extend_from_slice(line);
        Ok(())
    }
}

/// Whether events are acknowledged in the commit; not if they were lost with their connection.
fn is_acked(acked: Result<(), Error>) -> Result<bool, Error> {
    match acked {
        Ok(()) => Ok(true),
        Err(error) if error.code() == ErrorCode::DeliveryExpired => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of an event, about.
fn size_of(event: &Event) -> usize {
    let headers: usize = event.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let [payload, key] = [&event.payload, &event.key].map(|part| part.as_ref().map_or(0, Bytes::len));
    payload + key + headers
}

impl Summary<'_> {
    fn text(&self) -> String {
        let published =
            format!("published {} to {}", output::counted(self.published, "event"), self.publish_to);
        match self.duplicates {
            0 => published,
            some => format!("{published} and left out {}", output::counted(some, "duplicate")),
        }
    }
}

/// An event as it goes on: without the engine's own headers, which only the engine gives, and with what is left of its time
/// to live.
fn onward(mut event: Event, appended: Timestamp, now: Timestamp) -> Event {
    event.headers.retain(|(name, _)| !is_engine_header(name.as_bytes()));
    let age_ms = u32::try_from(now.0.saturating_sub(appended.0)).unwrap_or(u32::MAX);
    // It was alive when it was delivered.
    event.ttl_ms = event.ttl_ms.map(|ttl_ms| ttl_ms.saturating_sub(age_ms).max(1));
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_together_fits_into_a_topic_s_backlog() {
        let room = |backlog_max_events, backlog_max_bytes| {
            let settings =
                TopicSettings { backlog_max_events, backlog_max_bytes, ..TopicSettings::default() };
            let Room { events, size } = Room::of(&settings);
            (events, size)
        };
        assert_eq!(room(0, 0), (u64::MAX, COMMIT_BYTES));
        assert_eq!(room(1, 1), (1, 1));
        assert_eq!(room(100, 2_000), (50, 1_000));
        assert_eq!(room(0, 1 << 40), (u64::MAX, COMMIT_BYTES));
    }

    #[test]
    fn an_event_goes_on_as_it_was_with_what_is_left_of_its_time_to_live() {
        let event =
            Event::new("x").with_key("k").with_header("lv-dlq-reason", "rejected").with_header("own", "1");
        let event = Event { id: Some("one".into()), ttl_ms: Some(1_000), ..event.at(Timestamp(7)) };
        let gone = onward(event.clone(), Timestamp(10_000), Timestamp(10_400));
        let expected =
            Event { headers: vec![("own".to_owned(), "1".into())], ttl_ms: Some(600), ..event.clone() };
        assert_eq!(gone, expected);
        let left = |now| onward(event.clone(), Timestamp(10_000), Timestamp(now)).ttl_ms;
        assert_eq!((left(9_000), left(90_000)), (Some(1_000), Some(1)));
        assert_eq!(onward(Event::new("x"), Timestamp(0), Timestamp(u64::MAX)).ttl_ms, None);
    }
}
