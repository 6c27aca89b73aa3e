//! The end of the demo: a table of what each subscriber received, and the verdict.

use levada_terminal::output::{Output, Rows, count, micros};
use serde::Serialize;

use crate::{account::Line, args::DemoArgs, model::STEPS};

/// A subscriber that was away.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Away {
    pub(crate) subscriber: &'static str,
    pub(crate) seconds: f64,
    /// What the engine held for it when it came back.
    pub(crate) lag: u64,
    /// Events that it received until it had all that was published before it came back.
    pub(crate) caught_up: u64,
    pub(crate) caught_up_seconds: f64,
}

impl Away {
    /// The result as a sentence for people.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} was away for {:.1} s, came back {} events behind and caught up in {:.2} s ({} events)",
            self.subscriber,
            self.seconds,
            count(self.lag),
            self.caught_up_seconds,
            count(self.caught_up),
        )
    }
}

/// The whole result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    orders: u32,
    events: u64,
    seconds: f64,
    subscribers: Vec<Line>,
    away: Away,
    /// Everything arrived everywhere, once and in order, and showed what it may.
    pub(crate) correct: bool,
    /// Where the data was kept.
    kept: Option<String>,
}

impl Report {
    /// Of the accounts' lines.
    pub(crate) fn new(args: &DemoArgs, seconds: f64, subscribers: Vec<Line>, away: Away) -> Self {
        Self {
            orders: args.events,
            events: u64::from(args.events) * STEPS.len() as u64,
            seconds,
            correct: subscribers.iter().all(|line| line.correct && line.expected > 0),
            subscribers,
            away,
            kept: args.keep.as_ref().map(|dir| dir.display().to_string()),
        }
    }

    /// Prints it.
    pub(crate) fn print(&self, output: &Output) -> anyhow::Result<()> {
        if output.is_json() {
            return Ok(output.json(self)?);
        }
        output.line("")?;
        output.line(&self.table().render())?;
        output.line("")?;
        output.line(&self.verdict())?;
        if let Some(dir) = &self.kept {
            output.line(&format!("the data stays in {dir}; open it with: levada serve --data-dir {dir}"))?;
        }
        Ok(())
    }

    fn table(&self) -> Rows {
        let mut rows = Rows::new(&[
            "subscriber",
            "expected",
            "received",
            "orders in order",
            "lost",
            "twice",
            "p50",
            "p99",
            "events/s",
        ]);
        for line in &self.subscribers {
            let latency = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), micros);
            rows.push([
                line.subscriber.to_owned(),
                count(line.expected),
                count(line.received),
                format!("{} of {}", count(line.in_order), count(line.orders)),
                count(line.lost),
                count(line.twice),
                latency(line.p50_us),
                latency(line.p99_us),
                format!("{:.0}", line.events_per_second),
            ]);
        }
        rows
    }

    fn verdict(&self) -> String {
        let life = format!(
            "{} orders, each created, paid, shipped, received and completed: {} events in {}",
            count(self.orders.into()),
            count(self.events),
            micros(self.seconds * 1e6),
        );
        let away = format!("{}; its p50 and p99 leave out what waited for it meanwhile", self.away.text());
        let verdict = if self.correct {
            "CORRECT: every subscriber received what it had to, each order in order, nothing lost, nothing twice"
        } else {
            "WRONG: some subscriber did not receive what it had to; see the table"
        };
        let flaws: Vec<String> = self
            .subscribers
            .iter()
            .filter(|line| line.unexpected + line.misshapen > 0)
            .map(|line| {
                format!("{}: {} unexpected, {} misshapen\n", line.subscriber, line.unexpected, line.misshapen)
            })
            .collect();
        format!("{life}\n{away}\n{}{verdict}", flaws.concat())
    }
}
