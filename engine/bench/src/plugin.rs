//! The workload `plugin`: stored events through a WebAssembly plugin, on a subscription or on a route.

use std::time::Duration;

use levada_bundled::{JSON_FILTER, SAMPLE};
use levada_client::{DeleteOptions, RouteSpec, StageSpec, Start};
use levada_rig::{arrivals::Seen, stall};
use levada_terminal::{Failure, Output};

use crate::{
    args::{PluginBench, PluginKind},
    clock::Clock,
    consumer,
    publish::prefill,
    publishing::{Published, Publishing},
    report::Report,
    stamp::{JSON_BYTES_MIN, Layout, RANK_BASE, rank},
    subscribing::{Subscribing, Wanted},
    target::Target,
    watched::watched,
};

/// How often the route's target is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// If nothing arrives for so long, nothing more will.
const STALLED: Duration = Duration::from_secs(30);

/// Refuses flags that cannot work together, before anything is started.
pub(crate) fn check(args: &PluginBench) -> Result<(), Failure> {
    if layout(args.plugin) == Layout::Json && (args.common.size as usize) < JSON_BYTES_MIN {
        let got = args.common.size;
        return Err(Failure::usage(format!(
            "expected --size of at least {JSON_BYTES_MIN} for the JSON of --plugin json-filter, got {got}"
        )));
    }
    Ok(())
}

fn layout(kind: PluginKind) -> Layout {
    match kind {
        PluginKind::JsonFilter => Layout::Json,
        PluginKind::Trivial | PluginKind::Route | PluginKind::None => Layout::Binary,
    }
}

/// Runs the workload.
pub(crate) async fn plugin(
    output: &Output,
    target: &mut Target,
    args: &PluginBench,
) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let layout = layout(args.plugin);
    levada_bundled::deploy_all(&target.control).await?;
    let publishing = Publishing::new(target, &args.common, layout, clock, args.events, None);
    let published = prefill(output, publishing, args.events).await?;
    let mut report = match args.plugin {
        PluginKind::Route => route(output, target, args, clock, &published).await?,
        kind => subscription(output, target, args, clock, layout, kind, &published).await?,
    };
    let filters = matches!(args.plugin, PluginKind::Trivial | PluginKind::JsonFilter);
    report.plugin(args.plugin.word(), filters.then_some(args.pass));
    Ok(report)
}

async fn subscription(
    output: &Output,
    target: &Target,
    args: &PluginBench,
    clock: Clock,
    layout: Layout,
    kind: PluginKind,
    published: &Published,
) -> anyhow::Result<Report> {
    let rule = Rule::new(kind, args.pass);
    // What has to pass is known from what is stored, not from what comes out.
    let mut passing = Seen::default();
    consumer::read_back(&target.control, &target.topic, layout, |offset, stamp| {
        if let Some(stamp) = stamp
            && rule.passes(offset, stamp.sequence)
        {
            passing.mark(stamp.sequence);
        }
    })
    .await?;
    let chain = rule.chain(kind, args.pass);
    let wanted = Wanted { chain, layout, ..Wanted::new(&args.consumer, args.common.keys, clock) };
    let before = target.before().await?;
    let begun = clock.now();
    let subscribing = Subscribing::attach(target, &wanted).await?;
    let bar = output.progress(Some(passing.count()), "scan");
    watched(&bar, || subscribing.arrived(), subscribing.wait_for(passing.count())).await;
    let mut report = Report::new("plugin", &args.common);
    target.enter_figures(&before, &mut report).await?;
    let subscribed = subscribing.finish(target).await?;
    report.timing(published.events(), begun, subscribed.last);
    report.subscribers(1, &args.consumer);
    report.deliveries(passing.count());
    report.verdict(subscribed.verdict(&published.counts, |sequence| passing.has(sequence)));
    Ok(report)
}

/// Which events pass a filter.
#[derive(Debug, Clone, Copy)]
enum Rule {
    All,
    /// The sample plugin's: offsets that mix to less than this.
    MixedBelow(u64),
    /// A condition on the field `rank`.
    RankBelow(u64),
}

impl Rule {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "shares of 2^64 and of 100,000"
    )]
    fn new(kind: PluginKind, pass: f64) -> Self {
        match kind {
            PluginKind::None | PluginKind::Route => Self::All,
            PluginKind::Trivial if pass >= 1.0 => Self::All,
            PluginKind::Trivial => Self::MixedBelow((pass * 2_f64.powi(64)) as u64),
            PluginKind::JsonFilter => Self::RankBelow(RANK_BASE + (pass * RANK_BASE as f64) as u64),
        }
    }

    fn passes(self, offset: u64, sequence: u64) -> bool {
        match self {
            Self::All => true,
            Self::MixedBelow(below) => mix(offset) < below,
            Self::RankBelow(below) => rank(sequence) < below,
        }
    }

    /// The stages that follow the rule.
    fn chain(self, kind: PluginKind, pass: f64) -> Vec<StageSpec> {
        match (kind, self) {
            (PluginKind::None | PluginKind::Route, _) => Vec::new(),
            (_, Self::RankBelow(below)) => {
                vec![stage(JSON_FILTER, format!(r#"{{"where": "rank < {below}"}}"#))]
            }
            (_, Self::All | Self::MixedBelow(_)) => vec![stage(SAMPLE, format!(r#"{{"pass": {pass}}}"#))],
        }
    }
}

fn stage(plugin: &str, config: String) -> StageSpec {
    StageSpec { plugin: plugin.to_owned(), config, ..StageSpec::default() }
}

/// The rule by which the sample plugin chooses: it spreads offsets over all numbers of 64 bits.
fn mix(offset: u64) -> u64 {
    let mut mixed = offset.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

async fn route(
    output: &Output,
    target: &mut Target,
    args: &PluginBench,
    clock: Clock,
    published: &Published,
) -> anyhow::Result<Report> {
    let outlet = target.another_topic(&args.common).await?;
    let before = target.before().await?;
    let begun = clock.now();
    let spec = RouteSpec {
        chain: vec![stage(SAMPLE, r#"{"transform": "reverse"}"#.to_owned())],
        start: Start::Earliest,
        ..RouteSpec::new(target.topic.parse()?, target.topic.parse()?, [outlet.parse()?])
    };
    target.control.create_route(spec).await?;
    let bar = output.progress(Some(published.events()), "route");
    let ended = routed(target, &outlet, published.events(), clock, &bar).await?;
    bar.finish_and_clear();
    let mut report = Report::new("plugin", &args.common);
    target.enter_figures(&before, &mut report).await?;
    report.timing(published.events(), begun, ended);
    let ledger = consumer::read_back(&target.control, &outlet, Layout::Reversed, |_, _| {}).await?;
    report.verdict(ledger.verdict(&published.counts, |_| true));
    target.control.delete_route(&target.topic, DeleteOptions::default()).await?;
    Ok(report)
}

/// Waits until the outlet holds so many events, or gets no more; answers when the last came.
async fn routed(
    target: &Target,
    outlet: &str,
    events: u64,
    clock: Clock,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<u64> {
    let (mut stored, mut changed) = (0, clock.now());
    let look = async || {
        let topic = target.control.describe_topic(outlet).await?;
        let now: u64 = topic.partitions.iter().map(|part| part.end).sum();
        if now != stored {
            (stored, changed) = (now, clock.now());
            bar.set_position(stored);
        }
        Ok(now)
    };
    stall::until(LOOK, STALLED, look, |stored| *stored >= events).await?;
    Ok(changed)
}
