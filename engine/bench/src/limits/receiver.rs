//! The receiving half of the bare path: every frame of one publisher, on a connection of its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, ensure};
use levada_rig::latencies::Latencies;
use quinn::Connection;

use super::frame::{FrameReader, Mode, Request};
use crate::clock::Clock;

/// What one subscriber got.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) events: u64,
    /// When the last frame came, on the bench's clock.
    pub(super) last: u64,
    /// From a frame's stamp to its arrival.
    pub(super) latencies: Latencies,
}

/// Receives until the publisher has ended. `attached` is counted up once every frame from then on comes.
pub(super) async fn receive(
    connection: &Connection,
    clock: Clock,
    attached: Arc<AtomicUsize>,
) -> anyhow::Result<Received> {
    let (mut send, recv) = connection.open_bi().await.context("opening a stream")?;
    send.write_all(&Request::new(Mode::Subscribe).encode()).await?;
    let mut frames = FrameReader::new(recv);
    let first = frames.next().await?.context("the other process ended the stream early")?;
    ensure!(first.events == 0, "a subscription begins with an empty frame");
    attached.fetch_add(1, Ordering::AcqRel);
    let mut received = Received { events: 0, last: 0, latencies: Latencies::default() };
    while let Some(frame) = frames.next().await? {
        received.last = clock.now();
        received.events += u64::from(frame.events);
        received.latencies.record(received.last.saturating_sub(frame.sent().unwrap_or(0)));
    }
    Ok(received)
}
