//! Every metric of the server itself: names with their units, the process's own statistics, and their page.

use std::{fmt::Write as _, fs, sync::OnceLock};

use levada_broker::metrics::{Kind, Series};
use levada_protocol::request::EngineInfo;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use rustix::process::Resource;

use crate::log_writer::lines_lost;

/// Connections open now, handshakes under way included.
const CONNECTIONS: &str = "levada_connections";
/// Connections refused for want of room.
const CONNECTIONS_REFUSED: &str = "levada_connections_refused_total";
/// Bounds of every histogram in seconds: from a loopback round trip to a disk in trouble.
const SECONDS_BOUNDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];
/// Bounds of every other histogram: counts.
const COUNT_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// The process's recorder; there can be only one, however many servers run in it.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&COUNT_BOUNDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BOUNDS)
            })
            .expect("the bounds are not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("metrics go to a recorder that this process had before; /metrics stays empty");
        }
        describe_gauge!(CONNECTIONS, "connections open now");
        describe_counter!(CONNECTIONS_REFUSED, "connections refused for want of room");
        handle
    })
}

/// Counts a connection for as long as it lives.
pub(crate) fn connection_opened() -> ConnectionCounted {
    gauge!(CONNECTIONS).increment(1);
    ConnectionCounted(())
}

/// Dropped when its connection ends.
pub(crate) struct ConnectionCounted(());

impl Drop for ConnectionCounted {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1);
    }
}

pub(crate) fn connection_refused() {
    counter!(CONNECTIONS_REFUSED).increment(1);
}

/// The page in Prometheus's text format, with these metrics of the broker's.
pub(crate) fn page(series: &[Series]) -> String {
    let mut page = String::new();
    series.iter().for_each(|series| write_series(&mut page, series));
    page.push_str(&recorder().render());
    let process = Process::now();
    let lines_lost = lines_lost() as f64;
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "user and system CPU time", process.cpu_seconds),
        ("process_resident_memory_bytes", "gauge", "resident memory", process.rss_bytes),
        (
            "process_peak_resident_memory_bytes",
            "gauge",
            "largest resident memory so far",
            process.peak_rss_bytes,
        ),
        ("process_open_fds", "gauge", "open file descriptors", process.open_fds),
        ("process_max_fds", "gauge", "file descriptors that may be open", process.max_fds),
        ("levada_log_lines_lost_total", "counter", "log lines that could not be written", Some(lines_lost)),
    ] {
        let Some(value) = value else { continue };
        // Writing to a String does not fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    page
}

/// One metric and its samples. Writing to a string does not fail.
fn write_series(page: &mut String, series: &Series) {
    let Series { name, help, .. } = series;
    let kind = match series.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for sample in &series.samples {
        let label = |(name, value): &(&str, String)| format!("{name}=\"{}\"", escaped(value));
        let labels: Vec<String> = sample.labels.iter().map(label).collect();
        let _ = match labels.as_slice() {
            [] => writeln!(page, "{name} {}", sample.value),
            labels => writeln!(page, "{name}{{{}}} {}", labels.join(","), sample.value),
        };
    }
    page.push('\n');
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

/// What the operating system says about this process; `None` where it does not say.
pub(crate) struct Process {
    cpu_seconds: Option<f64>,
    rss_bytes: Option<f64>,
    peak_rss_bytes: Option<f64>,
    open_fds: Option<f64>,
    /// `None` without a limit.
    max_fds: Option<f64>,
}

impl Process {
    pub(crate) fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            let number: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(number * 1024.0)
        };
        // The reading itself holds one descriptor more.
        let fds = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1));
        Self {
            cpu_seconds: Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
            rss_bytes: kib("VmRSS:"),
            peak_rss_bytes: kib("VmHWM:"),
            open_fds: fds.ok().map(|count| count as f64),
            max_fds: rustix::process::getrlimit(Resource::Nofile).current.map(|limit| limit as f64),
        }
    }

    /// Adds the statistics to an engine's description of itself.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the kernel's values are counts of bytes, exact in a float below 8 PiB"
    )]
    pub(crate) fn describe(&self, info: &mut EngineInfo) {
        info.cpu_seconds = self.cpu_seconds.unwrap_or_default();
        info.rss_bytes = self.rss_bytes.unwrap_or_default() as u64;
        info.peak_rss_bytes = self.peak_rss_bytes.unwrap_or_default() as u64;
    }
}
