//! The other process with connections to it, and what can be measured over them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use levada_client::ClientConfig;
use levada_rig::{
    Sandbox,
    latencies::{Latencies, Percentiles},
    stall,
};
use quinn::Connection;
use tokio::task::JoinSet;

use super::{
    frame::{FrameReader, Framer, Mode, Request},
    receiver::{self, Received},
    sender::{self, Load, Sent},
};
use crate::{clock::Clock, endpoint::Endpoint};

/// How this program is asked to be the other process.
const COUNTERPART: [&str; 2] = ["bench", "counterpart"];
/// How often arrivals are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long subscribers may take to attach.
const ATTACH: Duration = Duration::from_secs(10);
/// Payload bytes of the frames of a stream that is only measured.
const STREAM_FRAME_BYTES: usize = 64 * 1024;
/// Bytes that a measured stream carries at most.
const STREAM_BYTES_MAX: u64 = 8 << 30;

/// The bare path: QUIC, one RocksDB batch write a frame, a sync, and back.
#[derive(Debug)]
pub(super) struct BarePath {
    sandbox: Sandbox,
    route: Route,
    clock: Clock,
}

/// How connections are made, from any thread.
#[derive(Debug, Clone)]
struct Route {
    addr: String,
    ca: PathBuf,
    mtu: Option<u16>,
}

/// A connection without a hello.
#[derive(Debug)]
struct Link {
    endpoint: quinn::Endpoint,
    connection: Connection,
}

impl Route {
    async fn connect(&self) -> anyhow::Result<Link> {
        let config = ClientConfig::new(&self.addr).ca_file(&self.ca);
        let config = match self.mtu {
            Some(mtu) => config.mtu_max(mtu),
            None => config,
        };
        let (endpoint, connection) = levada_client::bare::connect(config).await?;
        Ok(Link { endpoint, connection })
    }
}

impl Link {
    async fn close(self) {
        self.connection.close(0_u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

/// Which way a stream is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the other process, as what is published.
    Up,
    /// From it, as what is delivered.
    Down,
}

/// What was published, and delivered.
#[derive(Debug)]
pub(super) struct Run {
    /// Events a second, from the first frame to the last acknowledgement or arrival.
    pub(super) events_per_second: f64,
    /// To the acknowledgement, or to the arrival where there are subscribers.
    pub(super) latency: Option<Percentiles>,
}

impl Run {
    fn new(events: u64, begun: u64, ended: u64, latencies: &Latencies) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a run fit 53 bits")]
        let events_per_second = events as f64 * 1e9 / ended.saturating_sub(begun).max(1) as f64;
        Self { events_per_second, latency: latencies.percentiles() }
    }
}

impl BarePath {
    /// Starts the other process, with a directory in `dir` that goes with it.
    pub(super) async fn start(dir: &Path, mtu: Option<u16>, clock: Clock) -> anyhow::Result<Self> {
        let sandbox = Sandbox::start_command(&COUNTERPART, "levada-limits-", dir, None).await?;
        let engine = sandbox.engine();
        let route = Route { addr: engine.addr().to_owned(), ca: engine.ca().to_owned(), mtu };
        Ok(Self { sandbox, route, clock })
    }

    /// Ends the process and removes its directory.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.sandbox.stop().await
    }

    /// Publishes the same load on each of so many connections, which share its budget.
    pub(super) async fn publish(&self, load: Load, connections: u16) -> anyhow::Result<Run> {
        let (begun, ended, sent) = self.publishers(load, connections)?.finished().await?;
        Ok(Run::new(sent.events, begun, ended, &sent.latencies))
    }

    /// Publishes the load on one connection and delivers it on `subscribers` more.
    pub(super) async fn fan_out(&self, load: Load, subscribers: u16) -> anyhow::Result<Run> {
        let attached = Arc::new(AtomicUsize::new(0));
        let consumers = self.subscribers(subscribers, Arc::clone(&attached))?;
        let all = usize::from(subscribers);
        let counted = async || Ok(attached.load(Ordering::Acquire));
        stall::until(LOOK, ATTACH, counted, |now| *now >= all || consumers.has_ended()).await?;
        let (begun, _acknowledged, sent) = self.publishers(load, 1)?.finished().await?;
        let (mut last, mut latencies) = (0, Latencies::default());
        for received in consumers.finished().await? {
            let events = received.events;
            ensure!(events == sent.events, "{events} events of {} came on the bare path", sent.events);
            last = last.max(received.last);
            latencies.absorb(&received.latencies);
        }
        Ok(Run::new(sent.events, begun, last, &latencies))
    }

