//! What the log says of plugins: their own lines, but no flood of them, and each compilation once. Alone in its
//! process, as it listens to all that is logged in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "host/support.rs"]
#[expect(dead_code, reason = "this test needs the half of it")]
mod support;

use std::{
    sync::{Mutex, Once},
    thread,
    time::Instant,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static TRAPS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The hashes of what was compiled.
static COMPILED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what plugins say, and what is compiled.
struct Listener;

fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(Listener).unwrap());
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "levada::plugin" || metadata.target() == "levada_plugin_host::registry"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Lines);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Lines;

impl Visit for Lines {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "line" => LINES.lock().unwrap().push(value.to_owned()),
            "why" => TRAPS.lock().unwrap().push(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "artefact" {
            COMPILED.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

#[test]
fn a_plugins_lines_are_logged_and_a_flood_is_not() {
    listen();
    let host = support::start();
    let attachment = host.attach_hostile();
    let begun = Instant::now();
    assert_eq!(support::call(&attachment, support::payloads(&["log"])), Ok(vec![support::Seen::Keep]));
    let windows = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    let all = LINES.lock().unwrap();
    // Other tests have plugins that say something else.
    let lines: Vec<&String> = all.iter().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines[0], "line 0");
    // 20 a second are let through of the 10,000, the first of them whatever the second.
    assert!((20..=20 * windows).contains(&lines.len()), "{} of 10000", lines.len());
}

#[test]
fn a_trap_that_the_plugin_does_not_explain_is_logged() {
    listen();
    let host = support::start();
    let attachment = host.attach_hostile();
    assert!(support::call(&attachment, support::payloads(&["abort"])).is_err());
    assert!(support::call(&attachment, support::payloads(&["warn-and-abort"])).is_err());
    let traps = TRAPS.lock().unwrap();
    assert!(traps[0].contains("uncaught exception"), "{traps:?}");
    assert!(traps[1].ends_with("the last line that it logged: the ice is thin"), "{traps:?}");
}

#[test]
fn the_same_bytes_brought_several_times_at_once_are_compiled_once() {
    listen();
    let host = support::start();
    let artefact = support::guest("plugins/sample");
    let inspected = thread::scope(|scope| {
        let inspect = || scope.spawn(|| support::Blocking::inspect_now(&host.host, &artefact).unwrap());
        let all: Vec<_> = (0..4).map(|_| inspect()).collect();
        all.into_iter().map(|inspecting| inspecting.join().unwrap().sha256).collect::<Vec<_>>()
    });
    let hex: String = inspected[0].iter().map(|byte| format!("{byte:02x}")).collect();
    let compiled = COMPILED.lock().unwrap();
    assert_eq!(compiled.iter().filter(|artefact| **artefact == hex).count(), 1, "{compiled:?}");
}
