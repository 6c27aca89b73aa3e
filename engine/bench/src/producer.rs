//! The publishing side of every workload: full batches, one event in flight a task, or a fixed rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use levada_client::{Event, Publisher, Ticket, Timestamp};
use levada_rig::latencies::Latencies;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    clock::{Clock, Ticker},
    stamp::{Layout, Stamp, Stamper},
};

/// Events that a pipelined task takes from the budget at a time; the first of them is timed.
pub(crate) const STRIDE: u64 = 16;
/// Timed events whose acknowledgement is awaited.
const SAMPLES_MAX: usize = 65_536;
const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// How many events there are to publish, shared by all tasks.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    /// For how long events are given, once begun; in nanoseconds.
    duration: u64,
    /// When the time is over, on the bench's clock.
    end: AtomicU64,
    taken: AtomicU64,
}

impl Budget {
    /// So many events, or as many as go into a time.
    pub(crate) fn new(events: u64, duration: Option<Duration>) -> Arc<Self> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Arc::new(Self {
            left: AtomicU64::new(if duration.is_some() { u64::MAX } else { events }),
            duration: duration.map_or(u64::MAX, nanos),
            end: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
        })
    }

    /// So many events, or fewer if they do not go into a time.
    pub(crate) fn bounded(events: u64, duration: Duration) -> Arc<Self> {
        let budget = Self::new(u64::MAX, Some(duration));
        budget.left.store(events, Ordering::Relaxed);
        budget
    }

    /// Starts the time.
    pub(crate) fn begin(&self, now: u64) {
        self.end.store(now.saturating_add(self.duration), Ordering::Relaxed);
    }

    /// Takes up to `wanted` events; 0 when there are no more.
    #[inline]
    pub(crate) fn take(&self, wanted: u64, now: u64) -> u64 {
        if now >= self.end.load(Ordering::Relaxed) {
            return 0;
        }
        let less = |left: u64| Some(left.saturating_sub(wanted));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        let granted = before.min(wanted);
        self.taken.fetch_add(granted, Ordering::Relaxed);
        granted
    }

    /// Events taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What all publishing tasks of a run have in common.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) size: usize,
    /// Keys in turn; empty for events without key.
    pub(crate) keys: Arc<[Bytes]>,
    /// What the ids of events begin with, which have ids then.
    pub(crate) ids: Option<&'static str>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clock: Clock,
}

/// What one task published.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) lane: u64,
    pub(crate) count: u64,
    /// From publish to acknowledgement.
    pub(crate) latencies: Latencies,
}

/// One publishing task: makes its events and numbers them.
struct Maker {
    plan: Plan,
    stamper: Stamper,
    lane: u64,
    sequence: u64,
}

impl Maker {
    fn new(plan: &Plan, lane: u64) -> Self {
        let stamper = Stamper::new(plan.layout, plan.size);
        Self { plan: plan.clone(), stamper, lane, sequence: 0 }
    }

    #[inline]
    fn event(&mut self, sent: u64) -> Event {
        let payload = self.stamper.payload(Stamp { lane: self.lane, sequence: self.sequence, sent });
        let key = match self.plan.keys.len() as u64 {
            0 => None,
            keys => usize::try_from(self.sequence % keys)
                .ok()
                .and_then(|index| self.plan.keys.get(index).cloned()),
        };
        let mut event = Event::new(payload);
        if let Some(prefix) = self.plan.ids {
            event.id = Some(format!("{prefix}-{:x}-{:08x}", self.lane, self.sequence).into());
        }
        self.sequence += 1;
        (event.key, event.time) = (key, Some(Timestamp(self.plan.clock.wall_ms(sent))));
        event
    }

    fn sent(self, latencies: Latencies) -> Sent {
        Sent { lane: self.lane, count: self.sequence, latencies }
    }
}

/// Publishes in full batches as fast as the publisher takes them; returns when all are acknowledged.
pub(crate) async fn pipelined(publisher: Publisher, plan: Plan, lane: u64) -> anyhow::Result<Sent> {
    let (samples, awaited) = mpsc::channel(SAMPLES_MAX);
    let mut timing = JoinSet::new();
    timing.spawn(time_tickets(awaited, plan.clock));
    let mut maker = Maker::new(&plan, lane);
    loop {
        let now = plan.clock.now();
        let granted = plan.budget.take(STRIDE, now);
        if granted == 0 {
            break;
        }
        let timed = publisher.publish(maker.event(now)).await?;
        // A full channel means that tickets come slower than they are looked at: this one is not timed.
        let _untimed = samples.try_send((now, timed));
        for _ in 1..granted {
            // Its loss would show when the topic is read back.
            drop(publisher.publish(maker.event(now)).await?);
        }
    }
    publisher.flush().await?;
    drop(samples);
    let latencies = timing.join_next().await.expect("one task was spawned")??;
    Ok(maker.sent(latencies))
}

