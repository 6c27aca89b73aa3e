//! Publishing: events go into batches, batches are pipelined, every event has a ticket.
//!
//! Owns the public face. The state is `core.rs`, one partition's order is `lane/`, the stream is
//! `driver.rs`.

mod after_failure;
mod core;
mod driver;
mod lane;
mod placement;
mod producer_ids;
mod schedule;
mod spread;
mod ticket;
mod when_full;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    error::Refusal,
    event::Event,
    ids::{Offset, PartitionId, ProducerName, TopicName},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_BYTES_TARGET, PRODUCER_IN_FLIGHT_MAX},
    publish::Durability,
    request::Limits,
    schedule::Due,
};
use tokio::{sync::Notify, time::timeout};

pub(crate) use self::producer_ids::ProducerIds;
pub use self::{
    after_failure::AfterFailure,
    core::PublisherStats,
    schedule::{ScheduleReceipt, ScheduleTicket},
    ticket::{Receipt, Ticket},
    when_full::WhenFull,
};
use self::{
    core::Core,
    driver::Driver,
    driver::OpenedTopic,
    lane::{BatchLimits, Ended, LaneOptions},
    placement::Placement,
};
use crate::{clock, error::Error, link::Link, tasks};

/// Longest delivery timeout. The engine remembers a producer's batches for seven days without a new one;
/// within that time a resend is recognised.
const DELIVERY_TIMEOUT_MAX: Duration = Duration::from_secs(6 * 24 * 3600);
/// While so many batches are unanswered, events gather until their batch is full or one of those is answered.
const IN_FLIGHT_PARTIAL: usize = 4;

/// The buffer of a publisher that does not choose one: at least so much, and so much for each partition.
const BUFFER_BYTES_LEAST: usize = 8 * 1024 * 1024;
const BUFFER_BYTES_PER_PARTITION: usize = 32 * 1024;

/// One publish call in so many counts against the task's budget.
const CALLS_PER_BUDGET: u32 = 8;

/// How a publisher batches, waits and gives up.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// Bytes at which a batch is full and goes out. Default 64 KiB, at most 1 MiB.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more events. Default zero: it goes out as soon as the pipe
    /// has room, and what was published while it had none shares a batch all the same. The pipe has room for four
    /// such batches of a partition, and for 256 of all partitions, that are not answered yet.
    pub linger: Duration,
    /// Most unanswered batches of one partition. Default 32, at most 64 and at most what the engine allows.
    pub in_flight: usize,
    /// What an acknowledgement promises; never less than the topic's own setting. Default: as the topic.
    pub durability: Option<Durability>,
    /// Bytes of events not yet acknowledged at which [`Publisher::publish`] waits. By default (`None`) the
    /// larger of 8 MiB and 32 KiB for each partition of the topic: batches of few events cost the engine about as much
    /// as full ones. One event more may be let in.
    pub buffer_bytes: Option<usize>,
    /// How long to try before an event's ticket fails, and how long to wait for room. Default 2 min, at most
    /// 6 days.
    pub delivery_timeout: Duration,
    /// What to do while the topic's backlog is full. Default: wait.
    pub when_full: WhenFull,
    /// What to do with the events behind one that fails. Default: go on.
    pub after_failure: AfterFailure,
    /// A name to publish under, for a topic that one program at a time writes to. Default: none.
    ///
    /// Making the publisher takes the name over from whoever had it on the topic: nothing that an earlier publisher of the name
    /// sends is stored from then on, in any partition, also after a crash of the engine. So an instance that was believed dead and
    /// comes back cannot publish beside its successor. It is what `initTransactions` of a Kafka producer with a
    /// `transactional.id` does (KIP-98, zombie fencing), for one topic and without a transaction.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::{Error, Event, PublisherOptions, ReadOptions};
    ///
    /// let name = Some("importer".parse()?);
    /// let options = PublisherOptions { producer: name, ..PublisherOptions::default() };
    /// let publisher = client.publisher("imported", options).await?;
    /// // Nobody else publishes under the name any more: what is there now is what to go on from.
    /// let mut read = client.read(ReadOptions::new("imported")).await?;
    /// let mut next = 0;
    /// while let Some(delivery) = read.next().await? {
    ///     next += delivery.events().count();
    /// }
    /// match publisher.publish(Event::new(format!("line {next}"))).await?.await {
    ///     // Another instance has started since: leave the work to it.
    ///     Err(Error::Fenced { .. }) => println!("somebody else imports now"),
    ///     other => println!("stored at {:?}", other?.offset),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The name is opened once: the publisher keeps it over reconnects and restarts of the engine, and does not take it back
    /// from a successor. It has stopped for good when the successor was made: its tickets, and every later
    /// [`Publisher::publish`] and [`Publisher::flush`], fail with [`Error::Fenced`], and nothing is sent again under another
    /// identity. They fail with `PRODUCER_UNKNOWN` if the engine has forgotten the name, as it was used by nobody for 7 days or
    /// the topic was made anew: make another publisher then. What it had scheduled still comes due.
    ///
    /// A name obeys the grammar of [`ProducerName`], and a topic has at most 10,000, all topics 100,000. The right to publish to
    /// the topic is enough to take a name over.
    pub producer: Option<ProducerName>,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            batch_bytes: BATCH_BYTES_TARGET,
            linger: Duration::ZERO,
            in_flight: 32,
            durability: None,
            buffer_bytes: None,
            delivery_timeout: Duration::from_secs(120),
            when_full: WhenFull::default(),
            after_failure: AfterFailure::default(),
            producer: None,
        }
    }
}

