//! Who may do what: each call is checked at the entry, whatever it is about.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use levada_broker::{Clock, Credentials, Error, Principal};
use levada_protocol::{
    access::Requires as _,
    error::ErrorCode,
    ids::{Timestamp, TokenId},
    request::{
        ChangePrincipal, CreatePrincipal, CreateToken, DeadLetterSelection, DecideTransaction,
        GroupDeadLetters, IssuedToken, ListTransactions, NewToken, PurgeDeadLetters, PurgeTopic,
        QuotaChanges, Quotas, Read, Redrive, Request, Response, RouteSpec, SetPush, Start, Subscribe,
        SubscriptionOptions, TokenState, TopicChanges, TopicSettings, Transact,
    },
    token::Token,
};

use crate::support::Engine;

/// Everybody's name in these tests.
pub(crate) const CLERK: &str = "clerk";

/// An administrator and what it may ask.
pub(crate) struct Office<'a> {
    engine: &'a Engine,
    admin: Principal,
}

impl<'a> Office<'a> {
    /// Makes the first principal, as a local caller.
    pub(crate) async fn open(engine: &'a Engine) -> Self {
        let issued = create(engine, &Principal::Local, "boss", &["admin"]).await.unwrap();
        let admin = come_in(engine, &issued.token).unwrap();
        Self { engine, admin }
    }

    pub(crate) fn admin(&self) -> Principal {
        self.admin.clone()
    }

    pub(crate) async fn ask(&self, request: Request) -> Response {
        self.try_ask(request).await.unwrap()
    }

    pub(crate) async fn try_ask(&self, request: Request) -> Result<Response, Error> {
        self.engine.broker.request(&self.admin, request, None).await
    }

    /// A principal who may do this, and nothing else; in place of the one before.
    pub(crate) async fn clerk(&self, permissions: &[&str]) -> Principal {
        come_in(self.engine, &self.clerk_token(permissions).await.token).unwrap()
    }

    pub(crate) async fn clerk_token(&self, permissions: &[&str]) -> IssuedToken {
        let gone = self.try_ask(Request::DeletePrincipal { name: CLERK.parse().unwrap() }).await;
        assert!(gone.is_ok() || gone.is_err_and(|error| error.code() == ErrorCode::PrincipalNotFound));
        create(self.engine, &self.admin, CLERK, permissions).await.unwrap()
    }

    async fn change(&self, grant: &[&str], revoke: &[&str]) {
        let lines = |lines: &[&str]| lines.iter().map(|line| line.parse().unwrap()).collect();
        let (add_certificates, remove_certificates) = (Vec::new(), Vec::new());
        self.ask(Request::ChangePrincipal(ChangePrincipal {
            name: CLERK.parse().unwrap(),
            grant: lines(grant),
            revoke: lines(revoke),
            add_certificates,
            remove_certificates,
            quotas: QuotaChanges::default(),
        }))
        .await;
    }
}

async fn create(
    engine: &Engine,
    by: &Principal,
    name: &str,
    permissions: &[&str],
) -> Result<IssuedToken, Error> {
    let request = Request::CreatePrincipal(CreatePrincipal {
        name: name.parse().unwrap(),
        permissions: permissions.iter().map(|line| line.parse().unwrap()).collect(),
        certificates: Vec::new(),
        token: Some(NewToken::default()),
        quotas: Quotas::default(),
    });
    match engine.broker.request(by, request, None).await? {
        Response::Principal { issued: Some(issued), .. } => Ok(issued),
        other => panic!("{other:?}"),
    }
}

/// Shows a token.
fn come_in(engine: &Engine, token: &str) -> Result<Principal, Error> {
    let token = Some(Token::parse(token).unwrap());
    engine.broker.authenticate(&Credentials { token, ..Credentials::default() })
}

/// Shows a certificate with these names.
fn with_certificate(engine: &Engine, names: &[&str], not_after: u64) -> Result<Principal, Error> {
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let certificate = Some((names, Timestamp(not_after)));
    engine.broker.authenticate(&Credentials { certificate, ..Credentials::default() })
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
        Request::SetPush(SetPush::new(topic(), name(), None)),
        Request::RemovePush { topic: topic(), name: name() },
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
    let mut all = all;
    all.extend(about_principals());
    let mut seen = [false; 45];
    all.iter().for_each(|request| seen[index(request)] = true);
    assert_eq!(seen, [true; 45], "one of each");
    all
}

