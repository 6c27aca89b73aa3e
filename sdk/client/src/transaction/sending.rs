//! A transaction until it is stored: what it holds, and sending it until its outcome is known.

use std::{collections::HashMap, time::Duration};

use levada_protocol::{
    batch::{BatchBuilder, BatchFull},
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{Offset, PartitionId, TopicName, TransactionId},
    limits::{TRANSACTION_BYTES_MAX, TRANSACTION_EVENTS_MAX, TRANSACTION_REMEMBERED_MS},
    partition::partition_of,
    request::{Open, Opened, Prepare, Request, Response, Transact, TransactionInfo, TransactionState},
};
use tokio::time::{sleep, timeout};

use super::{
    acked::AckedEvents,
    group::Group,
    last_refusal::LastRefusal,
    layout::{Layout, Plan, Planned},
    prepared::Prepared,
};
use crate::{
    client::{Body, Client},
    clock,
    delivered::DeliveredEvent,
    delivery::Delivery,
    error::Error,
    link::Link,
    publisher::Receipt,
    retry::Backoff,
    stream,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// How long after it was first sent a transaction is sent again, at most: for less than the engine remembers one that was
/// committed at once.
const RESENT_MAX: Duration = Duration::from_millis(TRANSACTION_REMEMBERED_MS / 2);

/// Events of any topics that are stored all or none, in one commit.
///
/// Nothing is sent before [`Transaction::commit`] or [`Transaction::prepare`]; a transaction that is dropped leaves no
/// trace. The events of one partition keep the order of the calls. A transaction has at most 10,000 events, 4 MiB, and 1,000
/// batches: one at least for each partition that it has events for.
///
/// **Once.** The engine knows a transaction by its producer group and id, and remembers one that was committed at once for 10
/// minutes, and the decision about a prepared one for 7 days. Within that time, what is sent again is stored once: by a call
/// after a lost connection, by calling [`Transaction::commit`] again after an error, and by a program that begins again and
/// makes the same transaction under the same id. The same are the same events (keys, ids, headers and payloads, not times)
/// for the same topics in the same order.
#[derive(Debug)]
#[must_use = "nothing is stored before the transaction is committed or prepared"]
pub struct Transaction {
    group: Group,
    id: TransactionId,
    topics: Vec<TopicName>,
    events: Vec<Planned>,
    expected: HashMap<(usize, PartitionId), Offset>,
    acked: AckedEvents,
    /// The last answer was a refusal, and it is certain that nothing was stored.
    refused: bool,
    /// Something was sent whose outcome is not known yet: whatever is answered to a repeat, it may have been stored.
    in_doubt: bool,
    /// Why it waits to be sent again.
    last_refusal: LastRefusal,
    /// Bytes of keys, ids, headers and payloads.
    bytes: usize,
    /// Chooses the partitions of events without key and id: once, so that what is sent again is the same.
    spread: u32,
}

impl Transaction {
    pub(super) fn new(group: Group, id: TransactionId) -> Self {
        // The same for the same id: a program that begins again sends the same.
        let spread = u32::from(partition_of(id.as_str().as_bytes(), u16::MAX).0);
        Self {
            group,
            id,
            topics: Vec::new(),
            events: Vec::new(),
            expected: HashMap::new(),
            acked: AckedEvents::default(),
            refused: false,
            in_doubt: false,
            last_refusal: LastRefusal::default(),
            bytes: 0,
            spread,
        }
    }

    /// Its id.
    pub fn id(&self) -> &TransactionId {
        &self.id
    }

    /// Shows why it waits to be sent again, while [`Transaction::commit`] or [`Transaction::prepare`] is under way. For programs
    /// that tell their users.
    pub fn last_refusal(&self) -> LastRefusal {
        self.last_refusal.clone()
    }

    /// Adds an event for a topic: for the partition of its key, else of its id; those without both go to one that is chosen
    /// at random for this transaction. An event without a time gets the present one.
    ///
    /// # Errors
    /// `INVALID_NAME`, `EVENT_TOO_LARGE`, `TRANSACTION_TOO_LARGE`; `HEADER_RESERVED` for a header that only the engine gives. The transaction is as it
    /// was then.
    pub fn publish(&mut self, topic: &str, event: Event) -> Result<(), Error> {
        self.add(topic, None, event)
    }

    /// Adds an event for this partition of a topic, whatever its key. Otherwise as [`Transaction::publish`].
    ///
    /// # Errors
    /// As [`Transaction::publish`].
    pub fn publish_to(&mut self, topic: &str, partition: PartitionId, event: Event) -> Result<(), Error> {
        self.add(topic, Some(partition), event)
    }

    /// Acknowledges an event of a subscription in the same commit: its effects in the engine and its acknowledgement are one,
    /// so that neither a crash nor a redelivery repeats them. All events of a transaction are of one subscription.
    ///
    /// If the transaction is refused, and dropped, its events are given back as by a nack. If its outcome is unknown, or it is
    /// dropped without being committed, they are delivered again after the subscription's `ack_timeout`, unless they were
    /// acknowledged. Prepared transactions cannot acknowledge.
    ///
    /// ```no_run
    /// # async fn example(client: levada_client::Client) -> Result<(), levada_client::Error> {
    /// use levada_client::{Event, SubscribeOptions};
    ///
    /// let mut orders = client.subscribe(SubscribeOptions::new("orders", "invoicing")).await?;
    /// while let Some(order) = orders.next().await? {
    ///     let mut invoicing = client.transaction()?;
    ///     invoicing.publish("invoices", Event::new("an invoice for it"))?;
    ///     invoicing.ack(order)?;
    ///     invoicing.commit().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `DELIVERY_EXPIRED` if it cannot be acknowledged any more; `CONFIG_INVALID` if it is of another subscription than those
    /// before; `TRANSACTION_TOO_LARGE` beyond 2,048 runs of neighbouring events of one delivery: then the event is delivered
    /// again after its `ack_timeout`.
    pub fn ack(&mut self, event: DeliveredEvent) -> Result<(), Error> {
        self.acked.add(event)
    }

    /// Acknowledges all events of a delivery, of which none was settled. Otherwise as [`Transaction::ack`].
    ///
    /// # Errors
    /// As [`Transaction::ack`]; `CONFIG_INVALID` for a delivery of a [`crate::Reader`].
    pub fn ack_delivery(&mut self, delivery: Delivery) -> Result<(), Error> {
        self.acked.add_delivery(delivery)
    }

    /// Lets the transaction be committed only if this is the partition's next offset: nobody has appended to it since it was
    /// read. The transaction needs an event for that partition.
    ///
    /// # Errors
    /// `INVALID_NAME`.
    pub fn expect_offset(
        &mut self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), Error> {
        let topic = self.topic(TopicName::parse_any(topic)?);
        self.expected.insert((topic, partition), offset);
        Ok(())
    }

    fn add(&mut self, topic: &str, partition: Option<PartitionId>, mut event: Event) -> Result<(), Error> {
        let topic = TopicName::parse_any(topic)?;
        // A batch of its own shows whether any can hold it.
        match BatchBuilder::new().push(&event) {
            Ok(()) | Err(BatchFull::Full) => {}
            Err(BatchFull::TooLarge(error)) => return Err(error.into()),
            Err(BatchFull::HeaderReserved(error)) => return Err(error.into()),
        }
        let bytes = self.bytes + size_of(&event);
        if self.events.len() >= TRANSACTION_EVENTS_MAX || bytes > TRANSACTION_BYTES_MAX {
            let message = format!(
                "the transaction would have {} events of {bytes} bytes, at most {TRANSACTION_EVENTS_MAX} of \
                 {TRANSACTION_BYTES_MAX} bytes fit: divide it into several",
                self.events.len() + 1
            );
            return Err(Refusal::new(ErrorCode::TransactionTooLarge, message).into());
        }
        self.bytes = bytes;
        event.time.get_or_insert_with(clock::wall);
        let topic = self.topic(topic);
        self.events.push(Planned { topic, partition, event });
        Ok(())
    }

    fn plan(&self) -> Plan<'_> {
        Plan { topics: &self.topics, events: &self.events, expected: &self.expected, spread: self.spread }
    }

    fn topic(&mut self, name: TopicName) -> usize {
        self.topics.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.topics.push(name);
            self.topics.len() - 1
        })
    }

    /// Stores the events, all or none, durably. Returns a receipt for each, in the order of the calls.
    ///
    /// It is sent again after a lost connection or a retryable refusal, for as long as the client's request timeout, 5
    /// minutes at most. After an error it can be called again: [`Error::has_no_side_effects`] says whether anything may have
    /// been stored, by this call or one before it, and the same transaction is stored once.
    ///
    /// Not cancel safe: a call that is dropped may have stored the events, or may still do so.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `OFFSET_MISMATCH`, which names topic, partition and offset,
    /// `DELIVERY_EXPIRED` if an event that it acknowledges is another consumer's, `TRANSACTION_TOO_LARGE`,
    /// `TRANSACTION_EXISTS` if the id was used for other events ([`super::ProducerGroup::describe`] shows them), `CONFIG_INVALID`
    /// without any event; [`Error::TimedOut`] with `in_doubt` if it may be stored; as [`Client::request`].
    pub async fn commit(&mut self) -> Result<Vec<Receipt>, Error> {
        let sent = self.send(None).await;
        self.last_refusal.set(None);
        self.refused = sent.as_ref().is_err_and(Error::has_no_side_effects);
        let (info, layout) = sent?;
        std::mem::take(&mut self.acked).settle();
        Ok(layout.receipts(&info))
    }

    /// Stores the events durably and invisibly, until the transaction is committed or rolled back: by [`Prepared`], by
    /// [`super::ProducerGroup::commit`] from anywhere, in answer to a check-back, or by a person with `levada transaction`.
    ///
    /// The group is asked about it for the first time after 6 s by default, a setting of the engine;
    /// [`Transaction::prepare_and_check_after`] overrides it.
    ///
    /// Not cancel safe: a call that is dropped may have prepared it.
    ///
    /// # Errors
    /// As [`Transaction::commit`]; `TOO_MANY_PREPARED`, at once, if the group has too much undecided; `ALREADY_DECIDED` if it
    /// was prepared before, by an earlier call whose answer was lost or by an earlier run of the program, and somebody has
    /// committed it or rolled it back since.
    pub async fn prepare(&mut self) -> Result<Prepared, Error> {
        self.send_prepared(0).await
    }

    /// The same; the group is asked about it first after `check_after`, a day at most. It must be longer than the program's own
    /// work takes: who is asked while that is under way, and finds nothing of it, rolls back. Not cancel safe either.
    ///
    /// # Errors
    /// As [`Transaction::prepare`]; `INVALID_ARGUMENT` for more than a day.
    pub async fn prepare_and_check_after(&mut self, check_after: Duration) -> Result<Prepared, Error> {
        let milliseconds = check_after.as_nanos().div_ceil(1_000_000);
        // 0 means the engine's own time.
        self.send_prepared(u64::try_from(milliseconds).unwrap_or(u64::MAX).max(1)).await
    }

    async fn send_prepared(&mut self, check_after_ms: u64) -> Result<Prepared, Error> {
        if self.acked.told().is_some() {
            let what =
                "a prepared transaction cannot acknowledge events: it may wait for longer than they do"
                    .to_owned();
            return Err(Error::Config { what });
        }
        let sent = self.send(Some(Prepare { check_after_ms })).await;
        self.last_refusal.set(None);
        let (info, layout) = sent?;
        match info.state {
            TransactionState::Prepared | TransactionState::Parked => {
                Ok(Prepared::new(self.group.clone(), info, layout))
            }
            // Somebody was asked about it before this answer came, or it was prepared long ago.
            state => {
                let message =
                    format!("transaction {}/{} was {} before", info.group, info.id, state.as_words());
                Err(Refusal::new(ErrorCode::AlreadyDecided, message).into())
            }
        }
    }

    /// Sends it until there is an answer, a refusal for good, or no more time.
    async fn send(&mut self, prepare: Option<Prepare>) -> Result<(TransactionInfo, Layout), Error> {
        if self.events.is_empty() {
            let what = "expected at least one event in the transaction, got none".to_owned();
            return Err(Error::Config { what });
        }
        let client = self.group.client();
        // The engine forgets a transaction that was committed at once: one that comes later is another.
        let limit = client.request_timeout().min(RESENT_MAX);
        let until = clock::now() + limit;
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
        // The layout that was sent: another would be another transaction.
        let (mut layout, mut recounted) = (None, false);
        loop {
            let error = match self.try_send(client, prepare, until, &mut layout).await {
                Ok(info) => {
                    self.in_doubt = false;
                    let layout = layout.ok_or_else(|| Error::bad_answer("nothing was sent"))?;
                    return Ok((info, layout));
                }
                Err(error) => error,
            };
            self.in_doubt |= layout.is_some() && !error.has_no_side_effects();
            let code = error.code();
            // A topic may have been made anew with another number of partitions.
            let is_recounted = matches!(code, ErrorCode::PartitionNotFound | ErrorCode::TopicNotFound);
            if is_recounted && !self.in_doubt && !recounted && client.partitions.forget(&self.topics) {
                (layout, recounted) = (None, true);
                continue;
            }
            // A refusal that followed a loss on the same connection comes as being out of time.
            let refusal = match &error {
                Error::Refused(refusal) | Error::TimedOut { last: Some(refusal), .. } => Some(refusal),
                _ => None,
            };
            let again = match refusal {
                Some(refusal) => refusal.code.is_retryable() && refusal.code != ErrorCode::TooManyPrepared,
                None => error.is_retryable() && !matches!(error, Error::TimedOut { .. }),
            };
            let hint = refusal.and_then(|refusal| refusal.retry_after_ms).unwrap_or(0);
            let pause = Duration::from_millis(hint.into()).max(backoff.next());
            if again && clock::now() + pause < until {
                self.last_refusal.set(refusal.cloned());
                sleep(pause).await;
                continue;
            }
            if self.in_doubt && error.has_no_side_effects() {
                let last = match error {
                    Error::Refused(refusal) => Some(refusal),
                    _ => None,
                };
                return Err(Error::TimedOut { waited: limit, in_doubt: true, last });
            }
            return Err(error);
        }
    }

    async fn try_send(
        &self,
        client: &Client,
        prepare: Option<Prepare>,
        until: clock::Instant,
        layout: &mut Option<Layout>,
    ) -> Result<TransactionInfo, Error> {
        let mut partitions = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            partitions.push(partition_count(client, topic, until).await?);
        }
        if layout.is_none() {
            *layout = Some(Layout::new(&self.plan(), &partitions)?);
        }
        let frames = layout.as_ref().map_or_else(Vec::new, Layout::frames);
        let batches = frames.len();
        let transact = Transact {
            group: self.group.name().clone(),
            id: self.id.clone(),
            topics: self.topics.clone(),
            partitions,
            batches: u32::try_from(batches).unwrap_or(u32::MAX),
            bytes: layout.as_ref().map_or(0, Layout::bytes),
            prepare,
            acks: self.acked.told(),
        };
        let limit = until.saturating_duration_since(clock::now());
        let request = client.request_within(Request::Transact(transact), Body::Batches(frames), limit);
        match request.await? {
            Response::Transaction(info) if info.batches.len() == batches => Ok(*info),
            _ => Err(Error::bad_answer("a transaction was answered with the answer to another request")),
        }
    }
}

