//! The workloads `publish` and `latency`: events until they are acknowledged, then read back and counted.

use super::{
    clock::Clock,
    consumer,
    publishing::{Published, Publishing, Shape},
    report::Report,
    stamp::Layout,
    target::Target,
    watched,
};
use crate::{
    args::{BenchCommon, Latency, PublishBench},
    latencies::Latencies,
    output::Output,
};

/// Events that are published before latencies count, at most.
const WARM_UP_MAX: u64 = 1_000;

/// As fast as it goes.
pub(super) async fn publish(
    output: &Output,
    target: &mut Target,
    args: &PublishBench,
) -> anyhow::Result<Report> {
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
    report.connections = args.connections;
    report.concurrency = args.concurrency.map(|tasks| u32::from(tasks) * u32::from(args.connections));
    if args.concurrency.is_some() {
        report.batch = 1;
    }
    Ok(report)
}

/// One at a time.
pub(super) async fn latency(output: &Output, target: &mut Target, args: &Latency) -> anyhow::Result<Report> {
    let warm_up = (args.events / 10).min(WARM_UP_MAX);
    let publishing = Publishing::new(target, &args.common, Layout::Binary, Clock::start(), args.events, None)
        .shaped(Shape::OneInFlight { tasks: 1, warm_up });
    let mut report = run(output, target, &args.common, "latency", publishing, Some(args.events)).await?;
    report.concurrency = Some(1);
    report.batch = 1;
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
pub(super) async fn prefill(
    output: &Output,
    publishing: Publishing,
    events: u64,
) -> anyhow::Result<Published> {
    let budget = publishing.budget();
    let bar = output.progress(Some(events), "prefill");
    let endpoint = publishing.spawn()?;
    watched(&bar, || budget.taken(), endpoint.finished()).await
}

/// A report of what was published, from the first event to the last acknowledgement.
pub(super) fn report_of(workload: &'static str, common: &BenchCommon, published: &Published) -> Report {
    let mut report = Report::new(workload, common);
    report.timing(published.events(), published.begun, published.ended);
    report.latencies(Latencies::new().percentiles());
    report
}
