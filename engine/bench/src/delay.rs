//! The workload `delay`: events that wait, each for a time of its own: what they cost in memory, and how late they come.

use std::time::Duration;

use levada_terminal::{Output, choices::OrderArg};
use tokio::time::sleep;

use crate::{
    args::{ConsumerArgs, DelayBench},
    clock::Clock,
    consumer::Timed,
    figures::DelayFigures,
    producer::DueTimes,
    publish::{report_of, shown},
    publishing::{Publishing, Shape},
    report::Report,
    stamp::Layout,
    subscribing::{Subscribing, Wanted},
    target::Target,
    watched::watched,
};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn delay(output: &Output, target: &mut Target, args: &DelayBench) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let consumer = ConsumerArgs { order: OrderArg::None, consumers: 1, max_in_flight: 100_000 };
    let wanted = Wanted { timed: Timed::All, ..Wanted::new(&consumer, args.common.keys, clock) };
    let subscribing = Subscribing::attach(target, &wanted).await?;
    let before = target.before().await?;
    let due = DueTimes { first: clock.now() + nanoseconds(args.after.into()), within: args.within.into() };
    let publishing = Publishing::new(target, &args.common, Layout::Binary, clock, args.events, None)
        .shaped(Shape::Delayed(due));
    let published = shown(output, publishing, args.events, "schedule").await?;
    if published.ended >= due.first {
        let took = Duration::from_nanos(published.ended - published.begun).as_secs() + 1;
        output.remark(&format!(
            "the first event was due before all were scheduled, so fewer were pending at once: that took {took} s, \
             --after {}s is long enough",
            took * 2
        ));
    }
    let mut report = report_of("delay", &args.common, &published);
    let pending = target.control.describe_topic(&target.topic).await?.scheduled;
    let rss = target.control.info().await?.rss_bytes;
    #[expect(clippy::cast_precision_loss, reason = "memory fits 53 bits")]
    let pending_rss_mib = (rss as f64 - before.rss_bytes() as f64) / MIB;
    report.delay(DelayFigures { pending, pending_rss_mib });
    let bar = output.progress(Some(args.events), "deliver");
    let delivered = async {
        // Until the last event is due, long pauses between deliveries are no sign that something is lost.
        let last = due.first.saturating_add(nanoseconds(due.within));
        sleep(Duration::from_nanos(last.saturating_sub(clock.now()))).await;
        subscribing.wait_for(args.events).await;
    };
    watched(&bar, || subscribing.arrived(), delivered).await;
    target.enter_figures(&before, &mut report).await?;
    let subscribed = subscribing.finish(target).await?;
    report.latencies(subscribed.latencies.percentiles());
    report.verdict(subscribed.verdict(&published.counts, |_| true));
    Ok(report)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
