//! Subscribing: deliveries in, acknowledgements out, attached again after every loss.
//!
//! Owns the public face. The state is `state.rs`, the words are gathered in `outbox.rs`, the stream is
//! `driver.rs`.

mod driver;
mod lease;
mod outbox;
mod state;

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use levada_protocol::{
    error::Refusal,
    ids::Offset,
    request::{Start, Subscribe, Subscribed, SubscriptionOptions},
    verbs::{Credit, Verb, VerbKind},
};
use tokio::{sync::Notify, time::timeout};

pub(crate) use self::lease::Lease;
use self::{driver::Driver, state::State};
use crate::{
    clock,
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
    /// Make the subscription with these options if there is none; if there is one with others, fail with
    /// `SUBSCRIPTION_MISMATCH`. `None`, the default: there must be one, with whatever options.
    pub options: Option<SubscriptionOptions>,
    /// Where a subscription that is made now begins. Default: with what is published from now on.
    pub from: Start,
    /// Most events that are delivered and not yet settled or dropped. Default 1,000. The subscription's own
    /// `max_in_flight` holds as well.
    pub credit_events: u64,
    /// Most bytes of them, give or take one frame. Default 4 MiB.
    pub credit_bytes: u64,
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
        }
    }
}

/// A consumer of a subscription.
///
/// When the connection is lost it attaches again by itself, and [`Subscriber::next`] simply goes on: what was
/// not acknowledged comes again. Dropping it detaches the consumer after what it said was sent, so that the
/// engine gives its unacknowledged deliveries to others at once; call [`Subscriber::confirmed`] before, to
/// know that acknowledgements hold.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    subscribed: Subscribed,
}

