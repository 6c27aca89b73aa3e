//! `levada context`, and which engine and token a command takes of flags, environment and contexts.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use levada_protocol::{ids::TokenId, token::Token};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::engine;
use crate::support::process::{Process, Ran, command, run};

fn token(id: u64) -> String {
    Token::new(TokenId(id), [7; 32]).reveal()
}

/// A user with contexts of their own.
struct User {
    dir: TempDir,
}

impl User {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("config/contexts.toml")
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.args(arguments).current_dir(self.dir.path()).env("LEVADA_CONFIG_DIR", self.path("config"));
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments), "").await
    }

    async fn with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        run(command, "").await
    }

    /// Adds a context of an engine, with its CA.
    async fn add(&self, name: &str, engine: &Process, more: &[&str]) {
        let ca = engine.ca.display().to_string();
        let add = ["context", "add", name, "--addr", &engine.quic, "--ca", &ca];
        self.run(&[&add, more].concat()).await.done();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}

#[tokio::test]
async fn contexts_are_added_chosen_listed_shown_and_removed_without_a_secret_in_sight() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders"]).await;
    let user = User::new();
    let token_file = user.write("token", &format!("{}\n", token(5)));
    user.add("prod", &engine, &["--token-file", &token_file]).await;
    let mut stdin =
        user.command(&["context", "add", "dev", "--addr", "localhost:1", "--token-stdin", "--use"]);
    stdin.args(["--output", "json"]);
    let added = run(stdin, &format!("{}\nmore\n", token(6))).await.json();
    assert_eq!((&added[0]["token"], &added[0]["current"]), (&json!(true), &json!(true)));
    assert_eq!((User::mode(&user.file()), User::mode(&user.path("config"))), (0o600, 0o700));
    // Nothing else is left beside the file.
    assert_eq!(fs::read_dir(user.path("config")).unwrap().count(), 1);

    let listed = user.run(&["context", "list"]).await.done();
    let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "ADDRESS", "TOKEN", "CA", "SHA256"], "{listed}");
    assert_eq!(words[1], ["*", "dev", "localhost:1", "yes", "-"], "{listed}");
    assert_eq!(words[2][..3], ["prod", &engine.quic, "yes"], "{listed}");
    let json = user.run(&["context", "list", "--output", "json"]).await.json();
    assert_eq!(json[1]["ca_sha256"], json!([words[2][3]]));
    assert_eq!((&json[0]["name"], &json[0]["current"]), (&json!("dev"), &json!(true)));
    assert_eq!(words[2][3].len(), 64, "{listed}");

    user.run(&["context", "use", "prod"]).await.done();
    let shown = user.run(&["context", "show"]).await.done();
    for part in ["prod", &engine.quic, words[2][3], "00000000005", "contexts.toml"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let dev = user.run(&["context", "show", "dev", "--output", "json"]).await.json();
    assert_eq!((&dev[0]["addr"], &dev[0]["token_id"]), (&json!("localhost:1"), &json!("00000000006")));
    let secret = &token(5)[17..40];
    for printed in [listed, shown, json[1].to_string(), format!("{added:?} {dev:?}")] {
        assert!(!printed.contains(secret), "{printed}");
    }

    // The engine of the current context serves, and from the CA that was copied.
    let copied = user.run(&["topic", "list", "--output", "json"]).await.json();
    assert_eq!(copied[0]["name"], "orders");
    let removed = user.run(&["context", "remove", "prod", "--output", "json"]).await.json();
    assert_eq!(removed[0], json!({"removed": "prod", "current": true}));
    user.run(&["context", "show"]).await.failed(1, "CONTEXT_NOT_FOUND");
    let text = fs::read_to_string(user.file()).unwrap();
    assert!(!text.contains("prod") && !text.contains(&token(5)), "{text}");
    engine.stop().await;
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_contexts() {
    let (_first_dir, first) = engine().await;
    let (_second_dir, second) = engine().await;
    first.text(&["topic", "create", "first"]).await;
    second.text(&["topic", "create", "second"]).await;
    let user = User::new();
    user.add("first", &first, &["--use"]).await;
    user.add("second", &second, &[]).await;
    let list = ["topic", "list", "--output", "json"];
    let name = |ran: Ran| ran.json()[0]["name"].as_str().unwrap().to_owned();
    let ca = second.ca.display().to_string();
    let by_addr = ["--addr", &second.quic, "--ca", &ca];
    assert_eq!(name(user.run(&list).await), "first");
    assert_eq!(name(user.run(&[&list[..], &["--context", "second"]].concat()).await), "second");
    assert_eq!(name(user.with(&[("LEVADA_CONTEXT", "second")], &list).await), "second");
    let flag = [&list[..], &["--context", "first"]].concat();
    assert_eq!(name(user.with(&[("LEVADA_CONTEXT", "second")], &flag).await), "first");
    assert_eq!(name(user.run(&[&list[..], &by_addr].concat()).await), "second");
    let by_environment = [("LEVADA_ADDR", second.quic.as_str()), ("LEVADA_CA", &ca)];
    assert_eq!(name(user.with(&by_environment, &list).await), "second");
    let by_flag = [&list[..], &["--context", "first"]].concat();
    let address = [("LEVADA_ADDR", second.quic.as_str())];
    assert_eq!(name(user.with(&address, &by_flag).await), "first", "the flag says which engine");
    // Neither the CA nor the token of the current context is another engine's.
    let foreign = user.run(&["topic", "list", "--addr", &second.quic]).await;
    foreign.failed(1, "CONFIG_INVALID");
    assert!(foreign.stderr.contains("no CA certificate: neither --ca nor LEVADA_CA is set"), "{foreign:?}");
    // A command to go on with names the same engine.
    first.run(&["publish", "first", "--raw"], "a\nb\n").await.done();
    let search = ["read", "first", "--where", "true", "--max", "1", "--context", "first"];
    let searched = user.run(&search).await;
    assert!(searched.stderr.contains("--context=first"), "{searched:?}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn tokens_that_are_none_are_refused_before_anything_is_sent() {
    let user = User::new();
    let ca = user.write("ca.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let mistyped = token(5).replace("00005_", "00006_");
    let file = user.write("token", &mistyped);
    let list = ["topic", "list", "--addr", "127.0.0.1:1", "--ca", &ca];
    let refused = user.with(&[("LEVADA_TOKEN", &mistyped)], &list).await;
    refused.failed(1, "CONFIG_INVALID");
    assert!(
        refused.stderr.contains("LEVADA_TOKEN is wrong: the token's checksum does not fit"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains(&mistyped[17..40]), "{refused:?}");
    let absent = user.run(&[&list[..], &["--token-file", "absent"]].concat()).await;
    absent.failed(2, "FILE_UNREADABLE");
    assert!(absent.stderr.contains("absent cannot be read: there is no such file"), "{absent:?}");
    let both = [("LEVADA_TOKEN_FILE", file.as_str()), ("LEVADA_TOKEN", &token(1))];
    let ambiguous = user.with(&both, &list).await;
    ambiguous.failed(1, "CONFIG_INVALID");
    assert!(ambiguous.stderr.contains("are both set, expected one of them"), "{ambiguous:?}");
    let copied = user.run(&["context", "add", "x", "--addr", "a:1", "--token-file", &file]).await;
    copied.failed(1, "CONFIG_INVALID");
    assert!(copied.stderr.contains("token is wrong: the token's checksum does not fit"), "{copied:?}");
    let mut stdin = user.command(&["context", "add", "x", "--addr", "a:1", "--token-stdin"]);
    stdin.args(["--output", "text"]);
    let refused = run(stdin, "secret\n").await;
    refused.failed(1, "CONFIG_INVALID");
    assert!(refused.stderr.contains("the token from stdin is wrong: not a token"), "{refused:?}");
    let unneeded = user.run(&[&list[..], &["--token", "x"]].concat()).await;
    unneeded.failed(2, "INVALID_ARGUMENT");
    assert!(!user.file().exists(), "nothing was stored");
}

#[tokio::test]
async fn what_is_wrong_with_a_context_is_said_and_nothing_is_changed() {
    let (_dir, engine) = engine().await;
    let user = User::new();
    user.add("prod", &engine, &[]).await;
    let before = fs::read_to_string(user.file()).unwrap();
    let garbage = user.write("garbage.pem", "no certificate");
    let key = user.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let broken = user.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let add = ["context", "add", "other", "--addr", "a:1"];
    for (words, exit, code, said) in [
        (&["context", "show", "prd"][..], 1, "CONTEXT_NOT_FOUND", "there is no context prd; there is prod"),
        (&["context", "use", "prd"], 1, "CONTEXT_NOT_FOUND", "the nearest name is prod"),
        (&["context", "remove", "prd"], 1, "CONTEXT_NOT_FOUND", "the nearest name is prod"),
        (&["topic", "list", "--context", "prd"], 1, "CONTEXT_NOT_FOUND", "the nearest name is prod"),
        (&["context", "add", "prod", "--addr", "a:1"], 1, "CONTEXT_EXISTS", "--replace puts the new one"),
        (&[&add[..], &["--ca", "absent"]].concat(), 2, "FILE_UNREADABLE", "absent cannot be read"),
        (&[&add[..], &["--ca", &garbage]].concat(), 1, "CONFIG_INVALID", "is no CA: expected the PEM text"),
        (&[&add[..], &["--ca", &key]].concat(), 1, "CONFIG_INVALID", "it holds a private key"),
        (&[&add[..], &["--ca", &broken]].concat(), 1, "CONFIG_INVALID", "it holds no certificate"),
        (&[&add[..], &["--token-file", "absent"]].concat(), 2, "FILE_UNREADABLE", "absent cannot be read"),
    ] {
        let refused = user.run(words).await;
        refused.failed(exit, code);
        assert!(refused.stderr.contains(said), "{words:?}: {refused:?}");
    }
    let by_name = user.with(&[("LEVADA_CONTEXT", "Big")], &["topic", "list"]).await;
    by_name.failed(1, "CONFIG_INVALID");
    assert!(
        by_name.stderr.contains("LEVADA_CONTEXT is wrong: context name \"Big\" is invalid"),
        "{by_name:?}"
    );
    assert_eq!(fs::read_to_string(user.file()).unwrap(), before);
    user.run(&["context", "add", "prod", "--addr", "a:1", "--replace"]).await.done();
    let shown = user.run(&["context", "show", "prod", "--output", "json"]).await.json();
    assert_eq!((&shown[0]["addr"], &shown[0]["ca_sha256"]), (&json!("a:1"), &Value::Array(Vec::new())));
    engine.stop().await;
}

#[tokio::test]
async fn a_file_of_contexts_that_others_may_read_or_that_is_wrong_is_refused() {
    let user = User::new();
    user.run(&["context", "add", "prod", "--addr", "127.0.0.1:1", "--use"]).await.done();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (path, mode, good, said) in [
        (user.file(), 0o640, 0o600, "its mode is 640, expected 600"),
        (user.file(), 0o604, 0o600, "its mode is 604, expected 600"),
        (user.path("config"), 0o770, 0o700, "the directory's mode is 770, expected 700"),
    ] {
        set(&path, mode);
        for words in [&["context", "list"][..], &["context", "use", "prod"], &["topic", "list"]] {
            let refused = user.run(words).await;
            refused.failed(1, "CONFIG_INVALID");
            assert!(refused.stderr.contains(said), "{refused:?}");
            assert!(refused.stderr.contains("hint: `chmod "), "{refused:?}");
        }
        // Who says everything by flags needs no contexts.
        let flags = user.run(&["topic", "list", "--addr", "127.0.0.1:1"]).await;
        assert!(flags.stderr.contains("no CA certificate"), "{flags:?}");
        set(&path, good);
    }
    let text = fs::read_to_string(user.file()).unwrap();
    for (from, to, said) in [
        (
            "current",
            "currant",
            "\"currant\" is not known, expected current, contexts; the nearest is current",
        ),
        (
            "addr",
            "adr",
            "\"adr\" of context prod is not known, expected addr, ca, token; the nearest is addr",
        ),
        ("[contexts.prod]", "[contexts.prod", "line 6: "),
    ] {
        fs::write(user.file(), text.replacen(from, to, 1)).unwrap();
        let refused = user.run(&["context", "list"]).await;
        refused.failed(1, "CONFIG_INVALID");
        assert!(refused.stderr.contains(said), "{refused:?}");
        assert!(refused.stderr.contains("contexts.toml: "), "{refused:?}");
    }
}

#[tokio::test]
async fn commands_that_add_contexts_at_the_same_time_lose_none() {
    let user = Arc::new(User::new());
    let names: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
    let mut running = Vec::new();
    for name in &names {
        let mut command = user.command(&["context", "add", name, "--addr", "a:1", "--quiet"]);
        running.push(command.spawn().unwrap());
    }
    for mut child in running {
        assert!(crate::support::within("a command", child.wait()).await.unwrap().success());
    }
    let listed = user.run(&["context", "list", "--output", "json"]).await.json();
    assert_eq!(listed.len(), names.len());
}
