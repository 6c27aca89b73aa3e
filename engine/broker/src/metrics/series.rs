//! A metric and its samples.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from 0 at the start of the engine or of the thing that it is about.
    Counter,
    /// Up and down.
    Gauge,
}

/// One metric, with a sample of everything that exists and has it.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name, with the unit.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The help text.
    pub help: &'static str,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// The current value of one thing's metric.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Names of labels and their values.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}

impl Series {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help, samples: Vec::new() }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help, samples: Vec::new() }
    }

    pub(super) fn add(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { labels, value });
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a float; counts stay exact below 2^53")]
pub(super) fn as_f64(number: u64) -> f64 {
    number as f64
}
