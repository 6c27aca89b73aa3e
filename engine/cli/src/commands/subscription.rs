//! `levada subscription`: shows, resumes and deletes subscriptions.

use levada_protocol::request::{Order, StageSpec, SubscriptionInfo};

use crate::{
    args::{SubscriptionAction, SubscriptionArgs},
    client,
    output::{self, Output, Rows},
};

pub(super) async fn run(output: &Output, args: SubscriptionArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.client).await?;
    match args.action {
        SubscriptionAction::List { topic } => {
            let found = client.list_subscriptions(topic.as_ref().map(|topic| topic.as_str())).await?;
            output.rows(&found, || table(&found))?;
        }
        SubscriptionAction::Describe { subscription } => {
            let found =
                client.describe_subscription(subscription.topic.as_str(), subscription.name.as_str()).await?;
            if output.is_json() {
                output.json(&found)?;
            } else {
                output.line(&describe(&found))?;
            }
        }
        SubscriptionAction::Delete { subscription } => {
            let (topic, name) = (subscription.topic.as_str(), subscription.name.as_str());
            client.delete_subscription(topic, name).await?;
            let done = serde_json::json!({ "deleted": format!("{topic}/{name}") });
            output.result(&done, || format!("deleted subscription {topic}/{name}"))?;
        }
        SubscriptionAction::Resume { subscription } => {
            let (topic, name) = (subscription.topic.as_str(), subscription.name.as_str());
            client.resume_subscription(topic, name).await?;
            let done = serde_json::json!({ "resumed": format!("{topic}/{name}") });
            output.result(&done, || format!("resumed subscription {topic}/{name}"))?;
        }
    }
    client.close().await;
    Ok(())
}

/// Stages as people write them, in order.
pub(super) fn chain_text(chain: &[StageSpec]) -> String {
    let stage = |stage: &StageSpec| match stage.config.as_str() {
        "{}" => stage.plugin.clone(),
        config => format!("{}:{config}", stage.plugin),
    };
    match chain.is_empty() {
        true => "-".to_owned(),
        false => chain.iter().map(stage).collect::<Vec<_>>().join(" | "),
    }
}

fn order_word(order: Order) -> &'static str {
    match order {
        Order::Key => "key",
        Order::Partition => "partition",
        Order::None => "none",
    }
}

fn table(subscriptions: &[SubscriptionInfo]) -> Rows {
    let headings = [
        "subscription",
        "order",
        "consumers",
        "lag",
        "in flight",
        "oldest unacked",
        "dead letters",
        "state",
        "chain",
    ];
    let mut rows = Rows::new(&headings);
    for found in subscriptions {
        rows.push([
            format!("{}/{}", found.topic, found.name),
            order_word(found.options.order).to_owned(),
            found.consumers.len().to_string(),
            output::count(found.lag),
            output::count(found.in_flight),
            output::duration_ms(found.oldest_unacked_age_ms),
            output::count(found.dead_lettered),
            found.paused.as_ref().map_or_else(|| "running".to_owned(), |why| format!("paused: {why}")),
            chain_text(&found.options.chain),
        ]);
    }
    rows
}

fn describe(found: &SubscriptionInfo) -> String {
    let options = &found.options;
    let positions: Vec<String> =
        found.positions.iter().map(|place| format!("{}:{}", place.partition, place.offset)).collect();
    let consumers = if found.consumers.is_empty() { "-".to_owned() } else { found.consumers.join(", ") };
    let lines = [
        ("subscription", format!("{}/{}", found.topic, found.name)),
        ("made", output::time_ms(found.created_ms)),
        ("state", found.paused.as_ref().map_or_else(|| "running".to_owned(), |why| format!("paused: {why}"))),
        ("order", order_word(options.order).to_owned()),
        ("chain", chain_text(&options.chain)),
        ("ack timeout", output::duration_ms(options.ack_timeout_ms.into())),
        ("max attempts", options.max_attempts.to_string()),
        ("max in flight", output::count(options.max_in_flight.into())),
        ("consumers", consumers),
        ("positions", positions.join(" ")),
        ("lag", output::count(found.lag)),
        ("oldest unacked", output::duration_ms(found.oldest_unacked_age_ms)),
        ("in flight", output::count(found.in_flight)),
        ("redelivered", output::count(found.redelivered)),
        ("dead letters", output::count(found.dead_lettered)),
        ("events lost", output::count(found.events_lost)),
    ];
    lines.map(|(name, value)| format!("{name:<15} {value}")).join("\n")
}
