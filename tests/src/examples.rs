//! The examples that run to their end by themselves, against the real engine, twice each: what an earlier run left does not
//! matter.

use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{process::Process, until, within};

const ORDER_LIFECYCLE: &str = env!("CARGO_BIN_EXE_order-lifecycle-under-test");

fn command(engine: &Process, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("LEVADA_ADDR", &engine.quic).env("LEVADA_CA", &engine.ca).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether an example succeeded, and what it showed.
fn shown(ran: Output) -> (bool, String) {
    let shown = String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap();
    (ran.status.success(), shown)
}

/// What an example prints that succeeds.
async fn printed(engine: &Process, program: &str, arguments: &[&str]) -> String {
    let ran = within("the example", command(engine, program, arguments).output()).await.unwrap();
    let (succeeded, printed) = shown(ran);
    assert!(succeeded, "{program}: {printed}");
    printed
}

/// Runs an example twice on one engine, and looks at what each run prints.
async fn twice(program: &str, arguments: &[&str], look: impl Fn(&str)) {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    for _ in 0..2 {
        look(&printed(&engine, program, arguments).await);
    }
    engine.stop().await;
}

#[tokio::test]
async fn an_order_is_paid_or_cancelled_and_never_both() {
    twice(env!("CARGO_BIN_EXE_unpaid-timeout-under-test"), &["20", "1"], |printed| {
        let counts: Vec<u32> =
            printed.lines().skip(1).map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.iter().sum::<u32>(), 20, "paid and cancelled: {printed}");
        assert!(counts[1] >= 10 && printed.contains("none of them paid"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn a_user_does_not_wait_for_what_can_be_done_behind() {
    twice(env!("CARGO_BIN_EXE_signup-email-under-test"), &[], |printed| {
        assert!(printed.ends_with("behind that, mail and coupon were sent\n"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn every_point_is_given_once_although_its_service_fails_and_crashes() {
    twice(env!("CARGO_BIN_EXE_points-with-retry-under-test"), &["205"], |printed| {
        assert!(printed.contains("20 deliveries failed and came again, "), "{printed}");
        assert!(!printed.contains(" 0 came again after a crash"), "{printed}");
        assert!(printed.ends_with("every user has a point for each sign-in: 205\n"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn each_order_takes_its_steps_in_order_although_consumers_and_the_engine_are_killed() {
    let dir = TempDir::new().unwrap();
    let mut engine = Process::start(dir.path()).await;
    let address = engine.quic.clone();
    let example = command(&engine, ORDER_LIFECYCLE, &["2000", "1"]).spawn().unwrap();
    for settled in [2_000, 5_000] {
        let client = engine.connect().await;
        // Both are there once the example has made them.
        let done = async || {
            let topic = client.describe_topic("lifecycle.orders").await.ok()?;
            let subscription = client.describe_subscription("lifecycle.orders", "fulfilment").await.ok()?;
            let published: u64 = topic.partitions.iter().map(|partition| partition.end).sum();
            (published >= subscription.lag + settled).then_some(subscription.lag)
        };
        let left = until("the consumers' work", done).await;
        assert!(left > 0, "the engine is killed in the middle");
        engine.kill().await;
        engine = Process::start_at(dir.path(), &address).await;
    }
    let (succeeded, shown) = shown(within("the example", example.wait_with_output()).await.unwrap());
    assert!(succeeded, "{shown}");
    assert!(shown.starts_with("published 10000 steps of 2000 orders\n"), "{shown}");
    assert!(!shown.contains("\n0 steps failed") && !shown.contains(" 0 consumers were killed"), "{shown}");
    assert!(
        shown.contains("\n2000 of 2000 orders took their steps in order, 0 steps are missing\n"),
        "{shown}"
    );
    engine.stop().await;
}

#[tokio::test]
async fn the_checker_finds_the_disorder_of_a_subscription_without_order() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    printed(&engine, ORDER_LIFECYCLE, &["300", "2", "key"]).await;
    let ran = command(&engine, ORDER_LIFECYCLE, &["300", "2", "none"]).output();
    let (succeeded, shown) = shown(within("the example", ran).await.unwrap());
    assert!(!succeeded && shown.contains("WRONG: ") && shown.contains(" orders out of order"), "{shown}");
    engine.stop().await;
}

#[tokio::test]
async fn payments_that_fail_are_retried_or_redriven_and_nobody_else_notices() {
    twice(env!("CARGO_BIN_EXE_order-fanout-under-test"), &["100"], |printed| {
        let lines: Vec<&str> = printed.lines().collect();
        let [published, paid, given_up, rejected, redriven, packed, correct] = lines[..] else {
            panic!("{printed}");
        };
        assert_eq!(published, "published 100 orders");
        assert_eq!(paid, "payment took the money of 88, of 10 at the third attempt");
        assert!(given_up.starts_with("dead letters of payment: 10 max_attempts "), "{given_up}");
        assert_eq!(rejected, "dead letters of payment: 2 rejected (the card has expired)");
        assert_eq!(redriven, "the bank's line is repaired: 10 redriven, 10 of them paid");
        assert_eq!(packed, "inventory packed 100 orders, logistics shipped 98");
        assert!(correct.starts_with("CORRECT: "), "{correct}");
    })
    .await;
}

#[tokio::test]
async fn a_flash_sale_sells_its_stock_once_and_at_the_pace_of_the_database() {
    let dir = TempDir::new().unwrap();
    let arguments = ["50000", "1000", dir.path().to_str().unwrap()];
    twice(env!("CARGO_BIN_EXE_flash-sale-under-test"), &arguments, |printed| {
        let requests = printed.lines().find(|line| line.starts_with("50000 requests: ")).unwrap();
        let refused: u32 = requests.split(' ').nth(2).unwrap().parse().unwrap();
        assert!(refused >= 40_000, "ten requests wait for a piece, the others know at once: {printed}");
        assert!(printed.contains(" writes of at most 1000 rows; sold 1000 of 1000\n"), "{printed}");
        assert!(printed.contains("\nCORRECT: nothing oversold, nothing lost, "), "{printed}");
        let chart = std::fs::read_to_string(dir.path().join("flash_sale.svg")).unwrap();
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"), "{chart}");
        std::fs::remove_file(dir.path().join("flash_sale.svg")).unwrap();
    })
    .await;
}

/// Runs an example so often, each time dying somewhere, and at last once to its end; returns what that prints. The engine is
/// killed in the middle.
async fn crashed_often(program: &str, runs: u64) -> String {
    let dir = TempDir::new().unwrap();
    let mut engine = Process::start(&dir.path().join("data")).await;
    let (address, files) = (engine.quic.clone(), dir.path().to_str().unwrap());
    let mut crashes = 0;
    for seed in 0..runs {
        let seed = seed.to_string();
        let ran = command(&engine, program, &[files, "3", "--crash", &seed]).output();
        let ran = within("the example", ran).await.unwrap();
        let (code, (succeeded, printed)) = (ran.status.code(), shown(ran));
        assert!(succeeded || code == Some(70), "{program} {seed}: {printed}");
        crashes += u64::from(!succeeded);
        if crashes == runs / 2 {
            engine.kill().await;
            engine = Process::start_at(&dir.path().join("data"), &address).await;
        }
    }
    assert!(crashes > runs / 2, "{crashes} of {runs} crashed");
    let printed = printed(&engine, program, &[files, "3"]).await;
    engine.stop().await;
    printed
}

#[tokio::test]
async fn an_order_s_row_and_its_event_agree_wherever_the_program_dies() {
    let printed = crashed_often(env!("CARGO_BIN_EXE_order-transaction-under-test"), 100).await;
    assert!(printed.contains("transactions of earlier runs were settled by the database"), "{printed}");
    assert!(printed.lines().last().unwrap().starts_with("CORRECT: "), "{printed}");
}

#[tokio::test]
async fn money_is_neither_lost_nor_made_between_two_databases_wherever_the_program_dies() {
    let printed = crashed_often(env!("CARGO_BIN_EXE_transfer-under-test"), 40).await;
    assert!(printed.starts_with("CORRECT: ") && printed.ends_with(" make 1000000\n"), "{printed}");
}
