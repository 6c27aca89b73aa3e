//! Runs the consuming side of a workload: subscriptions, their consumers, and when all have everything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use levada_client::{Order, StageSpec, Start, SubscribeOptions, SubscriptionOptions};
use levada_protocol::error::ErrorCode;
use levada_rig::{latencies::Latencies, stall};
use levada_terminal::{Failure, choices::OrderArg};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    args::ConsumerArgs,
    clock::Clock,
    consumer::{Consumed, Consumer, Handling, Progress, Timed},
    endpoint::Endpoint,
    ledger::{Ledger, Ordered, Verdict},
    stamp::Layout,
    target::{Address, Target},
};

/// How often arrivals are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// If nothing arrives for so long, nothing more will.
const STALLED: Duration = Duration::from_secs(30);
/// How long the last acknowledgements may take to count.
const SETTLE: Duration = Duration::from_secs(10);

/// Subscriptions with attached consumers.
#[derive(Debug)]
pub(crate) struct Subscribing {
    topic: String,
    unordered: bool,
    /// Some events are never acknowledged.
    leaves_some: bool,
    subscriptions: Vec<Subscription>,
    /// All consumers on one thread, each with the index of its subscription.
    consumers: Endpoint<Vec<(usize, Consumed)>>,
    done: watch::Sender<bool>,
}

#[derive(Debug)]
struct Subscription {
    name: String,
    progress: Arc<Progress>,
}

/// What subscriptions are like.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// What their names begin with.
    pub(crate) name: &'static str,
    pub(crate) count: u16,
    pub(crate) args: &'a ConsumerArgs,
    /// Distinct keys of the events; 0 if they have none.
    pub(crate) keys: u32,
    pub(crate) chain: Vec<StageSpec>,
    pub(crate) layout: Layout,
    pub(crate) timed: Timed,
    pub(crate) handling: Handling,
    pub(crate) clock: Clock,
}

impl<'a> Wanted<'a> {
    /// One subscription without plugins, whose consumers acknowledge whole deliveries that are not timed.
    pub(crate) fn new(args: &'a ConsumerArgs, keys: u32, clock: Clock) -> Self {
        Self {
            name: "bench",
            count: 1,
            args,
            keys,
            chain: Vec::new(),
            layout: Layout::Binary,
            timed: Timed::None,
            handling: Handling::Whole,
            clock,
        }
    }

    /// True if order is that of each key, and not of each partition.
    fn is_ordered_by_key(&self) -> bool {
        self.args.order == OrderArg::Key && (self.args.consumers > 1 || self.handling != Handling::Whole)
    }

    /// True if some events are never acknowledged.
    fn leaves_some(&self) -> bool {
        matches!(self.handling, Handling::Single { stuck: 1.., .. })
    }
}

/// What all subscriptions got.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) latencies: Latencies,
    /// When the last event of the last subscription came.
    pub(crate) last: u64,
    unordered: bool,
}

impl Subscribed {
    /// The verdict over all subscriptions; each had to get the `expected` events of every lane.
    pub(crate) fn verdict(&self, counts: &[u64], expected: impl Fn(u64) -> bool) -> Verdict {
        let all = self.ledgers.iter().map(|ledger| ledger.verdict(counts, &expected));
        let verdict = all.fold(Verdict::default(), Verdict::and);
        // Without an order there is none to break.
        if self.unordered { Verdict { disordered: 0, ..verdict } } else { verdict }
    }
}

impl Subscribing {
    /// Makes the subscriptions, from the first event on, and attaches every consumer.
    pub(crate) async fn attach(target: &Target, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let (done, told) = watch::channel(false);
        let attached = Arc::new(AtomicUsize::new(0));
        let (mut subscriptions, mut consumers) = (Vec::new(), Vec::new());
        for number in 1..=wanted.count {
            let name = format!("{}-{number}", wanted.name);
            let progress = Arc::new(Progress::default());
            let consumer = Consumer {
                options: options(target, &name, wanted),
                layout: wanted.layout,
                by_key: wanted.is_ordered_by_key().then_some(Ordered::ByKey(wanted.keys)),
                timed: wanted.timed,
                handling: wanted.handling,
                clock: wanted.clock,
                progress: progress.clone(),
                done: told.clone(),
            };
            consumers.extend((0..wanted.args.consumers).map(|_| (subscriptions.len(), consumer.clone())));
            subscriptions.push(Subscription { name, progress });
        }
        let (address, counter, all) = (target.address(), attached.clone(), consumers.len());
        let consumers = Endpoint::spawn("consumers", move || consume(address, consumers, counter))?;
        let without_keys = wanted.is_ordered_by_key() && wanted.keys == 0;
        let unordered = wanted.args.order == OrderArg::None || without_keys;
        let (topic, leaves_some) = (target.topic.clone(), wanted.leaves_some());
        let subscribing = Self { topic, unordered, leaves_some, subscriptions, consumers, done };
        let attached = async || Ok(attached.load(Ordering::Acquire));
        stall::until(LOOK, STALLED, attached, |now| *now >= all || subscribing.consumers.has_ended()).await?;
        Ok(subscribing)
    }

