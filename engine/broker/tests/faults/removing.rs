//! What goes along with what is deleted, what keeps it from being deleted, and what is never used again.

use std::sync::atomic::Ordering;

use levada_broker::{Error, Principal};
use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId},
    request::{
        Deleted, Request, Response, RouteSpec, RunState, StageSpec, Start, SubscriptionOptions, TopicSettings,
    },
    verbs::{Verb, VerbKind, Verbs},
};
use tokio::time::timeout;

use crate::support::{Engine, PLENTY, SOON, delivery};

impl Engine {
    async fn try_delete(&self, request: Request) -> Result<Deleted, Error> {
        match self.broker.request(&Principal::Local, request, None).await? {
            Response::Deleted(deleted) => Ok(deleted),
            other => panic!("{other:?}"),
        }
    }

    async fn remove(&self, version: u32) {
        let removed =
            self.try_delete(Request::RemovePlugin { name: "keep".parse().unwrap(), version: Some(version) });
        assert_eq!(removed.await.unwrap().plugins, [format!("keep@{version}")]);
    }

    /// A subscription whose first event was rejected.
    async fn with_dead_letter(&self) {
        self.topic("orders", TopicSettings::default()).await;
        self.publish("orders", 1).await;
        let mut consumer = self.subscribe(SubscriptionOptions::default()).await;
        consumer.control.credit(PLENTY).await.unwrap();
        let (token, _) = delivery(&mut consumer.outgoing).await;
        let kind = VerbKind::reject("no");
        let verb = Verb { kind, partition: PartitionId(0), token, first: Offset(0), last: Offset(0) };
        consumer.control.verbs(Verbs { sequence: 1, verbs: vec![verb] }).await.unwrap();
        timeout(SOON, consumer.outgoing.recv()).await.unwrap().unwrap().unwrap();
    }

    async fn create_subscription(&self, topic: &str, name: &str, chain: Option<Vec<StageSpec>>) {
        let (topic, name) = (topic.parse().unwrap(), name.parse().unwrap());
        let options = SubscriptionOptions { chain, ..SubscriptionOptions::default() };
        self.ask(Request::CreateSubscription { topic, name, options, from: Start::Earliest }).await;
    }

