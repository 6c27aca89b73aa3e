//! The workloads `publish` and `latency`: events until they are acknowledged, then read back and counted.

use levada_rig::latencies::Latencies;
use levada_terminal::Output;

use crate::{
    args::{BenchCommon, Latency, Publish},
    clock::Clock,
    consumer,
    publishing::{Published, Publishing, Shape},
    report::Report,
    stamp::Layout,
    target::Target,
    watched::watched,
};

/// Events that are published before latencies count, at most.
const WARM_UP_MAX: u64 = 1_000;

/// How many of so many events are published before latencies count.
pub(crate) fn warm_up(events: u64) -> u64 {
    (events / 10).min(WARM_UP_MAX)
}

/// As fast as it goes.
pub(crate) async fn publish(output: &Output, target: &mut Target, args: &Publish) -> anyhow::Result<Report> {
    let duration = args.duration.map(Into::into);
    let publishing =
        Publishing::new(target, &args.common, Layout::Binary, Clock::start(), args.events, duration)
            .spread(args.connections, args.producers)
            .shaped(match args.concurrency {
                Some(tasks) => Shape::OneInFlight { tasks, warm_up: 0 },
                None => Shape::Pipelined,
            });
    let length = duration.is_none().then_some(args.events);
    let mut report = run(output, target, &args.common, "publish", publishing, length).await?;
    report.connections(args.connections);
    if let Some(tasks) = args.concurrency {
        report.one_at_a_time(Some(u32::from(tasks) * u32::from(args.connections)));
    }
    Ok(report)
}

/// One at a time.
pub(crate) async fn latency(output: &Output, target: &mut Target, args: &Latency) -> anyhow::Result<Report> {
    let publishing = Publishing::new(target, &args.common, Layout::Binary, Clock::start(), args.events, None)
        .shaped(Shape::OneInFlight { tasks: 1, warm_up: warm_up(args.events) });
    let mut report = run(output, target, &args.common, "latency", publishing, Some(args.events)).await?;
    report.one_at_a_time(Some(1));
    Ok(report)
}

async fn run(
    output: &Output,
    target: &Target,
    common: &BenchCommon,
    workload: &'static str,
    publishing: Publishing,
    length: Option<u64>,
) -> anyhow::Result<Report> {
    let before = target.before().await?;
    let budget = publishing.budget();
    let bar = output.progress(length, "publish");
    let endpoint = publishing.spawn()?;
    let published = watched(&bar, || budget.taken(), endpoint.finished()).await?;
    let mut report = report_of(workload, common, &published);
    target.enter_figures(&before, &mut report).await?;
    report.latencies(published.latencies.percentiles());
    let bar = output.progress(Some(published.events()), "read back");
    let ledger =
        consumer::read_back(&target.control, &target.topic, Layout::Binary, |_, _| bar.inc(1)).await?;
    bar.finish_and_clear();
    report.verdict(ledger.verdict(&published.counts, |_| true));
    Ok(report)
}

/// Publishes all events of a workload that measures something else.
pub(crate) async fn prefill(
    output: &Output,
    publishing: Publishing,
    events: u64,
) -> anyhow::Result<Published> {
    shown(output, publishing, events, "prefill").await
}

/// Publishes all events and shows how far it is.
pub(crate) async fn shown(
    output: &Output,
    publishing: Publishing,
    events: u64,
    what: &'static str,
) -> anyhow::Result<Published> {
    let budget = publishing.budget();
    let bar = output.progress(Some(events), what);
    let endpoint = publishing.spawn()?;
    watched(&bar, || budget.taken(), endpoint.finished()).await
}

/// A report of what was published, from the first event to the last acknowledgement.
pub(crate) fn report_of(workload: &'static str, common: &BenchCommon, published: &Published) -> Report {
    let mut report = Report::new(workload, common);
    report.timing(published.events(), published.begun, published.ended);
    report.latencies(Latencies::default().percentiles());
    report
}