    /// Events that have arrived at the subscription that has the fewest.
    pub(crate) fn arrived(&self) -> u64 {
        self.subscriptions.iter().map(|subscription| subscription.progress.arrived()).min().unwrap_or(0)
    }

    /// Waits until every subscription has so many events, or until nothing comes any more.
    pub(crate) async fn wait_for(&self, events: u64) {
        let enough = |arrived: &u64| *arrived >= events || self.consumers.has_ended();
        let waited = stall::until(LOOK, STALLED, async || Ok(self.arrived()), enough).await;
        waited.expect("counting arrivals does not fail");
    }

    /// Ends the consumers and gathers what they got.
    ///
    /// # Errors
    /// If a consumer failed, or the engine still counts something as unacknowledged.
    pub(crate) async fn finish(self, target: &Target) -> anyhow::Result<Subscribed> {
        // The consumers may have failed already; their errors come below.
        let _failed = self.done.send(true);
        let mut all = Subscribed {
            ledgers: Vec::new(),
            latencies: Latencies::default(),
            last: 0,
            unordered: self.unordered,
        };
        let mut ledgers: Vec<Option<Ledger>> = self.subscriptions.iter().map(|_| None).collect();
        for (index, consumed) in self.consumers.finished().await? {
            all.latencies.absorb(&consumed.latencies);
            match &mut ledgers[index] {
                Some(ledger) => ledger.absorb(&consumed.ledger),
                nothing => *nothing = Some(consumed.ledger),
            }
        }
        all.ledgers = ledgers.into_iter().flatten().collect();
        for subscription in self.subscriptions {
            all.last = all.last.max(subscription.progress.last());
            if !self.leaves_some {
                settled(target, &self.topic, &subscription.name).await?;
            }
        }
        Ok(all)
    }
}

/// Runs all consumers, each on a connection of its own, until they are told that all is done or one of them fails.
async fn consume(
    address: Address,
    consumers: Vec<(usize, Consumer)>,
    attached: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<(usize, Consumed)>> {
    let mut running = JoinSet::new();
    for (index, consumer) in consumers {
        let client = address.connect().await?;
        let attached = attached.clone();
        let tell = move || {
            attached.fetch_add(1, Ordering::AcqRel);
        };
        running.spawn(async move { anyhow::Ok((index, consumer.run(client, tell).await?)) });
    }
    let mut consumed = Vec::new();
    while let Some(one) = running.join_next().await {
        consumed.push(one??);
    }
    Ok(consumed)
}

fn options(target: &Target, name: &str, wanted: &Wanted<'_>) -> SubscribeOptions {
    SubscribeOptions {
        consumer: "bench".to_owned(),
        options: Some(SubscriptionOptions {
            order: Some(Order::from(wanted.args.order)),
            chain: Some(wanted.chain.clone()),
            max_in_flight: Some(wanted.args.max_in_flight),
            ..SubscriptionOptions::default()
        }),
        from: Start::Earliest,
        credit_events: wanted.args.max_in_flight.into(),
        ..SubscribeOptions::new(&target.topic, name)
    }
}

/// Waits until the engine, too, counts everything as acknowledged.
async fn settled(target: &Target, topic: &str, name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let lag = target.control.describe_subscription(topic, name).await?.lag;
        if lag == 0 {
            return Ok(());
        }
        if begun.elapsed() > SETTLE {
            let message =
                format!("subscription {topic}/{name} still lags {lag} events after all were acknowledged");
            return Err(Failure::new(ErrorCode::Internal, message).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
