//! Who may do what: each call is checked at the entry, whatever it is about.

use levada_broker::{Error, Principal};
use levada_protocol::{
    access::Action,
    error::ErrorCode,
    request::{
        DeadLetterSelection, DecideTransaction, GroupDeadLetters, ListTransactions, PurgeDeadLetters,
        PurgeTopic, Read, Redrive, Request, Response, RouteSpec, Start, Subscribe, SubscriptionOptions,
        TopicChanges, TopicSettings, Transact,
    },
};

use crate::support::Engine;

fn granted(actions: &[Action]) -> Principal {
    Principal::Granted { name: "clerk".into(), actions: actions.into() }
}

/// One request of each kind. The match below does not compile until a new kind is listed.
fn every_request() -> Vec<Request> {
    let (topic, name) = (|| "orders".parse().unwrap(), || "payment".parse().unwrap());
    let (plugin, route) = (|| "keep".parse().unwrap(), || "copy".parse().unwrap());
    let (force, with_dead_letters, limit, after) = (true, true, 0, None);
    let (from, options) = (Start::Earliest, SubscriptionOptions::default());
    let all = vec![
        Request::Info,
        Request::CreateTopic { name: topic(), settings: TopicSettings::default() },
        Request::ListTopics { limit, after: after.clone() },
        Request::DescribeTopic { name: topic() },
        Request::SetTopic { name: topic(), settings: TopicChanges::default() },
        Request::DeleteTopic { name: topic(), force, with_dead_letters },
        Request::CreateSubscription { topic: topic(), name: name(), options, from },
        Request::ListSubscriptions { topic: None, limit, after: after.clone() },
        Request::DescribeSubscription { topic: topic(), name: name() },
        Request::DeleteSubscription { topic: topic(), name: name(), force, with_dead_letters },
        Request::SetSubscription { topic: topic(), name: name(), options: SubscriptionOptions::default() },
        Request::SeekSubscription { topic: topic(), name: name(), to: from, partitions: Vec::new() },
        Request::PauseSubscription { topic: topic(), name: name() },
        Request::ResumeSubscription { topic: topic(), name: name() },
        Request::DeployPlugin { name: plugin(), size: 0, config: None },
        Request::ListPlugins { limit, after: after.clone() },
        Request::RemovePlugin { name: plugin(), version: None },
        Request::CreateRoute(RouteSpec::new(route(), topic(), ["copies".parse().unwrap()])),
        Request::ListRoutes { limit, after: after.clone() },
        Request::DeleteRoute { name: route(), force, with_dead_letters },
        Request::ResumeRoute { name: route() },
        Request::ListScheduled { topic: topic(), limit, after },
        Request::DescribeScheduled { topic: topic(), id: 1 },
        Request::CancelScheduled { topic: topic(), id: 1 },
        Request::ListDeadLetters { topic: None, limit, after: None },
        Request::GroupDeadLetters(GroupDeadLetters::new(topic())),
        Request::ListRedrives { topic: topic(), from: 0, until: None },
        Request::Redrive(Redrive {
            topic: topic(),
            to: Some(topic()),
            select: DeadLetterSelection::All,
            from: 0,
            until: None,
            force,
        }),
        Request::Redrive(Redrive {
            topic: topic(),
            to: None,
            select: DeadLetterSelection::All,
            from: 0,
            until: None,
            force,
        }),
        Request::PurgeDeadLetters(PurgeDeadLetters { topic: topic(), before_ms: None, until: None, force }),
        Request::PurgeTopic(PurgeTopic { topic: topic(), until: Vec::new(), before_ms: None, force }),
        Request::Transact(transact()),
        Request::DecideTransaction(DecideTransaction {
            group: transact().group,
            id: transact().id,
            commit: true,
        }),
        Request::ListTransactions(ListTransactions::default()),
        Request::DescribeTransaction { group: transact().group, id: transact().id },
        Request::OpenProducer { topic: topic(), name: "importer".parse().unwrap() },
    ];
    let mut seen = [false; 35];
    all.iter().for_each(|request| seen[index(request)] = true);
    assert_eq!(seen, [true; 35], "one of each");
    all
}

fn transact() -> Transact {
    let topics = vec!["orders".parse().unwrap()];
    Transact {
        group: "shop".parse().unwrap(),
        id: "1".parse().unwrap(),
        topics,
        partitions: Vec::new(),
        batches: 1,
        bytes: 0,
        prepare: None,
        acks: None,
    }
}

