//! A plugin's log lines reach the engine's log, a flood of them does not. Alone in its process, as it listens to
//! all that is logged in it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "host/support.rs"]
#[expect(dead_code, reason = "this test needs the half of it")]
mod support;

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Keeps what plugins say.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "levada::plugin"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        COUNT.fetch_add(1, Ordering::Relaxed);
        event.record(&mut Lines);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Lines;

impl Visit for Lines {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "line" {
            LINES.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[test]
fn a_plugins_lines_are_logged_and_a_flood_is_not() {
    tracing::subscriber::set_global_default(Listener).unwrap();
    let host = support::start();
    let attachment = host.attach_hostile();
    assert_eq!(support::call(&attachment, support::payloads(&["log"])), Ok(vec![support::Seen::Keep]));
    let lines = LINES.lock().unwrap();
    assert_eq!(lines[0], "line 0");
    // 20 a second are let through; that one call of 100 ms at most sees two such windows.
    assert!((20..=40).contains(&COUNT.load(Ordering::Relaxed)), "{} of 10000", lines.len());
}
