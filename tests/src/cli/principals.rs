//! Principals and tokens from the command line, from the first administrator on.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::engine;
use crate::support::{
    process::{Process, Ran, run},
    within,
};

/// Runs a command with a token.
async fn with_token(engine: &Process, token: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut command = engine.command(arguments);
    command.env("LEVADA_TOKEN_FILE", token);
    run(command, input).await
}

#[tokio::test]
async fn from_the_first_administrator_to_a_service_with_its_own_token() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let (boss, shop) = (dir.path().join("boss.token"), dir.path().join("shop.token"));
    let name = |path: &Path| path.display().to_string();
    let as_boss = async |arguments: &[&str]| with_token(&engine, &boss, arguments, "").await;
    let as_shop = async |arguments: &[&str], input: &str| with_token(&engine, &shop, arguments, input).await;

    let first = ["principal", "create", "boss", "--grant", "admin", "--token", "--out", &name(&boss)];
    let said = engine.run(&first, "").await;
    assert!(said.stderr.contains("created principal boss"), "{said:?}");
    assert_eq!(fs::metadata(&boss).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&boss).unwrap().starts_with("lv1_"));
    engine.run(&["topic", "list"], "").await.failed(1, "UNAUTHENTICATED");

    let create =
        ["principal", "create", "shop", "--grant", "publish orders", "--certificate", "dns:shop.example"];
    let made = as_boss(&create).await.done();
    assert!(made.contains("  publish orders") && made.contains("dns:shop.example"), "{made}");
    let issue = [
        "token",
        "create",
        "shop",
        "--expires",
        "30d",
        "--description",
        "of the shop",
        "--out",
        &name(&shop),
    ];
    let said = as_boss(&issue).await.done();
    assert!(said.contains("of principal shop, valid until"), "{said}");
    let again = as_boss(&issue).await;
    again.failed(1, "CONFIG_INVALID");
    assert!(again.stderr.contains("name a file that does not exist"), "{again:?}");

    as_shop(&["publish", "orders", "--raw"], "one\n").await.done();
    let read = as_shop(&["read", "orders"], "").await;
    read.failed(1, "PERMISSION_DENIED");
    assert!(read.stderr.contains("principal shop may not read topic orders"), "{read:?}");
    as_shop(&["topic", "describe", "absent"], "").await.failed(1, "TOPIC_NOT_FOUND");
    let own = as_shop(&["principal", "describe"], "").await.done();
    assert!(own.starts_with("principal shop\n"), "{own}");
    as_shop(&["principal", "list"], "").await.failed(1, "PERMISSION_DENIED");

    as_boss(&["principal", "grant", "shop", "read orders"]).await.done();
    assert!(as_shop(&["read", "orders"], "").await.done().contains("one"));
    let missing = as_boss(&["principal", "revoke", "shop", "read **"]).await;
    missing.failed(1, "INVALID_ARGUMENT");
    assert!(missing.stderr.contains("principal shop does not have \"read **\""), "{missing:?}");
    as_boss(&["principal", "revoke", "shop", "read orders"]).await.done();
    as_shop(&["read", "orders"], "").await.failed(1, "PERMISSION_DENIED");

    let tokens = as_boss(&["token", "list", "--output", "json"]).await.json();
    let of_shop: Vec<&Value> = tokens.iter().filter(|token| token["principal"] == "shop").collect();
    let [token] = of_shop[..] else { panic!("{tokens:?}") };
    assert_eq!((&token["state"], &token["description"]), (&json!("active"), &json!("of the shop")));
    assert!(tokens.iter().all(|token| token.get("secret").is_none()), "{tokens:?}");
    let id = token["id"].as_str().unwrap().to_owned();
    as_boss(&["token", "revoke", &id]).await.done();
    let refused = as_shop(&["publish", "orders", "--raw"], "two\n").await;
    refused.failed(1, "UNAUTHENTICATED");
    assert!(refused.stderr.contains("unknown, expired or revoked"), "{refused:?}");
    let listed = as_boss(&["token", "list", "shop"]).await.done();
    assert!(listed.contains("revoked") && listed.lines().count() == 2, "{listed}");

    as_boss(&["principal", "delete", "boss"]).await.failed(1, "LAST_ADMINISTRATOR");
    let gone = as_boss(&["principal", "delete", "shop"]).await.done();
    assert!(gone.contains("deleted principal shop"), "{gone}");
    let listed = as_boss(&["principal", "list"]).await.done();
    assert!(listed.lines().count() == 2 && listed.contains("boss"), "{listed}");
}