fn index(request: &Request) -> usize {
    match request {
        Request::Info => 0,
        Request::CreateTopic { .. } => 1,
        Request::ListTopics { .. } => 2,
        Request::DescribeTopic { .. } => 3,
        Request::SetTopic { .. } => 4,
        Request::DeleteTopic { .. } => 5,
        Request::CreateSubscription { .. } => 6,
        Request::ListSubscriptions { .. } => 7,
        Request::DescribeSubscription { .. } => 8,
        Request::DeleteSubscription { .. } => 9,
        Request::ResumeSubscription { .. } => 10,
        Request::DeployPlugin { .. } => 11,
        Request::ListPlugins { .. } => 12,
        Request::RemovePlugin { .. } => 13,
        Request::CreateRoute(_) => 14,
        Request::ListRoutes { .. } => 15,
        Request::DeleteRoute { .. } => 16,
        Request::ResumeRoute { .. } => 17,
        Request::SetSubscription { .. } => 18,
        Request::SeekSubscription { .. } => 19,
        Request::PauseSubscription { .. } => 20,
        Request::ListScheduled { .. } => 21,
        Request::DescribeScheduled { .. } => 22,
        Request::CancelScheduled { .. } => 23,
        Request::ListDeadLetters { .. } => 24,
        Request::GroupDeadLetters(_) => 25,
        Request::ListRedrives { .. } => 26,
        Request::Redrive(_) => 27,
        Request::PurgeDeadLetters(_) => 28,
        Request::Transact(_) => 29,
        Request::DecideTransaction(_) => 30,
        Request::ListTransactions(_) => 31,
        Request::DescribeTransaction { .. } => 32,
        Request::PurgeTopic(_) => 33,
        Request::OpenProducer { .. } => 34,
        Request::Unknown => panic!("it asks for nothing"),
    }
}

fn is_denied<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.code() == ErrorCode::PermissionDenied && error.has_no_side_effects())
}

#[tokio::test]
async fn who_has_no_rights_is_refused_every_call_and_changes_nothing() {
    let (engine, nobody) = (Engine::start(), granted(&[]));
    engine.topic("orders", TopicSettings::default()).await;
    for request in every_request() {
        let asked = format!("{request:?}");
        assert!(is_denied(engine.broker.request(&nobody, request, None).await), "{asked}");
    }
    let orders = || "orders".parse().unwrap();
    assert!(is_denied(engine.broker.open_publish(&nobody, &orders())));
    assert!(is_denied(engine.broker.transact(&nobody, transact(), Vec::new()).await));
    assert!(is_denied(engine.broker.join_group(&nobody, transact().group)));
    assert!(is_denied(engine.broker.read(&nobody, Read::new(orders())).await));
    let subscribe = Subscribe::new(orders(), "payment".parse().unwrap());
    let subscribe = Subscribe { options: Some(SubscriptionOptions::default()), ..subscribe };
    assert!(is_denied(engine.broker.subscribe(&nobody, subscribe).await));
    let absent = "absent".parse().unwrap();
    assert!(is_denied(engine.broker.open_publish(&nobody, &absent)), "nor is told what exists");
    let unknown = engine.broker.request(&nobody, Request::Unknown, None).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::Unsupported);
    match engine.ask(Request::ListSubscriptions { topic: None, limit: 0, after: None }).await {
        Response::Subscriptions { subscriptions, .. } => assert_eq!(subscriptions, []),
        other => panic!("{other:?}"),
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_action_allows_its_calls_and_no_others() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let orders = || "orders".parse().unwrap();
    let describe = || Request::DescribeTopic { name: orders() };
    for action in Action::ALL {
        let clerk = granted(&[action]);
        assert_eq!(!is_denied(engine.broker.open_publish(&clerk, &orders())), action == Action::Publish);
        assert_eq!(!is_denied(engine.broker.read(&clerk, Read::new(orders())).await), action == Action::Read);
        let described = engine.broker.request(&clerk, describe(), None).await;
        assert_eq!(!is_denied(described), action == Action::Browse);
    }
    // A route moves events: who may make routes and not read the source may not make this one.
    engine.topic("copies", TopicSettings::default()).await;
    let route = || RouteSpec::new("copy".parse().unwrap(), orders(), ["copies".parse().unwrap()]);
    let (manage, read, publish) = (Action::Manage, Action::Read, Action::Publish);
    for actions in [&[manage][..], &[manage, read], &[manage, publish], &[read, publish]] {
        let made = engine.broker.request(&granted(actions), Request::CreateRoute(route()), None).await;
        assert!(is_denied(made), "{actions:?}");
    }
    let clerk = granted(&[manage, read, publish]);
    assert!(engine.broker.request(&clerk, Request::CreateRoute(route()), None).await.is_ok());
    engine.broker.shutdown().await;
}
