//! `levada demo`: an engine, plugins, an order service and three subscribers, and a table that proves what each
//! received.
//!
//! Owns the course of events. What orders are is `model.rs`, who does what is `services.rs`, what was received
//! is `account.rs`.

mod args;

mod setup;

mod model;

mod services;

mod account;
mod report;

pub use args::DemoArgs;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use levada_client::Client;
use levada_protocol::error::ErrorCode;
use levada_rig::{Engine, Sandbox, stall};
use levada_terminal::{
    Failure, interrupted,
    output::{Output, count},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use self::{
    model::{STEPS, Who},
    report::{Away, Report},
    services::Floor,
};

/// How often progress is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// If nothing arrives for so long, nothing more will.
const STALLED: Duration = Duration::from_secs(15);
/// Inventory comes back when this share of the events is published, in percent,
const RETURNS_AT: u64 = 70;
/// but not sooner than this.
const AWAY_MIN: Duration = Duration::from_millis(200);

/// Runs the demo: an engine of its own for a while, then the table and the verdict.
///
/// # Errors
/// If a part fails, if some subscriber did not get what it had to, or when the user interrupts.
pub async fn run(output: &Output, args: DemoArgs) -> anyhow::Result<()> {
    // Dropping the demo ends its engine and removes its directory.
    tokio::select! {
        biased;
        () = interrupted() => Err(Failure::interrupted().into()),
        done = Box::pin(play(output, &args)) => done,
    }
}

async fn play(output: &Output, args: &DemoArgs) -> anyhow::Result<()> {
    if let Some(keep) = &args.keep {
        check_empty(keep)?;
    }
    let sandbox = Sandbox::start("levada-demo-", &std::env::temp_dir(), args.keep.as_deref()).await?;
    let engine = sandbox.engine();
    let data_dir =
        args.keep.as_ref().map_or_else(|| "a temporary directory".into(), |keep| keep.to_string_lossy());
    output.remark(&format!("engine    {} with its data in {data_dir}", engine.addr()));
    let client = engine.connect().await?;
    setup::prepare(output, &client).await?;

    let floor = Floor::new(args.events);
    let begun = Instant::now();
    let away = orders_come_in(output, engine, &client, &floor, args).await?;
    let seconds = begun.elapsed().as_secs_f64();
    client.close().await;
    sandbox.stop().await?;

    let lines = Who::ALL.map(|who| floor.account(who).line());
    let report = Report::new(args, seconds, lines.to_vec(), away);
    report.print(output)?;
    if report.correct {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Internal, "not every subscriber received what it had to, once and in order")
        .into())
}

fn check_empty(dir: &Path) -> Result<(), Failure> {
    if !fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    let dir = dir.display();
    let message = format!("expected an empty or absent directory, {dir} has files in it");
    let hint = format!("choose another, or open it with `levada serve --data-dir {dir}`");
    Err(Failure::new(ErrorCode::InvalidArgument, message).hint(hint))
}

