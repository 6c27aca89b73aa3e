//! What the network adds: HTTP, server-sent events, pushes, identities, and what neighbours do to each other.
//!
//! Each measure compares two things in one run, in turn, so that whatever else the machine does meets both alike. Engine, client
//! and the server with an empty handler are processes of their own.

mod connect;
mod empty;
mod engines;
mod http;
mod http_client;
mod load;
mod neighbours;
mod push;
mod receiver;
mod sse;

use std::pin::pin;

use clap::ValueEnum as _;
use levada_terminal::{
    Output, interrupted,
    output::{count, micros, rate},
};
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::empty::run as run_empty_handler;
use self::{
    connect::ConnectFigures, http::HttpFigures, neighbours::NeighbourFigures, push::PushFigures,
    sse::SseFigures,
};
use crate::{
    args::{NetworkArgs, NetworkMeasure},
    limits::until_stopped,
    place,
};

/// One run, or the medians of several. The names of all fields are the bench's interface.
#[derive(Debug, Clone, Default, Serialize)]
struct Network {
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HttpFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sse: Option<SseFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<PushFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<ConnectFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbours: Option<NeighbourFigures>,
    runs: u16,
}

/// Measures what the arguments name, as often as asked for, and prints it.
pub(crate) async fn run(output: &Output, args: &NetworkArgs) -> anyhow::Result<()> {
    let mut stop = pin!(interrupted());
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let measured = until_stopped(&mut stop, Box::pin(measure_all(output, args))).await?;
        if output.is_json() {
            output.json(&measured)?;
        } else if args.runs > 1 {
            output.remark(&format!("run {number:>3} of {}", args.runs));
        }
        runs.push(measured);
    }
    let medians = Network::medians(&runs);
    if !output.is_json() {
        output.line(&medians.table())?;
    } else if args.runs > 1 {
        output.json(&medians)?;
    }
    Ok(())
}

async fn measure_all(output: &Output, args: &NetworkArgs) -> anyhow::Result<Network> {
    let all: Vec<NetworkMeasure> = match args.only.as_slice() {
        [] => NetworkMeasure::value_variants().to_vec(),
        only => only.to_vec(),
    };
    let mut network = Network { runs: 1, ..Network::default() };
    let dir = place::checked(output, args.dir.as_deref());
    for measure in all {
        let bar = output.progress(None, measure.word());
        let engine = engines::start(&dir).await?;
        match measure {
            NetworkMeasure::Http => network.http = Some(http::measure(&engine, &dir, args).await?),
            NetworkMeasure::Sse => network.sse = Some(sse::measure(&engine, args).await?),
            NetworkMeasure::Push => network.push = Some(push::measure(&engine, args).await?),
            NetworkMeasure::Connect => network.connect = Some(connect::measure(&engine, &dir, args).await?),
            NetworkMeasure::Neighbours => {
                network.neighbours = Some(neighbours::measure(&engine, args).await?)
            }
        }
        engine.stop().await?;
        bar.finish_and_clear();
    }
    Ok(network)
}

impl Network {
    fn medians(runs: &[Self]) -> Self {
        fn of<T: Clone>(
            runs: &[Network],
            part: impl Fn(&Network) -> Option<&T>,
            medians: impl Fn(&[T]) -> T,
        ) -> Option<T> {
            let found: Vec<T> = runs.iter().filter_map(part).cloned().collect();
            (!found.is_empty()).then(|| medians(&found))
        }
        Self {
            http: of(runs, |run| run.http.as_ref(), |all| HttpFigures::medians(all.iter())),
            sse: of(runs, |run| run.sse.as_ref(), |all| SseFigures::medians(all.iter())),
            push: of(runs, |run| run.push.as_ref(), |all| PushFigures::medians(all.iter())),
            connect: of(runs, |run| run.connect.as_ref(), |all| ConnectFigures::medians(all.iter())),
            neighbours: of(runs, |run| run.neighbours.as_ref(), |all| NeighbourFigures::medians(all.iter())),
            runs: u16::try_from(runs.len()).unwrap_or(u16::MAX),
        }
    }

    /// Every figure, one a line, under its name in JSON.
    fn table(&self) -> String {
        let Ok(Value::Object(parts)) = serde_json::to_value(self) else { return String::new() };
        let mut lines = Vec::new();
        for (part, figures) in parts {
            let Value::Object(figures) = figures else { continue };
            for (name, value) in figures {
                lines.push(format!(
                    "{part:<11} {name:<34} {:>14}",
                    shown(&name, value.as_f64().unwrap_or_default())
                ));
            }
        }
        lines.push(format!("{:<11} {:<34} {:>14}", "median of", "runs", self.runs));
        lines.join("\n")
    }
}

/// A figure for people: its name says what it is of.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts far below 2^53")]
fn shown(name: &str, value: f64) -> String {
    match name {
        name if name.ends_with("_per_second") => rate(value),
        // A difference of two may be below zero.
        name if name.ends_with("_us") && value < 0.0 => format!("-{}", micros(-value)),
        name if name.ends_with("_us") => micros(value),
        name if name.contains("of_") => format!("{value:.2}"),
        _ => count(value as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_figure_and_medians_are_of_all_runs() {
        let push = |deliveries_per_second| PushFigures {
            deliveries: 10,
            deliveries_per_second,
            ..PushFigures::default()
        };
        let runs = [1.0, 5_000.0, 9_000.0].map(|rate| Network {
            push: Some(push(rate)),
            runs: 1,
            ..Network::default()
        });
        let table = Network::medians(&runs).table();
        assert!(table.contains("push        deliveries_per_second"), "{table}");
        assert!(
            table.lines().any(|line| line.contains("deliveries_per_second") && line.ends_with("5,000")),
            "{table}"
        );
        assert!(!table.contains("http") && table.ends_with(" 3"), "{table}");
        assert_eq!(
            (shown("difference_p99_us", -1500.0), shown("of_quic", 0.257)),
            ("-1.5 ms".to_owned(), "0.26".to_owned())
        );
    }
}
