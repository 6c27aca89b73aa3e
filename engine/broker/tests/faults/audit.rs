//! What the topic `_audit` tells of changes and of refusals.

use levada_broker::{Content, Principal};
use levada_protocol::{
    error::ErrorCode,
    request::{
        CreatePrincipal, NewToken, PurgeTopic, Quotas, Read, Request, Response, Retain, RouteSpec, Start,
        SubscriptionOptions, TopicChanges, TopicSettings,
    },
};
use serde_json::{Value, json};

use crate::{
    access::{CLERK, Office, code},
    support::{Engine, PLENTY},
};

const TOPIC: &str = "_audit";

/// All events of the topic, from the oldest.
async fn told(engine: &Engine, by: &Principal) -> Vec<Value> {
    let read = Read { from: Start::Earliest, ..Read::new(TOPIC.parse().unwrap()) };
    let mut reader = engine.broker.read(by, read).await.unwrap();
    reader.credit.grant(PLENTY).await.unwrap();
    let mut told = Vec::new();
    while let Some(next) = reader.outgoing.recv().await {
        let next = next.unwrap();
        let Content::Delivery(delivery) = next.content() else { continue };
        for (_, batch) in delivery.runs.iter().flat_map(|run| run.batches()).map(Result::unwrap) {
            let parse = |payload: Option<&[u8]>| serde_json::from_slice(payload.unwrap()).unwrap();
            told.extend(batch.events().map(|event| parse(event.payload())));
        }
    }
    told
}

fn create(name: &str) -> Request {
    Request::CreateTopic { name: name.parse().unwrap(), settings: TopicSettings::default() }
}

/// One change of each kind by the administrator, and what is told of each: the action, and the first thing that it names.
fn changes() -> Vec<(Request, &'static str, &'static str)> {
    let (topic, name) = (|| "orders".parse().unwrap(), || "payment".parse().unwrap());
    let route = || "copy".parse().unwrap();
    let (force, with_dead_letters) = (true, false);
    let settings = TopicChanges { retain_for_ms: Some(3_600_000), ..TopicChanges::default() };
    let options = SubscriptionOptions::default;
    let fewer = SubscriptionOptions { max_attempts: Some(5), ..options() };
    vec![
        (create("orders"), "create_topic", "orders"),
        (create("copies"), "create_topic", "copies"),
        (Request::SetTopic { name: topic(), settings }, "set_topic", "orders"),
        (
            Request::CreateSubscription {
                topic: topic(),
                name: name(),
                options: options(),
                from: Start::Earliest,
            },
            "create_subscription",
            "orders/payment",
        ),
        (
            Request::SetSubscription { topic: topic(), name: name(), options: fewer },
            "set_subscription",
            "orders/payment",
        ),
        (Request::PauseSubscription { topic: topic(), name: name() }, "pause_subscription", "orders/payment"),
        (
            Request::ResumeSubscription { topic: topic(), name: name() },
            "resume_subscription",
            "orders/payment",
        ),
        (
            Request::SeekSubscription {
                topic: topic(),
                name: name(),
                to: Start::Earliest,
                partitions: Vec::new(),
            },
            "seek_subscription",
            "orders/payment",
        ),
        (
            Request::CreateRoute(RouteSpec::new(route(), topic(), ["copies".parse().unwrap()])),
            "create_route",
            "copy",
        ),
        (Request::DeleteRoute { name: route(), force, with_dead_letters }, "delete_route", "copy"),
        (
            Request::PurgeTopic(PurgeTopic {
                topic: topic(),
                until: Vec::new(),
                before_ms: None,
                force: true,
            }),
            "purge_topic",
            "orders",
        ),
        (
            Request::DeleteSubscription { topic: topic(), name: name(), force, with_dead_letters },
            "delete_subscription",
            "orders/payment",
        ),
        (Request::DeleteTopic { name: topic(), force, with_dead_letters }, "delete_topic", "orders"),
        (Request::DeletePrincipal { name: CLERK.parse().unwrap() }, "delete_principal", CLERK),
    ]
}

