//! The workloads `fanout` and `catchup`: events until every subscription has the last of them.

use levada_terminal::Output;

use crate::{
    args::{CatchUp, FanOut},
    clock::Clock,
    consumer::Timed,
    publish::{prefill, report_of},
    publishing::{Publishing, Shape},
    report::Report,
    stamp::Layout,
    subscribing::{Subscribing, Wanted},
    target::Target,
    watched::watched,
};

/// Publishes to several subscriptions at once.
pub(crate) async fn fan_out(output: &Output, target: &mut Target, args: &FanOut) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let wanted = Wanted {
        count: args.subscribers,
        timed: if args.rate.is_some() { Timed::All } else { Timed::Sampled },
        ..Wanted::new(&args.consumer, args.common.keys, clock)
    };
    let subscribing = Subscribing::attach(target, &wanted).await?;
    let duration = args.duration.map(Into::into);
    let publishing = Publishing::new(target, &args.common, Layout::Binary, clock, args.events(), duration)
        .shaped(args.rate.map_or(Shape::Pipelined, Shape::Rate));
    let before = target.before().await?;
    let bar = output.progress(duration.is_none().then_some(args.events()), "fan out");
    let endpoint = publishing.spawn()?;
    let everywhere = async {
        let published = endpoint.finished().await?;
        subscribing.wait_for(published.events()).await;
        anyhow::Ok(published)
    };
    let published = watched(&bar, || subscribing.arrived(), everywhere).await?;
    let mut report = report_of("fanout", &args.common, &published);
    target.enter_figures(&before, &mut report).await?;
    let subscribed = subscribing.finish(target).await?;
    report.timing(published.events(), published.begun, subscribed.last);
    report.latencies(subscribed.latencies.percentiles());
    report.subscribers(args.subscribers, &args.consumer);
    if let Some(rate) = args.rate {
        report.paced(rate);
    }
    report.verdict(subscribed.verdict(&published.counts, |_| true));
    Ok(report)
}

/// Stores everything first, then delivers it.
pub(crate) async fn catch_up(output: &Output, target: &mut Target, args: &CatchUp) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let publishing = Publishing::new(target, &args.common, Layout::Binary, clock, args.events, None);
    let published = prefill(output, publishing, args.events).await?;
    let wanted = Wanted::new(&args.consumer, args.common.keys, clock);
    let before = target.before().await?;
    let begun = clock.now();
    let subscribing = Subscribing::attach(target, &wanted).await?;
    let bar = output.progress(Some(args.events), "catch up");
    watched(&bar, || subscribing.arrived(), subscribing.wait_for(published.events())).await;
    let mut report = Report::new("catchup", &args.common);
    target.enter_figures(&before, &mut report).await?;
    let subscribed = subscribing.finish(target).await?;
    report.timing(published.events(), begun, subscribed.last);
    report.subscribers(1, &args.consumer);
    report.verdict(subscribed.verdict(&published.counts, |_| true));
    Ok(report)
}