impl PublisherOptions {
    /// # Errors
    /// `CONFIG_INVALID` if one of them is out of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.lane_options(&Limits::default()).map(drop)
    }

    /// What is asked for, within what the engine allows; a limit of 0 is one that it did not name.
    fn lane_options(&self, limits: &Limits) -> Result<LaneOptions, Error> {
        let within = |got: usize, limit: u64| match limit {
            0 => got,
            limit => got.min(usize::try_from(limit).unwrap_or(usize::MAX)),
        };
        let range = |name: &str, got: usize, max: usize| {
            if (1..=max).contains(&got) {
                Ok(got)
            } else {
                Err(Error::Config { what: format!("{name} must be 1 to {max}, got {got}") })
            }
        };
        if self.durability == Some(Durability::Unknown) {
            return Err(Error::Config {
                what: "durability must be os or sync, got an unknown one".to_owned(),
            });
        }
        let batch_bytes = range("batch_bytes", self.batch_bytes, BATCH_BODY_BYTES_MAX)?;
        let batch_bytes = within(batch_bytes, limits.batch_body_bytes_max);
        let in_flight = range("in_flight", self.in_flight, PRODUCER_IN_FLIGHT_MAX)?;
        let in_flight = within(in_flight, u64::from(limits.producer_in_flight_max));
        range("buffer_bytes", self.buffer_bytes.unwrap_or(BUFFER_BYTES_LEAST), usize::MAX)?;
        if self.delivery_timeout > DELIVERY_TIMEOUT_MAX {
            return Err(Error::Config {
                what: format!("delivery_timeout must be at most 6 days, got {:?}", self.delivery_timeout),
            });
        }
        Ok(LaneOptions {
            batch_bytes,
            linger: self.linger,
            in_flight,
            in_flight_partial: in_flight.min(IN_FLIGHT_PARTIAL),
            delivery_timeout: self.delivery_timeout,
            when_full: self.when_full,
            after_failure: self.after_failure,
            limits: BatchLimits::NONE,
        })
    }
}

fn buffer_bytes(partitions: u16) -> usize {
    BUFFER_BYTES_LEAST.max(usize::from(partitions) * BUFFER_BYTES_PER_PARTITION)
}

/// Publishes to one topic. Cheap to clone; clones share batches, buffer and identity.
///
/// **Once each.** A publisher has a random identity and numbers its events per partition, so that batches
/// which it sends again after a lost connection are stored once, in the order in which they were published.
/// **Order.** Events of one partition keep the order of their `publish` calls. Batches that the engine
/// refuses for a while (`BACKLOG_FULL`, `STORAGE_FULL`, …) are tried again, in order, until
/// `delivery_timeout`; see [`WhenFull`] for another way with the first of these. Those behind one that fails for good go on
/// without it, unless [`AfterFailure`] says otherwise.
/// **A forgotten identity.** If the engine answers that it does not know the producer, or expects an earlier
/// sequence, it has stored none of the unacknowledged batches: they then go out under a new identity. When a
/// batch's time runs out while its fate is unknown, those that were sent behind it fail with it, as a new
/// identity might store them twice.
///
/// **A name** makes it the only one: see [`PublisherOptions::producer`].
///
/// **Event ids** and event times are stored and delivered as they are, and an id without a key chooses the
/// partition. On a topic with a dedup window an event whose id was published before within the window is not stored
/// again: its [`Receipt`] says so and names the first one's offset. A time to live counts from when the engine has
/// appended the event, however long it took to get there.
///
/// Dropping the last clone takes nothing back: what was published is still sent, as long as the runtime
/// lives. Call [`Publisher::flush`] before a program ends.
#[derive(Debug, Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

