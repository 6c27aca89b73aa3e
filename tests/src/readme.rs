//! The README as its reader follows it: its commands, its snippet and the examples, on one engine, in any order, twice.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{
    process::{BINARY, Process},
    until, within,
};

const README: &str = include_str!("../../README.md");
const README_ZH: &str = include_str!("../../README.zh-CN.md");
/// What the README says behind the block that starts the engine, which these tests do themselves.
const SECOND_TERMINAL: &str = "In a second terminal";

const ORDER_SERVICE: &str = env!("CARGO_BIN_EXE_order-service-under-test");
const PAYMENT: &str = env!("CARGO_BIN_EXE_payment-under-test");
const INVENTORY: &str = env!("CARGO_BIN_EXE_inventory-under-test");
const LOGISTICS: &str = env!("CARGO_BIN_EXE_logistics-under-test");
const SNIPPET: &str = env!("CARGO_BIN_EXE_snippet-under-test");

/// A command of the README and what it shows behind it.
struct Shown {
    command: String,
    output: String,
}

/// The blocks of code in this language, in order.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let block = |part: &'a str| part.split_once("```").expect("a block ends").0;
    text.split(&fence).skip(1).map(block).collect()
}

/// The commands of the tour.
fn tour() -> Vec<Shown> {
    let (_, text) = README.split_once(SECOND_TERMINAL).expect("the README has a tour");
    let mut shown: Vec<Shown> = Vec::new();
    for block in blocks(text, "console") {
        let mut lines = block.lines();
        while let Some(line) = lines.next() {
            let Some(first) = line.strip_prefix("$ ") else {
                let output = &mut shown.last_mut().expect("a block begins with a command").output;
                output.push_str(line);
                output.push('\n');
                continue;
            };
            let mut command = first.to_owned();
            while command.ends_with('\\') || (command.contains("<<'EOF'") && !command.ends_with("\nEOF")) {
                command.push('\n');
                command.push_str(lines.next().expect("a command ends"));
            }
            shown.push(Shown { command, output: String::new() });
        }
    }
    assert!(shown.len() > 10, "the tour has commands");
    shown
}

/// Whether `got` is `shown`, in which `…` stands for anything.
pub(crate) fn is_as_shown(shown: &str, got: &str) -> bool {
    let (mut rest, mut is_first) = (got, true);
    let parts: Vec<&str> = shown.split('…').collect();
    let (last, firsts) = parts.split_last().expect("a text has a part");
    for part in firsts {
        match rest.find(part) {
            Some(0) => rest = &rest[part.len()..],
            Some(at) if !is_first => rest = &rest[at + part.len()..],
            _ => return false,
        }
        is_first = false;
    }
    if is_first { rest == *last } else { rest.ends_with(last) }
}

/// An engine in a directory of its own, as the README starts it, with the reader's shell beside it.
struct Reader {
    dir: TempDir,
    engine: Process,
    path: String,
}

impl Reader {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(BINARY, bin.join("levada")).unwrap();
        let engine = Process::start(&dir.path().join("levada-data")).await;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { dir, engine, path }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("PATH", &self.path).env("LEVADA_ADDR", &self.engine.quic);
        command.env_remove("LEVADA_CA").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command as a terminal shows it.
    async fn shell(&self, command: &str) -> (bool, String) {
        let here = command.replace("http://127.0.0.1:7601", &format!("http://{}", self.engine.http));
        // A machine that runs these tests need not have curl.
        let curl = r#"curl() {
            local address=${2#http://}; local host=${address%%/*}
            exec 3<>"/dev/tcp/${host%:*}/${host##*:}"
            printf 'GET /%s HTTP/1.0\r\nHost: x\r\n\r\n' "${address#*/}" >&3
            sed '1,/^\r$/d' <&3
        }"#;
        let script = format!("exec 2>&1\nset -o pipefail\n{curl}\n{here}\n");
        let mut bash = self.command("bash");
        let ran = within(command, bash.arg("-c").arg(script).output()).await.unwrap();
        (ran.status.success(), String::from_utf8(ran.stdout).unwrap())
    }

