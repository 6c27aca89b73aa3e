//! The workload `delivery`: consumers that settle each event by itself, against one that acknowledges whole deliveries.

use levada_terminal::{Failure, Output, choices::OrderArg};

use crate::{
    args::{ConsumerArgs, DeliveryBench},
    clock::Clock,
    consumer::Handling,
    ledger::Verdict,
    publish::prefill,
    publishing::{Published, Publishing},
    report::Report,
    stamp::Layout,
    subscribing::{Subscribed, Subscribing, Wanted},
    target::Target,
    watched::watched,
};

/// Refuses options that contradict each other.
pub(crate) fn check(args: &DeliveryBench) -> Result<(), Failure> {
    let (stuck, keys) = (args.stuck_keys, args.common.keys);
    if stuck > 0 && stuck >= keys {
        let message =
            format!("--stuck-keys {stuck} contradicts --keys {keys}: expected fewer stuck keys than keys");
        return Err(Failure::usage(message));
    }
    if stuck > 0 && args.consumer.order != OrderArg::Key {
        let message = "--stuck-keys contradicts --order: only in key order other keys go on";
        return Err(Failure::usage(message));
    }
    Ok(())
}

pub(crate) async fn delivery(
    output: &Output,
    target: &mut Target,
    args: &DeliveryBench,
) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let publishing = Publishing::new(target, &args.common, Layout::Binary, clock, args.events, None);
    let published = prefill(output, publishing, args.events).await?;
    let (keys, stuck) = (args.common.keys, args.stuck_keys);
    let one = ConsumerArgs { consumers: 1, ..args.consumer.clone() };
    let whole = Wanted { name: "one", ..Wanted::new(&one, keys, clock) };
    let alone = deliver(output, target, &whole, "one consumer", args.events, clock).await?;
    let single = |name, stuck| {
        let handling = Handling::Single { failures: args.failures, keys, stuck };
        Wanted { name, handling, ..Wanted::new(&args.consumer, keys, clock) }
    };
    let unstuck = match stuck {
        0 => None,
        _ => Some(
            deliver(output, target, &single("unstuck", 0), "without stuck keys", args.events, clock).await?,
        ),
    };
    let before = target.before().await?;
    let is_expected = |sequence: u64| stuck == 0 || sequence % u64::from(keys) >= stuck.into();
    let expected = (0..args.events).filter(|sequence| is_expected(*sequence)).count() as u64;
    let measured = deliver(output, target, &single("bench", stuck), "deliver", expected, clock).await?;
    let mut report = Report::new("delivery", &args.common);
    target.enter_figures(&before, &mut report).await?;
    report.timing(args.events, measured.begun, measured.subscribed.last);
    report.subscribers(1, &args.consumer);
    report.delivery(expected, alone.rate(args.events));
    let mut verdict = alone.verdict(&published, |_| true).and(measured.verdict(&published, is_expected));
    if let Some(unstuck) = unstuck {
        report.stuck(unstuck.rate(args.events));
        verdict = verdict.and(unstuck.verdict(&published, |_| true));
    }
    report.verdict(verdict);
    Ok(report)
}

/// What subscriptions got, from when on.
struct Delivered {
    begun: u64,
    subscribed: Subscribed,
}

impl Delivered {
    fn verdict(&self, published: &Published, expected: impl Fn(u64) -> bool) -> Verdict {
        self.subscribed.verdict(&published.counts, expected)
    }

    /// Deliveries a second.
    #[expect(clippy::cast_precision_loss, reason = "counts and times of a run fit 53 bits")]
    fn rate(&self, events: u64) -> f64 {
        events as f64 * 1e9 / self.subscribed.last.saturating_sub(self.begun).max(1) as f64
    }
}

async fn deliver(
    output: &Output,
    target: &Target,
    wanted: &Wanted<'_>,
    what: &'static str,
    events: u64,
    clock: Clock,
) -> anyhow::Result<Delivered> {
    let begun = clock.now();
    let subscribing = Subscribing::attach(target, wanted).await?;
    let bar = output.progress(Some(events), what);
    watched(&bar, || subscribing.arrived(), subscribing.wait_for(events)).await;
    let subscribed = subscribing.finish(target).await?;
    Ok(Delivered { begun, subscribed })
}
