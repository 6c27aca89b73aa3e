//! What a run found: the object of `--output json`, its table for people, and medians over runs.

use serde::Serialize;

use super::{ledger::Verdict, target};
use crate::{
    args::BenchCommon,
    latencies::{Percentiles, median},
    output,
};

/// One run, or the medians of several. The names are the bench's interface.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) workload: &'static str,
    /// Payload bytes of an event.
    pub(super) size: u32,
    /// Source events.
    pub(super) events: u64,
    /// Events that fill a batch; 1 where they go one at a time.
    pub(super) batch: u32,
    pub(super) partitions: u16,
    pub(super) keys: u32,
    pub(super) connections: u16,
    /// Publishing tasks with one event in flight each; none where full batches are pipelined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) concurrency: Option<u32>,
    pub(super) subscribers: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consumers: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plugin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<f64>,
    pub(super) durability: &'static str,
    /// From the first event to the last acknowledgement or delivery.
    pub(super) seconds: f64,
    pub(super) events_per_second: f64,
    /// Payload megabytes (10^6 bytes) of source events a second.
    pub(super) mb_per_second: f64,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) p999_us: Option<f64>,
    pub(super) max_us: Option<f64>,
    pub(super) deliveries_per_second: Option<f64>,
    pub(super) engine_cpu_seconds: f64,
    pub(super) client_cpu_seconds: f64,
    pub(super) engine_peak_rss_mib: f64,
    /// Computed from what arrived: every event that had to, once and in order.
    pub(super) complete: bool,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) disordered: u64,
    pub(super) unexpected: u64,
    /// QUIC packet size in force, in bytes.
    pub(super) mtu: u16,
    pub(super) compaction_bytes: u64,
    pub(super) flush_bytes: u64,
    pub(super) stall_seconds: f64,
    pub(super) syncs: u64,
    pub(super) sync_p99_us: u64,
    pub(super) version: String,
    /// How many runs this is the median of; 1 for a run.
    pub(super) runs: u16,
}

impl Report {
    /// A report without figures yet, as the flags say.
    pub(super) fn new(workload: &'static str, common: &BenchCommon) -> Self {
        Self {
            workload,
            size: common.size,
            events: 0,
            batch: target::batch_events(common),
            partitions: common.partitions,
            keys: common.keys,
            connections: 1,
            concurrency: None,
            subscribers: 0,
            consumers: None,
            order: None,
            rate: None,
            plugin: None,
            pass: None,
            durability: common.durability.word(),
            seconds: 0.0,
            events_per_second: 0.0,
            mb_per_second: 0.0,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            max_us: None,
            deliveries_per_second: None,
            engine_cpu_seconds: 0.0,
            client_cpu_seconds: 0.0,
            engine_peak_rss_mib: 0.0,
            complete: false,
            lost: 0,
            twice: 0,
            disordered: 0,
            unexpected: 0,
            mtu: 0,
            compaction_bytes: 0,
            flush_bytes: 0,
            stall_seconds: 0.0,
            syncs: 0,
            sync_p99_us: 0,
            version: String::new(),
            runs: 1,
        }
    }

    /// Sets the count, the time between two instants in nanoseconds, and the rates that follow.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run fit 53 bits")]
    pub(super) fn timing(&mut self, events: u64, begun: u64, ended: u64) {
        self.events = events;
        self.seconds = ended.saturating_sub(begun).max(1) as f64 / 1e9;
        self.events_per_second = events as f64 / self.seconds;
        self.mb_per_second = self.events_per_second * f64::from(self.size) / 1e6;
    }

    /// Sets how many deliveries there were in that time.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run fit 53 bits")]
    pub(super) fn deliveries(&mut self, count: u64) {
        self.deliveries_per_second = Some(count as f64 / self.seconds);
    }

    /// Sets whether everything arrived.
    pub(super) fn verdict(&mut self, verdict: Verdict) {
        self.complete = verdict.is_complete();
        self.lost = verdict.lost;
        self.twice = verdict.twice;
        self.disordered = verdict.disordered;
        self.unexpected = verdict.unexpected;
    }

