//! What authentication costs: connections and publishes of an engine with principals, beside those of one without.

use std::path::Path;

use anyhow::Context as _;
use levada_client::{Client, ClientConfig, Quotas, TopicSettings};
use levada_rig::{Sandbox, latencies::Latencies};

use super::{
    engines,
    http::{TOPIC, per_second, publish},
};
use crate::{args::NetworkArgs, clock::Clock, figures::figures};

/// Measured in turn, so often.
const TURNS: u64 = 5;

figures! {
    /// Connections, from the first packet to the answer of the first request, and publishes of 100 B.
    struct ConnectFigures {
        /// To an engine without principals.
        connect_p50_us: f64,
        /// With a token, to an engine with principals.
        with_token_p50_us: f64,
        /// The one above the other.
        difference_p50_us: f64,
        events_per_second: f64,
        with_token_events_per_second: f64,
        /// The one by the other.
        of_events_without_token: f64,
    }
}

pub(super) async fn measure(
    engine: &Sandbox,
    dir: &Path,
    args: &NetworkArgs,
) -> anyhow::Result<ConnectFigures> {
    let guarded = engines::start(dir).await?;
    let without = engine.engine().client_config();
    let local = guarded.engine().connect().await?;
    local.create_topic(TOPIC, TopicSettings::default()).await?;
    let token = engines::principal(&local, "bench", &["admin"], Quotas::default()).await?;
    local.close().await;
    let with = guarded.engine().client_config().token(token);
    let control = engine.engine().connect().await?;
    control.create_topic(TOPIC, TopicSettings::default()).await?;
    control.close().await;
    let (mut plain, mut shown) = (Latencies::default(), Latencies::default());
    let clock = Clock::start();
    for _ in 0..args.scaled(500) {
        plain.record(connect(&without, clock).await?);
        shown.record(connect(&with, clock).await?);
    }
    let events = args.scaled(1_000_000) / TURNS;
    let (mut without_token, mut with_token) = (0, 0);
    for _ in 0..TURNS {
        without_token += publish(&without, events).await?;
        with_token += publish(&with, events).await?;
    }
    guarded.stop().await?;
    let (plain, shown) = plain.percentiles().zip(shown.percentiles()).context("no connection was made")?;
    let events_per_second = per_second(TURNS * events, without_token);
    let with_token_events_per_second = per_second(TURNS * events, with_token);
    Ok(ConnectFigures {
        connect_p50_us: plain.p50,
        with_token_p50_us: shown.p50,
        difference_p50_us: shown.p50 - plain.p50,
        events_per_second,
        with_token_events_per_second,
        of_events_without_token: with_token_events_per_second / events_per_second,
    })
}

/// How long it takes until a new connection has an answer.
async fn connect(config: &ClientConfig, clock: Clock) -> anyhow::Result<u64> {
    let begun = clock.now();
    let client = Client::connect(config.clone()).await?;
    client.info().await?;
    let taken = clock.now() - begun;
    client.close().await;
    Ok(taken)
}
