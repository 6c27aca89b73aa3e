//! The workload `prepare`: one event published, and one prepared and committed, in turn: what the second round trip costs.

use std::sync::Arc;

use levada_client::Event;
use levada_rig::latencies::Latencies;
use levada_terminal::Output;

use crate::{
    args::PrepareBench,
    batching,
    clock::Clock,
    consumer,
    endpoint::Endpoint,
    producer::Budget,
    publish::warm_up,
    report::Report,
    stamp::{Layout, Stamp, Stamper},
    target::{Address, Target},
    watched::watched,
};

/// The lane of the events that are published, and of those in transactions.
const PUBLISHED: u64 = 0;
const COMMITTED: u64 = 1;
/// The producer group; the topic's name makes the ids those of this run.
const GROUP: &str = "bench";

/// What is measured, and where.
struct Turns {
    address: Address,
    topic: String,
    size: usize,
    budget: Arc<Budget>,
    warm_up: u64,
    clock: Clock,
}

/// How long both took.
struct Taken {
    published: Latencies,
    committed: Latencies,
    /// Of all transactions together, in nanoseconds.
    committing: u64,
    events: u64,
}

pub(crate) async fn prepare(
    output: &Output,
    target: &mut Target,
    args: &PrepareBench,
) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let budget = Budget::new(args.events, None);
    let turns = Turns {
        address: target.address(),
        topic: target.topic.clone(),
        size: args.common.size as usize,
        budget: budget.clone(),
        warm_up: warm_up(args.events),
        clock,
    };
    let before = target.before().await?;
    let options = batching::publisher_options(&args.common);
    let endpoint = Endpoint::spawn("transactions", move || turns.run(options))?;
    let bar = output.progress(Some(args.events), "prepare");
    let taken = watched(&bar, || budget.taken(), endpoint.finished()).await?;
    let mut report = Report::new("prepare", &args.common);
    report.timing(taken.events, 0, taken.committing);
    report.one_at_a_time(Some(1));
    target.enter_figures(&before, &mut report).await?;
    report.latencies(taken.committed.percentiles());
    report.prepare(taken.published.percentiles());
    let bar = output.progress(Some(2 * taken.events), "read back");
    let ledger =
        consumer::read_back(&target.control, &target.topic, Layout::Binary, |_, _| bar.inc(1)).await?;
    bar.finish_and_clear();
    report.verdict(ledger.verdict(&[taken.events; 2], |_| true));
    Ok(report)
}

impl Turns {
    /// Both in turn, so that whatever else the machine does meets both alike.
    async fn run(self, options: levada_client::PublisherOptions) -> anyhow::Result<Taken> {
        let client = self.address.connect().await?;
        let publisher = client.publisher(&self.topic, options).await?;
        let group = client.producer_group(GROUP)?;
        let mut stamper = Stamper::new(Layout::Binary, self.size);
        let mut taken = Taken {
            published: Latencies::default(),
            committed: Latencies::default(),
            committing: 0,
            events: 0,
        };
        self.budget.begin(self.clock.now());
        while self.budget.take(1, self.clock.now()) > 0 {
            let sequence = taken.events;
            taken.events += 1;
            let mut event = |lane, sent| Event::new(stamper.payload(Stamp { lane, sequence, sent }));
            let begun = self.clock.now();
            publisher.publish(event(PUBLISHED, begun)).await?.await?;
            let published = self.clock.now();
            let mut transaction = group.transaction(&format!("{}-{sequence}", self.topic))?;
            transaction.publish(&self.topic, event(COMMITTED, published))?;
            transaction.prepare().await?.commit().await?;
            let committed = self.clock.now();
            taken.committing += committed - published;
            if sequence >= self.warm_up {
                taken.published.record(published - begun);
                taken.committed.record(committed - published);
            }
        }
        client.close().await;
        Ok(taken)
    }
}