fn about_principals() -> [Request; 9] {
    let (name, limit) = (|| "shop".parse().unwrap(), 0);
    [
        Request::CreatePrincipal(CreatePrincipal {
            name: name(),
            permissions: Vec::new(),
            certificates: Vec::new(),
            token: None,
            quotas: Quotas::default(),
        }),
        Request::ChangePrincipal(ChangePrincipal {
            name: name(),
            grant: Vec::new(),
            revoke: Vec::new(),
            add_certificates: Vec::new(),
            remove_certificates: Vec::new(),
            quotas: QuotaChanges::default(),
        }),
        Request::DescribePrincipal { name: Some(name()) },
        Request::DescribePrincipal { name: None },
        Request::ListPrincipals { limit, after: None },
        Request::CreateToken(CreateToken { principal: name(), token: NewToken::default() }),
        Request::ListTokens { principal: Some(name()), limit, after: None },
        Request::RevokeToken { id: TokenId(7) },
        Request::DeletePrincipal { name: name() },
    ]
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
        Request::CreatePrincipal(_) => 35,
        Request::ChangePrincipal(_) => 36,
        Request::DeletePrincipal { .. } => 37,
        Request::ListPrincipals { .. } => 38,
        Request::DescribePrincipal { .. } => 39,
        Request::CreateToken(_) => 40,
        Request::ListTokens { .. } => 41,
        Request::RevokeToken { .. } => 42,
        Request::SetPush(_) => 43,
        Request::RemovePush { .. } => 44,
        Request::Unknown => panic!("it asks for nothing"),
    }
}

/// True if a call was refused because its caller may not do it, or as if there were no such thing.
fn is_denied<T>(result: &Result<T, Error>) -> bool {
    let Err(error) = result else { return false };
    let absent = [ErrorCode::TopicNotFound, ErrorCode::SubscriptionNotFound, ErrorCode::RouteNotFound];
    error.has_no_side_effects()
        && (error.code() == ErrorCode::PermissionDenied || absent.contains(&error.code()))
}

pub(crate) fn code<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code())
}

#[tokio::test]
async fn who_has_no_rights_is_refused_every_call_and_changes_nothing() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let office = Office::open(&engine).await;
    let nobody = office.clerk(&[]).await;
    for request in every_request() {
        let asked = format!("{request:?}");
        assert!(is_denied(&engine.broker.request(&nobody, request, None).await), "{asked}");
    }
    let orders = || "orders".parse().unwrap();
    assert!(is_denied(&engine.broker.open_publish(&nobody, &orders())));
    assert!(is_denied(&engine.broker.transact(&nobody, transact(), Vec::new()).await));
    assert!(is_denied(&engine.broker.join_group(&nobody, transact().group)));
    assert!(is_denied(&engine.broker.read(&nobody, Read::new(orders())).await));
    let subscribe = Subscribe::new(orders(), "payment".parse().unwrap());
    let subscribe = Subscribe { options: Some(SubscriptionOptions::default()), ..subscribe };
    assert!(is_denied(&engine.broker.subscribe(&nobody, subscribe).await));
    let unknown = engine.broker.request(&nobody, Request::Unknown, None).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::Unsupported);
    match office.ask(Request::ListSubscriptions { topic: None, limit: 0, after: None }).await {
        Response::Subscriptions { subscriptions, .. } => assert_eq!(subscriptions, []),
        other => panic!("{other:?}"),
    }
    engine.broker.shutdown().await;
}

/// Verb by verb: the calls on topic `orders`, its subscription `payment` and what goes with them that it allows, by the names of
/// their kinds. A call that needs several permissions is allowed by none alone.
const ALLOWED: [(&str, &[&str]); 8] = [
    (
        "publish **",
        &["info", "own", "lists", "topic", "cancel", "decide", "transactions", "producer", "transact"],
    ),
    ("subscribe **", &["info", "own", "lists", "topic", "subscription"]),
    ("read **", &["info", "own", "lists", "topic", "scheduled", "dead"]),
    ("browse **", &["info", "own", "lists", "topic", "subscription", "transactions"]),
    ("manage **", &["info", "own", "lists", "topic", "subscription", "manage"]),
    ("redrive **", &["info", "own", "lists", "topic", "subscription", "redrive"]),
    ("deploy **", &["info", "own", "lists", "deploy"]),
    (
        "admin",
        &[
            "info",
            "own",
            "lists",
            "topic",
            "subscription",
            "cancel",
            "decide",
            "transactions",
            "producer",
            "scheduled",
            "dead",
            "manage",
            "redrive",
            "deploy",
            "route",
            "push",
            "move",
            "transact",
            "principals",
        ],
    ),
];