impl Subscriber {
    pub(crate) async fn open(link: Link, options: SubscribeOptions) -> Result<Self, Error> {
        if options.credit_events == 0 || options.credit_bytes == 0 {
            return Err(Error::Config {
                what: "credit_events and credit_bytes must be at least 1".to_owned(),
            });
        }
        let limit = link.config().request_timeout;
        let in_flight_max = options.options.as_ref().map_or(u64::MAX, |options| options.max_in_flight.into());
        let subscribe = Subscribe {
            topic: options.topic,
            subscription: options.subscription,
            consumer: options.consumer,
            options: options.options,
            from: options.from,
        };
        // Tells why there is no connection, if there is none.
        link.session_within(limit).await?;
        let opened = timeout(limit, driver::open(&link, subscribe.clone())).await;
        let (stream, subscribed) =
            opened.map_err(|_| Error::TimedOut { waited: limit, in_doubt: true, last: None })??;
        let granted = Credit { events: options.credit_events, bytes: options.credit_bytes };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(granted, in_flight_max)),
            wake: Notify::new(),
            arrived: Notify::new(),
            confirmed: Notify::new(),
        });
        // Attaching again must not make a subscription that somebody has deleted.
        let again = Subscribe { options: None, ..subscribe };
        let driver = Driver { shared: shared.clone(), link, again };
        tasks::spawn("subscriber", driver.run(stream)).detach();
        Ok(Self { shared, subscribed })
    }

    /// What the engine answered when this consumer was first attached.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// Why this consumer gets nothing at the moment: why its stream ended, or why it cannot attach again yet.
    /// `None` while it is attached. It goes on trying by itself; a failure for good comes from
    /// [`Subscriber::next`].
    pub fn interruption(&self) -> Option<Error> {
        self.shared.lock().interruption.clone()
    }

    /// The next delivery, waiting for one if need be. `None` never comes while the subscription stands: it
    /// means that the client was closed.
    ///
    /// Cancel safe: no delivery is lost with the wait.
    ///
    /// # Errors
    /// A refusal that ended the subscription for this consumer, such as `SUBSCRIPTION_NOT_FOUND` after it was deleted;
    /// `BATCH_INVALID` for a delivery that came damaged, which then comes again after `ack_timeout`.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            match self.shared.take() {
                Next::Frame(incoming, lease) => {
                    if let Some(delivery) = Delivery::check(incoming, Some(lease))? {
                        return Ok(Some(delivery));
                    }
                }
                Next::Wait => self.shared.arrived.notified().await,
                Next::Failed(Error::Closed) => return Ok(None),
                Next::Failed(error) => return Err(error),
            }
        }
    }

    /// All of this delivery is done, see [`Delivery::ack`].
    pub fn ack(&self, delivery: &Delivery) {
        delivery.ack();
    }

    /// A part of this delivery is done, see [`Delivery::ack_range`].
    pub fn ack_range(&self, delivery: &Delivery, range: RangeInclusive<Offset>) {
        delivery.ack_range(range);
    }

    /// Deliver a part of this delivery again, see [`Delivery::nack`].
    pub fn nack(&self, delivery: &Delivery, range: RangeInclusive<Offset>, delay: Option<Duration>) {
        delivery.nack(range, delay);
    }

    /// Never deliver a part of this delivery again, see [`Delivery::reject`].
    pub fn reject(&self, delivery: &Delivery, range: RangeInclusive<Offset>, reason: &str) {
        delivery.reject(range, reason);
    }

    /// Still at work on this delivery, see [`Delivery::in_progress`].
    pub fn in_progress(&self, delivery: &Delivery) {
        delivery.in_progress();
    }

    /// Waits until everything said so far has taken effect, so durably that a crash of the engine does not
    /// undo it.
    ///
    /// Cancel safe: nothing is taken back.
    ///
    /// # Errors
    /// `CONNECTION_LOST` if the connection was lost meanwhile, or before the last word was said about a delivery that
    /// came on it: such words have no effect, and their events come again. A refused verb's code, such as
    /// `DELIVERY_EXPIRED`, if one was refused since the last call. The subscriber's own failure.
    pub async fn confirmed(&self) -> Result<(), Error> {
        let said = {
            let mut state = self.shared.lock();
            if std::mem::take(&mut state.last_word_lost) {
                return Err(Error::lost(Detached));
            }
            state.outbox.said()
        };
        self.shared.hurry();
        loop {
            // Made before looking, so that a confirmation that comes in between is noticed.
            let changed = self.shared.confirmed.notified();
            {
                let mut state = self.shared.lock();
                match state.outbox.verdict(said) {
                    Some(true) => return refused_verbs(&mut state),
                    Some(false) => return Err(Error::lost(Detached)),
                    None => {}
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
            }
            changed.await;
        }
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
    let what = format!(
        "{count} verbs had no effect, first that on offsets {} to {} of partition {}",
        first.first, first.last, first.partition
    );
    Err(Refusal::new(first.code, what).into())
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.hurry();
        self.shared.wake.notify_one();
    }
}

/// The consumer lost its stream before the engine confirmed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the consumer had to attach again")]
struct Detached;

/// What subscriber, deliveries and driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
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

    fn take(self: &Arc<Self>) -> Next {
        let mut state = self.lock();
        let (incoming, wake) = state.take(clock::now());
        if wake {
            self.wake.notify_one();
        }
        match (incoming, &state.failed) {
            (Some(incoming), _) => {
                let lease = Lease::new(self.clone(), state.stream, &incoming);
                Next::Frame(incoming, lease)
            }
            (None, Some(error)) => Next::Failed(error.clone()),
            (None, None) => Next::Wait,
        }
    }

    /// Words about a delivery of this stream; if another stands by now, they mean nothing.
    fn say(&self, stream: u64, verbs: Vec<Verb>, back: Credit) {
        let wake = {
            let mut state = self.lock();
            if state.stream == stream {
                state.say(verbs, back, clock::now())
            } else {
                state.last_word_lost |= verbs.iter().any(|verb| verb.kind != VerbKind::InProgress);
                false
            }
        };
        if wake {
            self.wake.notify_one();
        }
    }

    fn hurry(&self) {
        if self.lock().hurry(clock::now()) {
            self.wake.notify_one();
        }
    }

    fn fail(&self, error: &Error) {
        self.lock().failed.get_or_insert_with(|| error.clone());
        self.arrived.notify_one();
        self.confirmed.notify_waiters();
    }
}
