//! What one principal has used of its quotas.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    request::Quotas,
};
use tokio::sync::Notify;

use super::bucket::Bucket;
use crate::{clock::Clock, error::Error};

/// How long a call waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How soon one may try again that was refused for want of room, not of a rate.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one principal uses.
#[derive(Debug, Default)]
pub(super) struct Meter {
    rates: Mutex<Rates>,
    in_flight: AtomicU64,
    /// Some bytes are in flight no more.
    landed: Notify,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Rates {
    events: Bucket,
    bytes: Bucket,
    requests: Bucket,
}

/// Bytes in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    meter: Arc<Meter>,
    bytes: u64,
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
    pub(super) async fn request(&self, quotas: Quotas, clock: &Clock) -> Result<(), Error> {
        if quotas.requests == 0 {
            return Ok(());
        }
        let take = |rates: &mut Rates, now| {
            let wait = rates.requests.wait(now);
            if wait.is_zero() {
                rates.requests.take(1, quotas.requests, now);
            }
            wait
        };
        self.in_turn(clock, take)
            .await
            .map_err(|wait| refusal(&format!("{} requests per second", quotas.requests), wait))
    }

    pub(super) async fn publish(
        self: &Arc<Self>,
        quotas: Quotas,
        (events, bytes): (u64, u64),
        clock: &Clock,
    ) -> Result<InFlight, Error> {
        if quotas.is_none() {
            return Ok(InFlight { meter: Arc::clone(self), bytes: 0 });
        }
        let in_flight = self.fly(quotas.in_flight_bytes, bytes).await?;
        let (event_rate, byte_rate) = (quotas.publish_events, quotas.publish_bytes);
        if event_rate == 0 && byte_rate == 0 {
            return Ok(in_flight);
        }
        let take = |rates: &mut Rates, now| {
            let of = |bucket: Bucket, rate| if rate == 0 { Duration::ZERO } else { bucket.wait(now) };
            let wait = of(rates.events, event_rate).max(of(rates.bytes, byte_rate));
            if wait.is_zero() && event_rate > 0 {
                rates.events.take(events, event_rate, now);
            }
            if wait.is_zero() && byte_rate > 0 {
                rates.bytes.take(bytes, byte_rate, now);
            }
            wait
        };
        self.in_turn(clock, take).await.map(|()| in_flight).map_err(|wait| {
            let limits = [(event_rate, "events"), (byte_rate, "bytes")];
            let limits: Vec<String> = limits
                .iter()
                .filter(|(rate, _)| *rate > 0)
                .map(|(rate, what)| format!("{rate} {what}"))
                .collect();
            refusal(&format!("{} published per second", limits.join(" and ")), wait)
        })
    }

    /// Takes as `take` does once it says that there is no need to wait; or returns how long that would be.
    async fn in_turn(
        &self,
        clock: &Clock,
        take: impl Fn(&mut Rates, Duration) -> Duration,
    ) -> Result<(), Duration> {
        let until = clock.uptime() + WAIT_MAX;
        loop {
            let now = clock.uptime();
            let wait = take(&mut self.rates.lock().unwrap_or_else(PoisonError::into_inner), now);
            if wait.is_zero() {
                return Ok(());
            }
            if now + wait > until {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes bytes in flight; what is more than the limit waits until nothing else is.
    async fn fly(self: &Arc<Self>, max: u64, bytes: u64) -> Result<InFlight, Error> {
        let fits = |now: u64| max == 0 || now == 0 || now.saturating_add(bytes) <= max;
        let take = || {
            let add = |now| fits(now).then(|| now + bytes);
            self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
        };
        let flying = async {
            loop {
                // Before the look: what lands in between must not be missed.
                let landed = self.landed.notified();
                if take() {
                    return;
                }
                landed.await;
            }
        };
        tokio::time::timeout(WAIT_MAX, flying)
            .await
            .map_err(|_| refusal(&format!("{max} bytes in flight"), RETRY_AFTER))?;
        Ok(InFlight { meter: Arc::clone(self), bytes })
    }

    pub(super) fn connect(self: &Arc<Self>, quotas: Quotas) -> Result<Connected, Error> {
        let max = quotas.connections;
        let add = |now| (max == 0 || now < max).then_some(now + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
            .map_err(|_| refusal(&format!("{max} connections"), RETRY_AFTER))?;
        Ok(Connected { meter: Arc::clone(self) })
    }
}

fn refusal(quota: &str, retry_after: Duration) -> Error {
    let retry_after = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX).max(1);
    let message = format!("the principal may have {quota}, which are used up; try again in {retry_after} ms");
    Error::from(Refusal::new(ErrorCode::Quota, message).retry_after(retry_after))
}
