//! The figures of a run in groups, each named once: the names are those of `--output json`.

use levada_rig::latencies::{Percentiles, median};

/// A figure of which several runs have a median.
pub(crate) trait Median: Sized {
    /// The median; the default of no values.
    fn median(values: impl Iterator<Item = Self>) -> Self;
}

impl Median for f64 {
    fn median(values: impl Iterator<Item = Self>) -> Self {
        median(values).unwrap_or(0.0)
    }
}

impl Median for Option<f64> {
    fn median(values: impl Iterator<Item = Self>) -> Self {
        median(values.flatten())
    }
}

impl Median for u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts far below 2^53"
    )]
    fn median(values: impl Iterator<Item = Self>) -> Self {
        median(values.map(|count| count as f64)).unwrap_or(0.0) as Self
    }
}

/// Defines a group of figures with the medians over several of them.
macro_rules! figures {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $kind,)+
        }

        impl $name {
            /// The median of every figure.
            pub(crate) fn medians<'a>(runs: impl Iterator<Item = &'a Self> + Clone) -> Self {
                Self { $($field: $crate::figures::Median::median(runs.clone().map(|run| run.$field)),)+ }
            }
        }
    };
}

pub(crate) use figures;

figures! {
    /// What a dedup window costs.
    struct DedupFigures {
        /// Events a second to a topic without a window.
        without_events_per_second: f64,
        /// The rate with the window, by that.
        of_without: f64,
        /// Ids that the window held at the end.
        dedup_ids: u64,
        /// How far back they reached, in milliseconds.
        dedup_window_ms: u64,
    }
}

figures! {
    /// Deliveries of which each event is settled by itself, and those to one consumer that acknowledges them whole.
    struct DeliveryFigures {
        /// To one consumer, of the same stored events.
        one_consumer_deliveries_per_second: f64,
        /// The measured rate, by that.
        of_one_consumer: f64,
    }
}

figures! {
    /// Deliveries beside keys whose events are never acknowledged.
    struct StuckFigures {
        /// Without such keys, to as many consumers, of the same stored events.
        without_stuck_deliveries_per_second: f64,
        /// The measured rate, by that.
        of_without_stuck: f64,
    }
}

figures! {
    /// What delayed events cost while they wait.
    struct DelayFigures {
        /// Events that waited once all were scheduled.
        pending: u64,
        /// By how much the engine's resident memory had grown then.
        pending_rss_mib: f64,
    }
}

figures! {
    /// What a transaction of one event costs that is prepared and then committed.
    struct PrepareFigures {
        /// The median latency of an event that is published, in microseconds.
        publish_p50_us: f64,
        /// The median latency of a transaction, by that.
        of_publish: f64,
    }
}

figures! {
    /// How many events in how much time.
    struct Rates {
        /// Source events.
        events: u64,
        /// From the first event to the last acknowledgement or delivery.
        seconds: f64,
        events_per_second: f64,
        /// Payload megabytes (10^6 bytes) of source events a second.
        mb_per_second: f64,
        /// Over all subscriptions; none where nothing is delivered.
        deliveries_per_second: Option<f64>,
    }
}

impl Rates {
    /// So many events of `size` bytes between two instants in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run fit 53 bits")]
    pub(crate) fn between(events: u64, size: u32, begun: u64, ended: u64) -> Self {
        let seconds = ended.saturating_sub(begun).max(1) as f64 / 1e9;
        let events_per_second = events as f64 / seconds;
        let mb_per_second = events_per_second * f64::from(size) / 1e6;
        Self { events, seconds, events_per_second, mb_per_second, deliveries_per_second: None }
    }
}

figures! {
    /// Latencies in microseconds; none where they are not measured.
    struct LatencyFigures {
        p50_us: Option<f64>,
        p99_us: Option<f64>,
        p999_us: Option<f64>,
        max_us: Option<f64>,
    }
}

impl From<Option<Percentiles>> for LatencyFigures {
    fn from(found: Option<Percentiles>) -> Self {
        Self {
            p50_us: found.map(|found| found.p50),
            p99_us: found.map(|found| found.p99),
            p999_us: found.map(|found| found.p999),
            max_us: found.map(|found| found.max),
        }
    }
}

figures! {
    /// What a run cost, on both sides.
    struct Costs {
        engine_cpu_seconds: f64,
        client_cpu_seconds: f64,
        engine_peak_rss_mib: f64,
        /// Bytes that compaction wrote.
        compaction_bytes: u64,
        /// Bytes that were written from memory to files.
        flush_bytes: u64,
        /// How long writes were held up because flushing or compaction was behind.
        stall_seconds: f64,
        syncs: u64,
        sync_p99_us: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_own_median() {
        let run = |events, p50| {
            (
                Rates { events, ..Rates::default() },
                LatencyFigures { p50_us: p50, ..LatencyFigures::default() },
            )
        };
        let runs = [run(5, Some(1.0)), run(1, None), run(3, Some(2.0))];
        assert_eq!(Rates::medians(runs.iter().map(|run| &run.0)).events, 3);
        assert_eq!(LatencyFigures::medians(runs.iter().map(|run| &run.1)).p50_us, Some(1.5));
        assert_eq!(LatencyFigures::medians(std::iter::empty()).p99_us, None);
    }

    #[test]
    fn rates_follow_from_a_count_and_a_time() {
        let rates = Rates::between(1_000, 50, 1_000_000_000, 1_500_000_000);
        assert_eq!((rates.seconds, rates.events_per_second, rates.mb_per_second), (0.5, 2_000.0, 0.1));
    }
}