/// Runs all services until every subscriber has everything; inventory is away for a while.
async fn orders_come_in(
    output: &Output,
    engine: &Engine,
    client: &Client,
    floor: &Arc<Floor>,
    args: &DemoArgs,
) -> anyhow::Result<Away> {
    let events = u64::from(args.events) * STEPS.len() as u64;
    let (stop_all, running) = watch::channel(false);
    let (stop_inventory, inventory_runs) = watch::channel(false);
    let mut services = JoinSet::new();
    services.spawn(services::payment(floor.clone(), engine.connect().await?, running.clone()));
    services.spawn(services::subscriber(
        floor.clone(),
        engine.connect().await?,
        Who::Logistics,
        running.clone(),
    ));
    let mut inventory = JoinSet::new();
    inventory.spawn(services::subscriber(
        floor.clone(),
        engine.connect().await?,
        Who::Inventory,
        inventory_runs,
    ));
    let mut orders = JoinSet::new();
    orders.spawn(services::order_service(floor.clone(), engine.connect().await?, args.rate));
    output.remark(&format!("orders    {} orders, {} events", count(args.events.into()), count(events)));

    let bar = output.progress(Some(events), "published");
    let course = async {
        let before = floor.expected_of_first(Who::Inventory, floor.inventory_leaves_after());
        until(floor, Who::Inventory, before).await;
        stop_inventory.send_replace(true);
        all_end(&mut inventory).await?;
        floor.inventory_leaves();
        output.remark(&format!(
            "inventory stops after {} events",
            count(floor.account(Who::Inventory).received)
        ));
        let left = Instant::now();
        sleep(AWAY_MIN).await;
        published(floor, events * RETURNS_AT / 100).await;
        let away = come_back(engine, client, floor, &mut inventory, &running, left).await?;
        output.remark(&away.text());
        all_end(&mut orders).await?;
        wait_for_the_rest(client, floor).await?;
        anyhow::Ok(away)
    };
    let away = tokio::select! {
        biased;
        failed = services.join_next() => {
            failed.context("a subscriber's task is there")???;
            anyhow::bail!("a subscriber ended before it was stopped");
        }
        away = Box::pin(course) => away?,
        () = show(&bar, floor) => unreachable!("showing the progress does not end"),
    };
    bar.finish_and_clear();
    stop_all.send_replace(true);
    all_end(&mut services).await?;
    all_end(&mut inventory).await?;
    Ok(away)
}

async fn show(bar: &indicatif::ProgressBar, floor: &Floor) {
    loop {
        bar.set_position(floor.published());
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a subscriber has received so many events, or gets no more.
async fn until(floor: &Floor, who: Who, events: u64) {
    let received = async || Ok(floor.account(who).received);
    let waited = stall::until(POLL_INTERVAL, STALLED, received, |received| *received >= events).await;
    waited.expect("polling an account does not fail");
}

/// Waits until so many events are published, or no more are.
async fn published(floor: &Floor, events: u64) {
    let waited =
        stall::until(POLL_INTERVAL, STALLED, async || Ok(floor.published()), |now| *now >= events).await;
    waited.expect("polling a counter does not fail");
}

async fn all_end(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Inventory attaches again, and catches up with what was published until then.
async fn come_back(
    engine: &Engine,
    client: &Client,
    floor: &Arc<Floor>,
    inventory: &mut JoinSet<anyhow::Result<()>>,
    running: &watch::Receiver<bool>,
    left: Instant,
) -> anyhow::Result<Away> {
    let lag = client.describe_subscription(setup::ORDERS, Who::Inventory.name()).await?.lag;
    let (received, seconds) = (floor.account(Who::Inventory).received, left.elapsed().as_secs_f64());
    let expected = floor.expected_of_first(Who::Inventory, floor.published());
    let back = Instant::now();
    inventory.spawn(services::subscriber(
        floor.clone(),
        engine.connect().await?,
        Who::Inventory,
        running.clone(),
    ));
    until(floor, Who::Inventory, expected).await;
    floor.inventory_has_caught_up();
    let caught_up = floor.account(Who::Inventory).received - received;
    Ok(Away {
        subscriber: Who::Inventory.name(),
        seconds,
        lag,
        caught_up,
        caught_up_seconds: back.elapsed().as_secs_f64(),
    })
}

/// Waits until nothing lags, or nothing moves: then nothing can come a second time either.
async fn wait_for_the_rest(client: &Client, floor: &Floor) -> anyhow::Result<()> {
    let progress = async || {
        let mut lag = client.list_routes().await?.iter().map(|route| route.lag).sum::<u64>();
        for who in Who::ALL {
            lag += client.describe_subscription(setup::topic(who), who.name()).await?.lag;
        }
        Ok((lag, Who::ALL.map(|who| floor.account(who).received)))
    };
    stall::until(POLL_INTERVAL, STALLED, progress, |(lag, _)| *lag == 0).await?;
    Ok(())
}