    /// Follows the tour; on a fresh engine it shows what the README shows.
    async fn follow_tour(&self, is_fresh: bool) {
        for Shown { command, output } in tour() {
            // What only asks may ask before the engine has done what was asked of it.
            let only_asks = ["read", "list", "curl"].iter().any(|word| command.contains(word));
            let run = async || {
                let (succeeded, got) = self.shell(&command).await;
                assert!(succeeded, "{command}\n{got}");
                let as_shown = !is_fresh || is_as_shown(output.trim_end(), got.trim_end());
                assert!(as_shown || only_asks, "{command}\nexpected\n{output}\ngot\n{got}");
                if !as_shown {
                    // Shown with the failure, if it never is as it should be.
                    eprintln!("{command}\nshows not yet\n{output}\nbut\n{got}");
                }
                as_shown.then_some(())
            };
            until(&command, run).await;
        }
    }

    /// Runs a program of the examples until it has printed a line that contains `part`.
    async fn run_until(&self, program: &str, part: &str) {
        let mut child = self.command(program).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = within(program, lines.next_line()).await.unwrap();
            if line.unwrap_or_else(|| panic!("{program} ended before it printed {part}")).contains(part) {
                break;
            }
        }
        child.kill().await.unwrap();
    }

    async fn run_snippet(&self) {
        self.run_until(SNIPPET, "Some(b\"{\\\"id\\\":5,\\\"amount\\\":40}\")").await;
    }

    /// Runs the four services, each until it has done its part.
    async fn run_examples(&self, round: usize) {
        let (succeeded, said) = self.shell("levada plugin deploy --bundled").await;
        assert!(succeeded, "{said}");
        let orders = within("the orders", self.command(ORDER_SERVICE).arg("4").output()).await.unwrap();
        assert!(orders.status.success(), "{orders:?}");
        self.run_until(INVENTORY, "sku-").await;
        // Three of the four have something to pay, and two of these are to be shipped.
        self.run_service(PAYMENT, "payments", 3 * round).await;
        self.run_service(LOGISTICS, "shipments", 2 * round).await;
        let (_, shipped) = self.shell("levada read shipments --payload").await;
        let ships = |order: &str| shipped.matches(order).count();
        assert_eq!((ships("order-000001"), ships("order-000003")), (round, round), "{shipped}");
    }

    /// Runs a service until a topic holds as many events, and ends it.
    async fn run_service(&self, program: &str, topic: &str, count: usize) {
        let mut child = self.command(program).stdout(Stdio::null()).spawn().unwrap();
        let stored = async || {
            let (succeeded, read) = self.shell(&format!("levada read {topic}")).await;
            (succeeded && read.lines().count() >= count).then_some(())
        };
        until(topic, stored).await;
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn the_tour_shows_what_it_says_and_all_of_it_can_be_done_again() {
    let reader = Reader::new().await;
    reader.follow_tour(true).await;
    for round in [1, 2] {
        reader.run_snippet().await;
        reader.run_examples(round).await;
        reader.follow_tour(false).await;
    }
    reader.engine.stop().await;
}

#[tokio::test]
async fn the_examples_and_the_snippet_need_no_tour_before_them() {
    let reader = Reader::new().await;
    reader.run_examples(1).await;
    reader.run_snippet().await;
    reader.follow_tour(false).await;
    reader.engine.stop().await;
}

#[test]
fn both_languages_show_the_same_commands_and_code() {
    for language in ["console", "rust"] {
        assert_eq!(blocks(README, language), blocks(README_ZH, language), "{language}");
    }
}

#[test]
fn an_ellipsis_stands_for_anything() {
    for (shown, got, matches) in [
        ("a\n", "a\n", true),
        ("a\n", "a\nb\n", false),
        ("a…c\n", "abbc\n", true),
        ("a…\n", "a\nb\n", true),
        ("…c\n", "abc\n", true),
        ("b…\n", "ab\n", false),
        ("a…c…\n", "ab\n", false),
    ] {
        assert_eq!(is_as_shown(shown, got), matches, "{shown:?} {got:?}");
    }
}
