//! Every command with a wrong argument, a name that nothing has, and an engine that is not there.

mod table;

use std::{cell::RefCell, collections::BTreeMap};

use serde_json::Value;

use self::table::{ROWS, Row};
use super::{alone, engine, subcommands};
use crate::support::process::{Ran, command, run};

/// What every command that reads its input finds there. Only a transaction's lines say where they go.
const INPUT: &str = "{\"topic\":\"absent\",\"payload\":1}\n";
/// Commands whose arguments name nothing that the engine would have to hold.
const NAME_NOTHING: [&str; 5] = ["topic create", "principal create", "ca fetch", "context add", "completion"];
/// Takes an engine's address, and talks to none.
const STORES_ADDRESS: &str = "context add";

#[tokio::test]
async fn every_command_refuses_what_is_wrong_and_what_is_not_there_and_says_when_no_engine_is() {
    let (_dir, engine) = engine().await;
    engine.text(&["topic", "create", "orders", "--partitions", "2"]).await;
    let reach = ["--addr", &engine.quic.clone(), "--ca", &engine.ca.display().to_string()].map(str::to_owned);
    each(ROWS.iter().flat_map(refusals), async |line| line.check(&reach).await).await;
    engine.stop().await;
    each(ROWS.iter().flat_map(|row| without_engine(row, &reach[1])), async |line| line.check(&reach).await)
        .await;
}

#[tokio::test]
async fn the_table_has_a_row_for_every_command_and_says_of_each_all_that_can_go_wrong() {
    let commands = commands().await;
    let named: Vec<&str> = ROWS.iter().map(|row| row.command).collect();
    for (command, help) in &commands {
        let row = ROWS.iter().find(|row| row.command == command);
        let row =
            row.unwrap_or_else(|| panic!("`levada {command}` has no row, expected one among {named:?}"));
        assert!(!row.wrong.is_empty(), "{command}: no wrong argument is tried");
        let names = help.contains("\nArguments:\n") && !NAME_NOTHING.contains(&row.command);
        assert!(!names || !row.absent.is_empty(), "{command} takes a name, and none that is absent is tried");
        let needs_engine = help.contains("--addr <HOST:PORT>") && command != STORES_ADDRESS;
        assert_eq!(needs_engine, !row.dead.is_empty(), "{command}: with a dead engine");
    }
    for name in &named {
        assert!(
            commands.contains_key(*name),
            "there is no command `levada {name}`, expected {:?}",
            commands.keys()
        );
        assert_eq!(named.iter().filter(|other| *other == name).count(), 1, "{name} has several rows");
    }
}

/// A command line and how it must end.
struct Line {
    words: Vec<&'static str>,
    takes_engine: bool,
    /// Tried as text too, which must say the same.
    as_text: bool,
    code: &'static str,
    says: String,
}

impl Line {
    fn new(row: &Row, arguments: &'static str, code: &'static str, says: &str) -> Self {
        let words = row.command.split_whitespace().chain(arguments.split_whitespace()).collect();
        let takes_engine = !row.dead.is_empty();
        Self { words, takes_engine, as_text: false, code, says: says.to_owned() }
    }

    /// Runs it, with an engine's address and CA where it takes them.
    async fn check(&self, reach: &[String]) {
        let words = self.words.join(" ");
        let json = self.end("json", reach).await;
        let printed: Value =
            serde_json::from_str(&json.stderr).unwrap_or_else(|error| panic!("{words}: {error}: {json:?}"));
        let part = |name: &str| printed["error"][name].as_str();
        let (code, message) = (part("code").unwrap(), part("message").unwrap());
        assert_eq!(code, self.code, "{words}: {json:?}");
        let hint = part("hint").map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        let sentences = format!("error: {code}: {message}\n{hint}");
        assert!(sentences.contains(&self.says), "{words}: {:?} is not in {json:?}", self.says);
        if self.as_text {
            assert_eq!(self.end("text", reach).await.stderr, sentences, "{words}");
        }
    }

    /// Runs it, and returns what it printed once its exit code is as expected.
    async fn end(&self, output: &str, reach: &[String]) -> Ran {
        let mut command = command();
        command.args(&self.words).args(["--output", output]);
        if self.takes_engine {
            command.args(reach);
        }
        let ran = run(command, INPUT).await;
        let words = self.words.join(" ");
        assert_eq!((ran.code, ran.stdout.as_str()), (self.exit(), ""), "{words}: {ran:?}");
        ran
    }

    /// The exit code: 2 if the command line itself is wrong.
    fn exit(&self) -> i32 {
        if ["INVALID_ARGUMENT", "FILE_UNREADABLE"].contains(&self.code) { 2 } else { 1 }
    }
}

/// The lines of a row that a running engine's commands refuse.
fn refusals(row: &'static Row) -> Vec<Line> {
    let wrong = row.wrong.iter().map(|(arguments, says)| Line::new(row, arguments, "INVALID_ARGUMENT", says));
    let absent = row.absent.iter().map(|(arguments, code, says)| Line::new(row, arguments, code, says));
    first_as_text(wrong).chain(first_as_text(absent)).collect()
}

/// The lines of a row that fail because no engine is at `address`.
fn without_engine(row: &'static Row, address: &str) -> Vec<Line> {
    let says = format!("cannot connect to {address}: nothing listens there");
    let dead = row.dead.iter().map(|arguments| Line::new(row, arguments, "CONNECT_FAILED", &says));
    first_as_text(dead).collect()
}

fn first_as_text(lines: impl Iterator<Item = Line>) -> impl Iterator<Item = Line> {
    lines.enumerate().map(|(at, line)| Line { as_text: at == 0, ..line })
}

/// Every command that has none of its own below it, with its help, as `--help` tells of them.
async fn commands() -> BTreeMap<String, String> {
    let found = RefCell::new(BTreeMap::new());
    let mut level = vec![String::new()];
    while !level.is_empty() {
        let next = RefCell::new(Vec::new());
        each(level, async |command| {
            let words: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
            let help = alone(&words).await.done();
            let below = subcommands(&help);
            if below.is_empty() {
                found.borrow_mut().insert(command, help);
            } else {
                let names = below.iter().map(|name| format!("{command} {name}").trim().to_owned());
                next.borrow_mut().extend(names);
            }
        })
        .await;
        level = next.into_inner();
    }
    found.into_inner()
}

/// Does this with each, a few at a time.
async fn each<T>(items: impl IntoIterator<Item = T>, act: impl AsyncFn(T)) {
    let items = RefCell::new(items.into_iter());
    let worker = async || {
        loop {
            let next = items.borrow_mut().next();
            let Some(item) = next else { break };
            act(item).await;
        }
    };
    tokio::join!(worker(), worker(), worker(), worker());
}
