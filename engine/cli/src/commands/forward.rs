//! `levada subscribe --publish-to`: events go on to another topic in the commit that acknowledges them, so that each is there
//! once whatever dies when.

use std::{
    cell::Cell,
    future::Future,
    num::NonZeroU64,
    pin::{Pin, pin},
    time::Duration,
};

use levada_client::{
    Client, DeliveredEvent, Delivery, Error, ErrorCode, Event, Offset, Refusal, Subscriber, TopicInfo,
    TopicSettings, Transaction,
};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, record_bytes},
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
use crate::{args::SubscribeArgs, outcome::Partly};

/// How long a commit is tried before the reason for its delay is printed, if the engine gave one; then it is tried again.
pub(super) const COMMIT_TRIED: Duration = Duration::from_secs(2);
/// How long a delivery waits for others that share its commit.
const LINGER: Duration = Duration::from_millis(2);
/// Bytes that are committed together, give or take an event: well below the limit of a transaction. The subscriber's credit
/// bounds the events, and so the batches.
const COMMIT_BYTES: usize = 1024 * 1024;
/// How often the reason why nothing comes is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause before a commit is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a command that was told to stop waits for its last commit: a try ends before that, with what stands in its way.
const LAST_COMMIT: Duration = Duration::from_secs(4);
/// What a last commit comes to that has no outcome by then.
const UNANSWERED: Error = Error::TimedOut { waited: LAST_COMMIT, in_doubt: true, last: None };
const EXPIRED: &str = "events were no longer this consumer's when they were to be committed: they come again";
const UNLESS_COMMITTED: &str = ", unless an earlier try has committed them";

/// Leads the events of a subscription to a topic.
pub(super) struct Forward<'a> {
    output: &'a Output,
    client: &'a Client,
    args: &'a SubscribeArgs,
    to: &'a TopicName,
    progress: &'a Progress,
    room: Cell<Room>,
    duplicates: Cell<u64>,
    /// What was said to stand in the way since the last commit.
    told: Cell<Option<ErrorCode>>,
}

/// Events that are committed together.
struct Group {
    transaction: Transaction,
    /// How they are printed.
    lines: Vec<u8>,
    events: u64,
    /// Of payloads.
    bytes: u64,
    /// Bytes that the topic's backlog is charged for, at most.
    size: usize,
    /// An event of it has a time to live.
    has_ttl: bool,
}

/// An event that is to be added to a group.
struct Taken {
    offset: Offset,
    event: Event,
    /// Bytes that it adds to the group.
    weight: usize,
    /// How it is printed.
    line: Vec<u8>,
}

/// What became of a group.
struct Ended {
    /// If not, its events come again.
    is_published: bool,
    /// The command was told to stop meanwhile.
    is_stopped: bool,
}

/// What stands in the way of a commit.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle<'a> {
    /// Its events are this consumer's no more.
    Expired,
    /// It helps to try again; the engine may have said why.
    Passing(Option<&'a Refusal>),
    Lasting,
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
    /// Of the topic.
    partitions: u64,
}

impl Room {
    /// What a topic takes at once: half of its backlog at most. What is larger than all of it would wait until there is none, and
    /// go beyond the limit then.
    fn of(settings: &TopicSettings) -> Self {
        let half = |limit: u64| if limit == 0 { u64::MAX } else { (limit / 2).max(1) };
        let size = usize::try_from(half(settings.backlog_max_bytes)).unwrap_or(usize::MAX);
        Self {
            events: half(settings.backlog_max_events),
            size: size.min(COMMIT_BYTES),
            partitions: settings.partitions.into(),
        }
    }

    /// At most how many bytes of the backlog an event takes that is committed with `count` others before it: each partition
    /// gets a batch of its own.
    fn weight(self, event: &Event, count: u64) -> usize {
        record_bytes(event) + if count < self.partitions { BATCH_HEADER_BYTES } else { 0 }
    }