    async fn topics(&self) -> Vec<String> {
        match self.ask(Request::ListTopics { limit: 0, after: None }).await {
            Response::Topics { topics, .. } => {
                topics.into_iter().map(|topic| topic.name.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn topic(name: &str, force: bool, with_dead_letters: bool) -> Request {
    Request::DeleteTopic { name: name.parse().unwrap(), force, with_dead_letters }
}

fn payment(force: bool, with_dead_letters: bool) -> Request {
    let (topic, name) = ("orders".parse().unwrap(), "payment".parse().unwrap());
    Request::DeleteSubscription { topic, name, force, with_dead_letters }
}

fn route(name: &str, from: &str, to: &str) -> RouteSpec {
    RouteSpec::new(name.parse().unwrap(), from.parse().unwrap(), [to.parse().unwrap()])
}

/// Says that it was refused with this code, and returns why.
fn refused(outcome: Result<Deleted, Error>, code: ErrorCode) -> String {
    let error = outcome.expect_err("it is refused");
    assert_eq!(error.code(), code, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_topic_that_takes_others_along_is_deleted_by_force_alone_and_names_them() {
    let engine = Engine::start();
    for name in ["orders", "paid", "first"] {
        engine.topic(name, TopicSettings::default()).await;
    }
    engine.create_subscription("orders", "payment", None).await;
    engine.create_subscription("orders", "stock", None).await;
    engine.ask(Request::CreateRoute(route("split", "orders", "paid"))).await;
    engine.ask(Request::CreateRoute(route("merge", "first", "orders"))).await;
    let said = refused(engine.try_delete(topic("orders", false, true)).await, ErrorCode::TopicInUse);
    for part in [
        "subscriptions orders/payment, orders/stock and route split would be deleted",
        "route merge would be blocked",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(engine.topics().await, ["first", "orders", "paid"], "nothing has changed");
    assert_eq!(engine.info().await.name, "payment");
    let gone = engine.try_delete(topic("orders", true, false)).await.unwrap();
    assert_eq!(gone.topics, ["orders"]);
    assert_eq!(gone.subscriptions, ["orders/payment", "orders/stock"]);
    assert_eq!((gone.routes, gone.count), (vec!["split".to_owned()], 4));
    let alone = engine.try_delete(topic("paid", false, false)).await.unwrap();
    assert_eq!((alone.topics, alone.count), (vec!["paid".to_owned()], 1), "nothing needs it any more");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn dead_letters_stay_and_are_named_or_go_along_on_request() {
    let engine = Engine::start();
    engine.with_dead_letter().await;
    let dead = "dlq.orders.payment";
    let said = refused(engine.try_delete(topic(dead, false, false)).await, ErrorCode::TopicInUse);
    assert!(said.contains("dead letters of subscription orders/payment"), "{said}");
    let said = refused(engine.try_delete(topic("orders", false, false)).await, ErrorCode::TopicInUse);
    assert!(said.contains("dead-letter topic dlq.orders.payment would stay"), "{said}");
    engine.create_subscription(dead, "audit", None).await;
    let said = refused(engine.try_delete(payment(false, true)).await, ErrorCode::TopicInUse);
    assert!(said.contains("subscription dlq.orders.payment/audit would be deleted"), "{said}");
    let gone = engine.try_delete(topic("orders", true, true)).await.unwrap();
    assert_eq!(gone.topics, [dead, "orders"]);
    assert_eq!(gone.subscriptions, ["dlq.orders.payment/audit", "orders/payment"]);
    assert_eq!(engine.topics().await, Vec::<String>::new());

    engine.with_dead_letter().await;
    let gone = engine.try_delete(payment(false, false)).await.unwrap();
    assert_eq!(
        (gone.subscriptions, gone.dead_letters_kept),
        (vec!["orders/payment".to_owned()], vec![dead.to_owned()])
    );
    engine.try_delete(topic(dead, false, false)).await.unwrap();
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_subscription_with_consumers_is_deleted_by_force_alone() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let consumer = engine.subscribe(SubscriptionOptions::default()).await;
    let said = refused(engine.try_delete(payment(false, false)).await, ErrorCode::SubscriptionInUse);
    assert!(said.contains("subscription orders/payment is in use: 1 consumer is attached"), "{said}");
    drop(consumer);
    engine.try_delete(payment(false, false)).await.unwrap();
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn numbers_of_removed_versions_are_not_used_again_and_known_bytes_make_no_version() {
    let engine = Engine::start();
    assert_eq!(engine.deploy(b"one").await.version, 1);
    assert_eq!(engine.deploy(b"two").await.version, 2);
    let known = engine.deploy(b"one").await;
    assert_eq!(
        (known.version, known.already_deployed, known.active),
        (1, true, false),
        "version 2 stays active"
    );
    engine.remove(2).await;
    let engine = engine.restart().await;
    let again = engine.deploy(b"two").await;
    assert_eq!((again.version, again.already_deployed, again.active), (3, false, true));
    engine.remove(3).await;
    engine.remove(1).await;
    let engine = engine.restart().await;
    assert_eq!(engine.deploy(b"one").await.version, 4);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn attachments_go_on_at_once_when_a_refused_version_is_removed() {
    let engine = Engine::start();
    for name in ["orders", "paid"] {
        engine.topic(name, TopicSettings::default()).await;
    }
    engine.deploy(b"one").await;
    let chain = vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }];
    engine.create_subscription("orders", "payment", Some(chain.clone())).await;
    engine.ask(Request::CreateRoute(RouteSpec { chain, ..route("copy", "orders", "paid") })).await;
    engine.plugins.refusing.store(2, Ordering::Release);
    engine.deploy(b"two").await;
    let state = async || match engine.ask(Request::ListRoutes { limit: 0, after: None }).await {
        Response::Routes { routes, .. } => routes[0].state.clone(),
        other => panic!("{other:?}"),
    };
    let both_stopped = async || {
        while engine.info().await.state.is_running() || state().await.is_running() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, both_stopped()).await.unwrap();
    let paused = engine.info().await.state;
    assert!(paused.code().is_some() && paused.to_string().contains("keep@2"), "{paused}");
    engine.remove(2).await;
    assert_eq!(engine.info().await.state, RunState::Running);
    let goes_on = async || {
        while !state().await.is_running() {
            tokio::task::yield_now().await;
        }
    };
    // They try again by themselves every five seconds.
    timeout(SOON / 10, goes_on()).await.expect("the route goes on at once");
    engine.publish("orders", 1).await;
    let copied = async || {
        while engine.partition("paid").await.end == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, copied()).await.unwrap();
    assert_eq!(engine.plugins.attached.load(Ordering::Acquire), 1);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_plugin_in_use_names_every_attachment() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.deploy(b"one").await;
    let chain = vec![StageSpec { plugin: "keep".into(), ..StageSpec::default() }];
    for name in ["payment", "stock"] {
        engine.create_subscription("orders", name, Some(chain.clone())).await;
    }
    let remove = Request::RemovePlugin { name: "keep".parse().unwrap(), version: None };
    let said = refused(engine.try_delete(remove).await, ErrorCode::PluginInUse);
    assert!(said.contains("attachments orders/payment, orders/stock would be left without it"), "{said}");
    engine.broker.shutdown().await;
}