#[tokio::test]
async fn each_change_is_told_once_with_who_made_it_and_is_there_after_a_restart() {
    let engine = Engine::start();
    engine.topic("before", TopicSettings::default()).await;
    let office = Office::open(&engine).await;
    office.clerk(&["publish orders"]).await;
    for (request, ..) in changes() {
        office.ask(request).await;
    }
    let admin = office.admin();
    let all = told(&engine, &admin).await;
    let first = |event: &Value| (event["action"].clone(), event["changed"][0]["name"].clone());
    let expected: Vec<_> = [("create_principal", "boss"), ("create_principal", CLERK)]
        .into_iter()
        .chain(changes().iter().map(|(_, action, name)| (*action, *name)))
        .map(|(action, name)| (json!(action), json!(name)))
        .collect();
    let made: Vec<_> = all.iter().filter(|event| event["action"] != "refused").map(first).collect();
    assert_eq!(made, expected, "what was changed before there were principals is not told");
    assert_eq!((&all[0]["principal"], &all[0]["proof"]), (&json!("local"), &Value::Null));
    let by_token = |event: &Value| event["proof"].as_str().is_some_and(|proof| proof.starts_with("token "));
    assert!(all[1..].iter().all(|event| event["principal"] == "boss" && by_token(event)), "{all:?}");
    let set = all.iter().find(|event| event["action"] == "set_topic").unwrap();
    assert_eq!(set["changed"][0]["after"]["settings"]["retain_for_ms"], 3_600_000);
    assert_ne!(set["changed"][0]["before"], set["changed"][0]["after"]);
    assert!(!json!(all).to_string().contains("sha256"), "nothing of a secret is told");
    let engine = engine.restart().await;
    assert_eq!(told(&engine, &admin).await, all);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_change_and_what_is_told_of_it_are_one_commit() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let commits = || engine.store.commits.lock().unwrap().len();
    // The use of a token is noted beside the call that shows it.
    let boss = || Request::ListTokens { principal: None, limit: 0, after: None };
    while !matches!(office.ask(boss()).await, Response::Tokens { tokens, .. } if tokens[0].used_ms.is_some())
    {
        tokio::task::yield_now().await;
    }
    for (request, action, _) in changes() {
        // A purge has commits of its own, and the restart of a subscription's owner notes that it has no consumer.
        if !matches!(action, "create_topic" | "set_topic" | "create_route" | "delete_route") {
            continue;
        }
        let (before, told_before) = (commits(), told(&engine, &office.admin()).await.len());
        office.ask(request).await;
        assert_eq!(told(&engine, &office.admin()).await.len(), told_before + 1, "{action}");
        assert_eq!(commits(), before + 1, "{action}");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_changes_nothing_is_not_told_and_the_topic_that_is_deleted_tells_of_it() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    office.ask(create("orders")).await;
    assert_eq!(code(office.try_ask(create("orders")).await), Some(ErrorCode::TopicExists));
    let as_it_is = Request::SetTopic { name: "orders".parse().unwrap(), settings: TopicChanges::default() };
    office.ask(as_it_is).await;
    let compact = TopicChanges { retain: Some(Retain::Compact), ..TopicChanges::default() };
    let compact = Request::SetTopic { name: TOPIC.parse().unwrap(), settings: compact };
    assert_eq!(code(office.try_ask(compact).await), Some(ErrorCode::InvalidArgument));
    let delete = Request::DeleteTopic { name: TOPIC.parse().unwrap(), force: true, with_dead_letters: false };
    assert_eq!(told(&engine, &office.admin()).await.len(), 2);
    office.ask(delete).await;
    let left = told(&engine, &office.admin()).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0]["action"], &left[0]["changed"][0]["name"]), (&json!("delete_topic"), &json!(TOPIC)));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn only_those_who_may_read_the_topic_do_and_nobody_publishes_to_it() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&["publish **", "read orders"]).await;
    let read = engine.broker.read(&clerk, Read::new(TOPIC.parse().unwrap())).await;
    assert!(read.is_err());
    assert!(engine.broker.open_publish(&office.admin(), &TOPIC.parse().unwrap()).is_err());
    let reader = office.clerk(&["read _audit"]).await;
    assert!(!told(&engine, &reader).await.is_empty());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn refusals_are_told_once_for_each_caller_and_reason_and_counted() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let clerk = office.clerk(&["publish orders"]).await;
    for _ in 0..100 {
        assert!(engine.broker.request(&clerk, create("others"), None).await.is_err());
    }
    assert!(engine.broker.authenticate(&levada_broker::Credentials::default()).is_err());
    // They are noted beside the calls.
    let admin = office.admin();
    let refused = async || {
        let all = told(&engine, &admin).await;
        all.into_iter().filter(|event| event["action"] == "refused").collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen = refused().await;
        tokio::task::yield_now().await;
    }
    let one = seen.iter().find(|event| event["principal"] == CLERK).unwrap();
    assert_eq!(one["changed"][0]["name"], "manage topic others");
    assert_eq!(one["detail"], json!({ "code": "PERMISSION_DENIED", "times": 1 }));
    let unknown = seen.iter().find(|event| event["principal"] == "unknown").unwrap();
    assert_eq!(unknown["detail"]["code"], "UNAUTHENTICATED");
    let counted = engine.metric("levada_refused_calls_total").await;
    assert_eq!((counted["denied"], counted["unauthenticated"]), (100.0, 1.0));
    assert_eq!(refused().await.len(), 2, "the others of the minute are counted alone");
    // When the engine ends, those that have followed are told.
    let engine = engine.restart().await;
    let all = told(&engine, &admin).await;
    let last: Vec<&Value> = all.iter().filter(|event| event["action"] == "refused").skip(2).collect();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!((&last[0]["principal"], &last[0]["detail"]["times"]), (&json!(CLERK), &json!(99)));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn without_principals_nothing_is_told() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let listed = engine.ask(Request::ListTopics { limit: 0, after: None }).await;
    let Response::Topics { topics, .. } = listed else { panic!("{listed:?}") };
    assert_eq!(topics.len(), 1);
    let make = Request::CreatePrincipal(CreatePrincipal {
        name: "boss".parse().unwrap(),
        permissions: vec!["admin".parse().unwrap()],
        certificates: Vec::new(),
        token: Some(NewToken::default()),
        quotas: Quotas::default(),
    });
    engine.ask(make).await;
    assert!(engine.store.commits.lock().unwrap().len() > 1);
    engine.broker.shutdown().await;
}
