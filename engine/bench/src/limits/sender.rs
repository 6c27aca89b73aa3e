//! The publishing half of the bare path, in the client's place: frames as long as batches, and nothing done per event.

use std::{collections::VecDeque, sync::Arc};

use anyhow::Context as _;
use levada_rig::latencies::Latencies;
use quinn::{Connection, SendStream};

use super::frame::{AckReader, Framer, Mode, Request};
use crate::{
    clock::{Clock, Ticker},
    producer::Budget,
    publishing::Shape,
};

/// What is sent on one stream.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Bytes of an event in a batch.
    pub(super) event_bytes: usize,
    /// Events of a full frame.
    pub(super) frame_events: u32,
    /// Full frames in flight.
    pub(super) in_flight: u32,
    pub(super) shape: Shape,
    pub(super) synced: bool,
    pub(super) budget: Arc<Budget>,
    pub(super) clock: Clock,
}

/// What was sent and acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) events: u64,
    /// From a frame's making to its acknowledgement.
    pub(super) latencies: Latencies,
}

/// Sends until the budget is used up; returns when all is acknowledged.
pub(super) async fn send(connection: &Connection, load: Load) -> anyhow::Result<Sent> {
    let (mut stream, acks) = connection.open_bi().await.context("opening a stream")?;
    let request = Request { synced: load.synced, ..Request::new(Mode::Publish) };
    stream.write_all(&request.encode()).await?;
    let sender = Sender {
        stream,
        acks: AckReader::new(acks),
        framer: Framer::new(load.event_bytes, load.frame_events),
        unacknowledged: VecDeque::new(),
        sent: 0,
        latencies: Latencies::default(),
    };
    match load.shape {
        Shape::Pipelined | Shape::Delayed(_) => {
            sender.fill(&load, load.frame_events, load.in_flight * load.frame_events, 0).await
        }
        Shape::OneInFlight { tasks, warm_up } => sender.fill(&load, 1, tasks.into(), warm_up).await,
        Shape::Rate(rate) => sender.pace(&load, rate).await,
    }
}

struct Sender {
    stream: SendStream,
    acks: AckReader,
    framer: Framer,
    /// When each frame was sent, and the events of it that are not acknowledged.
    unacknowledged: VecDeque<(u64, u64)>,
    sent: u64,
    latencies: Latencies,
}

impl Sender {
    /// Keeps `window` events in flight, and waits until a frame of `least` events can go. The latencies of the first
    /// `warm_up` events are not recorded.
    async fn fill(mut self, load: &Load, least: u32, window: u32, warm_up: u64) -> anyhow::Result<Sent> {
        let mut credit = u64::from(window);
        loop {
            let mut used_up = false;
            while credit >= u64::from(least) && !used_up {
                let now = load.clock.now();
                let granted = load.budget.take(credit.min(load.frame_events.into()), now);
                used_up = granted == 0;
                if granted > 0 {
                    self.frame(granted, now).await?;
                    credit -= granted;
                }
            }
            if self.unacknowledged.is_empty() {
                return self.end().await;
            }
            credit += self.acknowledged(load.clock, warm_up).await?;
        }
    }

    /// Sends one event at every tick.
    async fn pace(mut self, load: &Load, rate: f64) -> anyhow::Result<Sent> {
        let mut ticker = Ticker::start(load.clock, rate)?;
        let mut used_up = false;
        loop {
            let ticks = tokio::select! {
                biased;
                ticks = ticker.due(), if !used_up => ticks?,
                acked = self.acks.next(), if !self.unacknowledged.is_empty() => {
                    self.settle(acked?, load.clock.now(), 0);
                    0
                }
                else => return self.end().await,
            };
            for _ in 0..ticks {
                let due = ticker.next_time();
                used_up = load.budget.take(1, load.clock.now()) == 0;
                if used_up {
                    break;
                }
                self.frame(1, due).await?;
            }
        }
    }

    async fn frame(&mut self, events: u64, sent: u64) -> anyhow::Result<()> {
        let count = u32::try_from(events).context("a frame has fewer events")?;
        self.stream.write_chunk(self.framer.frame(count, sent)).await?;
        self.unacknowledged.push_back((sent, events));
        self.sent += events;
        Ok(())
    }

    async fn acknowledged(&mut self, clock: Clock, warm_up: u64) -> anyhow::Result<u64> {
        let events = self.acks.next().await?;
        self.settle(events, clock.now(), warm_up);
        Ok(events)
    }

    /// Takes so many events, the oldest first, for acknowledged now.
    fn settle(&mut self, mut events: u64, now: u64, warm_up: u64) {
        while let Some((sent, left)) = self.unacknowledged.front_mut().filter(|_| events > 0) {
            let settled = events.min(*left);
            events -= settled;
            *left -= settled;
            if self.sent > warm_up {
                self.latencies.record(now.saturating_sub(*sent));
            }
            if *left == 0 {
                self.unacknowledged.pop_front();
            }
        }
    }

    async fn end(mut self) -> anyhow::Result<Sent> {
        self.stream.finish()?;
        // The connection may be closed once the other side has seen the end.
        self.acks.ended().await?;
        Ok(Sent { events: self.sent, latencies: self.latencies })
    }
}
