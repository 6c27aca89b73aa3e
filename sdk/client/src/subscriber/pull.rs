//! Consuming by pulls: so many events, when the program asks for them.

use std::time::Duration;

use levada_protocol::request::Subscribed;
use tokio::time::timeout_at;

use super::{SubscribeOptions, Subscriber, pace::Pace};
use crate::{clock, delivery::Delivery, error::Error, link::Link};

/// How much one pull takes, and how long it waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Most events that it returns; once so many are there it waits for no more. [`SubscribeOptions::credit_events`] bounds them
    /// together with those that are not settled yet.
    pub max: u64,
    /// Bytes of events after which it waits for no more, give or take the delivery that reaches them.
    pub max_bytes: u64,
    /// How long it waits for all of that; then it returns what there is.
    pub wait: Duration,
}

impl Default for Pull {
    /// 100 events, 4 MiB, 5 s.
    fn default() -> Self {
        Self { max: 100, max_bytes: 4 * 1024 * 1024, wait: Duration::from_secs(5) }
    }
}

/// A delivery or a part of one, with its share of the bytes.
#[derive(Debug)]
struct Part {
    delivery: Delivery,
    bytes: u64,
}

impl Part {
    fn events(&self) -> u64 {
        u64::from(self.delivery.count())
    }

    /// Its first `max` events, and what is left, if it has more.
    fn cut(self, max: u64) -> (Self, Option<Self>) {
        let all = self.events();
        let Some(count) = u32::try_from(max).ok().filter(|_| max < all) else { return (self, None) };
        let (head, rest) = self.delivery.cut_at(count);
        let bytes = self.bytes / all * max;
        (Self { delivery: head, bytes }, Some(Self { delivery: rest, bytes: self.bytes - bytes }))
    }

    /// False if it is this consumer's no more: the process stood still for too long, or the connection was lost.
    fn is_kept(&self) -> bool {
        self.delivery.lease().is_some_and(|lease| lease.take_rest(0))
    }

    /// When it should be returned at the latest.
    fn hand_out_at(&self) -> Option<clock::Instant> {
        self.delivery.lease().and_then(|lease| lease.hand_out_at())
    }
}

/// A consumer of a subscription that requests what it pulls, and nothing ahead of that: for programs that work in
/// batches of their own size, such as one that writes a thousand rows at a time into a database. What a pull requested and
/// did not wait for is still to come: it is kept for the next pull, and not given to others meanwhile.
///
/// What it holds is extended, acknowledged and, after a lost connection, delivered again as with a [`Subscriber`].
#[derive(Debug)]
pub struct PullSubscriber {
    subscriber: Subscriber,
    /// What the last pull left of a delivery with more events than it takes.
    rest: Option<Part>,
    /// What went wrong behind the deliveries that the last pull returned.
    failed: Option<Error>,
}

impl PullSubscriber {
    pub(crate) async fn open(link: Link, options: SubscribeOptions) -> Result<Self, Error> {
        Ok(Self {
            subscriber: Subscriber::open_with(link, options, Pace::pulled).await?,
            rest: None,
            failed: None,
        })
    }

