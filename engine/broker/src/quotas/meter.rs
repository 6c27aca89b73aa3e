//! What one principal has used of its quotas.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    request::Quotas,
};
use tokio::{
    sync::{self, Notify},
    time::{Instant, sleep, timeout_at},
};

use super::bucket::Bucket;
use crate::{clock::Clock, error::Error};

/// How long a call waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How soon one may try again that was refused for want of room, not of a rate.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one principal uses.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: Rate<Bucket>,
    published: Rate<Published>,
    in_flight: AtomicU64,
    /// Held by who waits for bytes in flight, so that the others wait behind it, however little they need.
    boarding: sync::Mutex<()>,
    /// Some bytes are in flight no more.
    landed: Notify,
    connections: AtomicU64,
}

/// Something that is taken from in turn.
#[derive(Debug, Default)]
struct Rate<T> {
    /// Held by who waits; the others wait behind it.
    turn: sync::Mutex<()>,
    left: Mutex<T>,
}

/// What is left of both rates of publishes.
#[derive(Debug, Default)]
struct Published {
    events: Bucket,
    bytes: Bucket,
}

impl<T> Rate<T> {
    /// Takes as `take` does once it says that there is no need to wait, each caller in its turn; or returns how long that would be.
    async fn in_turn(
        &self,
        clock: &Clock,
        take: impl Fn(&mut T, Duration) -> Duration,
    ) -> Result<(), Duration> {
        let until = Instant::now() + WAIT_MAX;
        let Ok(_turn) = timeout_at(until, self.turn.lock()).await else { return Err(RETRY_AFTER) };
        loop {
            let wait = take(&mut lock(&self.left), clock.uptime());
            if wait.is_zero() {
                return Ok(());
            }
            if Instant::now() + wait > until {
                return Err(wait);
            }
            sleep(wait).await;
        }
    }
}

/// A batch in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    meter: Arc<Meter>,
    /// Bytes that count as in flight.
    bytes: u64,
    /// Events and bytes that were taken from the rates.
    taken: (u64, u64),
}

impl InFlight {
    /// Puts back what was taken from the rates, for a batch that was not stored.
    pub(crate) fn put_back(&self) {
        let mut left = lock(&self.meter.published.left);
        left.events.put_back(self.taken.0);
        left.bytes.put_back(self.taken.1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(self.bytes, Ordering::AcqRel);
        self.meter.landed.notify_waiters();
    }
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    meter: Arc<Meter>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.meter.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Meter {
    pub(crate) async fn request(&self, quotas: Quotas, clock: &Clock) -> Result<(), Error> {
        if quotas.requests == 0 {
            return Ok(());
        }
        let take = |requests: &mut Bucket, now| {
            requests.set_rate(quotas.requests, now);
            let wait = requests.wait(now);
            if wait.is_zero() {
                requests.take(1, now);
            }
            wait
        };
        let taken = self.requests.in_turn(clock, take).await;
        taken.map_err(|wait| refusal(&format!("{} requests per second", quotas.requests), wait))
    }

    pub(crate) async fn publish(
        self: &Arc<Self>,
        quotas: Quotas,
        (events, bytes): (u64, u64),
        clock: &Clock,
    ) -> Result<InFlight, Error> {
        let mut in_flight = InFlight { meter: Arc::clone(self), bytes: 0, taken: (0, 0) };
        if quotas.is_none() {
            return Ok(in_flight);
        }
        let take = |left: &mut Published, now| {
            left.events.set_rate(quotas.publish_events, now);
            left.bytes.set_rate(quotas.publish_bytes, now);
            let wait = left.events.wait(now).max(left.bytes.wait(now));
            if wait.is_zero() {
                left.events.take(events, now);
                left.bytes.take(bytes, now);
            }
            wait
        };
        if quotas.publish_events > 0 || quotas.publish_bytes > 0 {
            let taken = self.published.in_turn(clock, take).await;
            taken.map_err(|wait| refusal(&rates_in_words(&quotas), wait))?;
            in_flight.taken = (events, bytes);
        }
        match self.board(quotas.in_flight_bytes, bytes).await {
            Ok(()) => {
                in_flight.bytes = bytes;
                Ok(in_flight)
            }
            Err(error) => {
                in_flight.put_back();
                Err(error)
            }
        }
    }

    /// Takes bytes in flight, each caller in its turn; what is more than the limit waits until nothing else is.
    async fn board(&self, max: u64, bytes: u64) -> Result<(), Error> {
        let fits = |now: u64| max == 0 || now == 0 || now.saturating_add(bytes) <= max;
        let take = || {
            let add = |now| fits(now).then(|| now + bytes);
            self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
        };
        let boarding = async {
            let _turn = self.boarding.lock().await;
            loop {
                // Before the look: what lands in between must not be missed.
                let landed = self.landed.notified();
                if take() {
                    return;
                }
                landed.await;
            }
        };
        let boarded = timeout_at(Instant::now() + WAIT_MAX, boarding).await;
        boarded.map_err(|_| refusal(&format!("{max} bytes in flight"), RETRY_AFTER))
    }

    pub(crate) fn connect(self: &Arc<Self>, quotas: Quotas) -> Result<Connected, Error> {
        let max = quotas.connections;
        let add = |now| (max == 0 || now < max).then_some(now + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
            .map_err(|_| refusal(&format!("{max} connections"), RETRY_AFTER))?;
        Ok(Connected { meter: Arc::clone(self) })
    }
}

fn rates_in_words(quotas: &Quotas) -> String {
    let rates = [(quotas.publish_events, "events"), (quotas.publish_bytes, "bytes")];
    let rates = rates.iter().filter(|(rate, _)| *rate > 0);
    let rates: Vec<String> = rates.map(|(rate, what)| format!("{rate} {what}")).collect();
    format!("{} published per second", rates.join(" and "))
}

fn refusal(quota: &str, retry_after: Duration) -> Error {
    let retry_after = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX).max(1);
    let message = format!("the principal may have {quota}, which are used up; try again in {retry_after} ms");
    Error::from(Refusal::new(ErrorCode::Quota, message).retry_after(retry_after))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
