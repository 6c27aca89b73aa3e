//! Publishing by HTTP: one event a request beside a server with an empty handler, and batches beside QUIC.

use std::path::Path;

use anyhow::ensure;
use bytes::Bytes;
use levada_client::{Client, ClientConfig, PublisherOptions, TopicSettings};
use levada_rig::Sandbox;

use super::load::{Load, request};
use crate::{
    args::NetworkArgs,
    clock::Clock,
    endpoint::Endpoint,
    figures::figures,
    producer::{self, Budget, Plan},
    stamp::Layout,
};

pub(super) const TOPIC: &str = "orders";
/// Measured in turn, so often.
const TURNS: u64 = 5;
/// Connections, each with one request in flight.
const CONNECTIONS: u16 = 64;
/// Events of a batch, and connections that send them.
const BATCH: u64 = 1_000;
const BATCH_CONNECTIONS: u16 = 4;
/// Payload bytes.
const SIZE: usize = 100;

figures! {
    /// Publishing by HTTP.
    struct HttpFigures {
        /// Requests with one event of 100 B each, over 64 connections.
        requests_per_second: f64,
        /// The same requests to a server with an empty handler.
        empty_handler_requests_per_second: f64,
        /// The one by the other.
        of_empty_handler: f64,
        /// Events in requests with 1,000 each.
        batched_events_per_second: f64,
        /// Events of the same size by QUIC, from one publisher.
        quic_events_per_second: f64,
        /// The one by the other.
        of_quic: f64,
    }
}

pub(super) async fn measure(engine: &Sandbox, dir: &Path, args: &NetworkArgs) -> anyhow::Result<HttpFigures> {
    let counterpart = ["bench", "empty-handler"];
    let empty = Sandbox::start_command(&counterpart, "levada-bench-", dir, None).await?;
    let client = engine.engine().connect().await?;
    client.create_topic(TOPIC, TopicSettings::default()).await?;
    let line = format!("POST /v1/topics/{TOPIC}/events");
    let single = request(&line, "", &[b'x'; SIZE]);
    let event = format!("{{\"payload_text\":\"{}\"}}\n", "x".repeat(SIZE));
    let count = usize::try_from(BATCH)?;
    let batch = request(&line, "content-type: application/x-ndjson\r\n", event.repeat(count).as_bytes());
    let (singles, batches) = (args.scaled(100_000) / TURNS, args.scaled(2_000) / TURNS);
    let (mut at_engine, mut at_empty, mut batched, mut by_quic) = (0, 0, 0, 0);
    for _ in 0..TURNS {
        at_engine += send(engine, &single, CONNECTIONS, singles).await?;
        at_empty += send(&empty, &single, CONNECTIONS, singles).await?;
        batched += send(engine, &batch, BATCH_CONNECTIONS, batches).await?;
        by_quic += publish(&engine.engine().client_config(), batches * BATCH).await?;
    }
    empty.stop().await?;
    let stored: u64 =
        client.describe_topic(TOPIC).await?.partitions.iter().map(|partition| partition.end).sum();
    let sent = TURNS * (singles + 2 * batches * BATCH);
    ensure!(stored == sent, "expected {sent} stored events, got {stored}");
    client.close().await;
    let requests_per_second = per_second(TURNS * singles, at_engine);
    let empty_handler_requests_per_second = per_second(TURNS * singles, at_empty);
    let batched_events_per_second = per_second(TURNS * batches * BATCH, batched);
    let quic_events_per_second = per_second(TURNS * batches * BATCH, by_quic);
    Ok(HttpFigures {
        requests_per_second,
        empty_handler_requests_per_second,
        of_empty_handler: requests_per_second / empty_handler_requests_per_second,
        batched_events_per_second,
        quic_events_per_second,
        of_quic: batched_events_per_second / quic_events_per_second,
    })
}

/// How many a second that is, of so many in so many nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "counts and times of a run fit 53 bits")]
pub(super) fn per_second(count: u64, nanoseconds: u64) -> f64 {
    count as f64 * 1e9 / nanoseconds.max(1) as f64
}

/// Sends a request so often; returns the nanoseconds that took.
async fn send(to: &Sandbox, request: &Bytes, connections: u16, count: u64) -> anyhow::Result<u64> {
    let (address, request) = (to.engine().http().to_owned(), request.clone());
    let load = Load { address, request, connections, niceness: 0 };
    load.spawn(Budget::new(count, None), Clock::start())?.finished().await
}

/// Publishes so many events by QUIC; returns the nanoseconds that took.
pub(super) async fn publish(config: &ClientConfig, events: u64) -> anyhow::Result<u64> {
    let config = config.clone();
    let clock = Clock::start();
    let budget = Budget::new(events, None);
    let publishing = Endpoint::spawn("publisher", move || async move {
        let client = Client::connect(config).await?;
        let publisher = client.publisher(TOPIC, PublisherOptions::default()).await?;
        let begun = clock.now();
        budget.begin(begun);
        let plan = Plan { layout: Layout::Binary, size: SIZE, keys: [].into(), ids: None, budget, clock };
        producer::pipelined(publisher, plan, 0).await?;
        let taken = clock.now() - begun;
        client.close().await;
        anyhow::Ok(taken)
    })?;
    publishing.finished().await
}