    fn publishers(&self, load: Load, connections: u16) -> anyhow::Result<Endpoint<(u64, u64, Sent)>> {
        let (route, clock) = (self.route.clone(), self.clock);
        Endpoint::spawn("publishers", move || async move {
            let mut links = Vec::new();
            for _ in 0..connections {
                links.push(route.connect().await?);
            }
            let begun = clock.now();
            load.budget.begin(begun);
            let mut running = JoinSet::new();
            for link in &links {
                let (connection, load) = (link.connection.clone(), load.clone());
                running.spawn(async move { sender::send(&connection, load).await });
            }
            let mut all = Sent { events: 0, latencies: Latencies::default() };
            while let Some(sent) = running.join_next().await {
                let sent = sent??;
                all.events += sent.events;
                all.latencies.absorb(&sent.latencies);
            }
            let ended = clock.now();
            for link in links {
                link.close().await;
            }
            Ok((begun, ended, all))
        })
    }

    fn subscribers(&self, count: u16, attached: Arc<AtomicUsize>) -> anyhow::Result<Endpoint<Vec<Received>>> {
        let (route, clock) = (self.route.clone(), self.clock);
        Endpoint::spawn("consumers", move || async move {
            let mut running = JoinSet::new();
            for _ in 0..count {
                let (link, attached) = (route.connect().await?, Arc::clone(&attached));
                running.spawn(async move {
                    let received = receiver::receive(&link.connection, clock, attached).await?;
                    link.close().await;
                    anyhow::Ok(received)
                });
            }
            let mut all = Vec::new();
            while let Some(received) = running.join_next().await {
                all.push(received??);
            }
            Ok(all)
        })
    }

    /// Bytes a second that one stream carries, measured for so long; and the packet size that it ended with.
    pub(super) async fn stream(&self, direction: Direction, time: Duration) -> anyhow::Result<(f64, u16)> {
        let (route, clock) = (self.route.clone(), self.clock);
        let measure = move || async move {
            let link = route.connect().await?;
            let begun = clock.now();
            let bytes = match direction {
                Direction::Up => send_all(&link.connection, clock, time).await?,
                Direction::Down => receive_all(&link.connection, time).await?,
            };
            let ended = clock.now();
            let mtu = link.connection.stats().path.current_mtu;
            link.close().await;
            #[expect(clippy::cast_precision_loss, reason = "bytes and nanoseconds of a run fit 53 bits")]
            let rate = bytes as f64 * 1e9 / ended.saturating_sub(begun).max(1) as f64;
            Ok((rate, mtu))
        };
        Endpoint::spawn("stream", measure)?.finished().await
    }

    /// How long a frame of one event takes there and back, one at a time.
    pub(super) async fn round_trip(&self, load: Load) -> anyhow::Result<Percentiles> {
        let route = self.route.clone();
        let measure = move || async move {
            let link = route.connect().await?;
            let latencies = echo(&link.connection, &load).await?;
            link.close().await;
            latencies.percentiles().context("no frame came back in time")
        };
        Endpoint::spawn("echo", measure)?.finished().await
    }
}

async fn send_all(connection: &Connection, clock: Clock, time: Duration) -> anyhow::Result<u64> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&Request::new(Mode::Sink).encode()).await?;
    let framer = Framer::new(STREAM_FRAME_BYTES, 1);
    let end = clock.now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let mut bytes = 0;
    while bytes < STREAM_BYTES_MAX && clock.now() < end {
        let frame = framer.frame(1, 0);
        bytes += frame.len() as u64;
        send.write_chunk(frame).await?;
    }
    send.finish()?;
    recv.read_exact(&mut [0]).await?;
    Ok(bytes)
}

async fn receive_all(connection: &Connection, time: Duration) -> anyhow::Result<u64> {
    let (mut send, recv) = connection.open_bi().await?;
    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let request = Request { milliseconds, bytes: STREAM_BYTES_MAX, ..Request::new(Mode::Source) };
    send.write_all(&request.encode()).await?;
    let (mut frames, mut bytes) = (FrameReader::new(recv), 0);
    while let Some(frame) = frames.next().await? {
        bytes += frame.bytes.len() as u64;
    }
    Ok(bytes)
}

async fn echo(connection: &Connection, load: &Load) -> anyhow::Result<Latencies> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&Request::new(Mode::Echo).encode()).await?;
    let (framer, mut frames) = (Framer::new(load.event_bytes, 1), FrameReader::new(recv));
    let mut latencies = Latencies::default();
    load.budget.begin(load.clock.now());
    loop {
        let now = load.clock.now();
        if load.budget.take(1, now) == 0 {
            send.finish()?;
            return Ok(latencies);
        }
        send.write_chunk(framer.frame(1, now)).await?;
        frames.next().await?.context("the other process ended the stream early")?;
        latencies.record(load.clock.now() - now);
    }
}
