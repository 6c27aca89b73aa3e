//! The page about HTTP as its reader follows it: its commands with the real `curl`, on one engine, in their order.

use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    readme::is_as_shown,
    support::{
        guests,
        process::{BINARY, Process, run},
    },
};

const PAGE: &str = include_str!("../../sdk/HTTP.md");
const ADDRESS: &str = "127.0.0.1:7601";

/// The section whose responses depend on a receiver that there is not: its commands are run, and what it shows is not compared.
const NOT_COMPARED: &str = "Push\n";
/// What the page writes for the token of an event that was pulled.
const TOKEN: &str = "AYjL…";

/// A command, and what the page shows behind it, if anything.
struct Shown {
    command: &'static str,
    output: Option<&'static str>,
}

/// The commands, in order: blocks without a language that begin with one.
fn commands() -> Vec<Shown> {
    let mut all = Vec::new();
    for section in PAGE.split("\n## ") {
        let blocks: Vec<&str> =
            section.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix('\n')).collect();
        let is_command =
            |block: &str| ["curl", "printf", "levada"].iter().any(|word| block.starts_with(word));
        for (index, command) in blocks.iter().enumerate().filter(|(_, block)| is_command(block)) {
            let next = blocks.get(index + 1).copied();
            let output = next.filter(|next| !is_command(next) && !section.starts_with(NOT_COMPARED));
            all.push(Shown { command, output });
        }
    }
    all
}

/// A shell as the page's reader has it, beside an engine.
fn shell(engine: &Process, dir: &Path, script: &str) -> Command {
    let mut bash = Command::new("bash");
    bash.args(["-ec", script]).current_dir(dir).env("NO_PROXY", "*").kill_on_drop(true);
    let path = std::env::var("PATH").unwrap_or_default();
    bash.env("PATH", format!("{}:{path}", dir.join("bin").display()));
    bash.env("LEVADA_ADDR", &engine.quic).env("LEVADA_CA", &engine.ca);
    bash
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_it_says() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    fs::create_dir(dir.path().join("bin")).unwrap();
    symlink(BINARY, dir.path().join("bin/levada")).unwrap();
    engine.run(&["topic", "create", "orders", "--partitions", "2"], "").await.done();
    // The reader's own component.
    fs::write(dir.path().join("anonymise.wasm"), guests::component("plugins/sample")).unwrap();
    let commands = commands();
    assert!(commands.len() > 15, "the page has commands");
    let mut token = String::new();
    for Shown { command, output: shown } in commands {
        // The engine is there already, and so is its topic.
        if command.starts_with("levada serve") {
            continue;
        }
        if command.contains("Bearer") {
            // The first principal must be an administrator; from here on nobody is served without a token.
            let file = dir.path().join("shop.token").display().to_string();
            let grants = ["--grant", "admin", "--grant", "publish orders", "--token", "--out", &file];
            engine.run(&[&["principal", "create", "shop"], &grants[..]].concat(), "").await.done();
        }
        let is_stream = command.contains("-N ");
        let here = command.replace(ADDRESS, &engine.http).replace(TOKEN, &token);
        let script = format!(
            "curl() {{ command curl -sS --max-time {} \"$@\"; }}\n{here}",
            if is_stream { 1 } else { 30 }
        );
        let bash = shell(&engine, dir.path(), &script);
        let ran = run(bash, "").await;
        if ran.code == 127 {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "NOT TESTED: no curl");
            eprintln!("NOT TESTED: the page about HTTP, for there is no curl");
            return;
        }
        // curl says that the time was over if the stream goes on.
        assert_eq!(ran.code, if is_stream { 28 } else { 0 }, "{command}\n{ran:?}");
        if let Some((_, behind)) = ran.stdout.split_once("\"token\":\"") {
            behind.split('"').next().unwrap_or_default().clone_into(&mut token);
        }
        match shown {
            // A stream goes on behind what the page shows of it.
            Some(shown) if is_stream => {
                assert!(ran.stdout.starts_with("retry: 2000\n\nid: 0:0,1:0\n\nid: "), "{shown}\n{ran:?}")
            }
            Some(shown) => {
                let shown = shown.replace(TOKEN, "…");
                assert!(is_as_shown(shown.trim_end(), ran.stdout.trim_end()), "{command}\n{shown}\n{ran:?}")
            }
            None => assert!(
                !ran.stdout.contains("urn:levada:error") && !ran.stdout.is_empty(),
                "{command}\n{ran:?}"
            ),
        }
    }
    engine.stop().await;
}
