//! The examples of the client's documentation, run.

use std::{fmt, path::PathBuf, pin::Pin, sync::OnceLock, time::Duration};

use levada_client::{
    Client, Event, OnError, Start, SubscriptionOptions, TopicSettings, TransactionState,
    protocol::request::SubscriptionInfo,
};

use crate::support::{
    engine::Engine,
    events::{self, earliest, publish_numbers, read_all, texts},
    guests, until, within,
};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is what users copy")]
mod examples {
    include!(concat!(env!("OUT_DIR"), "/doc_examples.rs"));
}

/// Where the engine of the quick start is.
static QUICK_START: OnceLock<(String, PathBuf)> = OnceLock::new();

fn address() -> String {
    QUICK_START.get().expect("the test says it first").0.clone()
}

fn ca_file() -> PathBuf {
    QUICK_START.get().expect("the test says it first").1.clone()
}

async fn engine_with(topics: &[&str]) -> (Engine, Client) {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    for topic in topics {
        events::topic(&client, topic).await;
    }
    (engine, client)
}

/// What comes to be so while an example runs that does not end by itself.
fn while_it_runs<'a, T>(
    example: impl Future<Output = Result<(), impl fmt::Debug>> + 'a,
    what: impl Future<Output = T> + 'a,
) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(async {
        tokio::select! {
            biased;
            ended = example => panic!("it ended: {ended:?}"),
            came = what => came,
        }
    })
}

async fn until_described(
    client: &Client,
    (topic, subscription): (&str, &str),
    is_so: impl Fn(&SubscriptionInfo) -> bool,
) -> SubscriptionInfo {
    until("what the example does", async || {
        let described = client.describe_subscription(topic, subscription).await.ok();
        described.filter(|described| is_so(described))
    })
    .await
}

#[test]
fn every_example_is_run_by_a_test_of_this_file() {
    let source = include_str!("doc_examples.rs");
    for name in examples::NAMES {
        assert!(source.contains(&format!("examples::{name}::")), "{name} is not run");
    }
}

#[tokio::test]
async fn the_quick_start_publishes_and_acknowledges() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    QUICK_START.set((engine.started.quic.to_string(), engine.data_dir().join("tls/ca.pem"))).unwrap();
    let done = until_described(&client, ("orders", "payment"), |it| it.lag == 0);
    while_it_runs(examples::lib_1::quick_start(), async {
        done.await;
        // It began at the latest event, as none is said.
        events::publish(&client, "orders", [Event::new("another")]).await;
        until_described(&client, ("orders", "payment"), |it| it.lag == 0 && it.positions[0].offset == 2).await
    })
    .await;
    assert_eq!(texts(&read_all(&client, "orders").await, 0), ["one coffee", "another"]);
}

#[tokio::test]
async fn pulled_deliveries_are_acknowledged() {
    let (_engine, client) = engine_with(&["orders"]).await;
    client
        .create_subscription("orders", "archive", SubscriptionOptions::default(), Start::Earliest)
        .await
        .unwrap();
    publish_numbers(&client, "orders", 0..5).await;
    let done = until_described(&client, ("orders", "archive"), |it| it.positions[0].offset == 5);
    while_it_runs(examples::client_1::write(client.clone()), done).await;
}

#[tokio::test]
async fn events_are_acknowledged_given_back_and_rejected() {
    let (_engine, client) = engine_with(&["orders"]).await;
    let orders = events::subscribe(&client, "orders", "payment").await;
    let all = ["no money", "a coffee", "no account"].map(|text| Event::new(text).with_key(text));
    events::publish(&client, "orders", all).await;
    let found = |it: &SubscriptionInfo| it.redelivered > 0 && it.dead_lettered == 1 && it.lag == 1;
    while_it_runs(examples::delivered_1::pay(orders), until_described(&client, ("orders", "payment"), found))
        .await;
    let dead_letters = read_all(&client, "dlq.orders.payment").await;
    assert_eq!(texts(&dead_letters, 0), ["no account"]);
    assert_eq!(events::header(&dead_letters[&0][0].1, "lv-dlq-error").as_deref(), Some("no such account"));
}

#[tokio::test]
async fn an_event_is_set_aside_and_its_neighbours_are_done() {
    let (_engine, client) = engine_with(&["orders"]).await;
    let orders = events::subscribe(&client, "orders", "s").await;
    let waits = Event::new("b").with_header("wait-for", "payment");
    events::publish(&client, "orders", [Event::new("a"), waits, Event::new("c")]).await;
    let found = |it: &SubscriptionInfo| it.lag == 1 && it.in_flight == 1;
    let found = until_described(&client, ("orders", "s"), found);
    let described = while_it_runs(examples::delivered_2::set_aside(orders), found).await;
    assert_eq!(described.positions[0].offset, 1);
}

