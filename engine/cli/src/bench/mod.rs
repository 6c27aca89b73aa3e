//! `levada bench`: measures an engine, and accounts for every event while it does.
//!
//! Engine and client are two processes. One file per workload; what they share is the producing side
//! (`publishing.rs`, `producer.rs`), the consuming side (`subscribing.rs`, `consumer.rs`) and the account
//! (`ledger.rs`).

mod fanout;
mod plugin;
mod publish;
mod subscribing;

mod publishing;
mod target;

mod consumer;
mod producer;

mod ledger;
mod report;
mod stamp;

mod clock;
mod endpoint;

use std::{future::Future, pin::pin, time::Duration};

use indicatif::ProgressBar;
use levada_protocol::error::ErrorCode;
use tokio::time::interval;

use self::{report::Report, target::Target};
use crate::{
    args::{BenchArgs, BenchCommon, Workload},
    failure::Failure,
    interrupt::interrupted,
    output::Output,
};

/// How often a progress bar looks.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a workload as often as asked for and prints what it found.
pub(crate) async fn run(output: &Output, args: BenchArgs) -> anyhow::Result<()> {
    let workload = &args.workload;
    if let Workload::Plugin(args) = workload {
        plugin::check(args)?;
    }
    let mut stop = pin!(interrupted());
    let common = workload.common();
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        let report = Box::pin(run_once(output, workload, &mut stop)).await?;
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
    if medians.complete {
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
        Workload::Plugin(args) => plugin::plugin(output, target, args).await,
    }
}

impl Workload {
    fn common(&self) -> &BenchCommon {
        match self {
            Self::Publish(args) => &args.common,
            Self::Latency(args) => &args.common,
            Self::FanOut(args) => &args.common,
            Self::CatchUp(args) => &args.common,
            Self::Plugin(args) => &args.common,
        }
    }
}

/// Shows how far `work` is until it ends.
async fn watched<T>(bar: &ProgressBar, position: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = looks.tick() => bar.set_position(position()),
        }
    }
}
