//! How a run compares with what the parts of the machine can do without the engine.

use levada_rig::latencies::median;
use levada_terminal::output::{micros, rate};
use serde::Serialize;

use crate::figures::{LatencyFigures, Rates};

/// A figure of the bare path: a rate or a latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Source events a second: more is better.
    EventsPerSecond(f64),
    /// Median and 99th percentile of a latency, in microseconds: less is better.
    LatencyUs {
        /// The median.
        p50: f64,
        /// The 99th percentile.
        p99: f64,
    },
}

/// A limit that was measured before a run and after it, and the run's share of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct OfLimit {
    /// The run's figure by the limit's, of which the mean of both measurements is taken: events a second, or the
    /// median latency.
    of_limit: f64,
    limit: Limit,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Limit {
    /// What the limit is of.
    path: &'static str,
    before: Figure,
    after: Figure,
}

impl OfLimit {
    /// Compares a run with the limit `path` as measured `before` and `after` it; `None` if the run has no such figure.
    pub(super) fn compare(
        path: &'static str,
        (before, after): (Figure, Figure),
        rates: &Rates,
        latency: &LatencyFigures,
    ) -> Option<Self> {
        let (run, limit) = match (before, after) {
            (Figure::EventsPerSecond(before), Figure::EventsPerSecond(after)) => {
                (rates.events_per_second, f64::midpoint(before, after))
            }
            (Figure::LatencyUs { p50: before, .. }, Figure::LatencyUs { p50: after, .. }) => {
                (latency.p50_us?, f64::midpoint(before, after))
            }
            _ => return None,
        };
        (limit > 0.0).then(|| Self { of_limit: run / limit, limit: Limit { path, before, after } })
    }

    /// The median share; the limits themselves are the first run's.
    pub(super) fn medians(runs: &[&Self]) -> Option<Self> {
        let of_limit = median(runs.iter().map(|run| run.of_limit))?;
        Some(Self { of_limit, ..(*runs.first()?).clone() })
    }

    /// The ratio.
    pub(super) fn ratio(&self) -> f64 {
        self.of_limit
    }

    /// The whole comparison in one line.
    pub(super) fn text(&self) -> String {
        let figure = |figure: Figure| match figure {
            Figure::EventsPerSecond(events) => format!("{} events/s", rate(events)),
            Figure::LatencyUs { p50, p99 } => format!("p50 {} p99 {}", micros(p50), micros(p99)),
        };
        let (before, after) = (figure(self.limit.before), figure(self.limit.after));
        format!("{:.2} of {}: {before} before, {after} after", self.of_limit, self.limit.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(events_per_second: f64) -> Rates {
        Rates { events_per_second, ..Rates::default() }
    }

    #[test]
    fn a_rate_is_compared_with_the_mean_of_both_limits() {
        let limits = (Figure::EventsPerSecond(80.0), Figure::EventsPerSecond(120.0));
        let found = OfLimit::compare("path", limits, &rates(75.0), &LatencyFigures::default()).unwrap();
        assert_eq!(found.ratio(), 0.75);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&json["of_limit"], &json["limit"]["before"]["events_per_second"]),
            (&0.75.into(), &80.0.into())
        );
    }

    #[test]
    fn a_latency_is_compared_by_its_median() {
        let limit = Figure::LatencyUs { p50: 200.0, p99: 900.0 };
        let latency = LatencyFigures { p50_us: Some(240.0), ..LatencyFigures::default() };
        let found = OfLimit::compare("path", (limit, limit), &rates(0.0), &latency).unwrap();
        assert_eq!(found.ratio(), 1.2);
        assert_eq!(OfLimit::compare("path", (limit, limit), &rates(0.0), &LatencyFigures::default()), None);
    }

    #[test]
    fn a_limit_of_nothing_is_no_limit() {
        let limit = Figure::EventsPerSecond(0.0);
        assert_eq!(OfLimit::compare("path", (limit, limit), &rates(1.0), &LatencyFigures::default()), None);
    }
}
