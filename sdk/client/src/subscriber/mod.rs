//! Subscribing: deliveries in, acknowledgements out, attached again after every loss.
//!
//! Owns the public face. The state is `state.rs`; credit is `pace.rs`, extending deliveries `held.rs`, queued verbs
//! `outbox.rs`; the stream is `driver.rs`.

mod driver;
mod held;
mod lease;
mod outbox;
mod pace;
mod pull;
mod ranges;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::{SubscriptionName, TopicName},
    request::{Start, Subscribe, Subscribed, SubscriptionOptions},
    verbs::RefusedVerb,
};
use tokio::{sync::Notify, time::timeout};

pub(crate) use self::lease::Lease;
use self::{
    driver::Driver,
    held::{Held, HeldId},
    pace::Pace,
    state::{State, Wish},
};
pub use self::{
    pace::Prefetch,
    pull::{Pull, PullSubscriber},
};
use crate::{
    clock,
    delivered::{DeliveredEvent, Handing},
    delivery::{Delivery, Incoming},
    error::Error,
    link::Link,
    tasks,
};

/// Which subscription to attach to, and how much may be under way.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// The topic's name.
    pub topic: String,
    /// The subscription's name.
    pub subscription: String,
    /// Names this consumer in listings. Default: empty.
    pub consumer: String,
    /// Create the subscription with these options if it does not exist; if it does, fail with
    /// `SUBSCRIPTION_MISMATCH` if an option that is given here differs. `None`, the default: it must exist, with any
    /// options.
    pub options: Option<SubscriptionOptions>,
    /// Where a subscription that is created now begins. Default: with events published from now on.
    pub from: Start,
    /// Most events that are delivered and not yet settled or dropped. Default 1,000. The subscription's own
    /// `max_in_flight` holds as well.
    pub credit_events: u64,
    /// Most bytes of them, each with its share of its delivery, give or take one frame. Default 4 MiB. The memory of a
    /// delivery is free when the last of its events is settled or dropped: where events are held for long beside others
    /// that are settled, that may be 16 times as much.
    pub credit_bytes: u64,
    /// How far ahead of the application events are requested. Default: about a second of its own pace.
    pub prefetch: Prefetch,
    /// How long the client keeps a delivery from timing out by itself: counted from when the application last took or
    /// settled anything of it, or, for queued deliveries, of any other. Then the delivery is given to another consumer
    /// after the subscription's `ack_timeout`. Default 10 min; zero: what takes longer than `ack_timeout` is delivered
    /// again.
    pub max_processing: Duration,
}

impl SubscribeOptions {
    /// Attaches to a subscription that exists, with the default credit.
    pub fn new(topic: impl Into<String>, subscription: impl Into<String>) -> Self {
        Self { topic: topic.into(), subscription: subscription.into(), ..Self::default() }
    }
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            topic: String::new(),
            subscription: String::new(),
            consumer: String::new(),
            options: None,
            from: Start::Latest,
            credit_events: 1_000,
            credit_bytes: 4 * 1024 * 1024,
            prefetch: Prefetch::default(),
            max_processing: Duration::from_secs(600),
        }
    }
}

/// A consumer of a subscription.
///
/// [`Subscriber::next`] returns one event after the other, each to be acknowledged by itself;
/// [`Subscriber::next_delivery`] returns whole deliveries, for programs that acknowledge in batches.
///
/// The client requests about a second of the application's own pace and extends held deliveries by itself, so a
/// consumer may take longer than the subscription's `ack_timeout`; what a process held that died or hangs goes to
/// others. That runs as a task on the runtime: a handler that blocks its thread for long belongs into `spawn_blocking`,
/// or the runtime needs a second thread.
///
/// When the connection is lost it attaches again by itself, and [`Subscriber::next`] simply continues: what was
/// not acknowledged is delivered again. Dropping it detaches the consumer after its verbs were sent, so that the
/// engine gives its unacknowledged deliveries to others at once; call [`Subscriber::confirmed`] before, to
/// know that acknowledgements have taken effect.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    subscribed: Subscribed,
    /// The delivery whose events are handed out one by one.
    handing: Option<Handing>,
}