/// The group of calls that are allowed by the same verbs.
fn kind(request: &Request) -> &'static str {
    match request {
        Request::Info => "info",
        Request::DescribePrincipal { name: None } => "own",
        Request::ListTopics { .. }
        | Request::ListSubscriptions { .. }
        | Request::ListRoutes { .. }
        | Request::ListPlugins { .. }
        | Request::ListDeadLetters { .. } => "lists",
        Request::DescribeTopic { .. } => "topic",
        Request::DescribeSubscription { .. } => "subscription",
        Request::CreateTopic { .. }
        | Request::SetTopic { .. }
        | Request::DeleteTopic { .. }
        | Request::PurgeTopic(_)
        | Request::CreateSubscription { .. }
        | Request::DeleteSubscription { .. }
        | Request::SetSubscription { .. }
        | Request::SeekSubscription { .. }
        | Request::PauseSubscription { .. }
        | Request::ResumeSubscription { .. }
        | Request::RemovePush { .. }
        | Request::DeleteRoute { .. }
        | Request::ResumeRoute { .. } => "manage",
        Request::DeployPlugin { .. } | Request::RemovePlugin { .. } => "deploy",
        Request::SetPush(_) => "push",
        Request::CreateRoute(_) => "route",
        Request::ListScheduled { .. } | Request::DescribeScheduled { .. } => "scheduled",
        Request::CancelScheduled { .. } => "cancel",
        Request::GroupDeadLetters(_) | Request::ListRedrives { .. } => "dead",
        Request::Redrive(Redrive { to: Some(_), .. }) => "move",
        Request::Redrive(_) | Request::PurgeDeadLetters(_) => "redrive",
        Request::Transact(_) => "transact",
        Request::DecideTransaction(_) => "decide",
        Request::ListTransactions(_) => "lists",
        Request::DescribeTransaction { .. } => "transactions",
        Request::OpenProducer { .. } => "producer",
        Request::CreatePrincipal(_)
        | Request::ChangePrincipal(_)
        | Request::DeletePrincipal { .. }
        | Request::ListPrincipals { .. }
        | Request::DescribePrincipal { name: Some(_) }
        | Request::CreateToken(_)
        | Request::ListTokens { .. }
        | Request::RevokeToken { .. } => "principals",
        Request::Unknown => panic!("it asks for nothing"),
    }
}