/// Gives back what a transaction that was refused would have acknowledged.
impl Drop for Transaction {
    fn drop(&mut self) {
        let acked = std::mem::take(&mut self.acked);
        if self.refused {
            acked.give_back();
        }
    }
}

/// Bytes of an event, about.
fn size_of(event: &Event) -> usize {
    let headers: usize = event.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let len = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
    headers
        + len(event.key.as_ref())
        + len(event.payload.as_ref())
        + event.id.as_ref().map_or(0, |id| id.len())
}

/// How many partitions a topic has: asked once.
async fn partition_count(client: &Client, topic: &TopicName, until: clock::Instant) -> Result<u16, Error> {
    if let Some(count) = client.partitions.get(topic) {
        return Ok(count);
    }
    let limit = until.saturating_duration_since(clock::now());
    let ask = |link: Link| async move {
        let session = link.session().await?;
        // Whoever may publish is told.
        let open = Open::Publish { topic: topic.clone(), trace: None };
        match stream::open(session.connection(), &open).await? {
            (_, Opened::Publish { partitions, .. }) if partitions > 0 => Ok(partitions),
            _ => Err(Error::bad_answer("a publish stream was answered with something else")),
        }
    };
    let count = timeout(limit, client.open(ask)).await;
    let count = count.map_err(|_| Error::TimedOut { waited: limit, in_doubt: false, last: None })??;
    client.partitions.set(topic, count);
    Ok(count)
}
