//! What `levada bench limits` found: the object of `--output json`, its table for people, and medians over runs.

use levada_terminal::output;
use serde::Serialize;

use crate::figures::figures;

figures! {
    /// Syncs of one page, in microseconds.
    struct DiskFigures {
        append_sync_p50_us: f64,
        append_sync_p99_us: f64,
        overwrite_sync_p50_us: f64,
        overwrite_sync_p99_us: f64,
    }
}

figures! {
    /// RocksDB alone: events a second, one batch write a frame; without sync, and with one for each MiB.
    struct StoreFigures {
        rocksdb_100_events_per_second: f64,
        rocksdb_100_synced_events_per_second: f64,
        rocksdb_1024_events_per_second: f64,
        rocksdb_1024_synced_events_per_second: f64,
    }
}

figures! {
    /// QUIC alone: megabytes (10^6 bytes) a second of one stream, and the round trip of one event.
    struct QuicFigures {
        quic_up_mb_per_second: f64,
        quic_down_mb_per_second: f64,
        quic_round_trip_p50_us: f64,
        quic_round_trip_p99_us: f64,
    }
}

figures! {
    /// QUIC, one RocksDB batch write a frame, a sync for what has queued, and the acknowledgement or the delivery.
    struct PathFigures {
        publish_100_events_per_second: f64,
        publish_1024_events_per_second: f64,
        one_at_a_time_p50_us: f64,
        one_at_a_time_p99_us: f64,
        fanout_events_per_second: f64,
        fanout_paced_p50_us: f64,
        fanout_paced_p99_us: f64,
    }
}

/// All limits of one run, or the medians of several. The names of all fields are the bench's interface.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Parts {
    workload: &'static str,
    /// Connections of the fan-out.
    subscribers: u16,
    /// Events a second of the paced fan-out.
    rate: f64,
    #[serde(flatten)]
    pub(super) disk: DiskFigures,
    #[serde(flatten)]
    pub(super) store: StoreFigures,
    #[serde(flatten)]
    pub(super) quic: QuicFigures,
    #[serde(flatten)]
    pub(super) path: PathFigures,
    /// QUIC packet size in force, in bytes.
    pub(super) mtu: u16,
    /// How many runs this is the median of; 1 for a run.
    runs: u16,
}

impl Parts {
    /// Nothing measured yet.
    pub(super) fn new(subscribers: u16, rate: f64) -> Self {
        Self {
            workload: "limits",
            subscribers,
            rate,
            disk: DiskFigures::default(),
            store: StoreFigures::default(),
            quic: QuicFigures::default(),
            path: PathFigures::default(),
            mtu: 0,
            runs: 1,
        }
    }

    /// Medians of every figure. `None` of no runs.
    pub(super) fn medians(runs: &[Self]) -> Option<Self> {
        Some(Self {
            disk: DiskFigures::medians(runs.iter().map(|run| &run.disk)),
            store: StoreFigures::medians(runs.iter().map(|run| &run.store)),
            quic: QuicFigures::medians(runs.iter().map(|run| &run.quic)),
            path: PathFigures::medians(runs.iter().map(|run| &run.path)),
            runs: u16::try_from(runs.len()).unwrap_or(u16::MAX),
            ..runs.first()?.clone()
        })
    }

    /// The result in one line.
    pub(super) fn headline(&self) -> String {
        let rate = |rate| output::rate(rate);
        format!(
            "publish {} events/s, fan-out {} events/s, one at a time p50 {}",
            rate(self.path.publish_100_events_per_second),
            rate(self.path.fanout_events_per_second),
            output::micros(self.path.one_at_a_time_p50_us),
        )
    }

    /// Every figure, one part a line.
    pub(super) fn table(&self) -> String {
        let Self { disk, store, quic, path, .. } = self;
        let latency =
            |p50: f64, p99: f64| format!("p50 {}, p99 {}", output::micros(p50), output::micros(p99));
        let events =
            |rate: f64, size: f64| format!("{} events/s, {:.1} MB/s", output::rate(rate), rate * size / 1e6);
        let fanout = format!("fan-out to {}", self.subscribers);
        let paced = format!("fan-out to {} at {}/s", self.subscribers, self.rate);
        let mut lines = vec![("workload", "limits: what the parts do without the engine".to_owned())];
        if self.runs > 1 {
            lines.push(("median of", format!("{} runs", self.runs)));
        }
        lines.extend([
            ("append and sync", latency(disk.append_sync_p50_us, disk.append_sync_p99_us)),
            ("overwrite and sync", latency(disk.overwrite_sync_p50_us, disk.overwrite_sync_p99_us)),
            ("rocksdb 100 B", events(store.rocksdb_100_events_per_second, 100.0)),
            ("rocksdb 100 B synced", events(store.rocksdb_100_synced_events_per_second, 100.0)),
            ("rocksdb 1 KiB", events(store.rocksdb_1024_events_per_second, 1_024.0)),
            ("rocksdb 1 KiB synced", events(store.rocksdb_1024_synced_events_per_second, 1_024.0)),
            ("quic stream up", format!("{:.0} MB/s", quic.quic_up_mb_per_second)),
            ("quic stream down", format!("{:.0} MB/s", quic.quic_down_mb_per_second)),
            ("quic round trip", latency(quic.quic_round_trip_p50_us, quic.quic_round_trip_p99_us)),
            ("publish 100 B", events(path.publish_100_events_per_second, 100.0)),
            ("publish 1 KiB", events(path.publish_1024_events_per_second, 1_024.0)),
            ("one at a time", latency(path.one_at_a_time_p50_us, path.one_at_a_time_p99_us)),
            (fanout.as_str(), events(path.fanout_events_per_second, 100.0)),
            (paced.as_str(), latency(path.fanout_paced_p50_us, path.fanout_paced_p99_us)),
            ("mtu", format!("{} bytes", self.mtu)),
        ]);
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let shown: Vec<String> =
            lines.iter().map(|(name, value)| format!("{name:<width$} {value}")).collect();
        shown.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(rate: f64) -> Parts {
        let mut parts = Parts::new(3, 5_000.0);
        parts.path.publish_100_events_per_second = rate;
        parts
    }

    #[test]
    fn medians_are_of_every_part() {
        let medians = Parts::medians(&[parts(1.0), parts(9.0), parts(4.0)]).unwrap();
        assert_eq!((medians.path.publish_100_events_per_second, medians.runs), (4.0, 3));
        assert!(Parts::medians(&[]).is_none());
    }

    #[test]
    fn the_table_has_a_line_for_every_part() {
        let table = parts(2_000_000.0).table();
        assert!(table.contains("publish 100 B          2,000,000 events/s, 200.0 MB/s"), "{table}");
        assert!(table.contains("fan-out to 3 at 5000/s "), "{table}");
    }
}
