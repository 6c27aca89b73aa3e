//! `levada bench`: measures an engine, and accounts for every event while it does.
//!
//! Engine and client are two processes. One file per workload; what they share is the producing side
//! (`publishing.rs`, `producer.rs`), the consuming side (`subscribing.rs`, `consumer.rs`) and the account
//! (`ledger.rs`).

mod args;

mod dedup;
mod delay;
mod delivery;
mod fanout;
mod plugin;
mod prepare;
mod publish;

mod limits;
mod network;

mod publishing;
mod subscribing;
mod target;

mod consumer;
mod producer;

mod ledger;
mod report;
mod stamp;

mod batching;
mod clock;
mod endpoint;
mod figures;
mod place;
mod watched;

use std::{future::Future, pin::pin};

use levada_protocol::error::ErrorCode;
use levada_terminal::{Failure, Output, interrupted};

pub use self::args::BenchArgs;
use self::{
    args::{Measure, Workload},
    report::Report,
    target::Target,
};

/// Measures what the arguments name and prints what it found.
///
/// # Errors
/// If a part fails, if an event is lost, comes twice or out of order, or when the user interrupts.
pub async fn run(output: &Output, args: BenchArgs) -> anyhow::Result<()> {
    match &args.measure {
        Measure::Workload(workload) => Box::pin(run_workload(output, workload)).await,
        Measure::Limits(args) => Box::pin(limits::run(output, args)).await,
        Measure::Network(args) => Box::pin(network::run(output, args)).await,
        Measure::EmptyHandler(args) => Box::pin(network::run_empty_handler(output, args)).await,
        Measure::Counterpart(args) => Box::pin(limits::run_counterpart(output, args)).await,
    }
}

/// Runs a workload as often as asked for, with its limit before and after if that is wanted.
async fn run_workload(output: &Output, workload: &Workload) -> anyhow::Result<()> {
    match workload {
        Workload::Plugin(args) => plugin::check(args)?,
        Workload::Delivery(args) => delivery::check(args)?,
        _ => {}
    }
    let mut stop = pin!(interrupted());
    let common = workload.common();
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        let report = if common.limits {
            let limit = || Box::pin(limits::measure(workload));
            let before = limits::until_stopped(&mut stop, limit()).await?;
            let mut report = Box::pin(run_once(output, workload, &mut stop)).await?;
            let after = limits::until_stopped(&mut stop, limit()).await?;
            report.limit(limits::path_of(workload), (before, after));
            report
        } else {
            Box::pin(run_once(output, workload, &mut stop)).await?
        };
        if output.is_json() {
            output.json(&report)?;
        } else if common.runs > 1 {
            output.remark(&format!("run {number:>3}: {}", report.headline()));
        }
        runs.push(report);
    }
    let Some(medians) = Report::medians(&runs) else { return Ok(()) };
    if !output.is_json() {
        output.line(&medians.table())?;
    } else if common.runs > 1 {
        output.json(&medians)?;
    }
    if medians.is_complete() {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Internal, "not every event arrived once and in order").into())
}

/// One run on an engine, or topic, of its own, of which nothing is left behind however it ends.
async fn run_once(
    output: &Output,
    workload: &Workload,
    stop: &mut (impl Future<Output = ()> + Unpin),
) -> anyhow::Result<Report> {
    let mut target = tokio::select! {
        biased;
        () = &mut *stop => return Err(Failure::interrupted().into()),
        target = Target::prepare(output, workload.common()) => target?,
    };
    let measured = tokio::select! {
        biased;
        () = stop => Err(Failure::interrupted().into()),
        measured = Box::pin(measure(output, &mut target, workload)) => measured,
    };
    match measured {
        Ok(report) => target.finish().await.map(|()| report),
        Err(error) => {
            // The first failure is the one to report.
            let _second = target.abandon().await;
            Err(error)
        }
    }
}

async fn measure(output: &Output, target: &mut Target, workload: &Workload) -> anyhow::Result<Report> {
    match workload {
        Workload::Publish(args) => publish::publish(output, target, args).await,
        Workload::Latency(args) => publish::latency(output, target, args).await,
        Workload::FanOut(args) => fanout::fan_out(output, target, args).await,
        Workload::CatchUp(args) => fanout::catch_up(output, target, args).await,
        Workload::Delivery(args) => delivery::delivery(output, target, args).await,
        Workload::Plugin(args) => plugin::plugin(output, target, args).await,
        Workload::Dedup(args) => dedup::dedup(output, target, args).await,
        Workload::Delay(args) => delay::delay(output, target, args).await,
        Workload::Prepare(args) => prepare::prepare(output, target, args).await,
    }
}