impl Publisher {
    pub(crate) async fn open(
        link: Link,
        topic: &str,
        options: PublisherOptions,
        producer_ids: ProducerIds,
    ) -> Result<Self, Error> {
        let topic = TopicName::parse_any(topic)?;
        let limit = link.config().request_timeout;
        let session = link.session_within(limit).await?;
        let lane_options = options.lane_options(&session.hello().limits)?;
        let opened = timeout(limit, driver::open(&link, &topic)).await;
        let (stream, OpenedTopic { partitions, limits }) =
            opened.map_err(|_| Error::TimedOut { waited: limit, in_doubt: false, last: None })??;
        if partitions == 0 {
            return Err(Error::bad_answer("the topic has no partitions"));
        }
        let epoch = producer_ids.epoch();
        let mut core = Core::new(
            lane_options,
            options.durability,
            options.buffer_bytes.unwrap_or_else(|| buffer_bytes(partitions)),
            partitions,
            producer_ids,
        );
        core.limit_batches(limits);
        let shared = Arc::new(Shared { core: Mutex::new(core), wake: Notify::new(), room: Notify::new() });
        let driver = Driver { shared: shared.clone(), link, topic };
        tasks::spawn("publisher", driver.run(stream)).detach();
        let room_timeout = options.delivery_timeout;
        let handle = Handle { shared, partitions, epoch, room_timeout, calls: AtomicU32::new(0) };
        Ok(Self { handle: Arc::new(handle) })
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u16 {
        self.handle.partitions
    }

    /// How often its name was taken in the topic ([`PublisherOptions::producer`]), by this publisher last: above 1 if others
    /// had it before. `None` without a name.
    pub fn epoch(&self) -> Option<u32> {
        self.handle.epoch
    }

    /// Publishes an event: to the partition of its key, else of its id, else to one that changes with every
    /// batch, so that all partitions get about as many bytes.
    ///
    /// Returns as soon as the event has a place in a batch; waits only while the buffer is full. The ticket
    /// resolves when the event is stored. An event without a time gets the present one.
    ///
    /// Cancel safe: if the wait is dropped, the event is not published.
    ///
    /// # Errors
    /// `EVENT_TOO_LARGE`; `DEADLINE_EXCEEDED` if no room came within `delivery_timeout`; the publisher's own failure,
    /// such as `TOPIC_NOT_FOUND` after the topic was deleted, or
    /// [`Error::Fenced`] after its name was taken over.
    pub async fn publish(&self, mut event: Event) -> Result<Ticket, Error> {
        self.push(None, &mut event, Placement::End).await
    }

    /// Publishes an event to this partition, whatever its key. Otherwise as [`Publisher::publish`].
    ///
    /// Cancel safe: if the wait is dropped, the event is not published.
    ///
    /// # Errors
    /// `PARTITION_NOT_FOUND`, and as [`Publisher::publish`].
    pub async fn publish_to(&self, partition: PartitionId, mut event: Event) -> Result<Ticket, Error> {
        self.push(Some(partition), &mut event, Placement::End).await
    }

    /// Publishes an event that is appended to the log when it is due: a `Duration` from when the engine accepts it, or at a
    /// [`crate::Timestamp`], by the engine's clock in both cases. It is stored at once, and delivered within about a second
    /// of its time; one whose time has passed is due at once. The partition is chosen as by [`Publisher::publish`].
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use std::time::Duration;
    /// use levada_client::{Event, PublisherOptions};
    ///
    /// let publisher = client.publisher("orders", PublisherOptions::default()).await?;
    /// let unpaid = publisher.schedule(Event::new("cancel order 17"), Duration::from_secs(30 * 60)).await?;
    /// let id = unpaid.await?.id.expect("it was published just now");
    /// // The order was paid in time.
    /// client.cancel_scheduled("orders", id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Events that follow on each other and are due alike share a batch; a batch that is sent again after a lost
    /// connection is scheduled once, and a delay counts from when the engine took it first.
    ///
    /// Cancel safe: if the wait is dropped, the event is not published.
    ///
    /// # Errors
    /// As [`Publisher::publish`]. The ticket fails with `DELAY_TOO_LONG` if the event would be due in more than 365 days.
    pub async fn schedule(&self, mut event: Event, due: impl Into<Due>) -> Result<ScheduleTicket, Error> {
        self.push(None, &mut event, Placement::Due(due.into())).await.map(ScheduleTicket)
    }

    /// The same to this partition, whatever the event's key; cancel safe as well.
    ///
    /// # Errors
    /// `PARTITION_NOT_FOUND`, and as [`Publisher::schedule`].
    pub async fn schedule_to(
        &self,
        partition: PartitionId,
        mut event: Event,
        due: impl Into<Due>,
    ) -> Result<ScheduleTicket, Error> {
        self.push(Some(partition), &mut event, Placement::Due(due.into())).await.map(ScheduleTicket)
    }

    #[inline]
    async fn push(
        &self,
        partition: Option<PartitionId>,
        event: &mut Event,
        placement: Placement,
    ) -> Result<Ticket, Error> {
        if self.handle.gives_way() {
            tokio::task::coop::consume_budget().await;
        }
        event.time.get_or_insert_with(clock::wall);
        match self.handle.shared.push(partition, event, placement) {
            Ok(Some(ticket)) => Ok(ticket),
            Ok(None) => self.wait_for_room(partition, event, placement).await,
            Err(error) => Err(*error),
        }
    }

    #[cold]
    async fn wait_for_room(
        &self,
        partition: Option<PartitionId>,
        event: &Event,
        placement: Placement,
    ) -> Result<Ticket, Error> {
        let (shared, limit) = (&self.handle.shared, self.handle.room_timeout);
        let waited = timeout(limit, async {
            loop {
                // Made before looking, so that room that comes in between is noticed.
                let room = shared.room.notified();
                if let Some(ticket) = shared.push(partition, event, placement).map_err(|error| *error)? {
                    return Ok(ticket);
                }
                room.await;
            }
        });
        waited.await.unwrap_or_else(|_| Err(Error::TimedOut { waited: limit, in_doubt: false, last: None }))
    }

    /// Waits until everything published so far, through any clone, has ended. Open batches wait for no more
    /// events, only for room in the pipe (see [`PublisherOptions::linger`]).
    ///
    /// Cancel safe: nothing is taken back.
    ///
    /// # Errors
    /// The first failure among those events; what the publisher itself failed with, or stopped at ([`AfterFailure::Stop`]).
    pub async fn flush(&self) -> Result<(), Error> {
        let (outcomes, stopped) = {
            let mut core = self.handle.shared.lock();
            (core.flush(), core.failure().cloned())
        };
        self.handle.shared.wake.notify_one();
        let mut first_failure = stopped.map_or(Ok(()), Err);
        for outcome in outcomes {
            let ended = Ticket::new(outcome, 0).await;
            if first_failure.is_ok() {
                first_failure = ended.map(drop);
            }
        }
        first_failure
    }

    /// Why events wait to be sent again: the engine's last refusal, while what it refused is neither stored nor given
    /// up. For programs that tell their users.
    pub fn refusal(&self) -> Option<Refusal> {
        self.handle.shared.lock().refusal().cloned()
    }

    /// What was done so far.
    pub fn stats(&self) -> PublisherStats {
        self.handle.shared.lock().stats()
    }

    /// Appends events to a partition as one batch, if its next offset is the expected one: all of them or none, but for
    /// those that a topic's dedup window leaves out. Returns once they are stored, with a receipt for each.
    ///
    /// A resend after a lost connection is known as one, so that it cannot meet its own events. Events that this
    /// publisher has on its way to the partition come first; what is published meanwhile is not held up.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::{Error, Event, Offset, PartitionId, PublisherOptions};
    ///
    /// let publisher = client.publisher("accounts", PublisherOptions::default()).await?;
    /// let (partition, mut expected) = (PartitionId(0), Offset(42));
    /// loop {
    ///     // Decided from everything before `expected`.
    ///     let event = Event::new("withdraw 5");
    ///     match publisher.append_at(partition, expected, vec![event]).await {
    ///         // Somebody was faster: read on from `expected`, and decide again.
    ///         Err(Error::OffsetMismatch { found, .. }) => expected = found,
    ///         other => break other.map(drop),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// Not cancel safe: a call that is given up may have appended the events, or may still do so.
    ///
    /// # Errors
    /// [`Error::OffsetMismatch`], which names the offset found; `EVENT_TOO_LARGE` and [`Error::RequestTooLarge`] if the
    /// events do not fit into one batch of 10,000 events and 1 MiB; `CONFIG_INVALID` without any event; and as
    /// [`Publisher::publish_to`].
    pub async fn append_at(
        &self,
        partition: PartitionId,
        expected: Offset,
        mut events: Vec<Event>,
    ) -> Result<Vec<Receipt>, Error> {
        if events.is_empty() {
            return Err(Error::Config { what: "expected at least one event to append, got none".to_owned() });
        }
        for event in &mut events {
            event.time.get_or_insert_with(clock::wall);
        }
        let tickets = self.push_expecting(partition, expected, &events).await?;
        let mut receipts = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            receipts.push(ticket.await?);
        }
        Ok(receipts)
    }

