//! The workload `dedup`: events with unique ids to a topic with a dedup window in its steady state, and to one without.

use levada_client::{TopicChanges, TopicInfo};
use levada_terminal::Output;

use crate::{
    args::DedupBench,
    clock::Clock,
    ledger::Verdict,
    publish::{prefill, report_of, shown},
    publishing::{Published, Publishing},
    report::Report,
    stamp::Layout,
    target::Target,
};

pub(crate) async fn dedup(output: &Output, target: &mut Target, args: &DedupBench) -> anyhow::Result<Report> {
    let plain = target.another_topic(&args.common).await?;
    let windowed = target.topic.clone();
    let changes = TopicChanges { dedup_window_ms: Some(args.window.0), ..TopicChanges::default() };
    target.control.set_topic(&windowed, changes).await?;
    let clock = Clock::start();
    let publishing = |events, prefix| {
        Publishing::new(target, &args.common, Layout::Binary, clock, events, None).with_ids(prefix)
    };
    if args.prefill > 0 {
        prefill(output, publishing(args.prefill, "before"), args.prefill).await?;
    }
    let without = publishing(args.events, "event").to(&plain);
    let without = shown(output, without, args.events, "without").await?;
    let before = target.before().await?;
    let with = shown(output, publishing(args.events, "event"), args.events, "with").await?;
    let mut report = report_of("dedup", &args.common, &with);
    report.latencies(with.latencies.percentiles());
    target.enter_figures(&before, &mut report).await?;
    let info = target.control.describe_topic(&windowed).await?;
    let dedup = info.dedup;
    report.dedup(rate(&without), dedup.ids, dedup.window_ms);
    let plain = target.control.describe_topic(&plain).await?;
    let lost = (args.prefill + 2 * args.events).saturating_sub(stored(&info) + stored(&plain));
    report.verdict(Verdict { lost, unexpected: dedup.duplicates, ..Verdict::default() });
    Ok(report)
}

fn stored(topic: &TopicInfo) -> u64 {
    topic.partitions.iter().map(|partition| partition.end).sum()
}

#[expect(clippy::cast_precision_loss, reason = "counts and times of a run fit 53 bits")]
fn rate(published: &Published) -> f64 {
    published.events() as f64 * 1e9 / (published.ended - published.begun).max(1) as f64
}
