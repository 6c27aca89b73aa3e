//! `--retain compact`.

use serde_json::json;

use super::engine;

#[tokio::test]
async fn a_topic_that_keeps_the_last_event_of_each_key_takes_no_event_without_one() {
    let (_dir, engine) = engine().await;
    let made = engine.text(&["topic", "create", "prices", "--retain", "compact"]).await;
    assert!(made.contains("retain the last event of each key"), "{made}");
    let described = engine.json(&["topic", "describe", "prices"]).await;
    assert_eq!(described[0]["settings"]["retain"], json!("compact"));
    let listed = engine.text(&["topic", "list"]).await;
    assert!(listed.contains("compact"), "{listed}");
    let lines = "{\"key\":\"a\",\"payload\":1}\n{\"key\":\"a\",\"tombstone\":true}\n";
    engine.run(&["publish", "prices"], lines).await.done();
    let refused = engine.run(&["publish", "prices"], "{\"payload\":1}\n").await;
    refused.failed(1, "INVALID_ARGUMENT");
    assert!(refused.stderr.contains("event 0 of the batch has no key"), "{refused:?}");
    assert!(refused.stderr.contains("levada topic set prices --retain"), "{refused:?}");
    engine.text(&["topic", "set", "prices", "--retain", "time-and-acked"]).await;
    engine.run(&["publish", "prices"], "{\"payload\":1}\n").await.done();
    engine.text(&["topic", "set", "prices", "--retain", "compact"]).await;
    engine.stop().await;
}

#[tokio::test]
async fn what_contradicts_it_is_refused() {
    let (_dir, engine) = engine().await;
    let dropping = ["topic", "create", "prices", "--retain", "compact", "--backlog-max-events", "5"];
    let dropping = [&dropping[..], &["--on-full", "drop-oldest"]].concat();
    engine.run(&dropping, "").await.failed(1, "INVALID_ARGUMENT");
    let bounded = ["topic", "create", "prices", "--retain", "compact", "--max-bytes", "1MiB"];
    engine.run(&bounded, "").await.failed(2, "INVALID_ARGUMENT");
    let refused = "--retain-for has no effect on a topic with --retain compact";
    let made =
        engine.run(&["topic", "create", "prices", "--retain", "compact", "--retain-for", "7d"], "").await;
    made.failed(2, "INVALID_ARGUMENT");
    assert!(made.stderr.contains(refused), "{made:?}");
    engine.text(&["topic", "create", "rates", "--retain", "compact"]).await;
    let set = engine.run(&["topic", "set", "rates", "--retain-for", "7d"], "").await;
    set.failed(2, "INVALID_ARGUMENT");
    assert!(set.stderr.contains(refused), "{set:?}");
    engine.text(&["topic", "set", "rates", "--retain-for", "7d", "--retain", "time-and-acked"]).await;
    engine.text(&["topic", "set", "rates", "--retain", "compact"]).await;
    let again = engine.text(&["topic", "create", "rates", "--retain", "compact"]).await;
    assert!(again.contains("it exists already"), "an age that means nothing does not differ: {again}");
    engine.stop().await;
}

#[tokio::test]
async fn what_is_stored_of_a_file_that_is_refused_midway_is_its_beginning() {
    const LINES: usize = 30_000;
    const WITHOUT_KEY: usize = 12_001;
    let (_dir, engine) = engine().await;
    for partitions in ["1", "3"] {
        let topic = format!("prices-{partitions}");
        engine.text(&["topic", "create", &topic, "--retain", "compact", "--partitions", partitions]).await;
        let line = |number: usize| match number {
            WITHOUT_KEY => format!("{{\"payload\":{number}}}\n"),
            _ => format!("{{\"key\":\"k{}\",\"payload\":{number}}}\n", number % 50),
        };
        let lines: String = (1..=LINES).map(line).collect();
        let refused = engine.run(&["publish", &topic], &lines).await;
        refused.failed(1, "INVALID_ARGUMENT");
        let read = engine.run(&["read", &topic], "").await.json();
        let stored: Vec<usize> =
            read.iter().map(|event| event["payload"].as_u64().unwrap() as usize).collect();
        let said = format!("INVALID_ARGUMENT: {} events stored, then: line ", stored.len());
        assert!(refused.stderr.contains(&said), "{refused:?}");
        for key in 0..50 {
            let of_key: Vec<usize> = stored.iter().copied().filter(|number| number % 50 == key).collect();
            let without = (1..=LINES).filter(|number| number % 50 == key && *number != WITHOUT_KEY);
            assert!(without.take(of_key.len()).eq(of_key.iter().copied()), "key {key}: {of_key:?}");
        }
        if partitions == "1" {
            assert!(stored.len() < WITHOUT_KEY);
            assert!(refused.stderr.contains(&format!("line {}: ", stored.len() + 1)), "{refused:?}");
        }
    }
    engine.stop().await;
}
