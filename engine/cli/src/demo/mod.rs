//! `levada demo`: an engine, plugins, an order service and three subscribers, and a table that proves what each received.
//!
//! Owns the course of the evening. What orders are is `model.rs`, who does what is `services.rs`, what was received
//! is `account.rs`.

mod setup;

mod model;

mod services;

mod account;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use levada_client::Client;
use levada_protocol::error::ErrorCode;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, sleep},
};

use self::{
    model::{STEPS, Who},
    report::{Away, Report},
    services::Floor,
};
use crate::{
    args::DemoArgs,
    child::Engine,
    failure::Failure,
    interrupt::interrupted,
    output::{Output, count},
};

/// How often the course of things is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// If nothing arrives for so long, nothing more will.
const STALLED: Duration = Duration::from_secs(15);
/// Inventory goes away after this share of the events, in percent.
const LEAVES_AT: u64 = 35;
/// And comes back after this share.
const RETURNS_AT: u64 = 70;

/// Runs the demo.
pub(crate) async fn run(output: &Output, args: DemoArgs) -> anyhow::Result<()> {
    // Dropping the demo ends its engine and removes its directory.
    tokio::select! {
        biased;
        () = interrupted() => Err(Failure::new(ErrorCode::ShuttingDown, "interrupted").into()),
        done = Box::pin(play(output, &args)) => done,
    }
}

/// Where the demo's engine keeps its data.
struct Home {
    data_dir: PathBuf,
    log: PathBuf,
    /// Removed at the end.
    temporary: TempDir,
}

async fn play(output: &Output, args: &DemoArgs) -> anyhow::Result<()> {
    let home = home(args.keep.as_deref())?;
    let engine = Engine::start(&home.data_dir, &home.log).await?;
    output.remark(&format!("engine    {} with its data in {}", engine.addr(), home.data_dir.display()));
    let client = engine.connect().await?;
    setup::prepare(output, &client).await?;

    let floor = Floor::new(args.events);
    let begun = Instant::now();
    let away = orders_come_in(output, &engine, &client, &floor, args).await?;
    let seconds = begun.elapsed().as_secs_f64();
    client.close().await;
    engine.stop().await?;
    home.temporary.close().context("removing the demo's directory")?;

    let lines = Who::ALL.map(|who| floor.account(who).line());
    let report = Report::new(args, seconds, lines.to_vec(), away);
    report.print(output)?;
    if report.correct {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::Internal, "not every subscriber received what it had to, once and in order")
        .into())
}

fn home(keep: Option<&Path>) -> anyhow::Result<Home> {
    let temporary =
        tempfile::Builder::new().prefix("levada-demo-").tempdir().context("making a directory")?;
    let log = temporary.path().join("engine.log");
    let data_dir = match keep {
        Some(keep) => keep.to_owned(),
        None => temporary.path().join("data"),
    };
    if fs::read_dir(&data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        let message =
            format!("expected an empty or absent directory, {} has files in it", data_dir.display());
        let hint =
            format!("choose another, or open it with `levada serve --data-dir {}`", data_dir.display());
        return Err(Failure::new(ErrorCode::InvalidArgument, message).hint(hint).into());
    }
    Ok(Home { data_dir, log, temporary })
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
        until(|| floor.published() * 100 >= events * LEAVES_AT).await;
        stop_inventory.send_replace(true);
        all_end(&mut inventory).await?;
        output.remark(&format!(
            "inventory stops after {} events",
            count(floor.account(Who::Inventory).received)
        ));
        let left = Instant::now();
        until(|| floor.published() * 100 >= events * RETURNS_AT).await;
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
            anyhow::bail!("a subscriber ended before it was told to");
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

async fn until(reached: impl Fn() -> bool) {
    let mut looks = interval(LOOK);
    while !reached() {
        looks.tick().await;
    }
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
    let owed = floor.expected_of_first(Who::Inventory, floor.published());
    floor.inventory_returns();
    let back = Instant::now();
    inventory.spawn(services::subscriber(
        floor.clone(),
        engine.connect().await?,
        Who::Inventory,
        running.clone(),
    ));
    until(|| floor.account(Who::Inventory).received >= owed || back.elapsed() > STALLED).await;
    let caught_up = floor.account(Who::Inventory).received - received;
    Ok(Away {
        subscriber: Who::Inventory.name(),
        seconds,
        lag,
        caught_up,
        caught_up_seconds: back.elapsed().as_secs_f64(),
    })
}

/// Waits until nothing is owed to anybody: then nothing can come a second time either.
async fn wait_for_the_rest(client: &Client, floor: &Floor) -> anyhow::Result<()> {
    let received = || Who::ALL.map(|who| floor.account(who).received);
    let mut looks = interval(LOOK);
    let (mut before, mut changed) = (received(), Instant::now());
    while changed.elapsed() < STALLED {
        looks.tick().await;
        let mut owed = client.list_routes().await?.iter().map(|route| route.lag).sum::<u64>();
        for who in Who::ALL {
            owed += client.describe_subscription(setup::topic(who), who.name()).await?.lag;
        }
        if owed == 0 {
            return Ok(());
        }
        if received() != before {
            (before, changed) = (received(), Instant::now());
        }
    }
    Ok(())
}
