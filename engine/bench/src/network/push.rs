//! Pushes to a receiver on this machine: stored events, until each has come.

use std::time::Duration;

use anyhow::ensure;
use levada_client::{SetPush, Start, SubscriptionOptions, TopicSettings};
use levada_rig::{Sandbox, stall};

use super::{
    http::{TOPIC, per_second, publish},
    receiver::Receiver,
};
use crate::{args::NetworkArgs, clock::Clock, figures::figures};

const NAME: &str = "receiver";
/// How often arrivals are looked at, and how long none may come.
const LOOK: Duration = Duration::from_millis(5);
const STALLED: Duration = Duration::from_secs(30);

figures! {
    /// Pushes of events of 100 B, with the settings that a push has if none are given.
    struct PushFigures {
        /// Events that came.
        deliveries: u64,
        /// Requests that were not needed: the receiver had the event.
        repeated: u64,
        deliveries_per_second: f64,
    }
}

pub(super) async fn measure(engine: &Sandbox, args: &NetworkArgs) -> anyhow::Result<PushFigures> {
    let events = args.scaled(50_000);
    let client = engine.engine().connect().await?;
    client.create_topic(TOPIC, TopicSettings::default()).await?;
    publish(&engine.engine().client_config(), events).await?;
    let receiver = Receiver::start(Clock::start()).await?;
    client.create_subscription(TOPIC, NAME, SubscriptionOptions::default(), Start::Earliest).await?;
    client.set_push(SetPush::new(TOPIC.parse()?, NAME.parse()?, Some(receiver.url.clone()))).await?;
    stall::until(LOOK, STALLED, async || Ok(receiver.received().deliveries), |came| *came >= events).await?;
    let received = receiver.received();
    ensure!(received.deliveries == events, "expected {events} deliveries, got {}", received.deliveries);
    client.close().await;
    Ok(PushFigures {
        deliveries: received.deliveries,
        repeated: received.requests - received.deliveries,
        deliveries_per_second: per_second(received.deliveries, received.nanoseconds),
    })
}
