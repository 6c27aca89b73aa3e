//! Server-sent events to many clients at a rate, beside as many QUIC readers of the same topic at the same rate.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use levada_client::{Client, ClientConfig, Event, PublisherOptions, ReadOptions, Start, TopicSettings};
use levada_rig::{Sandbox, latencies::Latencies};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::oneshot, task::JoinSet};

use super::{http_client::HttpClient, load::request};
use crate::{
    args::NetworkArgs,
    clock::{Clock, Ticker},
    endpoint::Endpoint,
    figures::figures,
};

const CLIENTS: usize = 100;
/// Events a second, each of which goes to all clients.
const RATE: u32 = 1_000;
/// How the number and the time of an event are written, so that they are found without parsing.
const NUMBER: &[u8] = b"{\"n\":\"";
const NUMBER_DIGITS: usize = 12;
const TIME: &[u8] = b"\",\"t\":\"";
const TIME_DIGITS: usize = 20;
const STAMP_BYTES: usize = NUMBER.len() + NUMBER_DIGITS + TIME.len() + TIME_DIGITS;
const PAD_BYTES: usize = 40;
const BUFFER_BYTES: usize = 64 * 1024;

figures! {
    /// Events of about 100 B to 100 clients at 1,000 a second each, from publish to the client.
    struct SseFigures {
        clients: u64,
        /// Events to each client.
        events: u64,
        sse_p50_us: f64,
        sse_p99_us: f64,
        quic_p50_us: f64,
        quic_p99_us: f64,
        /// By how much the one is above the other.
        difference_p99_us: f64,
    }
}

/// How events come to the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ServerSent,
    Quic,
}

pub(super) async fn measure(engine: &Sandbox, args: &NetworkArgs) -> anyhow::Result<SseFigures> {
    let events = args.scaled(u64::from(RATE) * 5);
    let quic = run(engine, Way::Quic, events).await?;
    let sse = run(engine, Way::ServerSent, events).await?;
    let (quic, sse) = quic.percentiles().zip(sse.percentiles()).context("nothing came")?;
    Ok(SseFigures {
        clients: CLIENTS as u64,
        events,
        sse_p50_us: sse.p50,
        sse_p99_us: sse.p99,
        quic_p50_us: quic.p50,
        quic_p99_us: quic.p99,
        difference_p99_us: sse.p99 - quic.p99,
    })
}

/// Publishes events to a topic that all clients follow; each must get all of them, in order.
async fn run(engine: &Sandbox, way: Way, events: u64) -> anyhow::Result<Latencies> {
    let topic = match way {
        Way::ServerSent => "by-sse",
        Way::Quic => "by-quic",
    };
    let control = engine.engine().connect().await?;
    control.create_topic(topic, TopicSettings::default()).await?;
    control.close().await;
    let (config, http, clock) =
        (engine.engine().client_config(), engine.engine().http().to_owned(), Clock::start());
    let (ready, all_ready) = oneshot::channel();
    let of_clients = config.clone();
    let clients = Endpoint::spawn("clients", move || async move {
        let mut running = JoinSet::new();
        for _ in 0..CLIENTS {
            match way {
                Way::ServerSent => {
                    let stream = open_stream(&http, topic).await?;
                    running.spawn(follow_stream(stream, events, clock));
                }
                Way::Quic => {
                    let client = Client::connect(of_clients.clone()).await?;
                    let options =
                        ReadOptions { from: Start::Latest, follow: true, ..ReadOptions::new(topic) };
                    let reader = client.read(options).await?;
                    running.spawn(follow_reader(client, reader, events, clock));
                }
            }
        }
        // It fails if the publisher has.
        let _unwanted = ready.send(());
        let mut all = Latencies::default();
        while let Some(one) = running.join_next().await {
            all.absorb(&one??);
        }
        anyhow::Ok(all)
    })?;
    if all_ready.await.is_ok() {
        Endpoint::spawn("publisher", move || publish(config, topic, events, clock))?.finished().await?;
    }
    clients.finished().await
}