impl Subscriber {
    pub(crate) async fn open(link: Link, options: SubscribeOptions) -> Result<Self, Error> {
        let prefetch = options.prefetch;
        Self::open_with(link, options, |max| Pace::new(max, prefetch)).await
    }

    async fn open_with(
        link: Link,
        options: SubscribeOptions,
        pace: impl FnOnce(u64) -> Pace,
    ) -> Result<Self, Error> {
        if options.credit_events == 0 || options.credit_bytes == 0 {
            return Err(Error::Config {
                what: "credit_events and credit_bytes must be at least 1".to_owned(),
            });
        }
        let limit = link.config().request_timeout;
        let in_flight_max = options.options.as_ref().and_then(|options| options.max_in_flight);
        let in_flight_max = in_flight_max.map_or(u64::MAX, u64::from);
        let (topic, subscription) = (TopicName::parse_any(&options.topic)?, options.subscription.parse()?);
        let subscribe = Subscribe {
            consumer: options.consumer,
            options: options.options,
            from: options.from,
            ..Subscribe::new(topic, subscription)
        };
        // Tells why there is no connection, if there is none.
        link.session_within(limit).await?;
        let opened = timeout(limit, driver::open(&link, subscribe.clone())).await;
        let (stream, subscribed) =
            opened.map_err(|_| Error::TimedOut { waited: limit, in_doubt: true, last: None })??;
        let pace = pace(options.credit_events.min(in_flight_max).max(1));
        let held = Held::new(options.max_processing, options.credit_bytes);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(pace, held, options.credit_bytes)),
            of: Of { topic: subscribe.topic.clone(), subscription: subscribe.subscription.clone() },
            limit,
            wake: Notify::new(),
            arrived: Notify::new(),
            confirmed: Notify::new(),
        });
        // Attaching again must not create a subscription that was deleted.
        let again = Subscribe { options: None, ..subscribe };
        let driver = Driver { shared: shared.clone(), link, again };
        let ack_timeout = driver::ack_timeout(&subscribed);
        tasks::spawn("subscriber", driver.run(stream, ack_timeout)).detach();
        Ok(Self { shared, subscribed, handing: None })
    }

    /// What the engine answered when this consumer was first attached.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// Why this consumer gets nothing at the moment: why its stream ended, or why it cannot attach again yet.
    /// `None` while it is attached. It keeps trying by itself; a permanent failure is returned by
    /// [`Subscriber::next`].
    pub fn interruption(&self) -> Option<Error> {
        self.shared.lock().interruption.clone()
    }

    /// The next event, waiting for one if need be. `None` never comes while the subscription exists: it
    /// means that the client was closed.
    ///
    /// Cancel safe: no event is lost with the wait.
    ///
    /// # Errors
    /// A refusal that ended the subscription for this consumer, such as `SUBSCRIPTION_NOT_FOUND` after it was deleted;
    /// `BATCH_INVALID` for a delivery that came damaged, which is then delivered again after `ack_timeout`.
    pub async fn next(&mut self) -> Result<Option<DeliveredEvent>, Error> {
        self.come_for_more().await;
        loop {
            if let Some(handing) = &mut self.handing {
                if let Some(event) = handing.next() {
                    return Ok(Some(event));
                }
                self.handing = None;
            }
            let Some((delivery, lease)) = self.arrived(false).await? else { return Ok(None) };
            self.handing = Some(Handing::new(delivery, lease));
        }
    }

    /// The next events that came together, to be acknowledged all at once or by ranges: cheaper than
    /// [`Subscriber::next`] for programs that process events in batches. What [`Subscriber::next`] has begun to hand
    /// out comes first. Otherwise, also in its errors, as that.
    ///
    /// Cancel safe: no delivery is lost with the wait.
    pub async fn next_delivery(&mut self) -> Result<Option<Delivery>, Error> {
        self.come_for_more().await;
        if let Some(handing) = self.handing.take()
            && let Some(rest) = handing.into_rest()
        {
            return Ok(Some(rest));
        }
        let arrived = self.arrived(true).await?;
        Ok(arrived.map(|(delivery, lease)| delivery.leased(lease)))
    }

    /// Detaches the consumer and attaches it again, as after a lost connection: what was delivered and not settled comes
    /// again in its order, and that is no failed attempt. Verbs about what was delivered before have no effect from now on,
    /// nor may those that were not confirmed: call [`Subscriber::confirmed`] first. For programs that cannot settle a delivery,
    /// and must not work on later ones before it.
    pub fn rewind(&mut self) {
        self.handing = None;
        self.shared.lock().rewind();
        self.shared.wake.notify_one();
    }

    /// The next whole delivery, if it is queued, and its bytes.
    fn take_now(&self) -> Result<Option<(Delivery, u64)>, Error> {
        loop {
            match self.shared.take(true) {
                Next::Frame(incoming, lease) => {
                    let bytes = incoming.bytes;
                    if let Some(delivery) = Delivery::check(incoming)? {
                        return Ok(Some((delivery.leased(Arc::new(lease)), bytes)));
                    }
                }
                Next::Wait => return Ok(None),
                Next::Failed(error) => return Err(error),
            }
        }
    }

    /// The application works on nothing that it took before, as far as the pace is concerned.
    async fn come_for_more(&self) {
        // On a runtime of one thread a loop that always finds something must leave the driver its turns.
        tokio::task::coop::consume_budget().await;
        if self.shared.wants() {
            tokio::task::yield_now().await;
        }
    }

    /// The next whole delivery; `all_at_once` if the application takes it so.
    async fn arrived(&self, all_at_once: bool) -> Result<Option<(Delivery, Arc<Lease>)>, Error> {
        loop {
            match self.shared.take(all_at_once) {
                Next::Frame(incoming, lease) => {
                    if let Some(delivery) = Delivery::check(incoming)? {
                        return Ok(Some((delivery, Arc::new(lease))));
                    }
                }
                Next::Wait => self.shared.arrived.notified().await,
                Next::Failed(Error::Closed) => return Ok(None),
                Next::Failed(error) => return Err(error),
            }
        }
    }

    /// Waits until all verbs since the last call have taken effect, so durably that a crash of the engine does not
    /// undo them.
    ///
    /// Cancel safe: nothing is taken back.
    ///
    /// # Errors
    /// `CONNECTION_LOST`, at once, if the connection was lost before one of these verbs was confirmed, or one was made
    /// while there was none: their events may be delivered again. A refused verb's code, such as `DELIVERY_EXPIRED`, if
    /// one was refused. `DEADLINE_EXCEEDED` if the engine does not answer within
    /// [`crate::ClientConfig::request_timeout`]. The subscriber's own failure.
    pub async fn confirmed(&self) -> Result<(), Error> {
        let queued = self.shared.lock().outbox.queued();
        self.shared.flush();
        let limit = self.shared.limit;
        let waited = timeout(limit, self.shared.decided(queued)).await;
        waited.unwrap_or(Err(Error::TimedOut { waited: limit, in_doubt: true, last: None }))
    }
}

