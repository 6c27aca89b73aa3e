//! What the demo makes on its engine: topics, plugins, subscriptions, the route.

use levada_bundled::{CONTENT_ROUTER, JSON_FILTER, JSON_PROJECT};
use levada_client::{
    Client, Order as DeliveryOrder, RouteSpec, StageSpec, Start, SubscribeOptions, SubscriptionOptions,
    TopicSettings,
};
use levada_terminal::Output;
use serde_json::{Value, json};

use crate::model::{INVENTORY_SEES, PAYMENT_SEES, Who};

/// Where the order service publishes.
pub(crate) const ORDERS: &str = "orders";
/// Where payment publishes what it did.
pub(crate) const PAYMENTS: &str = "payments";
/// Where the route leads what concerns logistics.
pub(crate) const SHIPMENTS: &str = "shipments";
/// The route's name.
pub(crate) const ROUTE: &str = "paid-to-ship";
const PARTITIONS: u16 = 4;

/// Makes topics and route; subscriptions are made when their consumers attach.
pub(crate) async fn prepare(output: &Output, client: &Client) -> anyhow::Result<()> {
    for topic in [ORDERS, PAYMENTS, SHIPMENTS] {
        let settings = TopicSettings { partitions: PARTITIONS, ..TopicSettings::default() };
        client.create_topic(topic, settings).await?;
    }
    let plugins = levada_bundled::deploy_all(client).await?;
    let names: Vec<String> =
        plugins.iter().map(|(plugin, _)| format!("{}@{}", plugin.name, plugin.version)).collect();
    output.remark(&format!("plugins   {}", names.join(", ")));
    let route = RouteSpec {
        chain: vec![
            stage(JSON_FILTER, &json!({ "where": "paid == true" })),
            stage(
                CONTENT_ROUTER,
                &json!({ "field": "ships", "routes": { "true": SHIPMENTS }, "default": null }),
            ),
        ],
        start: Start::Earliest,
        ..RouteSpec::new(ROUTE.parse()?, PAYMENTS.parse()?, [SHIPMENTS.parse()?])
    };
    client.create_route(route).await?;
    output.remark(&format!("route     {PAYMENTS} -> paid, and to be shipped -> {SHIPMENTS}"));
    Ok(())
}

/// How a subscriber subscribes.
pub(crate) fn subscription(who: Who) -> SubscribeOptions {
    let (topic, chain) = match who {
        Who::Payment => (
            ORDERS,
            vec![
                stage(JSON_FILTER, &json!({ "where": "amount > 0" })),
                stage(JSON_PROJECT, &json!({ "keep": PAYMENT_SEES })),
            ],
        ),
        Who::Inventory => (
            ORDERS,
            vec![
                stage(JSON_FILTER, &json!({ "where": "item_count > 0" })),
                stage(JSON_PROJECT, &json!({ "keep": INVENTORY_SEES })),
            ],
        ),
        Who::Logistics => (SHIPMENTS, Vec::new()),
    };
    SubscribeOptions {
        consumer: format!("demo-{}", who.name()),
        options: Some(SubscriptionOptions {
            order: Some(DeliveryOrder::Key),
            chain: Some(chain),
            ..SubscriptionOptions::default()
        }),
        from: Start::Earliest,
        ..SubscribeOptions::new(topic, who.name())
    }
}

/// The topic of a subscriber's subscription.
pub(crate) fn topic(who: Who) -> &'static str {
    match who {
        Who::Payment | Who::Inventory => ORDERS,
        Who::Logistics => SHIPMENTS,
    }
}

fn stage(plugin: &str, config: &Value) -> StageSpec {
    StageSpec { plugin: plugin.to_owned(), config: config.to_string(), ..StageSpec::default() }
}