    /// Waits until there is room for the batch.
    async fn push_expecting(
        &self,
        partition: PartitionId,
        expected: Offset,
        events: &[Event],
    ) -> Result<Vec<Ticket>, Error> {
        let (shared, limit) = (&self.handle.shared, self.handle.room_timeout);
        let waited = timeout(limit, async {
            loop {
                // Made before looking, so that room that comes in between is noticed.
                let room = shared.room.notified();
                let pushed = shared.lock().push_expecting(partition, events, expected);
                let (tickets, wake) = pushed.map_err(|error| *error)?;
                if wake {
                    shared.wake.notify_one();
                }
                if let Some(tickets) = tickets {
                    return Ok(tickets);
                }
                room.await;
            }
        });
        waited.await.unwrap_or_else(|_| Err(Error::TimedOut { waited: limit, in_doubt: false, last: None }))
    }
}

/// What all clones of a publisher share; its end tells the driver that no more events come.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    partitions: u16,
    epoch: Option<u32>,
    room_timeout: Duration,
    /// Events that were to be published so far, about: it only says when to give way.
    calls: AtomicU32,
}

impl Handle {
    /// True for the calls that count against the task's budget: on a runtime of one thread a loop of publishes must leave
    /// the driver its turns, and counting every event would cost a good part of publishing it.
    #[inline]
    fn gives_way(&self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        // Counts that are lost between threads do not matter.
        self.calls.store(calls.wrapping_add(1), Ordering::Relaxed);
        calls.is_multiple_of(CALLS_PER_BUDGET)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.wake.notify_one();
    }
}

