//! The host with real components: what it accepts, what it stops, and that one plugin's fault is nobody else's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accept;
mod cache;
mod hostile;
mod plugins;
mod pool;
mod sdk;
mod support;
mod typed;