/// What `next` finds.
enum Next {
    Frame(Incoming, Lease),
    Wait,
    Failed(Error),
}

fn refused_verbs(state: &mut State) -> Result<(), Error> {
    let Some((first, count)) = state.outbox.take_refused() else { return Ok(()) };
    Err(Refusal::new(first.code, without_effect(&first, count)).into())
}

/// What verbs had no effect, why, and what to do about it.
fn without_effect(first: &RefusedVerb, count: u64) -> String {
    let RefusedVerb { partition, first, last, code } = *first;
    let offsets =
        if first == last { format!("offset {first}") } else { format!("offsets {first} to {last}") };
    let verbs = match count {
        1 => format!("a verb on {offsets} of partition {partition} had no effect"),
        _ => format!("{count} verbs had no effect, the first of them on {offsets} of partition {partition}"),
    };
    match code {
        ErrorCode::DeliveryExpired => format!(
            "{verbs}: the events timed out, were given back or were settled before; they are delivered again unless they were \
             settled; a longer ack_timeout, or in_progress while they are worked on, prevents a timeout"
        ),
        other => format!("{verbs}: {}", other.meaning()),
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.lock().wish = Wish::Close;
        self.shared.flush();
        self.shared.wake.notify_one();
    }
}

/// A verb had no stream, or lost it before the engine confirmed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the consumer was not attached, or had to attach again")]
struct Detached;