/// What publishers and driver share.
#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// Wakes the driver.
    wake: Notify,
    /// Wakes publishers that wait for room.
    room: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn push(
        &self,
        partition: Option<PartitionId>,
        event: &Event,
        placement: Placement,
    ) -> Result<Option<Ticket>, Box<Error>> {
        let pushed = self.lock().push(partition, event, placement)?;
        if pushed.wake {
            self.wake.notify_one();
        }
        Ok(pushed.ticket)
    }

    /// Changes the core, then, without the lock, tells the tickets of what has ended and who waits for room.
    fn change(&self, change: impl FnOnce(&mut Core, &mut Vec<Ended>)) {
        let mut ended = Vec::new();
        let room = {
            let mut core = self.lock();
            change(&mut core, &mut ended);
            core.has_room_again()
        };
        for ended in ended {
            ended.outcome.settle(ended.result);
        }
        if room {
            self.room.notify_waiters();
        }
    }

    fn fail(&self, error: &Error) {
        self.change(|core, ended| core.fail(error, ended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_many_partitions_gets_room_for_half_a_full_batch_of_each() {
        let half_a_batch = PublisherOptions::default().batch_bytes / 2;
        assert_eq!(buffer_bytes(1), BUFFER_BYTES_LEAST);
        assert_eq!(buffer_bytes(1_000), 1_000 * half_a_batch);
    }
}
