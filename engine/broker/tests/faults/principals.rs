//! Principals: their limits, and what each of them sees.

use levada_broker::Principal;
use levada_protocol::{
    access::Scope,
    error::ErrorCode,
    permission::Permission,
    request::{
        ChangePrincipal, CreatePrincipal, CreateToken, NewToken, Quotas, Request, Response, Start,
        SubscriptionOptions, TopicSettings,
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

#[tokio::test]
async fn a_role_gives_its_own_lines_at_once_and_is_not_deleted_while_somebody_has_it() {
    let engine = Engine::start();
    for topic in ["orders", "copies"] {
        engine.topic(topic, TopicSettings::default()).await;
    }
    let office = Office::open(&engine).await;
    let change = |name: &str, grant: &[&str], revoke: &[&str]| {
        let lines = |lines: &[&str]| lines.iter().map(|line| line.parse().unwrap()).collect();
        let (grant, revoke) = (lines(grant), lines(revoke));
        Request::ChangePrincipal(ChangePrincipal {
            grant,
            revoke,
            ..ChangePrincipal::new(name.parse().unwrap())
        })
    };
    let create = |name: &str| {
        Request::CreatePrincipal(CreatePrincipal {
            name: name.parse().unwrap(),
            permissions: Vec::new(),
            certificates: Vec::new(),
            quotas: Quotas::default(),
            token: None,
        })
    };
    office.ask(create("team")).await;
    office.ask(create("outer")).await;
    let clerk = office.clerk(&["role team"]).await;
    let describe = async |topic: &str| {
        let name = topic.parse().unwrap();
        engine.broker.request(&clerk, Request::DescribeTopic { name }, None).await.is_ok()
    };
    assert!(!describe("orders").await);
    office.ask(change("team", &["browse orders"], &[])).await;
    assert!(describe("orders").await && !describe("copies").await);
    // The roles of a role do not count.
    office.ask(change("outer", &["browse copies"], &[])).await;
    office.ask(change("team", &["role outer"], &[])).await;
    assert!(!describe("copies").await);
    for (request, refused) in [
        (change("team", &["role team"], &[]), ErrorCode::InvalidArgument),
        (change("team", &["role absent"], &[]), ErrorCode::PrincipalNotFound),
        (Request::DeletePrincipal { name: "team".parse().unwrap() }, ErrorCode::PrincipalInUse),
    ] {
        assert_eq!(code(office.try_ask(request).await), Some(refused));
    }
    office.ask(change("team", &[], &["browse orders"])).await;
    assert!(!describe("orders").await, "what the role loses its members lose");
    office.ask(change(CLERK, &[], &["role team"])).await;
    office.ask(Request::DeletePrincipal { name: "team".parse().unwrap() }).await;
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn an_administrator_by_a_role_is_one_and_the_last_keeps_it() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let create = Request::CreatePrincipal(CreatePrincipal {
        name: "admins".parse().unwrap(),
        permissions: vec![Permission::admin()],
        certificates: Vec::new(),
        quotas: Quotas::default(),
        token: None,
    });
    office.ask(create).await;
    let clerk = office.clerk(&["role admins"]).await;
    let ask = async |request| code(engine.broker.request(&clerk, request, None).await);
    assert_eq!(ask(Request::DeletePrincipal { name: "boss".parse().unwrap() }).await, None);
    let revoke = vec![Permission::admin()];
    let demote = ChangePrincipal { revoke, ..ChangePrincipal::new("admins".parse().unwrap()) };
    assert_eq!(ask(Request::ChangePrincipal(demote)).await, Some(ErrorCode::LastAdministrator));
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

#[tokio::test]
async fn it_is_known_when_the_last_administrator_s_proof_ends() {
    let engine = Engine::start();
    let left = async || engine.metric("levada_administrators_end_seconds").await.get("").copied();
    assert_eq!(left().await, None, "without principals whoever is on the machine may do everything");
    let office = Office::open(&engine).await;
    let day = 24.0 * 3_600.0;
    let until = left().await.unwrap();
    assert!((89.0 * day..=90.0 * day).contains(&until), "{until}");
    let token = NewToken { expires_in_ms: Some(0), ..NewToken::default() };
    office.ask(Request::CreateToken(CreateToken { principal: "boss".parse().unwrap(), token })).await;
    assert_eq!(left().await, None, "one has no end");
    office.clerk(&["read orders"]).await;
    assert_eq!(left().await, None, "another's token is no administrator's");
    engine.broker.shutdown().await;
}
