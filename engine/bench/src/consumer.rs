//! The consuming side: durable subscriptions that acknowledge whole deliveries, and reading back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use levada_client::{Client, DeliveredEvent, Delivery, ReadOptions, SubscribeOptions};
use levada_protocol::error::ErrorCode;
use levada_rig::latencies::Latencies;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    ledger::{Ledger, Ordered},
    producer::STRIDE,
    stamp::{Layout, Stamp},
};

/// Bytes that the engine may send ahead of the acknowledgements.
const CREDIT_BYTES: u64 = 16 * 1024 * 1024;

/// How far a subscription has come, for whoever waits for it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Distinct events, over all of its consumers.
    arrived: AtomicU64,
    /// When the last of them came, on the bench's clock.
    last: AtomicU64,
}

impl Progress {
    /// Distinct events that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// So many distinct events more, at this instant.
    fn enter(&self, now: u64, events: u64) {
        self.last.fetch_max(now, Ordering::Release);
        self.arrived.fetch_add(events, Ordering::AcqRel);
    }

    /// When the last one did.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

/// Which events are timed from their stamp to their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    None,
    /// Those whose stamp is exact when full batches are published.
    Sampled,
    All,
}

/// What becomes of the events that a consumer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    /// Each delivery is acknowledged as a whole.
    Whole,
    /// Each event gets a verb of its own.
    Single {
        /// So often an event fails before it is acknowledged.
        failures: u8,
        /// Distinct keys; events of the first `stuck` of them are held and never acknowledged.
        keys: u32,
        stuck: u32,
    },
}

impl Handling {
    fn fails(self) -> bool {
        matches!(self, Self::Single { failures: 1.., .. })
    }
}

/// One consumer.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) options: SubscribeOptions,
    pub(crate) layout: Layout,
    /// Several consumers share the events by their keys: only those are in order.
    pub(crate) by_key: Option<Ordered>,
    pub(crate) timed: Timed,
    pub(crate) handling: Handling,
    pub(crate) clock: Clock,
    pub(crate) progress: Arc<Progress>,
    /// Turns true when enough has arrived, or nothing more will.
    pub(crate) done: watch::Receiver<bool>,
}

/// What one consumer got.
#[derive(Debug)]
pub(crate) struct Consumed {
    pub(crate) ledger: Ledger,
    pub(crate) latencies: Latencies,
}

impl Consumer {
    /// Takes, enters and acknowledges deliveries until told that all is done; returns when the engine confirmed.
    pub(crate) async fn run(mut self, client: Client, attached: impl FnOnce()) -> anyhow::Result<Consumed> {
        self.options.credit_bytes = CREDIT_BYTES;
        let mut subscriber = client.subscribe(self.options.clone()).await?;
        attached();
        let order = self.by_key.unwrap_or_else(|| Ordered::ByPartition(subscriber.subscribed().partitions));
        let mut ledger = Ledger::new(order);
        let mut latencies = Latencies::default();
        // Events that are never acknowledged are kept: dropped ones come again.
        let mut aside = Vec::new();
        loop {
            let next = tokio::select! {
                biased;
                next = subscriber.next_delivery() => next?,
                _told = self.done.wait_for(|done| *done) => break,
            };
            let Some(delivery) = next else { break };
            let now = self.clock.now();
            let before = ledger.distinct();
            if let Handling::Single { failures, keys, stuck } = self.handling {
                let is_stuck = |stamp: Stamp| stuck > 0 && stamp.sequence % u64::from(keys) < stuck.into();
                let done = self.handle_singly(&delivery, failures, is_stuck, &mut aside);
                ledger.enter(delivery.partition(), done.into_iter().map(Some));
                self.progress.enter(now, ledger.distinct() - before);
                continue;
            }
            let stamps = delivery.events().map(|(_, _, event)| {
                let stamp = event.payload().and_then(|payload| Stamp::read(self.layout, payload))?;
                if self.times(stamp) {
                    latencies.record(now.saturating_sub(stamp.sent));
                }
                Some(stamp)
            });
            ledger.enter(delivery.partition(), stamps);
            delivery.ack();
            self.progress.enter(now, ledger.distinct() - before);
        }
        match subscriber.confirmed().await {
            // What failed took the later events of its key back, and the verbs on those had no effect.
            Err(error) if self.handling.fails() && error.code() == ErrorCode::DeliveryExpired => {}
            other => other?,
        }
        drop(aside);
        drop(subscriber);
        // The thread's runtime ends now; without a word the engine would wait for this connection.
        client.close().await;
        Ok(Consumed { ledger, latencies })
    }

    /// Settles each event by itself; returns those that are done. Those that are stuck are put `aside`.
    fn handle_singly(
        &self,
        delivery: &Delivery,
        failures: u8,
        is_stuck: impl Fn(Stamp) -> bool,
        aside: &mut Vec<DeliveredEvent>,
    ) -> Vec<Stamp> {
        let fails = delivery.attempt() <= failures;
        let mut done = Vec::with_capacity(if fails { 0 } else { delivery.count() as usize });
        for (offset, _, event) in delivery.events() {
            let stamp = event.payload().and_then(|payload| Stamp::read(self.layout, payload));
            if fails {
                delivery.nack(offset..=offset, Some(Duration::ZERO));
            } else if stamp.is_some_and(&is_stuck) {
                aside.extend(DeliveredEvent::set_aside(delivery, offset));
            } else {
                delivery.ack_range(offset..=offset);
                done.extend(stamp);
            }
        }
        done
    }

    #[inline]
    fn times(&self, stamp: Stamp) -> bool {
        match self.timed {
            Timed::None => false,
            Timed::Sampled => stamp.sequence.is_multiple_of(STRIDE),
            Timed::All => true,
        }
    }
}

/// Reads a topic from its first event to its last and enters every event; `see` is told of each.
pub(crate) async fn read_back(
    client: &Client,
    topic: &str,
    layout: Layout,
    mut see: impl FnMut(u64, Option<Stamp>),
) -> anyhow::Result<Ledger> {
    let mut reader = client.read(ReadOptions::new(topic)).await?;
    let partitions = reader.began_at().iter().map(|place| place.partition + 1).max().unwrap_or(1);
    let mut ledger = Ledger::new(Ordered::ByPartition(partitions));
    while let Some(delivery) = reader.next().await? {
        let stamps = delivery.events().map(|(offset, _, event)| {
            let stamp = event.payload().and_then(|payload| Stamp::read(layout, payload));
            see(offset.0, stamp);
            stamp
        });
        ledger.enter(delivery.partition(), stamps);
    }
    Ok(ledger)
}