#[tokio::test]
async fn a_verb_allows_its_calls_and_no_others() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    for (line, allowed) in ALLOWED {
        let clerk = office.clerk(&[line]).await;
        for request in every_request() {
            let is_allowed = engine.broker.check(&clerk, &request.required()).is_ok();
            assert_eq!(is_allowed, allowed.contains(&kind(&request)), "{line}: {request:?}");
        }
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn streams_are_allowed_by_their_verb_and_pattern_alone() {
    let engine = Engine::start();
    for topic in ["orders", "shop.eu"] {
        engine.topic(topic, TopicSettings::default()).await;
    }
    let office = Office::open(&engine).await;
    // Permission, topic, may publish, may read, may subscribe as payment.
    for (line, topic, publish, read, subscribe) in [
        ("publish orders", "orders", true, false, false),
        ("publish orders", "shop.eu", false, false, false),
        ("publish shop.*", "shop.eu", true, false, false),
        ("read shop.**", "shop.eu", false, true, false),
        ("read *", "shop.eu", false, false, false),
        ("subscribe orders", "orders", false, false, true),
        ("subscribe orders/payment", "orders", false, false, true),
        ("subscribe orders/stock", "orders", false, false, false),
        ("subscribe */pay*", "orders", false, false, true),
        ("manage **", "orders", false, false, false),
        ("admin", "shop.eu", true, true, true),
    ] {
        let clerk = office.clerk(&[line]).await;
        let topic = || topic.parse().unwrap();
        assert_eq!(engine.broker.open_publish(&clerk, &topic()).is_ok(), publish, "{line}");
        assert_eq!(engine.broker.read(&clerk, Read::new(topic())).await.is_ok(), read, "{line}");
        let wanted = Subscribe::new(topic(), "payment".parse().unwrap());
        let wanted = Subscribe { options: Some(SubscriptionOptions::default()), ..wanted };
        assert_eq!(engine.broker.subscribe(&clerk, wanted).await.is_ok(), subscribe, "{line}");
    }
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn who_makes_a_route_may_read_its_source_and_publish_to_its_target() {
    let engine = Engine::start();
    for topic in ["orders", "copies"] {
        engine.topic(topic, TopicSettings::default()).await;
    }
    let office = Office::open(&engine).await;
    let route =
        || RouteSpec::new("copy".parse().unwrap(), "orders".parse().unwrap(), ["copies".parse().unwrap()]);
    let (manage, read, publish) = ("manage route:copy", "read orders", "publish copies");
    for lines in [&[manage][..], &[manage, read], &[manage, publish], &[read, publish]] {
        let clerk = office.clerk(lines).await;
        let made = engine.broker.request(&clerk, Request::CreateRoute(route()), None).await;
        assert!(is_denied(&made), "{lines:?}");
    }
    let clerk = office.clerk(&[manage, read, publish]).await;
    assert!(engine.broker.request(&clerk, Request::CreateRoute(route()), None).await.is_ok());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn what_one_may_not_do_looks_absent_unless_one_may_browse_it() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    engine.leave(engine.subscribe(SubscriptionOptions::default()).await).await;
    let office = Office::open(&engine).await;
    let said = async |clerk: &Principal, topic: &str| {
        let topic = || topic.parse().unwrap();
        let described = engine.broker.request(clerk, Request::DescribeTopic { name: topic() }, None).await;
        let read = engine.broker.read(clerk, Read::new(topic())).await;
        let wanted = Subscribe::new(topic(), "payment".parse().unwrap());
        let subscribed = engine.broker.subscribe(clerk, wanted).await;
        let published = engine.broker.open_publish(clerk, &topic());
        [described.err(), read.err(), subscribed.err(), published.err()]
            .map(|error| error.unwrap().to_string().replace(&topic().to_string(), "T"))
    };
    let stranger = office.clerk(&["publish others"]).await;
    assert_eq!(said(&stranger, "orders").await, said(&stranger, "absent").await);
    let browser = office.clerk(&["browse orders"]).await;
    let published = engine.broker.open_publish(&browser, &"orders".parse().unwrap()).unwrap_err();
    assert_eq!(published.code(), ErrorCode::PermissionDenied);
    assert!(published.to_string().contains("clerk may not publish topic orders"), "{published}");
    // One subscription may be known, and another not.
    let consumer = office.clerk(&["subscribe orders/stock"]).await;
    let wanted = |name: &str| Subscribe::new("orders".parse().unwrap(), name.parse().unwrap());
    let other = engine.broker.subscribe(&consumer, wanted("payment")).await.unwrap_err();
    let absent = engine.broker.subscribe(&consumer, wanted("absent")).await.unwrap_err();
    assert_eq!(other.code(), ErrorCode::SubscriptionNotFound);
    assert_eq!(other.to_string().replace("payment", "absent"), absent.to_string());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_first_principal_is_an_administrator_with_a_token_and_shuts_local_callers_out() {
    let engine = Engine::start();
    let local = || engine.broker.request(&Principal::Local, Request::Info, None);
    assert!(local().await.is_ok() && !engine.broker.has_principals());
    for (permissions, token) in [(&["publish a"][..], true), (&["admin"][..], false)] {
        let request = Request::CreatePrincipal(CreatePrincipal {
            name: "boss".parse().unwrap(),
            permissions: permissions.iter().map(|line| line.parse().unwrap()).collect(),
            certificates: vec!["dns:boss".parse().unwrap()],
            token: token.then(NewToken::default),
            quotas: Quotas::default(),
        });
        let refused = engine.broker.request(&Principal::Local, request, None).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument);
        assert!(refused.to_string().contains("expected the permission admin and a token"), "{refused}");
    }
    let office = Office::open(&engine).await;
    assert_eq!(code(local().await), Some(ErrorCode::Unauthenticated));
    let nothing = engine.broker.authenticate(&Credentials::default());
    assert_eq!(code(nothing), Some(ErrorCode::Unauthenticated));
    assert!(office.try_ask(Request::Info).await.is_ok());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_last_administrator_cannot_go_and_one_can_be_made_at_a_start() {
    let engine = Engine::start();
    let office = Office::open(&engine).await;
    let boss = || "boss".parse().unwrap();
    let demote = |name: &str| {
        Request::ChangePrincipal(ChangePrincipal {
            name: name.parse().unwrap(),
            grant: Vec::new(),
            revoke: vec!["admin".parse().unwrap()],
            add_certificates: Vec::new(),
            remove_certificates: Vec::new(),
            quotas: QuotaChanges::default(),
        })
    };
    let tokens = match office.ask(Request::ListTokens { principal: None, limit: 0, after: None }).await {
        Response::Tokens { tokens, .. } => tokens,
        other => panic!("{other:?}"),
    };
    let last = Request::RevokeToken { id: tokens[0].id };
    for request in [Request::DeletePrincipal { name: boss() }, demote("boss"), last] {
        assert_eq!(
            code(office.try_ask(request.clone()).await),
            Some(ErrorCode::LastAdministrator),
            "{request:?}"
        );
    }
    // Whoever owns the data directory can make another, also under a name that is there.
    office.clerk(&["publish orders"]).await;
    let token = engine.broker.create_administrator(CLERK.parse().unwrap()).await.unwrap();
    let clerk = come_in(&engine, &token.reveal()).unwrap();
    assert!(engine.broker.request(&clerk, Request::DeletePrincipal { name: boss() }, None).await.is_ok());
    assert_eq!(code(office.try_ask(Request::Info).await), Some(ErrorCode::Unauthenticated));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn unknown_expired_and_revoked_tokens_are_refused_alike() {
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let engine =
        Engine::with(|config| config.clock = Clock::of(move || Timestamp(clock.load(Ordering::Relaxed))));
    let office = Office::open(&engine).await;
    let issued = office.clerk_token(&["publish orders"]).await;
    let clerk = come_in(&engine, &issued.token).unwrap();
    let said = |token: &str| come_in(&engine, token).unwrap_err().to_string();
    let unknown = said(&Token::new(TokenId(1), [1; 32]).reveal());
    let wrong_secret = Token::new(Token::parse(&issued.token).unwrap().id(), [1; 32]).reveal();
    assert_eq!(said(&wrong_secret), unknown);
    office.ask(Request::RevokeToken { id: issued.info.id }).await;
    assert_eq!(said(&issued.token), unknown);
    let check = |principal: &Principal| code(engine.broker.check(principal, &[]));
    assert_eq!(check(&clerk), Some(ErrorCode::Unauthenticated), "nor does what is open go on");
    let again = office.ask(Request::RevokeToken { id: issued.info.id }).await;
    assert!(matches!(&again, Response::Token(token) if token.state == TokenState::Revoked), "{again:?}");

    let new = NewToken { expires_in_ms: Some(500), ..NewToken::default() };
    let request = Request::CreateToken(CreateToken { principal: CLERK.parse().unwrap(), token: new });
    let Response::IssuedToken(short) = office.ask(request).await else { panic!("no token") };
    let clerk = come_in(&engine, &short.token).unwrap();
    assert_eq!((check(&clerk), engine.broker.proof_ends_in_ms(&clerk)), (None, Some(500)));
    now.store(1_500, Ordering::Relaxed);
    assert_eq!(check(&clerk), Some(ErrorCode::Unauthenticated));
    assert_eq!(said(&short.token), unknown);
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_deletion_takes_nothing_along_that_its_caller_may_not_delete() {
    let engine = Engine::start();
    for topic in ["orders", "copies"] {
        engine.topic(topic, TopicSettings::default()).await;
    }
    let route =
        RouteSpec::new("copy".parse().unwrap(), "orders".parse().unwrap(), ["copies".parse().unwrap()]);
    engine.ask(Request::CreateRoute(route)).await;
    let office = Office::open(&engine).await;
    let delete =
        || Request::DeleteTopic { name: "orders".parse().unwrap(), force: true, with_dead_letters: true };
    let clerk = office.clerk(&["manage orders"]).await;
    let refused = engine.broker.request(&clerk, delete(), None).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PermissionDenied);
    assert!(refused.to_string().contains("may not manage route copy"), "{refused}");
    let clerk = office.clerk(&["manage orders", "manage route:*"]).await;
    assert!(engine.broker.request(&clerk, delete(), None).await.is_ok());
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_certificate_is_known_by_its_exact_names_until_it_expires() {
    let engine = Engine::with(|config| config.clock = Clock::of(|| Timestamp(1_000)));
    let office = Office::open(&engine).await;
    office.clerk(&["publish orders"]).await;
    let names = |add: &[&str], remove: &[&str]| {
        let parsed = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        Request::ChangePrincipal(ChangePrincipal {
            name: CLERK.parse().unwrap(),
            grant: Vec::new(),
            revoke: Vec::new(),
            add_certificates: parsed(add),
            remove_certificates: parsed(remove),
            quotas: QuotaChanges::default(),
        })
    };
    office.ask(names(&["dns:clerk.shop", "uri:spiffe://shop/clerk"], &[])).await;
    for shown in [&["dns:CLERK.shop"][..], &["uri:spiffe://shop/other", "uri:spiffe://shop/clerk"]] {
        assert_eq!(with_certificate(&engine, shown, 2_000).unwrap().as_str(), CLERK, "{shown:?}");
    }
    for (shown, not_after) in
        [("dns:clerk.shop", 1_000), ("dns:other.shop", 2_000), ("uri:spiffe://shop/CLERK", 2_000)]
    {
        assert_eq!(
            code(with_certificate(&engine, &[shown], not_after)),
            Some(ErrorCode::Unauthenticated),
            "{shown}"
        );
    }
    let clerk = with_certificate(&engine, &["dns:clerk.shop"], 2_000).unwrap();
    office.ask(names(&[], &["dns:clerk.shop"])).await;
    assert_eq!(code(engine.broker.check(&clerk, &[])), Some(ErrorCode::Unauthenticated));
    let taken = create(&engine, &office.admin, "other", &[]).await;
    assert!(taken.is_ok());
    let request = Request::CreatePrincipal(CreatePrincipal {
        name: "third".parse().unwrap(),
        permissions: Vec::new(),
        certificates: vec!["uri:spiffe://shop/clerk".parse().unwrap()],
        token: None,
        quotas: Quotas::default(),
    });
    let taken = office.try_ask(request).await.unwrap_err();
    assert_eq!(taken.code(), ErrorCode::PrincipalExists);
    assert!(taken.to_string().contains("of principal clerk"), "{taken}");
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn a_change_is_in_force_for_the_next_call_and_all_is_there_after_a_restart() {
    let engine = Engine::start();
    engine.topic("orders", TopicSettings::default()).await;
    let office = Office::open(&engine).await;
    let issued = office.clerk_token(&[]).await;
    let clerk = come_in(&engine, &issued.token).unwrap();
    let may = |engine: &Engine, clerk: &Principal| {
        engine.broker.open_publish(clerk, &"orders".parse().unwrap()).is_ok()
    };
    let mut changes = engine.broker.follow_identities();
    assert!(!may(&engine, &clerk));
    office.change(&["publish orders", "read orders"], &[]).await;
    assert!(changes.next().await && may(&engine, &clerk));
    office.change(&[], &["read orders", "manage **"]).await;
    assert!(may(&engine, &clerk));
    let admin = office.admin.clone();
    let engine = engine.restart().await;
    assert!(may(&engine, &come_in(&engine, &issued.token).unwrap()));
    let name = Some(CLERK.parse().unwrap());
    let described = engine.broker.request(&admin, Request::DescribePrincipal { name }, None).await;
    let Ok(Response::Principal { principal, issued: None }) = described else { panic!("{described:?}") };
    assert_eq!(principal.permissions, ["publish orders".parse().unwrap()]);
    assert_eq!((principal.tokens, principal.created_by.as_str()), (1, "boss"));
    engine.broker.shutdown().await;
}

#[tokio::test]
async fn the_hour_of_a_tokens_last_use_is_shown() {
    const HOUR: u64 = 3_600_000;
    let engine = Engine::with(|config| config.clock = Clock::of(|| Timestamp(5 * HOUR + 7)));
    let office = Office::open(&engine).await;
    let token = office.clerk_token(&[]).await;
    assert_eq!(token.info.used_ms, None);
    come_in(&engine, &token.token).unwrap();
    let used = async || {
        let principal = Some(CLERK.parse().unwrap());
        match office.ask(Request::ListTokens { principal, limit: 0, after: None }).await {
            Response::Tokens { tokens, .. } => tokens[0].used_ms,
            other => panic!("{other:?}"),
        }
    };
    // It is noted beside the call that uses the token.
    while used().await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(used().await, Some(5 * HOUR));
    engine.broker.shutdown().await;
}
