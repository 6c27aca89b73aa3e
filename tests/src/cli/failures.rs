//! What bad input and bad circumstances get: a code on stderr, an exit code, and nothing left behind.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{alone, asked, engine, get};
use crate::support::{
    guests,
    process::{Process, command, interrupt, run},
    until, within,
};

#[tokio::test]
async fn bad_input_gets_its_code_on_stderr_and_its_exit_code() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "no component").unwrap();
    let no_export = dir.path().join("no-export.wasm");
    std::fs::write(&no_export, guests::component("tests/guests/no-export")).unwrap();
    let filter = dir.path().join("filter.wasm");
    std::fs::write(&filter, guests::component("plugins/json-filter")).unwrap();
    let path = |file: &Path| file.to_str().unwrap().to_owned();
    let (text, no_export, filter) = (path(&text), path(&no_export), path(&filter));
    for (arguments, exit, code) in [
        (vec!["topic", "create", "orders", "--partitions", "2"], 1, "TOPIC_EXISTS"),
        (vec!["topic", "create", "No Name"], 2, "INVALID_ARGUMENT"),
        (vec!["read", "orders", "--from", "1"], 1, "OFFSET_OUT_OF_RANGE"),
        (vec!["read", "orders", "--partition", "1"], 1, "PARTITION_NOT_FOUND"),
        (vec!["plugin", "deploy", "p", &text], 1, "PLUGIN_INVALID"),
        (vec!["plugin", "deploy", "p", &no_export], 1, "PLUGIN_EXPORT_MISSING"),
        (vec!["plugin", "deploy", "p", &filter, "--config", r#"{"where":"("}"#], 1, "PLUGIN_INIT_REFUSED"),
        (vec!["plugin", "deploy", "p", &filter, "--config", "{"], 2, "INVALID_ARGUMENT"),
        (vec!["route", "create", "r", "--from", "orders", "--to", "orders"], 1, "ROUTE_CYCLE"),
        (vec!["nonsense"], 2, "INVALID_ARGUMENT"),
        (vec!["topic"], 2, ""),
    ] {
        let ran = engine.run(&arguments, "").await;
        match code {
            "" => assert_eq!(ran.code, exit, "{ran:?}"),
            code => ran.failed(exit, code),
        }
    }
    engine.stop().await;
}

#[tokio::test]
async fn lines_that_are_no_events_get_the_hint_that_helps() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let lines = engine.run(&["publish", "orders"], "1\n2\n").await;
    lines.failed(1, "INVALID_ARGUMENT");
    let expected = "line 1: expected a JSON object such as {\"payload\": ..}, got the number 1\nhint: --raw publishes each line as it is; neither";
    assert!(lines.stderr.contains(expected), "{lines:?}");
    for (line, expected, hint) in [
        (
            "{\"amount\":5}",
            "line 1: expected a field `payload`, `payload_text`",
            "hint: an event's content is its payload: `jq -c '{payload: .}'`",
        ),
        (
            "{\n  \"payload\": 5\n}",
            "line 1: expected a whole JSON object on one line",
            "hint: `jq -c .` puts each event on one line",
        ),
        (
            "{\"payload\":1,\"keys\":\"a\"}",
            "line 1: expected `key`, got a field `keys`",
            "hint: neither this line",
        ),
    ] {
        let refused = engine.run(&["publish", "orders"], line).await;
        refused.failed(1, "INVALID_ARGUMENT");
        assert!(refused.stderr.contains(expected) && refused.stderr.contains(hint), "{refused:?}");
    }
    let words = engine.run(&["publish", "orders", "it's", "new"], "").await;
    assert!(words.stderr.contains(r"`echo 'it'\''s new' | levada publish orders --raw`"), "{words:?}");
    let event = engine.run(&["publish", "orders", r#"{"payload":1}"#], "").await;
    assert!(event.stderr.contains("| levada publish orders`"), "{event:?}");
    let broken =
        engine.run(&["publish", "orders"], "{\"payload\":1}\n{\"payload\":}\n{\"payload\":3}\n").await;
    broken.failed(1, "INVALID_ARGUMENT");
    assert!(broken.stderr.contains("1 event stored, then: line 2"), "{broken:?}");
    assert_eq!(engine.run(&["read", "orders"], "").await.json().len(), 1, "up to the wrong line");
    engine.stop().await;
}

#[tokio::test]
async fn a_misspelt_name_gets_the_nearest_one() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["topic", "create", "paid"]).await;
    engine.text(&["subscription", "create", "orders/payment"]).await;
    engine.text(&["route", "create", "onward", "--from", "orders", "--to", "paid"]).await;
    for (arguments, hint) in [
        (&["read", "odrers"][..], "the nearest name is orders; `levada topic list`"),
        (&["publish", "order"], "the nearest name is orders;"),
        (&["route", "create", "r", "--from", "orders", "--to", "piad"], "the nearest name is paid;"),
        (&["subscription", "describe", "orders/paymnet"], "the nearest name is payment;"),
        (&["route", "delete", "onwards"], "the nearest name is onward;"),
        (&["topic", "describe", "x"], "hint: `levada topic list`"),
    ] {
        let refused = engine.run(arguments, "{\"payload\":1}").await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(hint), "{refused:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn output_that_cannot_be_written_has_a_code_of_its_own() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.run(&["publish", "orders", "--raw"], "1\n").await.done();
    for arguments in [
        &["topic", "list"][..],
        &["topic", "list", "--output", "json"],
        &["topic", "create", "other"],
        &["read", "orders"],
        &["subscribe", "orders/s", "--from", "earliest"],
        &["publish", "orders", "--file", "/dev/null"],
        &["--help"],
    ] {
        let mut child = engine.command(arguments);
        child.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let child = child.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = within("its end", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("OUTPUT_FAILED") && said.contains("standard output cannot be written: "),
            "{said}"
        );
    }
    engine.stop().await;
}

#[tokio::test]
async fn errors_are_json_where_json_was_asked_for() {
    let (_dir, engine) = engine().await;
    for (arguments, exit, code, part) in [
        (vec!["topic", "describe", "absent", "--output", "json"], 1, "TOPIC_NOT_FOUND", "absent"),
        (vec!["topic", "create", "x", "--max-bytes", "64XB", "--output=json"], 2, "INVALID_ARGUMENT", "64XB"),
    ] {
        let ran = engine.run(&arguments, "").await;
        assert_eq!((ran.code, ran.stdout.as_str()), (exit, ""), "{ran:?}");
        let printed: Value =
            serde_json::from_str(&ran.stderr).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert_eq!(printed["error"]["code"], code);
        assert!(printed["error"]["message"].as_str().unwrap().contains(part), "{printed}");
        assert!(printed["error"]["hint"].is_string(), "{printed}");
        assert!(printed["error"]["retry"].is_string() && printed["error"]["effect"].is_string(), "{printed}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_command_that_fails_closes_its_connection() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    for arguments in [
        vec!["topic", "describe", "absent"],
        vec!["publish", "absent", "--raw"],
        vec!["read", "absent"],
        vec!["subscribe", "absent", "-s", "s"],
        vec!["subscription", "resume", "absent/s"],
        vec!["plugin", "remove", "absent"],
        vec!["route", "resume", "absent"],
    ] {
        assert_eq!(engine.run(&arguments, "x\n").await.code, 1, "{arguments:?}");
        let closed = until("the end of the connection", async || {
            get(&engine, "/metrics").await.lines().any(|line| line == "levada_connections 0").then_some(())
        });
        // A connection that nobody closed ends when it has been idle for 10 s.
        let closed = tokio::time::timeout(Duration::from_secs(9), closed).await;
        assert!(closed.is_ok(), "its connection is still open: {arguments:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_flag_that_differs_is_named_and_what_no_flag_says_is_as_it_is() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    engine.run(&["publish", "orders"], "{\"payload\":{\"amount\":1}}\n").await.done();
    let filter = |config: &'static str| vec!["subscribe", "orders", "-s", "s", "--plugin", config];
    let create = [filter(r#"json-filter:{"where": "amount > 0"}"#), vec!["--from", "earliest", "--max", "1"]];
    engine.text(&create.concat()).await;
    engine.run(&["publish", "orders"], "{\"payload\":{\"amount\":2}}\n").await.done();
    let again =
        [filter(r#"json-filter:{"where":"amount > 0"}"#), vec!["--max-in-flight", "1000", "--max", "1"]];
    engine.text(&again.concat()).await;
    let timeout = engine.run(&["subscribe", "orders", "-s", "s", "--ack-timeout", "5s"], "").await;
    timeout.failed(1, "SUBSCRIPTION_MISMATCH");
    let said = "subscription orders/s exists with --ack-timeout 30s, expected 5s";
    assert!(timeout.stderr.contains(said), "{timeout:?}");
    assert!(timeout.stderr.contains("`levada subscription set orders/s` with that flag"), "{timeout:?}");
    let expiring = engine.run(&["subscription", "create", "orders/s", "--expire-after", "7d"], "").await;
    expiring.failed(1, "SUBSCRIPTION_EXISTS");
    let said = "subscription orders/s exists with --expire-after none, expected 7d";
    assert!(expiring.stderr.contains(said), "{expiring:?}");
    let other = engine.run(&filter(r#"json-filter:{"where":"Amount > 0"}"#), "").await;
    other.failed(1, "SUBSCRIPTION_MISMATCH");
    assert!(other.stderr.contains(r#"config.where "amount > 0", got "Amount > 0""#), "{other:?}");
    engine.stop().await;
}

#[tokio::test]
async fn dead_letter_topics_can_be_deleted() {
    let (_dir, engine) = engine().await;
    let dead = "dlq.orders.s";
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    engine.run(&["publish", "orders", "--raw"], "no JSON\n").await.done();
    let filter = ["--plugin", r#"json-filter:{"where":"a > 1"}"#];
    let create = ["subscription", "create", "orders/s", "--from", "earliest"];
    engine.text(&[&create[..], &filter[..]].concat()).await;
    let mut consumer = engine.spawn(&["subscribe", "orders", "-s", "s"]);
    until("the dead letter", async || {
        (engine.run(&["topic", "describe", dead], "").await.code == 0).then_some(())
    })
    .await;
    interrupt(&consumer);
    assert!(within("its end", consumer.wait()).await.unwrap().success());
    engine.text(&["topic", "set", dead, "--retain-for", "7d"]).await;
    let refused = engine.run(&["topic", "delete", dead], "").await;
    refused.failed(1, "TOPIC_IN_USE");
    assert!(refused.stderr.contains("subscription orders/s"), "{refused:?}");
    engine.text(&["topic", "delete", dead, "--force"]).await;
    engine.run(&["topic", "describe", dead], "").await.failed(1, "TOPIC_NOT_FOUND");
    engine.stop().await;
}

#[tokio::test]
async fn deleting_what_others_need_asks_or_is_forced_and_names_what_goes() {
    let (_dir, engine) = engine().await;
    let make = async || {
        engine.text(&["topic", "create", "orders"]).await;
        engine.text(&["subscription", "create", "orders/s"]).await;
        engine.text(&["subscription", "create", "orders/t"]).await;
    };
    let delete = ["topic", "delete", "orders"];
    make().await;
    engine.text(&["topic", "create", "paid"]).await;
    engine.text(&["route", "create", "r", "--from", "orders", "--to", "paid"]).await;
    let refused = engine.run(&delete, "y\n").await;
    refused.failed(1, "TOPIC_IN_USE");
    assert!(refused.stderr.contains("subscriptions orders/s, orders/t and route r would be"), "{refused:?}");
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    let no = engine.run_typing(&delete, "n\n").await;
    assert_eq!((no.code, no.stdout.as_str()), (1, ""), "{no:?}");
    assert!(no.stderr.contains("orders/t and route r") && no.stderr.contains("[y/N]"), "{no:?}");
    assert!(no.stderr.contains("topic orders was not deleted"), "{no:?}");
    let yes = engine.run_typing(&delete, "y\n").await.done();
    assert_eq!(yes, "deleted topic orders with subscriptions orders/s, orders/t and route r\n");
    make().await;
    let forced = &engine.json(&[&delete[..], &["--force"]].concat()).await[0];
    assert_eq!(forced["deleted"], "orders");
    assert_eq!(forced["subscriptions"], serde_json::json!(["orders/s", "orders/t"]));
    assert_eq!((&forced["routes"], &forced["count"]), (&serde_json::json!([]), &serde_json::json!(3)));
    engine.stop().await;
}

#[tokio::test]
async fn a_question_that_nobody_answers_can_be_interrupted() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["subscription", "create", "orders/s"]).await;
    let (mut child, terminal) = engine.spawn_on_terminal(&["topic", "delete", "orders"]);
    let _terminal = asked(terminal).await;
    interrupt(&child);
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(130));
    engine.text(&["topic", "describe", "orders"]).await;
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_that_cannot_start_says_why() {
    let (dir, engine) = engine().await;
    let data = dir.path().join("data");
    let other = dir.path().join("other");
    let serve = async |data: &Path, more: &[&str]| {
        let mut arguments = vec!["serve", "--data-dir", data.to_str().unwrap()];
        arguments.extend(more);
        alone(&arguments).await
    };
    let any = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    serve(&data, &any).await.failed(1, "STORAGE_IN_USE");
    serve(&other, &["--listen", &engine.quic, "--http", "127.0.0.1:0"]).await.failed(1, "ADDRESS_IN_USE");
    serve(&other, &["--listen", "127.0.0.1:0", "--http", &engine.http]).await.failed(1, "ADDRESS_IN_USE");
    for open in
        [["--listen", "0.0.0.0:0", "--http", "127.0.0.1:0"], ["--listen", "127.0.0.1:0", "--http", "[::]:0"]]
    {
        let refused = serve(&other, &open).await;
        refused.failed(1, "CONFIG_INVALID");
        assert!(refused.stderr.contains("make an administrator first"), "{refused:?}");
    }
    serve(&other, &["--listen", "nowhere"]).await.failed(2, "INVALID_ARGUMENT");
    let config = dir.path().join("levada.toml");
    std::fs::write(&config, "[store]\nretention_intervall = \"1s\"\n").unwrap();
    let wrong = serve(&other, &["--config", config.to_str().unwrap()]).await;
    wrong.failed(1, "CONFIG_INVALID");
    assert!(
        wrong.stderr.contains(
            "line 2: \"retention_intervall\" is not known, expected a setting, perhaps retention_interval;"
        ),
        "{wrong:?}"
    );
    serve(&other, &["--config", "absent.toml"]).await.failed(2, "CONFIG_INVALID");
    std::fs::write(&config, "subscribe.tail_bytes_max = \"64XB\"\n").unwrap();
    let wrong = serve(&other, &["--config", config.to_str().unwrap()]).await;
    wrong.failed(1, "CONFIG_INVALID");
    assert!(wrong.stderr.contains("expected a size such as 64MiB or 1GB, got \"64XB\""), "{wrong:?}");
    engine.stop().await;

    std::fs::write(data.join("format"), "levada data format 4\n").unwrap();
    serve(&data, &any).await.failed(1, "STORAGE_NEWER");
    std::fs::write(data.join("format"), "levada data format 1\n").unwrap();
    serve(&data, &any).await.failed(1, "STORAGE_OLDER");
    std::fs::write(data.join("format"), "nothing of the kind\n").unwrap();
    serve(&data, &any).await.failed(1, "STORAGE_CORRUPT");
    std::fs::write(data.join("format"), "levada data format 3\n").unwrap();
    Process::start(&data).await.stop().await;
}

#[tokio::test]
async fn variables_that_are_empty_or_not_known_are_named() {
    let dir = TempDir::new().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    for (arguments, name, value, said) in [
        (&serve[..], "LEVADA_DATA_DIR", "", "LEVADA_DATA_DIR is empty"),
        (&serve[..], "LEVADA_DATADIR", "x", "the nearest is LEVADA_DATA_DIR"),
        (&serve[..], "LEVADA_LISTEN_ADRESS", "x", "the nearest is LEVADA_LISTEN_ADDRESS"),
        (
            &serve[..],
            "LEVADA_LISTEN_IDLE_TIMEOUT",
            "soon",
            "LEVADA_LISTEN_IDLE_TIMEOUT is wrong: expected a duration",
        ),
        (
            &serve[..],
            "LEVADA_LISTEN_CONNECTIONS_MAX",
            "many",
            "LEVADA_LISTEN_CONNECTIONS_MAX is wrong: expected a whole number",
        ),
        (&["topic", "list"], "LEVADA_ADDR", "", "LEVADA_ADDR is empty"),
        (&["topic", "list"], "LEVADA_CA", "", "LEVADA_CA is empty"),
        (&["topic", "list"], "LEVADA_ADRR", "x", "the nearest is LEVADA_ADDR"),
    ] {
        let mut command = command();
        command.args(arguments).current_dir(dir.path()).env(name, value);
        let refused = run(command, "").await;
        refused.failed(1, "CONFIG_INVALID");
        assert!(refused.stderr.contains(said), "{refused:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

#[tokio::test]
async fn what_serve_cannot_use_is_said_in_its_own_words() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let serve =
        async |more: &[&str]| alone(&[&["serve", "--data-dir", data.to_str().unwrap()], more].concat()).await;
    let nowhere = serve(&["--listen", "nowhere"]).await;
    nowhere.failed(2, "INVALID_ARGUMENT");
    assert!(nowhere.stderr.contains("or a port alone such as 7600, got \"nowhere\""), "{nowhere:?}");
    let config = dir.path().join("levada.toml");
    std::fs::write(&config, "[telemetry]\nlog_filter = \"loud\"\n").unwrap();
    let loud = serve(&["--config", config.to_str().unwrap()]).await;
    loud.failed(1, "CONFIG_INVALID");
    assert!(loud.stderr.contains("telemetry.log_filter is \"loud\", expected a level"), "{loud:?}");
    std::fs::create_dir_all(data.join("tls")).unwrap();
    for name in ["ca.pem", "ca.key", "server.pem", "server.key"] {
        std::fs::write(data.join("tls").join(name), "garbage").unwrap();
    }
    let damaged = serve(&["--listen", "0", "--http", "0"]).await;
    assert_eq!(damaged.code, 1, "{damaged:?}");
    assert!(!damaged.stderr.contains("--ca"), "serve has no such flag: {damaged:?}");
}

#[tokio::test]
async fn a_quiet_engine_prints_the_ports_that_the_system_chose() {
    let dir = TempDir::new().unwrap();
    let mut command = command();
    command.args(["serve", "--quiet", "--listen", "localhost:0", "--http", ":0", "--until-stdin-closes"]);
    command.args(["--data-dir", dir.path().join("data").to_str().unwrap()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let quic = within("a line", lines.next_line()).await.unwrap().unwrap();
    assert!(quic.starts_with("QUIC  127.0.0.1:") && !quic.contains(":0 "), "{quic}");
    let http = within("a line", lines.next_line()).await.unwrap().unwrap();
    assert!(http.starts_with("HTTP  http://127.0.0.1:"), "{http}");
    drop(child.stdin.take());
    assert_eq!(within("the end", lines.next_line()).await.unwrap(), None);
    assert!(within("its end", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn an_engine_that_is_not_trusted_is_said_so() {
    let (dir, engine) = engine().await;
    let (_other_dir, other) = self::engine().await;
    let list = async |addr: &str, ca: &Path| {
        let mut command = command();
        command.args(["topic", "list", "--addr", addr, "--ca"]).arg(ca).current_dir(dir.path());
        run(command, "").await
    };
    let foreign = list(&engine.quic, &other.ca).await;
    foreign.failed(1, "TLS_FAILED");
    assert!(foreign.stderr.contains("not signed by the given CA"), "{foreign:?}");
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    list(&engine.quic, &garbage).await.failed(1, "CONFIG_INVALID");
    list(&engine.quic, &dir.path().join("absent.pem")).await.failed(2, "FILE_UNREADABLE");
    let mut without = command();
    without.args(["topic", "list", "--addr", &engine.quic]).current_dir(dir.path());
    run(without, "").await.failed(1, "CONFIG_INVALID");
    engine.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_said_so() {
    let dir = TempDir::new().unwrap();
    let tls = dir.path().join("data/tls");
    std::fs::create_dir_all(&tls).unwrap();
    let expire = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    expire(&mut params);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    expire(&mut params);
    let server = params.signed_by(&key, &issuer).unwrap().pem();
    // Without the CA's key the files are somebody else's: served as they are.
    for (name, content) in [("ca.pem", ca), ("server.pem", server), ("server.key", key.serialize_pem())] {
        std::fs::write(tls.join(name), content).unwrap();
    }
    let engine = Process::start(&dir.path().join("data")).await;
    let refused = engine.run(&["topic", "list"], "").await;
    refused.failed(1, "TLS_FAILED");
    assert!(refused.stderr.contains("expired"), "{refused:?}");
    engine.stop().await;
}

#[tokio::test]
async fn the_configuration_in_force_can_be_printed_and_read_back() {
    let dir = TempDir::new().unwrap();
    let mut print = command();
    print
        .args(["serve", "--print-config", "--data-dir", "here"])
        .env("LEVADA_STORE_RETENTION_INTERVAL", "7s");
    let printed = run(print, "").await.done();
    assert!(
        printed.contains("data_dir = \"here\"") && printed.contains("retention_interval = \"7s\""),
        "{printed}"
    );
    let file = dir.path().join("levada.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = alone(&["serve", "--print-config", "--config", file.to_str().unwrap()]).await.done();
    assert_eq!(again, printed);
}
