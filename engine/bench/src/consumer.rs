//! The consuming side: durable subscriptions that acknowledge whole deliveries, and reading back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_client::{Client, ReadOptions, SubscribeOptions};
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

/// One consumer.
#[derive(Debug, Clone)]
pub(crate) struct Consumer {
    pub(crate) options: SubscribeOptions,
    pub(crate) layout: Layout,
    /// Several consumers share the events by their keys: only those are in order.
    pub(crate) by_key: Option<Ordered>,
    pub(crate) timed: Timed,
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
        loop {
            let next = tokio::select! {
                biased;
                next = subscriber.next_delivery() => next?,
                _told = self.done.wait_for(|done| *done) => break,
            };
            let Some(delivery) = next else { break };
            let now = self.clock.now();
            let before = ledger.distinct();
            let stamps = delivery.events().map(|(_, _, event)| {
                let stamp = event.payload().and_then(|payload| Stamp::read(self.layout, payload))?;
                if self.times(stamp) {
                    latencies.record(now.saturating_sub(stamp.sent));
                }
                Some(stamp)
            });
            ledger.enter(delivery.partition(), stamps);
            delivery.ack();
            self.progress.last.fetch_max(now, Ordering::Release);
            self.progress.arrived.fetch_add(ledger.distinct() - before, Ordering::AcqRel);
        }
        subscriber.confirmed().await?;
        drop(subscriber);
        // The thread's runtime ends now; without a word the engine would wait for this connection.
        client.close().await;
        Ok(Consumed { ledger, latencies })
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