/// When delayed events are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DueTimes {
    /// The first of them, on the bench's clock.
    pub(crate) first: u64,
    /// All within this time from then on.
    pub(crate) within: Duration,
}

impl DueTimes {
    /// When an event is due, on the bench's clock: spread evenly over the time in no regular pattern, to the millisecond.
    fn of(&self, sequence: u64) -> u64 {
        let within = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX).max(1);
        let after = (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % within;
        (self.first.div_ceil(NANOSECONDS_PER_MS) + after) * NANOSECONDS_PER_MS
    }
}

/// Publishes for later as fast as the publisher takes it, each event stamped with the time at which it is due; returns when
/// all are stored.
pub(crate) async fn delayed(
    publisher: Publisher,
    plan: Plan,
    lane: u64,
    due: DueTimes,
) -> anyhow::Result<Sent> {
    let mut maker = Maker::new(&plan, lane);
    while plan.budget.take(1, plan.clock.now()) > 0 {
        let at = due.of(maker.sequence);
        // The wall time is rounded down to milliseconds: one more, so that none is due before its stamp and counts as less late.
        let wall = Timestamp(plan.clock.wall_ms(at) + 1);
        // Its loss would show when it does not come.
        drop(publisher.schedule(maker.event(at), wall).await?);
    }
    publisher.flush().await?;
    Ok(maker.sent(Latencies::default()))
}

async fn time_tickets(
    mut tickets: mpsc::Receiver<(u64, Ticket)>,
    clock: Clock,
) -> Result<Latencies, levada_client::Error> {
    let mut latencies = Latencies::default();
    while let Some((sent, ticket)) = tickets.recv().await {
        ticket.await?;
        latencies.record(clock.now().saturating_sub(sent));
    }
    Ok(latencies)
}

/// Publishes one event at a time and waits for its acknowledgement. The first `warm_up` events are not timed.
pub(crate) async fn one_at_a_time(
    publisher: Publisher,
    plan: Plan,
    lane: u64,
    warm_up: u64,
) -> anyhow::Result<Sent> {
    let mut maker = Maker::new(&plan, lane);
    let mut latencies = Latencies::default();
    loop {
        let now = plan.clock.now();
        if plan.budget.take(1, now) == 0 {
            return Ok(maker.sent(latencies));
        }
        let event = maker.event(now);
        publisher.publish(event).await?.await?;
        if maker.sequence > warm_up {
            latencies.record(plan.clock.now() - now);
        }
    }
}

/// Publishes at a fixed rate, each event stamped with the time at which it was due; returns when all are acknowledged.
pub(crate) async fn at_rate(publisher: Publisher, plan: Plan, lane: u64, rate: f64) -> anyhow::Result<Sent> {
    let (samples, awaited) = mpsc::channel(SAMPLES_MAX);
    let mut timing = JoinSet::new();
    timing.spawn(time_tickets(awaited, plan.clock));
    let mut maker = Maker::new(&plan, lane);
    let mut ticker = Ticker::start(plan.clock, rate)?;
    'ticks: loop {
        for _ in 0..ticker.due().await? {
            let due = ticker.next_time();
            if plan.budget.take(1, plan.clock.now()) == 0 {
                break 'ticks;
            }
            let ticket = publisher.publish(maker.event(due)).await?;
            // A full channel means that tickets come slower than they are looked at: this one is not timed.
            let _untimed = samples.try_send((due, ticket));
        }
    }
    publisher.flush().await?;
    drop(samples);
    let latencies = timing.join_next().await.expect("one task was spawned")??;
    Ok(maker.sent(latencies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_exactly_its_events() {
        let budget = Budget::new(40, None);
        budget.begin(0);
        let granted: Vec<u64> = (0..5).map(|now| budget.take(16, now)).collect();
        assert_eq!(granted, [16, 16, 8, 0, 0]);
        assert_eq!(budget.taken(), 40);
    }

    #[test]
    fn due_times_lie_within_their_time_on_whole_milliseconds() {
        let due = DueTimes { first: 1_500_001, within: Duration::from_millis(10) };
        let times: Vec<u64> = (0..1_000).map(|sequence| due.of(sequence)).collect();
        assert!(times.iter().all(|at| (2_000_000..12_000_000).contains(at) && at.is_multiple_of(1_000_000)));
        assert!((2..12).all(|at| times.contains(&(at * 1_000_000))), "all of it is used");
    }

    #[test]
    fn a_bounded_budget_ends_with_its_events_or_its_time() {
        for (events, granted) in [(20, [16, 4, 0]), (100, [16, 16, 0])] {
            let budget = Budget::bounded(events, Duration::from_nanos(100));
            budget.begin(0);
            assert_eq!([10, 99, 100].map(|now| budget.take(16, now)), granted, "{events}");
        }
    }

    #[test]
    fn a_budget_of_time_ends() {
        let budget = Budget::new(1, Some(Duration::from_nanos(100)));
        budget.begin(50);
        assert_eq!(budget.take(16, 149), 16);
        assert_eq!(budget.take(16, 150), 0);
    }
}