#[tokio::test]
async fn a_token_is_printed_alone_and_only_once() {
    let (_dir, engine) = engine().await;
    let first = ["principal", "create", "boss", "--grant", "admin", "--token"];
    let issued = engine.json(&first).await.remove(0);
    assert!(issued["token"].as_str().unwrap().starts_with("lv1_"));
    assert_eq!(issued["info"]["principal"], "boss");
    let token = issued["token"].as_str().unwrap().to_owned();
    let mut command = engine.command(&["token", "create", "boss"]);
    command.env("LEVADA_TOKEN", &token);
    let ran = run(command, "").await;
    assert!(ran.stderr.contains("it is shown this once"), "{ran:?}");
    let printed = ran.done();
    assert_eq!((printed.lines().count(), printed.trim_end().len()), (1, 65), "{printed}");
}

#[tokio::test]
async fn a_principal_is_limited_and_has_roles() {
    let (dir, engine) = engine().await;
    let boss = dir.path().join("boss.token");
    let name = boss.display().to_string();
    let first = ["principal", "create", "boss", "--grant", "admin", "--token", "--out", &name];
    engine.run(&first, "").await.done();
    let as_boss = async |arguments: &[&str]| with_token(&engine, &boss, arguments, "").await;
    as_boss(&["principal", "create", "shop", "--requests", "50"]).await.done();
    as_boss(&["principal", "limit", "shop"]).await.failed(2, "INVALID_ARGUMENT");
    let limited = as_boss(&["principal", "limit", "shop", "--publish-bytes", "1MiB"]).await.done();
    assert!(limited.contains("  1048576 bytes published per second\n  50 requests per second"), "{limited}");
    let lift = ["principal", "limit", "shop", "--publish-bytes", "0", "--requests", "0"];
    assert!(as_boss(&lift).await.done().contains("quotas: none"));

    as_boss(&["principal", "grant", "shop", "role team"]).await.failed(1, "PRINCIPAL_NOT_FOUND");
    as_boss(&["principal", "create", "team", "--grant", "publish shop.**"]).await.done();
    let granted = as_boss(&["principal", "grant", "shop", "role team"]).await.done();
    assert!(granted.contains("  role team"), "{granted}");
    let refused = as_boss(&["principal", "delete", "team"]).await;
    refused.failed(1, "PRINCIPAL_IN_USE");
    assert!(refused.stderr.contains("principal team is a role of shop; take it back first"), "{refused:?}");
    as_boss(&["principal", "revoke", "shop", "role team"]).await.done();
    as_boss(&["principal", "delete", "team"]).await.done();

    let told = as_boss(&["read", "_audit", "--output", "json"]).await.done();
    for action in ["create_principal", "change_principal", "delete_principal"] {
        assert!(told.contains(action), "{told}");
    }
    assert!(told.contains("\"peer\":\"127.0.0.1:"), "{told}");
}

