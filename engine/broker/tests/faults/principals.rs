//! Principals: their limits, and what each of them sees.

use levada_broker::Principal;
use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    permission::Permission,
    request::{
        CreatePrincipal, CreateToken, NewToken, Quotas, Request, Response, Start, SubscriptionOptions,
        TopicSettings,
    },
};
use proptest::prelude::*;

use crate::{
    access::{CLERK, Office, code},
    support::Engine,
};

#[tokio::test]
async fn limits_of_principals_hold_from_both_sides() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let principal = |permissions: usize, certificates: usize| {
        Request::CreatePrincipal(CreatePrincipal {
            name: format!("p{permissions}-{certificates}").parse().unwrap(),
            permissions: (0..permissions).map(|at| format!("read t{at}").parse().unwrap()).collect(),
            certificates: (0..certificates)
                .map(|at| format!("dns:c{at}.p{permissions}").parse().unwrap())
                .collect(),
            token: None,
            quotas: Quotas::default(),
        })
    };
    for (permissions, certificates, fits) in [(256, 0, true), (257, 0, false), (0, 16, true), (1, 17, false)]
    {
        let made = office.try_ask(principal(permissions, certificates)).await;
        assert_eq!(made.is_ok(), fits, "{permissions} {certificates}: {made:?}");
    }
    office.clerk(&[]).await;
    let token = |description: usize, expires_in_ms: u64| {
        let token = NewToken { description: "x".repeat(description), expires_in_ms: Some(expires_in_ms) };
        Request::CreateToken(CreateToken { principal: CLERK.parse().unwrap(), token })
    };
    const TEN_YEARS: u64 = 3_650 * 24 * 3_600_000;
    for (description, expires, fits) in [(256, TEN_YEARS, true), (257, 1, false), (0, TEN_YEARS + 1, false)] {
        let made = office.try_ask(token(description, expires)).await;
        assert_eq!(made.is_ok(), fits, "{description} {expires}: {made:?}");
    }
    // Two there are by now; 64 may be.
    for _ in 2..64 {
        office.ask(token(0, 0)).await;
    }
    assert_eq!(code(office.try_ask(token(0, 0)).await), Some(ErrorCode::LimitExceeded));
    engine.broker.shutdown().await;
}

/// A world of a few topics and subscriptions, and what one principal sees of it.
async fn seen(engine: &Engine, clerk: &Principal) -> (Vec<String>, Vec<String>) {
    let ask = async |request| engine.broker.request(clerk, request, None).await;
    let topics = match ask(Request::ListTopics { limit: 0, after: None }).await {
        Ok(Response::Topics { topics, .. }) => {
            topics.into_iter().map(|topic| topic.name.to_string()).collect()
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => Vec::new(),
    };
    let listed = ask(Request::ListSubscriptions { topic: None, limit: 0, after: None }).await;
    let subscriptions = match listed {
        Ok(Response::Subscriptions { subscriptions, .. }) => {
            subscriptions.into_iter().map(|info| format!("{}/{}", info.topic, info.name)).collect()
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => Vec::new(),
    };
    (topics, subscriptions)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn lists_show_exactly_what_describe_answers(
        lines in proptest::collection::vec(
            (
                prop::sample::select(vec!["publish", "subscribe", "read", "browse", "manage", "redrive"]),
                prop::sample::select(vec!["a", "a.*", "a.**", "*", "**", "a.b", "b", "a.b/s", "*/s", "a.*/*", "dlq.**"]),
            ),
            0..3,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::start();
            let (topics, names) = (["a", "a.b", "a.b.c", "b"], ["s", "t"]);
            for topic in topics {
                engine.topic(topic, TopicSettings::default()).await;
                for name in names {
                    let (topic, name) = (topic.parse().unwrap(), name.parse().unwrap());
                    let (options, from) = (SubscriptionOptions::default(), Start::Earliest);
                    engine.ask(Request::CreateSubscription { topic, name, options, from }).await;
                }
            }
            let office = Office::open(&engine).await;
            let lines: Vec<String> = lines.iter().map(|(verb, pattern)| format!("{verb} {pattern}")).collect();
            let lines: Vec<&str> =
                lines.iter().map(String::as_str).filter(|line| line.parse::<Permission>().is_ok()).collect();
            let clerk = office.clerk(&lines).await;
            let describes = async |scope: &Scope| {
                let request = match scope.clone() {
                    Scope::Topic(name) => Request::DescribeTopic { name },
                    Scope::Subscription(topic, name) => Request::DescribeSubscription { topic, name },
                    other => panic!("{other:?}"),
                };
                engine.broker.request(&clerk, request, None).await.is_ok()
            };
            let (mut described_topics, mut described) = (Vec::new(), Vec::new());
            for topic in topics {
                if describes(&Scope::Topic(topic.parse().unwrap())).await {
                    described_topics.push(topic.to_owned());
                }
                for name in names {
                    if describes(&Scope::Subscription(topic.parse().unwrap(), name.parse().unwrap())).await {
                        described.push(format!("{topic}/{name}"));
                    }
                }
            }
            assert_eq!(seen(&engine, &clerk).await, (described_topics, described), "{lines:?}");
            engine.broker.shutdown().await;
        });
    }
}
