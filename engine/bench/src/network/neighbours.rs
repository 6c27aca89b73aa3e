//! What neighbours do to one who publishes one event at a time by QUIC: alone, beside a principal that is over its quota, beside
//! publishes by HTTP as fast as they go, and beside a scraper of metrics that never rests.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use levada_client::{Client, ClientConfig, Event, PublisherOptions, Quotas, TopicSettings};
use levada_rig::{Sandbox, latencies::Latencies};
use tokio::task::JoinSet;

use super::{
    engines::principal,
    load::{Load, request},
};
use crate::{
    args::NetworkArgs,
    clock::{Clock, Ticker},
    endpoint::Endpoint,
    figures::figures,
    producer::Budget,
};

/// Measured in turn, so often.
const TURNS: u64 = 5;
/// Events a second of the one that is measured.
const RATE: u32 = 500;
/// Events a second that the neighbour may publish, and those that it has in flight: it always has more to say.
const QUOTA: u64 = 5_000;
const NEIGHBOUR_IN_FLIGHT: usize = 256;
/// The neighbours give way to the one that is measured, as if they were on other machines.
const NICENESS: i32 = 10;
/// More than any of them sends in a turn.
const REQUESTS_MAX: u64 = 1_000_000_000;

figures! {
    /// Publishes of 100 B, one at a time, at 500 a second.
    struct NeighbourFigures {
        alone_p50_us: f64,
        alone_p99_us: f64,
        limited_principal_p50_us: f64,
        limited_principal_p99_us: f64,
        limited_principal_p99_of_alone: f64,
        http_p50_us: f64,
        http_p99_us: f64,
        http_p99_of_alone: f64,
        metrics_p50_us: f64,
        metrics_p99_us: f64,
        metrics_p99_of_alone: f64,
    }
}

/// Who publishes, and what else is there.
struct Scene {
    quiet: ClientConfig,
    limited: ClientConfig,
    http: String,
    publish: Bytes,
    scrape: Bytes,
    turn: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Neighbour {
    Nobody,
    Limited,
    Http,
    Metrics,
}

pub(super) async fn measure(engine: &Sandbox, args: &NetworkArgs) -> anyhow::Result<NeighbourFigures> {
    let scene = Scene::prepare(engine, args).await?;
    let all = [Neighbour::Nobody, Neighbour::Limited, Neighbour::Http, Neighbour::Metrics];
    let mut found = all.map(|_| Latencies::default());
    for _ in 0..TURNS {
        for (neighbour, latencies) in all.into_iter().zip(&mut found) {
            latencies.absorb(&scene.beside(neighbour).await?);
        }
    }
    let [alone, limited, http, metrics] = found.map(|latencies| latencies.percentiles());
    let all = alone.zip(limited).zip(http.zip(metrics));
    let ((alone, limited), (http, metrics)) = all.context("nothing was published")?;
    Ok(NeighbourFigures {
        alone_p50_us: alone.p50,
        alone_p99_us: alone.p99,
        limited_principal_p50_us: limited.p50,
        limited_principal_p99_us: limited.p99,
        limited_principal_p99_of_alone: limited.p99 / alone.p99,
        http_p50_us: http.p50,
        http_p99_us: http.p99,
        http_p99_of_alone: http.p99 / alone.p99,
        metrics_p50_us: metrics.p50,
        metrics_p99_us: metrics.p99,
        metrics_p99_of_alone: metrics.p99 / alone.p99,
    })
}

impl Scene {
    async fn prepare(engine: &Sandbox, args: &NetworkArgs) -> anyhow::Result<Self> {
        let local = engine.engine().connect().await?;
        for topic in ["quiet", "limited", "web"] {
            local.create_topic(topic, TopicSettings::default()).await?;
        }
        let boss = principal(&local, "boss", &["admin"], Quotas::default()).await?;
        local.close().await;
        let config = engine.engine().client_config();
        let client = Client::connect(config.clone().token(boss.clone())).await?;
        let quotas = Quotas { publish_events: QUOTA, ..Quotas::default() };
        let quiet = principal(&client, "quiet", &["publish quiet"], Quotas::default()).await?;
        let limited = principal(&client, "limited", &["publish limited"], quotas).await?;
        let web = principal(&client, "web", &["publish web"], Quotas::default()).await?;
        client.close().await;
        let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
        Ok(Self {
            quiet: config.clone().token(quiet),
            limited: config.token(limited),
            http: engine.engine().http().to_owned(),
            publish: request("POST /v1/topics/web/events", &bearer(&web), &[b'x'; 100]),
            scrape: request("GET /metrics", &bearer(&boss), b""),
            turn: Duration::from_millis(args.scaled(2_000)),
        })
    }

    /// A turn of the one that is measured, with a neighbour from its beginning to its end.
    async fn beside(&self, neighbour: Neighbour) -> anyhow::Result<Latencies> {
        let clock = Clock::start();
        let budget = Budget::bounded(REQUESTS_MAX, self.turn);
        let load = |request: &Bytes, connections| Load {
            address: self.http.clone(),
            request: request.clone(),
            connections,
            niceness: NICENESS,
        };
        let noise = match neighbour {
            Neighbour::Nobody => None,
            Neighbour::Limited => Some(limited(self.limited.clone(), Arc::clone(&budget), clock)?),
            Neighbour::Http => Some(load(&self.publish, 64).spawn(Arc::clone(&budget), clock)?),
            Neighbour::Metrics => Some(load(&self.scrape, 1).spawn(Arc::clone(&budget), clock)?),
        };
        let (config, turn) = (self.quiet.clone(), self.turn);
        let latencies =
            Endpoint::spawn("quiet", move || one_at_a_time(config, turn, clock))?.finished().await?;
        if let Some(noise) = noise {
            noise.finished().await?;
        }
        Ok(latencies)
    }
}

async fn one_at_a_time(config: ClientConfig, turn: Duration, clock: Clock) -> anyhow::Result<Latencies> {
    let client = Client::connect(config).await?;
    let publisher = client.publisher("quiet", PublisherOptions::default()).await?;
    let mut ticker = Ticker::start(clock, f64::from(RATE))?;
    let end = clock.now() + u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    let mut latencies = Latencies::default();
    while clock.now() < end {
        // What is overdue is left out: the next begins when it is due.
        ticker.due().await?;
        let begun = clock.now();
        publisher.publish(Event::new(vec![b'x'; 100])).await?.await?;
        latencies.record(clock.now() - begun);
    }
    client.close().await;
    Ok(latencies)
}

/// Publishes far more than its quota; what is refused is left.
fn limited(config: ClientConfig, budget: Arc<Budget>, clock: Clock) -> anyhow::Result<Endpoint<u64>> {
    Endpoint::spawn("limited", move || async move {
        // Where this is not allowed, the measured side only has to share more.
        let _niceness = rustix::process::nice(NICENESS);
        let client = Client::connect(config).await?;
        let publisher = client.publisher("limited", PublisherOptions::default()).await?;
        let begun = clock.now();
        budget.begin(begun);
        let mut running = JoinSet::new();
        for _ in 0..NEIGHBOUR_IN_FLIGHT {
            let (publisher, budget) = (publisher.clone(), Arc::clone(&budget));
            running.spawn(async move {
                while budget.take(1, clock.now()) > 0 {
                    if let Ok(ticket) = publisher.publish(Event::new(vec![b'x'; 100])).await {
                        let _refused = ticket.await;
                    }
                }
            });
        }
        running.join_all().await;
        client.close().await;
        anyhow::Ok(clock.now() - begun)
    })
}