    /// Waits until there are `max` events or `max_bytes` of them; or some, and no further event can be requested before others
    /// are settled (`credit_events`); or half of the subscription's `ack_timeout` has passed since the first of them came; or
    /// `wait` is over. Then it returns what there is, `max` events at most: perhaps none. Who holds all the credit waits for the
    /// whole `wait`, unless another task settles some. What an earlier pull requested and did not get may have come meanwhile: it is
    /// part of the next pull. Deliveries are whole, but for one that alone has more events than `max`: the rest of it comes with
    /// the next pulls, and until then is extended like what was returned.
    ///
    /// Cancel safe: what came meanwhile is returned by the next pull.
    ///
    /// # Errors
    /// `CONFIG_INVALID` if `max` or `max_bytes` is 0; as [`Subscriber::next_delivery`]; [`Error::Closed`] if the client was
    /// closed. Deliveries that came before are returned first, and the error by the next pull.
    pub async fn pull(&mut self, pull: Pull) -> Result<Vec<Delivery>, Error> {
        if pull.max == 0 || pull.max_bytes == 0 {
            return Err(Error::Config { what: "max and max_bytes of a pull must be at least 1".to_owned() });
        }
        if self.rest.is_none()
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        self.subscriber.come_for_more().await;
        let over = clock::now().checked_add(pull.wait);
        self.subscriber.shared.lock().drop_lost(clock::now());
        while let Some(hand_out) = self.wait_for(pull) {
            let until = [over, hand_out].into_iter().flatten().min();
            if until.is_some_and(|until| until <= clock::now()) {
                break;
            }
            let arrived = self.subscriber.shared.arrived.notified();
            match until {
                // A notification that comes in between is kept.
                Some(until) => drop(timeout_at(until, arrived).await),
                None => arrived.await,
            }
        }
        self.take(pull)
    }

    /// Requests what is missing; `None` if it need not wait, else when it must hand out what is there.
    fn wait_for(&mut self, pull: Pull) -> Option<Option<clock::Instant>> {
        // Dropped before the state is locked: what is lost gives its credit back.
        drop(self.rest.take_if(|rest| !rest.is_kept()));
        let (events, bytes) = self.rest.as_ref().map_or((0, 0), |rest| (rest.events(), rest.bytes));
        let hand_out = self.rest.as_ref().and_then(Part::hand_out_at);
        let missing = pull.max.saturating_sub(events);
        let shared = &self.subscriber.shared;
        let mut state = shared.lock();
        state.pace.pull(missing);
        let is_spent = events > 0 && state.pace.is_spent();
        if is_spent || state.is_enough(missing, pull.max_bytes, bytes) {
            return None;
        }
        if state.has_anything_to_send() && state.flush(clock::now()) {
            shared.wake.notify_one();
        }
        Some(hand_out.or_else(|| state.hand_out_at()))
    }

    /// Takes what is queued, as far as the pull goes.
    fn take(&mut self, pull: Pull) -> Result<Vec<Delivery>, Error> {
        let (mut deliveries, mut events, mut bytes) = (Vec::new(), 0, 0);
        {
            let mut state = self.subscriber.shared.lock();
            state.pace.pull(0);
            state.drop_lost(clock::now());
        }
        loop {
            let next = match self.rest.as_ref() {
                Some(rest) => Some(rest.events()),
                None => self.subscriber.shared.lock().next_events(),
            };
            let fits = next.is_some_and(|next| events + next <= pull.max);
            if !deliveries.is_empty() && (!fits || bytes >= pull.max_bytes) {
                return Ok(deliveries);
            }
            match self.take_part() {
                Ok(Some(part)) => {
                    let (part, rest) = part.cut(pull.max - events);
                    self.rest = rest;
                    events += part.events();
                    bytes += part.bytes;
                    deliveries.push(part.delivery);
                }
                Ok(None) => return Ok(deliveries),
                Err(error) if deliveries.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(deliveries);
                }
            }
        }
    }

    /// What the last pull left, else the next delivery that is queued.
    fn take_part(&mut self) -> Result<Option<Part>, Error> {
        match self.rest.take() {
            Some(rest) if rest.is_kept() => Ok(Some(rest)),
            _ => Ok(self.subscriber.take_now()?.map(|(delivery, bytes)| Part { delivery, bytes })),
        }
    }

    /// What the engine answered when this consumer was first attached.
    pub fn subscribed(&self) -> &Subscribed {
        self.subscriber.subscribed()
    }

    /// Why this consumer gets nothing at the moment, as [`Subscriber::interruption`].
    pub fn interruption(&self) -> Option<Error> {
        self.subscriber.interruption()
    }

    /// Waits until all verbs since the last call have taken effect, as [`Subscriber::confirmed`].
    ///
    /// # Errors
    /// As there.
    pub async fn confirmed(&self) -> Result<(), Error> {
        self.subscriber.confirmed().await
    }
}
