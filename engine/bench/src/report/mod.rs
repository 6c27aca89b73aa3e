//! What a run found: the object of `--output json`, its table for people, and medians over runs.

mod of_limit;

use levada_rig::latencies::Percentiles;
use levada_terminal::{choices::order_word, output};
use serde::Serialize;

pub(crate) use self::of_limit::Figure;
use self::of_limit::OfLimit;
use crate::{
    args::{BenchCommon, ConsumerArgs},
    batching,
    figures::{
        Costs, DedupFigures, DelayFigures, DeliveryFigures, LatencyFigures, PrepareFigures, Rates,
        StuckFigures,
    },
    ledger::Verdict,
};

/// One run, or the medians of several. The names of all fields are the bench's interface.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    setup: Setup,
    #[serde(flatten)]
    consumption: Consumption,
    #[serde(flatten)]
    rates: Rates,
    #[serde(flatten)]
    latency: LatencyFigures,
    #[serde(flatten)]
    costs: Costs,
    /// Computed from what arrived: every event that had to, once and in order.
    complete: bool,
    #[serde(flatten)]
    verdict: Verdict,
    #[serde(flatten)]
    dedup: Option<DedupFigures>,
    #[serde(flatten)]
    delay: Option<DelayFigures>,
    #[serde(flatten)]
    delivery: Option<DeliveryFigures>,
    #[serde(flatten)]
    stuck: Option<StuckFigures>,
    #[serde(flatten)]
    prepare: Option<PrepareFigures>,
    #[serde(flatten)]
    of_limit: Option<OfLimit>,
    /// QUIC packet size in force, in bytes.
    mtu: u16,
    /// The engine's.
    version: String,
    /// How many runs this is the median of; 1 for a run.
    runs: u16,
}

/// What is published, and how.
#[derive(Debug, Clone, Serialize)]
struct Setup {
    workload: &'static str,
    /// Payload bytes of an event.
    size: u32,
    /// Events that fill a batch; 1 where they go one at a time.
    batch: u32,
    partitions: u16,
    keys: u32,
    connections: u16,
    /// Publishing tasks with one event in flight each; none where full batches are pipelined.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// Events a second that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    durability: &'static str,
}

/// To whom it is delivered, and through what.
#[derive(Debug, Clone, Default, Serialize)]
struct Consumption {
    subscribers: u16,
    /// Of each subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'static str>,
    /// Share of the events that the plugin keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<f64>,
}

impl Report {
    /// A report without figures yet, as the flags say.
    pub(crate) fn new(workload: &'static str, common: &BenchCommon) -> Self {
        Self {
            setup: Setup {
                workload,
                size: common.size,
                batch: batching::batch_events(common),
                partitions: common.partitions,
                keys: common.keys,
                connections: 1,
                concurrency: None,
                rate: None,
                durability: common.durability.word(),
            },
            consumption: Consumption::default(),
            rates: Rates::default(),
            latency: LatencyFigures::default(),
            costs: Costs::default(),
            complete: false,
            verdict: Verdict::default(),
            dedup: None,
            delay: None,
            delivery: None,
            stuck: None,
            prepare: None,
            of_limit: None,
            mtu: 0,
            version: String::new(),
            runs: 1,
        }
    }

    /// Events went one at a time, from so many tasks if their number was fixed.
    pub(crate) fn one_at_a_time(&mut self, concurrency: Option<u32>) {
        self.setup.batch = 1;
        self.setup.concurrency = concurrency;
    }

    /// Events were published at this rate, one at a time.
    pub(crate) fn paced(&mut self, rate: f64) {
        self.setup.batch = 1;
        self.setup.rate = Some(rate);
    }

    /// Sets how many connections published.
    pub(crate) fn connections(&mut self, connections: u16) {
        self.setup.connections = connections;
    }

    /// Sets the plugin that events went through, and the share that it keeps if it is a filter.
    pub(crate) fn plugin(&mut self, plugin: &'static str, pass: Option<f64>) {
        self.consumption.plugin = Some(plugin);
        self.consumption.pass = pass;
    }

    /// Sets the count, the time between two instants in nanoseconds, and the rates that follow.
    pub(crate) fn timing(&mut self, events: u64, begun: u64, ended: u64) {
        self.rates = Rates::between(events, self.setup.size, begun, ended);
    }

    /// Sets what subscriptions were like, and how many deliveries that made: every event to each. After the timing.
    pub(crate) fn subscribers(&mut self, count: u16, args: &ConsumerArgs) {
        self.consumption.subscribers = count;
        self.consumption.consumers = Some(args.consumers);
        self.consumption.order = Some(order_word(args.order.into()));
        self.rates.deliveries_per_second = Some(self.rates.events_per_second * f64::from(count));
    }

