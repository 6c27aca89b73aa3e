//! The examples that run to their end by themselves, against the real engine, twice each: what an earlier run left does not
//! matter.

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{process::Process, within};

/// What an example prints.
async fn printed(engine: &Process, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("LEVADA_ADDR", &engine.quic).env("LEVADA_CA", &engine.ca).kill_on_drop(true);
    let ran = within("the example", command.output()).await.unwrap();
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{program}: {stdout}{}", String::from_utf8_lossy(&ran.stderr));
    stdout
}

#[tokio::test]
async fn an_order_is_paid_or_cancelled_and_never_both() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    for _ in 0..2 {
        let printed = printed(&engine, env!("CARGO_BIN_EXE_unpaid-timeout-under-test"), &["20", "1"]).await;
        let counts: Vec<u32> =
            printed.lines().skip(1).map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.iter().sum::<u32>(), 20, "paid and cancelled: {printed}");
        assert!(counts[1] >= 10 && printed.contains("none of them paid"), "{printed}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_user_does_not_wait_for_what_can_be_done_behind() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    for _ in 0..2 {
        let printed = printed(&engine, env!("CARGO_BIN_EXE_signup-email-under-test"), &[]).await;
        assert!(printed.ends_with("behind that, mail and coupon were sent\n"), "{printed}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn every_point_is_given_once_although_its_service_fails_and_crashes() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    for _ in 0..2 {
        let printed = printed(&engine, env!("CARGO_BIN_EXE_points-with-retry-under-test"), &["205"]).await;
        assert!(printed.contains("20 deliveries failed and came again, "), "{printed}");
        assert!(!printed.contains(" 0 came again after a crash"), "{printed}");
        assert!(printed.ends_with("every user has a point for each sign-in: 205\n"), "{printed}");
    }
    engine.stop().await;
}
