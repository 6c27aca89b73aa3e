//! Latencies in a histogram, and medians over runs.

use hdrhistogram::Histogram;

/// Longest latency told apart from longer ones: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Latencies of one run, in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What a report says of latencies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Default for Latencies {
    /// None yet.
    fn default() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order") }
    }
}

impl Latencies {
    /// Adds one.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds);
    }

    /// Adds those of another.
    pub fn absorb(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms here have the same bounds");
    }

    /// `None` if there is none.
    pub fn percentiles(&self) -> Option<Percentiles> {
        #[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds fits 53 bits")]
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1_000.0;
        let at = |quantile| micros(self.histogram.value_at_quantile(quantile));
        (!self.histogram.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.histogram.max()),
        })
    }
}

/// The median: of an even count the mean of the two in the middle. `None` of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let (mut all, mut odd) = (Latencies::default(), Latencies::default());
        for micros in 1..=10_000_u64 {
            let half = if micros % 2 == 0 { &mut all } else { &mut odd };
            half.record(micros * 1_000);
        }
        all.absorb(&odd);
        let found = all.percentiles().unwrap();
        for (got, expected) in
            [(found.p50, 5_000.0), (found.p99, 9_900.0), (found.p999, 9_990.0), (found.max, 10_000.0)]
        {
            assert!((got - expected).abs() <= expected / 1_000.0, "{got} {expected}");
        }
        assert_eq!(Latencies::default().percentiles(), None);
    }

    #[test]
    fn a_median_is_the_middle_one() {
        for (values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
            (vec![4.0, 1.0, 2.0, 9.0], Some(3.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }
}
