//! Runs the publishing side of a workload on a thread of its own: connections, publishers, tasks.

use std::time::Duration;

use levada_client::PublisherOptions;
use levada_rig::latencies::Latencies;
use tokio::task::JoinSet;

use crate::{
    args::BenchCommon,
    batching,
    clock::Clock,
    endpoint::Endpoint,
    producer::{self, Budget, DueTimes, Plan, Sent},
    stamp::Layout,
    target::{Address, Target},
};

/// How events are published.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// In full batches, as fast as it goes.
    Pipelined,
    /// Tasks on every connection with one event in flight each; so many events of each are not timed.
    OneInFlight { tasks: u16, warm_up: u64 },
    /// Events a second.
    Rate(f64),
    /// As fast as it goes, to be delivered later.
    Delayed(DueTimes),
}

/// What is published, and how.
#[derive(Debug)]
pub(crate) struct Publishing {
    address: Address,
    topic: String,
    plan: Plan,
    options: PublisherOptions,
    connections: u16,
    producers: u16,
    shape: Shape,
}

/// What was published, and when.
#[derive(Debug)]
pub(crate) struct Published {
    /// When the first event was made.
    pub(crate) begun: u64,
    /// When everything was acknowledged.
    pub(crate) ended: u64,
    /// How many events each lane made.
    pub(crate) counts: Vec<u64>,
    pub(crate) latencies: Latencies,
}

impl Published {
    /// All lanes together.
    pub(crate) fn events(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Publishing {
    /// One publisher on one connection, with full batches.
    pub(crate) fn new(
        target: &Target,
        common: &BenchCommon,
        layout: Layout,
        clock: Clock,
        events: u64,
        duration: Option<Duration>,
    ) -> Self {
        Self {
            address: target.address(),
            topic: target.topic.clone(),
            plan: Plan {
                layout,
                size: common.size as usize,
                keys: batching::keys(common),
                ids: None,
                budget: Budget::new(events, duration),
                clock,
            },
            options: batching::publisher_options(common),
            connections: 1,
            producers: 1,
            shape: Shape::Pipelined,
        }
    }

    /// On so many connections, with so many publishers each.
    pub(crate) fn spread(mut self, connections: u16, producers: u16) -> Self {
        (self.connections, self.producers) = (connections, producers);
        self
    }

    /// To another topic.
    pub(crate) fn to(mut self, topic: &str) -> Self {
        topic.clone_into(&mut self.topic);
        self
    }

    /// With an id for every event, unique among those with this prefix.
    pub(crate) fn with_ids(mut self, prefix: &'static str) -> Self {
        self.plan.ids = Some(prefix);
        self
    }

    /// In this shape.
    pub(crate) fn shaped(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// What tells how far it is.
    pub(crate) fn budget(&self) -> std::sync::Arc<Budget> {
        self.plan.budget.clone()
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> anyhow::Result<Endpoint<Published>> {
        Endpoint::spawn("publishers", move || self.run())
    }

    async fn run(self) -> anyhow::Result<Published> {
        let (mut clients, mut publishers) = (Vec::new(), Vec::new());
        for _ in 0..self.connections {
            let client = self.address.connect().await?;
            for _ in 0..self.producers {
                publishers.push(client.publisher(&self.topic, self.options.clone()).await?);
            }
            clients.push(client);
        }
        let tasks = match self.shape {
            Shape::OneInFlight { tasks, .. } => usize::from(tasks) * usize::from(self.connections),
            Shape::Pipelined | Shape::Rate(_) | Shape::Delayed(_) => publishers.len(),
        };
        let begun = self.plan.clock.now();
        self.plan.budget.begin(begun);
        let mut running = JoinSet::<anyhow::Result<Sent>>::new();
        for (lane, publisher) in (0..tasks as u64).zip(publishers.iter().cycle()) {
            let (publisher, plan) = (publisher.clone(), self.plan.clone());
            match self.shape {
                Shape::Pipelined => running.spawn(producer::pipelined(publisher, plan, lane)),
                Shape::OneInFlight { warm_up, .. } => {
                    running.spawn(producer::one_at_a_time(publisher, plan, lane, warm_up))
                }
                Shape::Rate(rate) => running.spawn(producer::at_rate(publisher, plan, lane, rate)),
                Shape::Delayed(due) => running.spawn(producer::delayed(publisher, plan, lane, due)),
            };
        }
        let (mut counts, mut latencies) = (vec![0; tasks], Latencies::default());
        while let Some(sent) = running.join_next().await {
            let sent = sent??;
            latencies.absorb(&sent.latencies);
            let lane = usize::try_from(sent.lane)?;
            counts[lane] = sent.count;
        }
        let ended = self.plan.clock.now();
        // The thread's runtime ends now; without a word the engine would wait for these connections.
        for client in clients {
            client.close().await;
        }
        Ok(Published { begun, ended, counts, latencies })
    }
}