async fn publish(config: ClientConfig, topic: &'static str, events: u64, clock: Clock) -> anyhow::Result<()> {
    let client = Client::connect(config).await?;
    let publisher = client.publisher(topic, PublisherOptions::default()).await?;
    let mut ticker = Ticker::start(clock, f64::from(RATE))?;
    let (mut sent, mut tickets) = (0, JoinSet::new());
    while sent < events {
        for _ in 0..ticker.due().await?.min(events - sent) {
            let payload = stamped(sent, clock.now());
            let ticket = publisher
                .publish(Event::new(payload).with_header("content-type", "application/json"))
                .await?;
            tickets.spawn(ticket);
            sent += 1;
        }
        while let Some(stored) = tickets.try_join_next() {
            stored??;
        }
    }
    while let Some(stored) = tickets.join_next().await {
        stored??;
    }
    client.close().await;
    Ok(())
}

fn stamped(number: u64, time: u64) -> String {
    let pad = "x".repeat(PAD_BYTES);
    format!("{{\"n\":\"{number:0NUMBER_DIGITS$}\",\"t\":\"{time:0TIME_DIGITS$}\",\"pad\":\"{pad}\"}}")
}

/// The number and the time of the first event in some bytes, and where it ends; `None` if there is no whole stamp.
fn stamp_in(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let at = bytes.windows(NUMBER.len()).position(|window| window == NUMBER)?;
    let stamp = bytes.get(at..at + STAMP_BYTES)?;
    let number = digits(&stamp[NUMBER.len()..][..NUMBER_DIGITS])?;
    let time = digits(&stamp[STAMP_BYTES - TIME_DIGITS..])?;
    Some((number, time, at + STAMP_BYTES))
}

fn digits(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Opens a stream and waits for its beginning.
async fn open_stream(http: &str, topic: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let line = format!("GET /v1/topics/{topic}/stream?from=latest");
    let asked = request(&line, "accept: text/event-stream\r\n", b"");
    let mut stream = HttpClient::connect(http).await?.open(&asked).await?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    while !buffer.windows(6).any(|window| window == b"retry:") {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "a stream ended before it began");
    }
    Ok((stream, buffer))
}

async fn follow_stream(
    (mut stream, mut buffer): (TcpStream, Vec<u8>),
    events: u64,
    clock: Clock,
) -> anyhow::Result<Latencies> {
    let (mut latencies, mut expected) = (Latencies::default(), 0);
    while expected < events {
        let now = clock.now();
        let mut read = 0;
        while let Some((number, sent, end)) = stamp_in(&buffer[read..]) {
            ensure!(number == expected, "expected event {expected}, got {number}");
            latencies.record(now.saturating_sub(sent));
            (expected, read) = (expected + 1, read + end);
        }
        buffer.drain(..read);
        if expected < events && stream.read_buf(&mut buffer).await? == 0 {
            bail!("a stream ended after {expected} of {events} events");
        }
    }
    Ok(latencies)
}

async fn follow_reader(
    client: Client,
    mut reader: levada_client::Reader,
    events: u64,
    clock: Clock,
) -> anyhow::Result<Latencies> {
    let (mut latencies, mut expected) = (Latencies::default(), 0);
    while expected < events {
        let Some(delivery) = reader.next().await? else {
            bail!("a reader ended after {expected} of {events} events")
        };
        let now = clock.now();
        for (_, _, event) in delivery.events() {
            let Some((number, sent, _)) = event.payload().and_then(stamp_in) else {
                bail!("an event of nobody")
            };
            ensure!(number == expected, "expected event {expected}, got {number}");
            latencies.record(now.saturating_sub(sent));
            expected += 1;
        }
    }
    // What is behind it has ended already.
    let _late = tokio::time::timeout(Duration::from_secs(1), client.close()).await;
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_what_is_around_it_once_it_is_whole() {
        let bytes = format!("data: {{\"data\":{}}}\n\n", stamped(7, 123_456_789));
        let (number, time, end) = stamp_in(bytes.as_bytes()).unwrap();
        assert_eq!((number, time), (7, 123_456_789));
        assert!(
            stamp_in(&bytes.as_bytes()[..end - 1]).is_none() && stamp_in(&bytes.as_bytes()[end..]).is_none()
        );
        assert!(stamped(7, 1).len() < 110);
    }
}
