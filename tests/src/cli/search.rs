//! `levada read` with something to look for: what it prints, and what it says at its end.

use serde_json::{Value, json};

use super::{alone, engine};
use crate::support::process::{Process, Ran};

async fn orders(engine: &Process) {
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    let lines: String = (0..40)
        .map(|number| {
            let region = if number % 2 == 0 { "eu" } else { "us" };
            let amount = number * 10;
            format!("{}\n", json!({
                "key": format!("order-{number}"), "headers": {"region": region}, "payload": {"amount": amount},
            }))
        })
        .collect();
    engine.run(&["publish", "orders"], &lines).await.done();
    engine.run(&["publish", "orders", "--raw", "--key", "order-1"], "no JSON\n").await.done();
}

/// What the last line on stderr says of a search, as JSON.
fn summary(ran: &Ran) -> Value {
    let last: Value = serde_json::from_str(ran.stderr.trim().lines().last().unwrap()).unwrap();
    last["search"].clone()
}

/// The amounts that were printed.
fn amounts(ran: &Ran) -> Vec<u64> {
    let amount = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["payload"]["amount"].as_u64().unwrap()
    };
    ran.stdout.lines().map(amount).collect()
}

#[tokio::test]
async fn what_matches_is_printed_and_the_last_line_says_what_was_scanned() {
    let (_dir, engine) = engine().await;
    orders(&engine).await;
    let condition = r#"amount > 100 and header.region = "eu""#;
    let ran = engine.run(&["read", "orders", "--where", condition, "--since", "1h"], "").await;
    let mut found = amounts(&ran);
    found.sort_unstable();
    assert_eq!(found, (12..40).step_by(2).map(|number| number * 10).collect::<Vec<u64>>());
    let last = ran.stderr.trim();
    assert!(
        last.starts_with("scanned ") && last.ends_with("events: 41, matched 14, payload not JSON 1"),
        "{last}"
    );
    let by_key = engine.run(&["read", "orders", "--key", "order-1", "--payload"], "").await;
    assert_eq!(by_key.stdout, "{\"amount\":10}\nno JSON\n");
    let nothing = engine.run(&["read", "orders", "--key", "order", "--quiet"], "").await;
    assert_eq!((nothing.code, nothing.stdout.as_str(), nothing.stderr.as_str()), (0, "", ""));
    engine.stop().await;
}

#[tokio::test]
async fn a_search_that_stops_early_prints_the_command_that_goes_on() {
    let (_dir, engine) = engine().await;
    orders(&engine).await;
    let condition = "amount >= 0 and not (header.region = \"it's\")";
    let mut arguments: Vec<String> =
        ["read", "orders", "--where", condition, "--max", "7", "--output", "json"]
            .map(str::to_owned)
            .to_vec();
    let (mut all, mut parts) = (Vec::new(), 0);
    loop {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // What is printed names the engine, and is run as it is.
        let ran = if parts == 0 { engine.run(&words, "").await } else { alone(&words).await };
        assert_eq!(ran.code, 0, "{ran:?}");
        all.extend(amounts(&ran));
        parts += 1;
        let said = summary(&ran);
        if said["complete"] == true {
            assert_eq!(said["next"], Value::Null);
            break;
        }
        assert_eq!(said["matched"], 7);
        arguments = words_of(said["next"].as_str().unwrap()).split_off(1);
        assert!(
            arguments.contains(&format!("--cursor={}", said["cursor"].as_str().unwrap())),
            "{arguments:?}"
        );
    }
    all.sort_unstable();
    assert_eq!(all, (0..40).map(|number| number * 10).collect::<Vec<u64>>(), "each once");
    assert!(parts > 5, "{parts} commands");
    engine.stop().await;
}

/// The words of a command, as a shell takes them.
fn words_of(command: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {command}");
    let shell = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
    String::from_utf8(shell.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_search_gets_a_clear_answer_to_what_is_wrong() {
    let (_dir, engine) = engine().await;
    orders(&engine).await;
    let ran = engine.run(&["read", "orders", "--where", "amount >"], "").await;
    ran.failed(1, "INVALID_ARGUMENT");
    assert!(ran.stderr.contains("where: column 9: expected a field, a header or a value"), "{}", ran.stderr);
    engine.run(&["read", "orders", "--cursor", "0:99,1:0"], "").await.failed(1, "OFFSET_OUT_OF_RANGE");
    engine
        .run(&["read", "orders", "--key", "a", "--scan-max", "2GiB"], "")
        .await
        .failed(1, "INVALID_ARGUMENT");
    engine.stop().await;
}