    /// Whether another event may join `count` others, so that they have `size` bytes.
    fn has_place(self, count: u64, size: usize) -> bool {
        count < self.events && size <= self.size
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

/// Prints how many events were published, and how many left out.
pub(super) fn summarise(output: &Output, to: &TopicName, published: u64, duplicates: u64) {
    let summary = Summary { publish_to: to.as_str(), published, duplicates };
    output.summary(&summary, || summary.text());
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
        Self { output, client, args, to: &to.name, progress, room, duplicates, told: Cell::new(None) }
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
        summarise(self.output, self.to, published, self.duplicates.get());
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
            let ended = self.commit(&mut group, stop.as_mut()).await;
            if !matches!(ended, Ok(Ended { is_published: true, .. })) {
                // Before the group is dropped, which would give its events back as failed, and before later events of their
                // keys are published.
                subscriber.rewind();
                rest = None;
            }
            let ended = ended?;
            if ended.is_published {
                self.progress.done.set(self.progress.done.get() + group.events);
                self.output.bytes(&group.lines)?;
                left = left.without(&group);
            }
            if ended.is_stopped {
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
        let mut group =
            Group { transaction, lines: Vec::new(), events: 0, bytes: 0, size: 0, has_ttl: false };
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
            let now = self.engine_time().await?;
            *rest = self.add(&mut group, next, left, now)?;
            if group.events > 0 && (rest.is_some() || left.without(&group).is_none()) {
                return Ok(Some(group));
            }
        }
    }

    /// The time by the engine's clock, once there is a connection.
    async fn engine_time(&self) -> Result<Timestamp, Error> {
        loop {
            match self.client.engine_time().await {
                Err(error) if error.is_retryable() => {}
                other => return other,
            }
        }
    }

    /// Adds events of a delivery, as far as they fit, and returns what does not. What was lost with its connection is left
    /// out: it comes again.
    fn add(&self, group: &mut Group, rest: Rest, left: Left, now: Timestamp) -> Result<Option<Rest>, Error> {
        let mut left = left.without(group);
        let Rest { delivery, from } = rest;
        let (printer, room) = (Printer::of(self.args), self.room.get());
        let (mut taken, mut size, mut behind) = (Vec::new(), group.size, None);
        let events =
            delivery.events().zip(delivery.to_events()).skip_while(|((offset, ..), _)| *offset < from);
        for ((offset, appended, printed), (_, event)) in events {
            let count = group.events + taken.len() as u64;
            let weight = room.weight(&event, count);
            if left.is_none() || count > 0 && !room.has_place(count, size + weight) {
                behind = Some(offset);
                break;
            }
            left = left.less(&event);
            size += weight;
            let mut line = Vec::new();
            printer.write(&mut line, &delivery, offset, &printed);
            taken.push(Taken { offset, event: onward(event, appended, now), weight, line });
        }
        if behind.is_none() && from == delivery.first() {
            if is_acked(group.transaction.ack_delivery(delivery))? {
                taken.into_iter().try_for_each(|taken| group.publish(self.to, taken))?;
            }
            return Ok(None);
        }
        for taken in taken {
            let Some(own) = DeliveredEvent::set_aside(&delivery, taken.offset) else { continue };
            if is_acked(group.transaction.ack(own))? {
                group.publish(self.to, taken)?;
            }
        }
        Ok(behind.map(|from| Rest { delivery, from }))
    }

    /// Commits events until that succeeds, they have to come again, or `stop` resolves.
    async fn commit(
        &self,
        group: &mut Group,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<Ended> {
        loop {
            let (tried, mut is_stopped) = {
                let mut trying = pin!(group.transaction.commit());
                tokio::select! {
                    biased;
                    tried = &mut trying => (tried, false),
                    // It may be on its way, and its outcome is to be told.
                    () = &mut stop => (timeout(LAST_COMMIT, trying).await.unwrap_or_else(|_| Err(UNANSWERED)), true),
                }
            };
            let error = match tried {
                Ok(receipts) => {
                    let duplicates = receipts.iter().filter(|receipt| receipt.same_id).count() as u64;
                    self.duplicates.set(self.duplicates.get() + duplicates);
                    self.told.set(None);
                    return Ok(Ended { is_published: true, is_stopped });
                }
                Err(error) => error,
            };
            match Obstacle::of(&error) {
                Obstacle::Expired => {
                    let unless = if error.has_no_side_effects() { "" } else { UNLESS_COMMITTED };
                    self.output.remark(&format!("{EXPIRED}{unless}"));
                    return Ok(Ended { is_published: false, is_stopped });
                }
                Obstacle::Lasting => return Err(error.into()),
                Obstacle::Passing(_) if is_stopped => {}
                Obstacle::Passing(refusal) => {
                    let is_sure = error.has_no_side_effects();
                    if let Some(refusal) = refusal {
                        self.wait_for(refusal).await;
                    }
                    // What is left of its events' time to live becomes less meanwhile.
                    if is_sure && group.has_ttl {
                        return Ok(Ended { is_published: false, is_stopped });
                    }
                    tokio::select! {
                        biased;
                        () = &mut stop => is_stopped = true,
                        () = sleep(PAUSE) => {}
                    }
                }
            }
            if is_stopped {
                self.output.remark(&last_words(error, group.events, self.to)?);
                return Ok(Ended { is_published: false, is_stopped });
            }
        }
    }

    /// Says what stands in the way, and looks what the topic takes now: its limits may have been changed.
    async fn wait_for(&self, refusal: &Refusal) {
        if self.told.replace(Some(refusal.code)) != Some(refusal.code) {
            self.output.remark(&format!("waiting: {refusal}; trying again"));
        }
        if let Ok(to) = self.client.describe_topic(self.to.as_str()).await {
            self.room.set(Room::of(&to.settings));
        }
    }
}

impl<'a> Obstacle<'a> {
    fn of(error: &'a Error) -> Self {
        match refusal_of(error) {
            Some(refusal) if refusal.code == ErrorCode::DeliveryExpired => Self::Expired,
            Some(refusal) if refusal.code.is_retryable() => Self::Passing(Some(refusal)),
            None if error.is_retryable() => Self::Passing(None),
            _ => Self::Lasting,
        }
    }
}

/// A refusal, also as the last one before the time was over.
fn refusal_of(error: &Error) -> Option<&Refusal> {
    match error {
        Error::Refused(refusal) | Error::TimedOut { last: Some(refusal), .. } => Some(refusal),
        _ => None,
    }
}

/// What is said of so many events whose commit was given up for a stop; as a failure if it may have taken effect.
fn last_words(error: Error, events: u64, to: &TopicName) -> anyhow::Result<String> {
    let count = output::counted(events, "event");
    if !error.has_no_side_effects() {
        let unknown = format!(
            "whether the last {count} went to {to} is not known: published and acknowledged, or neither, to come again"
        );
        return Err(anyhow::Error::from(error).context(unknown));
    }
    let why = refusal_of(&error).map_or_else(|| error.to_string(), Refusal::to_string);
    Ok(format!("{why}; the last {count} did not go to {to}, and will come again"))
}

impl Group {
    fn publish(&mut self, to: &TopicName, taken: Taken) -> Result<(), Error> {
        let Taken { event, weight, line, .. } = taken;
        let bytes = event.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        let has_ttl = event.ttl_ms.is_some();
        self.transaction.publish(to.as_str(), event)?;
        self.events += 1;
        self.bytes += bytes;
        self.size += weight;
        self.has_ttl |= has_ttl;
        self.lines.extend_from_slice(&line);
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

impl Summary<'_> {
    fn text(&self) -> String {
        let published =
            format!("published {} to {}", output::counted(self.published, "event"), self.publish_to);
        output::with_left_out(published, self.duplicates)
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
    use levada_protocol::batch::BatchBuilder;

    use super::*;

    #[test]
    fn what_is_committed_together_fits_into_a_topic_s_backlog() {
        let room = |backlog_max_events, backlog_max_bytes| {
            let settings =
                TopicSettings { backlog_max_events, backlog_max_bytes, ..TopicSettings::default() };
            let Room { events, size, .. } = Room::of(&settings);
            (events, size)
        };
        assert_eq!(room(0, 0), (u64::MAX, COMMIT_BYTES));
        assert_eq!(room(1, 1), (1, 1));
        assert_eq!(room(100, 2_000), (50, 1_000));
        assert_eq!(room(0, 1 << 40), (u64::MAX, COMMIT_BYTES));
    }

    #[test]
    fn what_is_committed_together_counts_as_its_batches_do() {
        let settings = TopicSettings { backlog_max_bytes: 10_000, partitions: 2, ..TopicSettings::default() };
        let room = Room::of(&settings);
        let mut event = Event::new("x").with_key("k").with_header("h", "v").at(Timestamp(7));
        (event.id, event.ttl_ms) = (Some("id".into()), Some(1));
        let (mut count, mut size) = (0, 0);
        while room.has_place(count, size + room.weight(&event, count)) {
            size += room.weight(&event, count);
            count += 1;
        }
        // All of a partition, and one of the other.
        let bytes = |events| {
            let mut builder = BatchBuilder::new();
            (0..events).for_each(|_| builder.push(&event).unwrap());
            builder.len()
        };
        assert_eq!(bytes(count - 1) + bytes(1), size);
        assert!(size <= 5_000 && bytes(count) + bytes(1) > 5_000, "{size}");
    }

    #[test]
    fn what_stands_in_the_way_is_told_by_the_refusal_also_after_a_lost_answer() {
        let refusal = |code| Refusal::new(code, "x");
        let in_doubt = |last| Error::TimedOut { waited: COMMIT_TRIED, in_doubt: true, last };
        for error in
            [Error::from, |it| Error::TimedOut { waited: COMMIT_TRIED, in_doubt: true, last: Some(it) }]
        {
            let [expired, full, absent] =
                [ErrorCode::DeliveryExpired, ErrorCode::BacklogFull, ErrorCode::TopicNotFound].map(refusal);
            assert_eq!(Obstacle::of(&error(expired)), Obstacle::Expired);
            assert_eq!(Obstacle::of(&error(full.clone())), Obstacle::Passing(Some(&full)));
            assert_eq!(Obstacle::of(&error(absent)), Obstacle::Lasting);
        }
        assert_eq!(Obstacle::of(&in_doubt(None)), Obstacle::Passing(None));
        assert_eq!(Obstacle::of(&Error::Closed), Obstacle::Lasting);
    }

    #[test]
    fn a_commit_given_up_is_a_failure_if_it_may_have_taken_effect() {
        let to: TopicName = "invoices".parse().unwrap();
        let full = Refusal::new(ErrorCode::BacklogFull, "topic invoices is full");
        let said = "BACKLOG_FULL: topic invoices is full; the last 2 events did not go to invoices, and will come again";
        let sure = |in_doubt| Error::TimedOut { waited: COMMIT_TRIED, in_doubt, last: Some(full.clone()) };
        for error in [Error::from(full.clone()), sure(false)] {
            assert_eq!(last_words(error, 2, &to).unwrap(), said);
        }
        for error in [UNANSWERED, sure(true)] {
            let failure = last_words(error, 2, &to).unwrap_err();
            assert!(
                failure.to_string().starts_with("whether the last 2 events went to invoices is not known")
            );
            assert!(failure.downcast_ref::<Error>().is_some_and(|error| !error.has_no_side_effects()));
        }
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