    /// Sets the latencies.
    pub(super) fn latencies(&mut self, found: Option<Percentiles>) {
        self.p50_us = found.map(|found| found.p50);
        self.p99_us = found.map(|found| found.p99);
        self.p999_us = found.map(|found| found.p999);
        self.max_us = found.map(|found| found.max);
    }

    /// Medians of every figure; complete only if every run was. `None` of no runs.
    pub(super) fn medians(runs: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure)).unwrap_or(0.0);
        let of_some = |figure: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(figure));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "counts far below 2^53"
        )]
        let of_count = |figure: fn(&Self) -> u64| {
            median(runs.iter().map(|run| figure(run) as f64)).unwrap_or(0.0) as u64
        };
        Some(Self {
            events: of_count(|run| run.events),
            seconds: of(|run| run.seconds),
            events_per_second: of(|run| run.events_per_second),
            mb_per_second: of(|run| run.mb_per_second),
            p50_us: of_some(|run| run.p50_us),
            p99_us: of_some(|run| run.p99_us),
            p999_us: of_some(|run| run.p999_us),
            max_us: of_some(|run| run.max_us),
            deliveries_per_second: of_some(|run| run.deliveries_per_second),
            engine_cpu_seconds: of(|run| run.engine_cpu_seconds),
            client_cpu_seconds: of(|run| run.client_cpu_seconds),
            engine_peak_rss_mib: of(|run| run.engine_peak_rss_mib),
            complete: runs.iter().all(|run| run.complete),
            lost: runs.iter().map(|run| run.lost).sum(),
            twice: runs.iter().map(|run| run.twice).sum(),
            disordered: runs.iter().map(|run| run.disordered).sum(),
            unexpected: runs.iter().map(|run| run.unexpected).sum(),
            compaction_bytes: of_count(|run| run.compaction_bytes),
            flush_bytes: of_count(|run| run.flush_bytes),
            stall_seconds: of(|run| run.stall_seconds),
            syncs: of_count(|run| run.syncs),
            sync_p99_us: of_count(|run| run.sync_p99_us),
            runs: u16::try_from(runs.len()).unwrap_or(u16::MAX),
            ..runs.first()?.clone()
        })
    }

    /// The result in one line.
    pub(super) fn headline(&self) -> String {
        let mut line =
            format!("{:>12} events/s  {:>7.1} MB/s", rate(self.events_per_second), self.mb_per_second);
        if let (Some(p50), Some(p99)) = (self.p50_us, self.p99_us) {
            line.push_str(&format!("  p50 {}  p99 {}", output::micros(p50), output::micros(p99)));
        }
        line.push_str(if self.complete { "  complete" } else { "  INCOMPLETE" });
        line
    }

    /// Every figure, one a line.
    pub(super) fn table(&self) -> String {
        let mut lines = vec![("workload", self.workload_text())];
        if self.runs > 1 {
            lines.push(("median of", format!("{} runs", self.runs)));
        }
        lines.push((
            "events",
            format!("{} of {} bytes in {:.3} s", output::count(self.events), self.size, self.seconds),
        ));
        lines.push((
            "rate",
            format!("{} events/s, {:.1} MB/s", rate(self.events_per_second), self.mb_per_second),
        ));
        if let Some(deliveries) = self.deliveries_per_second {
            lines.push(("deliveries", format!("{} /s", rate(deliveries))));
        }
        if let (Some(p50), Some(p99), Some(p999), Some(max)) =
            (self.p50_us, self.p99_us, self.p999_us, self.max_us)
        {
            let text = [("p50", p50), ("p99", p99), ("p99.9", p999), ("max", max)]
                .map(|(name, value)| format!("{name} {}", output::micros(value)));
            lines.push(("latency", text.join(", ")));
        }
        lines.push((
            "cpu",
            format!("engine {:.2} s, client {:.2} s", self.engine_cpu_seconds, self.client_cpu_seconds),
        ));
        lines.push(("engine memory", format!("peak {:.0} MiB", self.engine_peak_rss_mib)));
        lines.push((
            "durability",
            format!("{}, {} syncs, p99 {} µs", self.durability, output::count(self.syncs), self.sync_p99_us),
        ));
        lines.push(("mtu", format!("{} bytes", self.mtu)));
        let (compaction, flushes) = (output::bytes(self.compaction_bytes), output::bytes(self.flush_bytes));
        lines.push((
            "store",
            format!("flushed {flushes}, compacted {compaction}, stalled {:.3} s", self.stall_seconds),
        ));
        lines.push(("complete", self.complete_text()));
        lines.push(("version", self.version.clone()));
        lines.iter().map(|(name, value)| format!("{name:<14} {value}")).collect::<Vec<_>>().join("\n")
    }

    fn workload_text(&self) -> String {
        let mut text = self.workload.to_owned();
        let mut add = |part: String| {
            text.push_str(", ");
            text.push_str(&part);
        };
        if let Some(plugin) = self.plugin {
            add(format!("plugin {plugin}"));
        }
        if let Some(pass) = self.pass {
            add(format!("pass {pass}"));
        }
        if self.subscribers > 0 {
            add(format!("{} subscribers", self.subscribers));
        }
        if let Some(concurrency) = self.concurrency {
            add(format!("{concurrency} in flight"));
        }
        if self.connections > 1 {
            add(format!("{} connections", self.connections));
        }
        if let Some(rate) = self.rate {
            add(format!("{rate} events/s asked"));
        }
        if self.partitions > 1 {
            add(format!("{} partitions", self.partitions));
        }
        if self.keys > 0 {
            add(format!("{} keys", self.keys));
        }
        text
    }

    fn complete_text(&self) -> String {
        if self.complete {
            return "yes: every event once and in order".to_owned();
        }
        format!(
            "NO: {} lost, {} twice, {} out of order, {} unexpected",
            self.lost, self.twice, self.disordered, self.unexpected
        )
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people, far below 2^63"
)]
fn rate(events_per_second: f64) -> String {
    output::count(events_per_second.round() as u64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn run(rate: f64, complete: bool) -> Report {
        Report {
            workload: "publish",
            size: 100,
            events: 10,
            batch: 5,
            partitions: 1,
            keys: 0,
            connections: 1,
            concurrency: None,
            subscribers: 0,
            consumers: None,
            order: None,
            rate: None,
            plugin: None,
            pass: None,
            durability: "sync",
            seconds: 1.0,
            events_per_second: rate,
            mb_per_second: 1.0,
            p50_us: Some(rate),
            p99_us: None,
            p999_us: None,
            max_us: None,
            deliveries_per_second: None,
            engine_cpu_seconds: 1.0,
            client_cpu_seconds: 1.0,
            engine_peak_rss_mib: 50.0,
            complete,
            lost: u64::from(!complete),
            twice: 0,
            disordered: 0,
            unexpected: 0,
            mtu: 1452,
            compaction_bytes: 0,
            flush_bytes: 0,
            stall_seconds: 0.0,
            syncs: 3,
            sync_p99_us: 9,
            version: "0".to_owned(),
            runs: 1,
        }
    }

    #[test]
    fn medians_are_complete_only_if_every_run_was() {
        let medians = Report::medians(&[run(5.0, true), run(1.0, true), run(3.0, true)]).unwrap();
        assert_eq!((medians.events_per_second, medians.p50_us, medians.p99_us), (3.0, Some(3.0), None));
        assert_eq!((medians.runs, medians.complete), (3, true));
        let flawed = Report::medians(&[run(5.0, true), run(1.0, false)]).unwrap();
        assert_eq!((flawed.complete, flawed.lost), (false, 1));
        assert!(Report::medians(&[]).is_none());
    }

    #[test]
    fn json_has_the_promised_fields() {
        let json = serde_json::to_value(run(1.0, true)).unwrap();
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
            "version",
            "mtu",
            "compaction_bytes",
            "stall_seconds",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