/// Which subscription it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) topic: TopicName,
    pub(crate) subscription: SubscriptionName,
}

/// What subscriber, deliveries and driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    of: Of,
    /// How long to wait for a confirmation.
    limit: Duration,
    /// Wakes the driver.
    wake: Notify,
    /// Wakes `next`.
    arrived: Notify,
    /// Wakes `confirmed`.
    confirmed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application asks for more. True if the driver is late and needs a turn.
    fn wants(&self) -> bool {
        let now = clock::now();
        let mut state = self.lock();
        state.pace.wants(now);
        state.is_late(now)
    }

    fn take(self: &Arc<Self>, all_at_once: bool) -> Next {
        let now = clock::now();
        let mut state = self.lock();
        let was_over_limit = state.is_over_limit();
        let taken = state.take(now);
        if let Some((_, incoming)) = &taken
            && all_at_once
        {
            state.pace.took(u64::from(incoming.header.count), now);
        }
        if state.took(taken.is_some(), was_over_limit, now) {
            self.wake.notify_one();
        }
        match (taken, &state.failed) {
            (Some((id, incoming)), _) => {
                Next::Frame(incoming, Lease::new(self.clone(), state.stream, id, all_at_once))
            }
            (None, Some(error)) => Next::Failed(error.clone()),
            (None, None) => Next::Wait,
        }
    }

    /// The application takes events of a delivery; false if they have expired.
    fn take_events(&self, stream: u64, id: HeldId, events: u64) -> bool {
        let now = clock::now();
        let mut state = self.lock();
        if state.stream != stream || !state.held.take(id, now) {
            return false;
        }
        state.pace.took(events, now);
        if state.took(true, false, now) {
            self.wake.notify_one();
        }
        true
    }

    /// Verbs about a delivery of this stream. After a reconnect or a failure they have no effect, which is
    /// remembered for those that settle.
    fn say(&self, stream: u64, last_word: bool, say: impl FnOnce(&mut State, clock::Instant) -> bool) {
        let wake = {
            let mut state = self.lock();
            if state.stream == stream && state.failed.is_none() {
                say(&mut state, clock::now())
            } else {
                if last_word {
                    state.outbox.lose_word();
                }
                false
            }
        };
        if wake {
            self.wake.notify_one();
        }
    }

    /// Waits until the engine has answered the first `queued` verbs, or never will.
    async fn decided(&self, queued: u64) -> Result<(), Error> {
        loop {
            // Made before the check, so that a confirmation that comes in between is noticed.
            let changed = self.confirmed.notified();
            {
                let mut state = self.lock();
                let decided = state.outbox.is_decided(queued);
                if decided || state.failed.is_some() {
                    let lost = state.outbox.take_lost_words() > 0;
                    return match &state.failed {
                        Some(error) if lost || !decided => Err(error.clone()),
                        _ if lost => Err(Error::lost(Detached)),
                        _ => refused_verbs(&mut state),
                    };
                }
            }
            changed.await;
        }
    }

    fn flush(&self) {
        if self.lock().flush(clock::now()) {
            self.wake.notify_one();
        }
    }

    fn fail(&self, error: &Error) {
        self.lock().failed.get_or_insert_with(|| error.clone());
        self.arrived.notify_one();
        self.confirmed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::{Offset, PartitionId};

    use super::*;

    #[test]
    fn a_verb_without_effect_is_told_why_and_what_becomes_of_the_events() {
        let refused = |last, code| RefusedVerb {
            partition: PartitionId(2),
            first: Offset(7),
            last: Offset(last),
            code,
        };
        let one = without_effect(&refused(7, ErrorCode::DeliveryExpired), 1);
        assert!(
            one.starts_with("a verb on offset 7 of partition 2 had no effect: the events timed out"),
            "{one}"
        );
        assert!(
            one.contains("delivered again unless they were settled; a longer ack_timeout, or in_progress"),
            "{one}"
        );
        let many = without_effect(&refused(9, ErrorCode::OutcomeUnknown), 3);
        let begins = "3 verbs had no effect, the first of them on offsets 7 to 9 of partition 2: ";
        assert_eq!(many, format!("{begins}{}", ErrorCode::OutcomeUnknown.meaning()));
    }
}