    /// Sets how many deliveries there were in the time, where that is not every event to each. After the timing.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run fit 53 bits")]
    pub(crate) fn deliveries(&mut self, count: u64) {
        self.rates.deliveries_per_second = Some(count as f64 / self.rates.seconds);
    }

    /// Sets whether everything arrived.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        self.complete = verdict.is_complete();
        self.verdict = verdict;
    }

    /// Sets the latencies.
    pub(crate) fn latencies(&mut self, found: Option<Percentiles>) {
        self.latency = found.into();
    }

    /// Sets what the run cost, the packet size in force, and the engine's version.
    pub(crate) fn costs(&mut self, costs: Costs, mtu: u16, version: String) {
        self.costs = costs;
        self.mtu = mtu;
        self.version = version;
    }

    /// Sets what a dedup window held, and the rate without one. After the timing.
    pub(crate) fn dedup(&mut self, without_events_per_second: f64, dedup_ids: u64, dedup_window_ms: u64) {
        let of_without = self.rates.events_per_second / without_events_per_second;
        self.dedup = Some(DedupFigures { without_events_per_second, of_without, dedup_ids, dedup_window_ms });
    }

    /// Sets what events cost while they waited.
    pub(crate) fn delay(&mut self, figures: DelayFigures) {
        self.delay = Some(figures);
    }

    /// Sets how many deliveries there were in the time, and how many a second one consumer gets. After the timing.
    pub(crate) fn delivery(&mut self, count: u64, one_consumer_deliveries_per_second: f64) {
        self.deliveries(count);
        let rate = self.rates.deliveries_per_second.unwrap_or_default();
        let of_one_consumer = rate / one_consumer_deliveries_per_second;
        self.delivery = Some(DeliveryFigures { one_consumer_deliveries_per_second, of_one_consumer });
    }

    /// Sets how many deliveries a second there are without keys that are stuck. After the deliveries.
    pub(crate) fn stuck(&mut self, without_stuck_deliveries_per_second: f64) {
        let rate = self.rates.deliveries_per_second.unwrap_or_default();
        let of_without_stuck = rate / without_stuck_deliveries_per_second;
        self.stuck = Some(StuckFigures { without_stuck_deliveries_per_second, of_without_stuck });
    }

    /// Sets what an event took that was published, of which the latencies of transactions are a multiple. After these.
    pub(crate) fn prepare(&mut self, published: Option<Percentiles>) {
        if let (Some(published), Some(p50)) = (published, self.latency.p50_us) {
            let of_publish = p50 / published.p50;
            self.prepare = Some(PrepareFigures { publish_p50_us: published.p50, of_publish });
        }
    }

    /// Compares with the limit `path`, measured before and after the run.
    pub(crate) fn limit(&mut self, path: &'static str, figures: (Figure, Figure)) {
        self.of_limit = OfLimit::compare(path, figures, &self.rates, &self.latency);
    }

    /// True if every event arrived once and in order.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Medians of every figure; complete only if every run was. `None` of no runs.
    pub(crate) fn medians(runs: &[Self]) -> Option<Self> {
        let dedup: Vec<&DedupFigures> = runs.iter().filter_map(|run| run.dedup.as_ref()).collect();
        let delay: Vec<&DelayFigures> = runs.iter().filter_map(|run| run.delay.as_ref()).collect();
        let stuck: Vec<&StuckFigures> = runs.iter().filter_map(|run| run.stuck.as_ref()).collect();
        let delivery: Vec<&DeliveryFigures> = runs.iter().filter_map(|run| run.delivery.as_ref()).collect();
        let prepare: Vec<&PrepareFigures> = runs.iter().filter_map(|run| run.prepare.as_ref()).collect();
        let limits: Vec<&OfLimit> = runs.iter().filter_map(|run| run.of_limit.as_ref()).collect();
        Some(Self {
            rates: Rates::medians(runs.iter().map(|run| &run.rates)),
            latency: LatencyFigures::medians(runs.iter().map(|run| &run.latency)),
            costs: Costs::medians(runs.iter().map(|run| &run.costs)),
            complete: runs.iter().all(|run| run.complete),
            verdict: runs.iter().map(|run| run.verdict).fold(Verdict::default(), Verdict::and),
            dedup: (!dedup.is_empty()).then(|| DedupFigures::medians(dedup.iter().copied())),
            delay: (!delay.is_empty()).then(|| DelayFigures::medians(delay.iter().copied())),
            delivery: (!delivery.is_empty()).then(|| DeliveryFigures::medians(delivery.iter().copied())),
            stuck: (!stuck.is_empty()).then(|| StuckFigures::medians(stuck.iter().copied())),
            prepare: (!prepare.is_empty()).then(|| PrepareFigures::medians(prepare.iter().copied())),
            of_limit: OfLimit::medians(&limits),
            runs: u16::try_from(runs.len()).unwrap_or(u16::MAX),
            ..runs.first()?.clone()
        })
    }

    /// The result in one line.
    pub(crate) fn headline(&self) -> String {
        let rates = &self.rates;
        let mut line = format!(
            "{:>12} events/s  {:>7.1} MB/s",
            output::rate(rates.events_per_second),
            rates.mb_per_second
        );
        if let (Some(p50), Some(p99)) = (self.latency.p50_us, self.latency.p99_us) {
            line.push_str(&format!("  p50 {}  p99 {}", output::micros(p50), output::micros(p99)));
        }
        if let Some(limit) = &self.of_limit {
            line.push_str(&format!("  {:.2} of the limit", limit.ratio()));
        }
        if let Some(dedup) = &self.dedup {
            line.push_str(&format!("  {:.2} of without", dedup.of_without));
        }
        if let Some(delay) = &self.delay {
            line.push_str(&format!("  {:.0} MiB pending", delay.pending_rss_mib));
        }
        if let Some(delivery) = &self.delivery {
            line.push_str(&format!("  {:.2} of one consumer", delivery.of_one_consumer));
        }
        if let Some(stuck) = &self.stuck {
            line.push_str(&format!("  {:.2} of without stuck keys", stuck.of_without_stuck));
        }
        if let Some(prepare) = &self.prepare {
            line.push_str(&format!("  {:.2} of a publish", prepare.of_publish));
        }
        line.push_str(if self.complete { "  complete" } else { "  INCOMPLETE" });
        line
    }

    /// Every figure, one a line.
    pub(crate) fn table(&self) -> String {
        let (rates, costs) = (&self.rates, &self.costs);
        let mut lines = vec![("workload", self.workload_text())];
        if self.runs > 1 {
            lines.push(("median of", format!("{} runs", self.runs)));
        }
        lines.push((
            "events",
            format!("{} of {} bytes in {:.3} s", output::count(rates.events), self.setup.size, rates.seconds),
        ));
        let rate = output::rate(rates.events_per_second);
        lines.push(("rate", format!("{rate} events/s, {:.1} MB/s", rates.mb_per_second)));
        if let Some(deliveries) = rates.deliveries_per_second {
            lines.push(("deliveries", format!("{} /s", output::rate(deliveries))));
        }
        let latency = &self.latency;
        if let (Some(p50), Some(p99), Some(p999), Some(max)) =
            (latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us)
        {
            let text = [("p50", p50), ("p99", p99), ("p99.9", p999), ("max", max)]
                .map(|(name, value)| format!("{name} {}", output::micros(value)));
            lines.push(("latency", text.join(", ")));
        }
        if let Some(dedup) = &self.dedup {
            let without = output::rate(dedup.without_events_per_second);
            lines.push((
                "of without",
                format!("{:.2} of {without} events/s without a window", dedup.of_without),
            ));
            let (ids, window) = (output::count(dedup.dedup_ids), output::duration_ms(dedup.dedup_window_ms));
            lines.push(("ids held", format!("{ids}, of the last {window}")));
        }
        if let Some(delay) = &self.delay {
            let (pending, mib) = (output::count(delay.pending), delay.pending_rss_mib);
            lines.push(("pending", format!("{pending}, for {mib:.0} MiB more of memory")));
        }
        if let Some(delivery) = &self.delivery {
            let one = output::rate(delivery.one_consumer_deliveries_per_second);
            lines.push((
                "of one",
                format!("{:.3} of {one} deliveries/s to one consumer", delivery.of_one_consumer),
            ));
        }
        if let Some(stuck) = &self.stuck {
            let without = output::rate(stuck.without_stuck_deliveries_per_second);
            let text = format!("{:.2} of {without} deliveries/s without stuck keys", stuck.of_without_stuck);
            lines.push(("of unstuck", text));
        }
        if let Some(prepare) = &self.prepare {
            let publish = output::micros(prepare.publish_p50_us);
            lines.push(("of a publish", format!("{:.2} of p50 {publish}", prepare.of_publish)));
        }
        if let Some(limit) = &self.of_limit {
            lines.push(("of limit", limit.text()));
        }
        let (engine, client) = (costs.engine_cpu_seconds, costs.client_cpu_seconds);
        lines.push(("cpu", format!("engine {engine:.2} s, client {client:.2} s")));
        lines.push(("engine memory", format!("peak {:.0} MiB", costs.engine_peak_rss_mib)));
        let (durability, syncs) = (self.setup.durability, output::count(costs.syncs));
        lines.push(("durability", format!("{durability}, {syncs} syncs, p99 {} µs", costs.sync_p99_us)));
        lines.push(("mtu", format!("{} bytes", self.mtu)));
        let (compaction, flushes) = (output::bytes(costs.compaction_bytes), output::bytes(costs.flush_bytes));
        lines.push((
            "store",
            format!("flushed {flushes}, compacted {compaction}, stalled {:.3} s", costs.stall_seconds),
        ));
        lines.push(("complete", self.complete_text()));
        lines.push(("version", self.version.clone()));
        lines.iter().map(|(name, value)| format!("{name:<14} {value}")).collect::<Vec<_>>().join("\n")
    }

    fn workload_text(&self) -> String {
        let (setup, consumption) = (&self.setup, &self.consumption);
        let mut parts = vec![setup.workload.to_owned()];
        parts.extend(consumption.plugin.map(|plugin| format!("plugin {plugin}")));
        parts.extend(consumption.pass.map(|pass| format!("pass {pass}")));
        if consumption.subscribers > 0 {
            parts.push(format!("{} subscribers", consumption.subscribers));
        }
        parts.extend(setup.concurrency.map(|tasks| format!("{tasks} in flight")));
        if setup.connections > 1 {
            parts.push(format!("{} connections", setup.connections));
        }
        parts.extend(setup.rate.map(|rate| format!("{rate} events/s asked")));
        if setup.partitions > 1 {
            parts.push(format!("{} partitions", setup.partitions));
        }
        if setup.keys > 0 {
            parts.push(format!("{} keys", setup.keys));
        }
        parts.join(", ")
    }

    fn complete_text(&self) -> String {
        if self.complete {
            // A dedup window's topics are counted, not read; delayed events come in the order of their times.
            let unordered = self.dedup.is_some() || self.delay.is_some();
            let proven = if unordered { "every event once" } else { "every event once and in order" };
            return format!("yes: {proven}");
        }
        let Verdict { lost, twice, disordered, unexpected } = self.verdict;
        format!("NO: {lost} lost, {twice} twice, {disordered} out of order, {unexpected} unexpected")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        common: BenchCommon,
    }

    fn run(rate: u64, lost: u64) -> Report {
        let mut report = Report::new("publish", &Flags::parse_from(["bench"]).common);
        report.timing(rate, 0, 1_000_000_000);
        report.latency.p50_us = Some(report.rates.events_per_second);
        report.verdict(Verdict { lost, ..Verdict::default() });
        report
    }

    #[test]
    fn medians_are_complete_only_if_every_run_was() {
        let medians = Report::medians(&[run(5, 0), run(1, 0), run(3, 0)]).unwrap();
        assert_eq!(medians.rates.events_per_second, 3.0);
        assert_eq!((medians.latency.p50_us, medians.latency.p99_us), (Some(3.0), None));
        assert_eq!((medians.runs, medians.complete), (3, true));
        let flawed = Report::medians(&[run(5, 0), run(1, 1)]).unwrap();
        assert_eq!((flawed.complete, flawed.verdict.lost), (false, 1));
        assert!(Report::medians(&[]).is_none());
    }

    #[test]
    fn json_has_the_promised_fields() {
        let mut report = run(1, 0);
        report.limit("path", (Figure::EventsPerSecond(2.0), Figure::EventsPerSecond(2.0)));
        let json = serde_json::to_value(report).unwrap();
        for field in [
            "workload",
            "size",
            "events",
            "batch",
            "subscribers",
            "durability",
            "events_per_second",
            "mb_per_second",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "deliveries_per_second",
            "engine_cpu_seconds",
            "client_cpu_seconds",
            "engine_peak_rss_mib",
            "complete",
            "lost",
            "version",
            "mtu",
            "compaction_bytes",
            "stall_seconds",
            "runs",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["of_limit"], 0.5);
        assert!(serde_json::to_value(run(1, 0)).unwrap().get("of_limit").is_none());
    }

    #[test]
    fn the_table_shows_the_limit_where_one_was_measured() {
        let mut report = run(1, 0);
        assert!(!report.table().contains("of limit"));
        report.limit("the bare path", (Figure::EventsPerSecond(2.0), Figure::EventsPerSecond(4.0)));
        let line = "of limit       0.33 of the bare path: 2 events/s before, 4 events/s after";
        assert!(report.table().contains(line), "{}", report.table());
    }
}
