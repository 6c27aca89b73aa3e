//! `levada:plugin/log`: a plugin's lines in the engine's log, as many a second as an operator can bear.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use levada_stage::{AttachSpec, AttachmentPoint};
use tracing::{debug, info, warn};
use wasmtime::{
    Result, StoreContextMut,
    component::{LinkerInstance, WasmStr},
};

use super::GuestState;
use crate::{bindings::Level, error::clip};

/// Lines that one attachment may write in a window.
const LINES_MAX: u32 = 20;
/// The window.
const WINDOW: Duration = Duration::from_secs(1);
/// Longest line in bytes; the rest is cut off.
const LINE_BYTES_MAX: usize = 1024;

pub(crate) fn define(log: &mut LinkerInstance<'_, GuestState>) -> Result<()> {
    log.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, GuestState>, (level, message): (Level, WasmStr)| {
            let line = match message.to_str(&store) {
                Ok(text) => clip(&text, LINE_BYTES_MAX).to_owned(),
                Err(error) => return Err(error),
            };
            let state = store.data_mut();
            state.log.write(level, &line, Instant::now());
            if level == Level::Error {
                state.last_error = Some(line);
            } else {
                state.last_line = Some(line);
            }
            Ok(())
        },
    )
}

/// Lets some lines of one attachment through and counts the others.
#[derive(Debug)]
pub(crate) struct LogGate {
    plugin: String,
    version: u32,
    topic: String,
    point: AttachmentPoint,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogGate {
    pub(crate) fn new(spec: &AttachSpec) -> Self {
        Self {
            plugin: spec.plugin.clone(),
            version: spec.version,
            topic: spec.topic.clone(),
            point: spec.point,
            window: Mutex::new(Window { begun: Instant::now(), lines: 0, suppressed: 0 }),
        }
    }

    /// The plugin trapped, and has not said why.
    pub(crate) fn trapped(&self, why: &str) {
        let Some(suppressed) = self.admit(Instant::now()) else { return };
        let (plugin, version, topic, attachment_point) =
            (&self.plugin, self.version, &self.topic, self.point.as_str());
        warn!(target: "levada::plugin", plugin, version, topic, attachment_point, suppressed, why, "plugin trapped");
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
    }

    fn write(&self, level: Level, line: &str, now: Instant) {
        let Some(suppressed) = self.admit(now) else { return };
        let (plugin, version, topic, attachment_point) =
            (&self.plugin, self.version, &self.topic, self.point.as_str());
        match level {
            Level::Error | Level::Warn => {
                warn!(target: "levada::plugin", plugin, version, topic, attachment_point, suppressed, line, "plugin log");
            }
            Level::Info => {
                info!(target: "levada::plugin", plugin, version, topic, attachment_point, suppressed, line, "plugin log");
            }
            Level::Debug => {
                debug!(target: "levada::plugin", plugin, version, topic, attachment_point, suppressed, line, "plugin log");
            }
        }
    }
}

impl Window {
    /// `None` if the line is not to be written; else how many were not since the last one that was.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.begun) >= WINDOW {
            (self.begun, self.lines) = (now, 0);
        }
        if self.lines == LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_comes_with_the_next_window() {
        let begun = Instant::now();
        let mut window = Window { begun, lines: 0, suppressed: 0 };
        for _ in 0..LINES_MAX {
            assert_eq!(window.admit(begun), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(window.admit(begun + WINDOW / 2), None);
        }
        assert_eq!(window.admit(begun + WINDOW), Some(1_000));
        assert_eq!(window.admit(begun + WINDOW), Some(0));
    }
}