#[tokio::test]
async fn a_subscription_is_slowed_down_and_moved() {
    let (_engine, client) = engine_with(&["orders"]).await;
    publish_numbers(&client, "orders", 0..5).await;
    client
        .create_subscription("orders", "archive", SubscriptionOptions::default(), Start::Latest)
        .await
        .unwrap();
    examples::admin_1::slow_down(client.clone()).await.unwrap();
    examples::admin_2::once_more(client.clone()).await.unwrap();
    let described = client.describe_subscription("orders", "archive").await.unwrap();
    assert_eq!((described.options.rate, described.options.max_attempts()), (Some(100), 20));
    assert_eq!((described.positions[0].offset, described.lag), (0, 5));
}

#[tokio::test]
async fn dead_letters_of_a_plugin_are_redriven() {
    let (_engine, client) = engine_with(&["orders"]).await;
    guests::deploy_hostile(&client).await;
    let chain = Some(vec![guests::hostile(OnError::DeadLetter)]);
    let options = SubscriptionOptions { chain, ..SubscriptionOptions::default() };
    let subscriber = client.subscribe(earliest("orders", "payment", options)).await.unwrap();
    events::publish(&client, "orders", [Event::new("trap")]).await;
    until_described(&client, ("orders", "payment"), |it| it.dead_lettered == 1).await;
    examples::dead_letters_1::repair(&client).await.unwrap();
    let of = "orders/payment".parse().unwrap();
    let redrives =
        client.list_redrives(&of, levada_client::Offset(0)..levada_client::Offset(9)).await.unwrap();
    assert_eq!(redrives.len(), 1, "{redrives:?}");
    drop(subscriber);
}

#[tokio::test]
async fn publishers_stop_schedule_append_and_hear_of_a_full_backlog() {
    let (_engine, client) = engine_with(&["imported", "orders", "accounts"]).await;
    examples::after_failure_1::example(client.clone(), vec!["a".to_owned(), "b".to_owned()]).await.unwrap();
    assert_eq!(texts(&read_all(&client, "imported").await, 0), ["a", "b"]);
    examples::publisher_1::example(client.clone()).await.unwrap();
    assert_eq!(texts(&read_all(&client, "imported").await, 0), ["a", "b", "line 2"]);
    examples::publisher_2::example(client.clone()).await.unwrap();
    assert_eq!(client.describe_topic("orders").await.unwrap().scheduled, 0);
    publish_numbers(&client, "accounts", 0..3).await;
    examples::publisher_3::example(client.clone()).await.unwrap();
    assert_eq!(texts(&read_all(&client, "accounts").await, 0), ["0", "1", "2", "withdraw 5"]);
    let settings = TopicSettings { backlog_max_events: 1, ..TopicSettings::default() };
    client.create_topic("requests", settings).await.unwrap();
    client
        .create_subscription("requests", "s", SubscriptionOptions::default(), Start::Earliest)
        .await
        .unwrap();
    for _ in 0..2 {
        examples::when_full_1::example(client.clone()).await.unwrap();
    }
    let backlog = client.describe_topic("requests").await.unwrap().backlog.unwrap();
    assert_eq!((backlog.events, backlog.refused), (1, 1));
}

#[tokio::test]
async fn a_search_ends() {
    let (_engine, client) = engine_with(&["orders"]).await;
    let event = Event::new(r#"{"amount": 200}"#).with_header("region", "eu");
    events::publish(&client, "orders", [event]).await;
    within("the end", examples::search_1::large_orders(&client)).await.unwrap();
}

#[tokio::test]
async fn transactions_are_decided_checked_and_acknowledge_what_they_are_about() {
    let topics = ["orders", "orders.created", "withdrawals", "deposits", "invoices"];
    let (_engine, client) = engine_with(&topics).await;
    examples::producer_group_1::example(client.clone()).await.unwrap();
    assert_eq!(texts(&read_all(&client, "orders.created").await, 0), ["order 42"]);
    examples::producer_group_3::example(client.clone()).await.unwrap();
    for topic in ["withdrawals", "deposits"] {
        assert_eq!(texts(&read_all(&client, topic).await, 0), ["5"], "{topic}");
    }
    client
        .create_subscription("orders", "invoicing", SubscriptionOptions::default(), Start::Earliest)
        .await
        .unwrap();
    publish_numbers(&client, "orders", 0..2).await;
    let done = until_described(&client, ("orders", "invoicing"), |it| it.positions[0].offset == 2);
    while_it_runs(examples::sending_1::example(client.clone()), done).await;
    assert_eq!(texts(&read_all(&client, "invoices").await, 0).len(), 2);
}

#[tokio::test]
async fn a_transaction_whose_producer_died_is_decided_by_its_group() {
    let (_engine, client) = engine_with(&["orders.created"]).await;
    let mut transaction = client.producer_group("orders").unwrap().transaction("order-43").unwrap();
    transaction.publish("orders.created", Event::new("order 43")).unwrap();
    drop(transaction.prepare_and_check_after(Duration::from_millis(1)).await.unwrap());
    let decided = until("the decision", async || {
        let (all, _) = client.list_transactions(Some("orders"), true, 9).await.unwrap();
        all.iter().any(|it| it.state == TransactionState::Committed).then_some(())
    });
    while_it_runs(examples::producer_group_2::example(client.clone()), decided).await;
    assert_eq!(texts(&read_all(&client, "orders.created").await, 0), ["order 43"]);
}