#[tokio::test]
async fn who_reads_through_plugins_sees_what_they_leave_by_quic_and_by_http() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    let events = "{\"id\":1,\"card\":\"4111\"}\nno JSON\n{\"id\":2,\"card\":\"4222\"}\n";
    engine.run(&["publish", "orders", "--raw"], events).await.done();
    let (boss, clerk) = (dir.path().join("boss.token"), dir.path().join("clerk.token"));
    let create = async |name: &str, line: &str, token: &Path| {
        let out = token.display().to_string();
        let arguments = ["principal", "create", name, "--grant", line, "--token", "--out", &out];
        with_token(&engine, &boss, &arguments, "").await
    };
    // The first is made without a token.
    let out = boss.display().to_string();
    engine
        .run(&["principal", "create", "boss", "--grant", "admin", "--token", "--out", &out], "")
        .await
        .done();
    create("nobody", "read orders via json-project:{drop}", &clerk).await.failed(2, "INVALID_ARGUMENT");
    create("nobody", r#"read orders via json-project:{"drop":["a"],"keep":["b"]}"#, &clerk)
        .await
        .failed(1, "PLUGIN_INIT_REFUSED");
    create("clerk", r#"read orders via json-project:{"drop":["card"]}"#, &clerk).await.done();

    let as_clerk = async |arguments: &[&str]| with_token(&engine, &clerk, arguments, "").await;
    let read = as_clerk(&["read", "orders", "--payload"]).await;
    assert_eq!(read.stdout, "{\"id\":1}\n{\"id\":2}\n", "{read:?}");
    assert!(read.stderr.contains("1 event withheld: a plugin of your permission"), "{read:?}");
    let whole = with_token(&engine, &boss, &["read", "orders", "--payload"], "").await;
    assert_eq!((whole.stdout.as_str(), whole.stderr.as_str()), (events, ""));
    let found = as_clerk(&["read", "orders", "--payload", "--where", "card = \"4111\""]).await;
    assert_eq!(found.stdout, "", "{found:?}");
    assert!(found.stderr.contains("matched 0, 1 event withheld"), "{found:?}");
    let found = as_clerk(&["read", "orders", "--payload", "--where", "id = 2"]).await;
    assert_eq!(found.stdout, "{\"id\":2}\n", "{found:?}");

    let token = fs::read_to_string(&clerk).unwrap();
    let request = format!(
        "GET /v1/topics/orders/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        engine.http,
        token.trim()
    );
    let mut stream = TcpStream::connect(&engine.http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within("the response", stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.contains("\r\nlevada-withheld: 1\r\n"), "{response}");
    assert!(response.contains(r#""payload":{"id":1}"#) && !response.contains("4111"), "{response}");
}

#[tokio::test]
async fn what_is_open_shows_what_may_be_read_now() {
    let (dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    engine.text(&["plugin", "deploy", "--bundled"]).await;
    engine.run(&["publish", "orders", "--raw"], "{\"id\":1,\"card\":\"4111\"}\nno JSON\n").await.done();
    let (boss, clerk) = (dir.path().join("boss.token"), dir.path().join("clerk.token"));
    let as_boss = async |arguments: &[&str], input: &str| with_token(&engine, &boss, arguments, input).await;
    let (hiding, keeping) = (
        r#"read orders via json-project:{"drop":["card"]}"#,
        r#"read orders via json-project:{"keep":["id"]}"#,
    );
    let [boss_out, clerk_out] = [&boss, &clerk].map(|path| path.display().to_string());
    let first = ["principal", "create", "boss", "--grant", "admin", "--token", "--out", &boss_out];
    engine.run(&first, "").await.done();
    let create = ["principal", "create", "clerk", "--grant", hiding, "--token", "--out", &clerk_out];
    as_boss(&create, "").await.done();

    let mut command = engine.command(&["read", "orders", "--payload", "--follow"]);
    command.env("LEVADA_TOKEN_FILE", &clerk).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut following = command.spawn().unwrap();
    let mut printed = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(following.stderr.take().unwrap()).lines();
    assert_eq!(within("an event", printed.next_line()).await.unwrap().unwrap(), "{\"id\":1}");
    let said = within("what is withheld", said.next_line()).await.unwrap().unwrap();
    assert!(said.contains("1 event withheld") && said.contains("so far"), "{said}");

    let token = fs::read_to_string(&clerk).unwrap();
    let request = format!(
        "GET /v1/topics/orders/stream?from=earliest HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        engine.http,
        token.trim()
    );
    let mut stream = TcpStream::connect(&engine.http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut streamed, mut chunk) = (String::new(), vec![0; 64 * 1024]);
    while !streamed.contains("event: events_withheld\ndata: {\"count\":1}\n") {
        let read = within("the stream", stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "{streamed}");
        streamed.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    assert!(streamed.contains(r#""data":{"id":1}"#) && !streamed.contains("4111"), "{streamed}");

    // Those who read on meet what holds now; a stream ends, and its client comes again.
    as_boss(&["principal", "grant", "clerk", keeping], "").await.done();
    as_boss(&["principal", "revoke", "clerk", hiding], "").await.done();
    let event = "{\"id\":2,\"card\":\"4222\",\"note\":\"n\"}\n";
    as_boss(&["publish", "orders", "--raw"], event).await.done();
    assert_eq!(within("an event", printed.next_line()).await.unwrap().unwrap(), "{\"id\":2}");
    let mut rest = Vec::new();
    within("the end of the stream", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("note"), "it shows nothing by another mask");
}
