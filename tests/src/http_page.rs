//! The page about HTTP as its reader follows it: its commands with the real `curl`, on one engine, in their order.

use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    readme::is_as_shown,
    support::process::{Process, run},
};

const PAGE: &str = include_str!("../../sdk/HTTP.md");
const ADDRESS: &str = "127.0.0.1:7601";

/// Sections whose commands need what the page does not make: tokens that were returned, a component, a receiver.
const NOT_RUN: [&str; 3] = ["Pull\n", "Administrate\n", "Push\n"];

/// The blocks without a language, in order: commands, and what they show.
fn blocks() -> Vec<&'static str> {
    let sections = PAGE.split("\n## ");
    let run = sections.filter(|section| !NOT_RUN.iter().any(|title| section.starts_with(title)));
    let of_section = |section: &'static str| section.split("```").skip(1).step_by(2);
    run.flat_map(of_section).filter_map(|block| block.strip_prefix('\n')).collect()
}

/// A command, and what the page shows behind it, if anything.
fn commands() -> Vec<(&'static str, Option<&'static str>)> {
    let is_command = |block: &str| ["curl", "printf", "levada"].iter().any(|word| block.starts_with(word));
    let blocks = blocks();
    let shown = |index: usize| blocks.get(index + 1).copied().filter(|next| !is_command(next));
    let all = blocks.iter().enumerate().filter(|(_, block)| is_command(block));
    all.map(|(index, block)| (*block, shown(index))).collect()
}

#[tokio::test]
async fn the_commands_of_the_page_do_what_it_says() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(&dir.path().join("data")).await;
    engine.run(&["topic", "create", "orders", "--partitions", "2"], "").await.done();
    let commands = commands();
    assert!(commands.len() > 8, "the page has commands: {commands:?}");
    for (command, shown) in commands {
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
        let here = command.replace(ADDRESS, &engine.http);
        let script = format!(
            "curl() {{ command curl -sS --max-time {} \"$@\"; }}\n{here}",
            if is_stream { 1 } else { 30 }
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(dir.path()).env("NO_PROXY", "*").kill_on_drop(true);
        let ran = run(bash, "").await;
        if ran.code == 127 {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "NOT TESTED: no curl");
            eprintln!("NOT TESTED: the page about HTTP, for there is no curl");
            return;
        }
        // curl says that the time was over if the stream goes on.
        assert_eq!(ran.code, if is_stream { 28 } else { 0 }, "{command}\n{ran:?}");
        match shown {
            // A stream goes on behind what the page shows of it.
            Some(shown) if is_stream => {
                assert!(ran.stdout.starts_with("retry: 2000\n\nid: 0:0,1:0\n\nid: "), "{shown}\n{ran:?}")
            }
            Some(shown) => {
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
