//! One message of every kind, with every field away from its default where that shows something.

use std::{fmt::Debug, str::FromStr};

use levada_protocol::{
    error::{ErrorCode, Refusal},
    ids::{ProducerId, SubscriptionName, TokenId, TopicName},
    publish::Durability,
    request::{
        AckedDelivery, Alarm, BacklogInfo, ChangePrincipal, CheckBack, CreatePrincipal, CreateToken,
        DeadLetterGroup, DeadLetterGroups, DeadLetterSelection, DeadLetterTopic, DecideTransaction,
        DedupInfo, Deleted, EngineInfo, GroupDeadLetters, Hello, HelloAnswer, Holding, Interface, IssuedPush,
        IssuedToken, Limits, ListTransactions, LostEvents, NewToken, Notice, OnError, OnFull, Open, Opened,
        OpenedProducer, Order, PartitionInfo, PauseReason, PluginInfo, Position, Prepare, PrincipalInfo,
        PurgeDeadLetters, PurgeTopic, Purged, PurgedTopic, PushFailure, PushInfo, PushState, QuotaChanges,
        Quotas, Read, Redrive, RedriveInfo, RedriveOutcome, Redriven, Request, RequestEnvelope, Response,
        ResponseEnvelope, Retain, Retry, RouteInfo, RouteSpec, RunState, Search, SearchKey, SetPush,
        StageSpec, Start, Stretch, Subscribe, Subscribed, SubscriptionInfo, SubscriptionOptions, TokenInfo,
        TokenState, TopicChanges, TopicInfo, TopicSettings, Transact, TransactionAcks, TransactionBatch,
        TransactionDuplicate, TransactionInfo, TransactionState, WaitingFor,
    },
    schedule::ScheduledInfo,
    token::Token,
    trace::TraceContext,
};

/// A name that obeys its grammar.
pub(crate) fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// The caller's span in the examples.
pub(crate) fn trace() -> TraceContext {
    name("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

/// Every kind of open frame but the request.
pub(crate) fn opens() -> Vec<Open> {
    vec![
        Open::Hello(Hello {
            protocol_min: 1,
            protocol_max: 3,
            client: "test/1".into(),
            token: Some("secret".into()),
            features: vec!["one".into()],
        }),
        Open::Publish { topic: name("orders"), trace: Some(trace()) },
        Open::Subscribe(Subscribe {
            topic: name("orders"),
            subscription: name("payment"),
            consumer: "a".into(),
            options: Some(options()),
            from: Start::Time(1_700_000_000_000),
            trace: None,
        }),
        Open::Read(Read {
            topic: name("orders"),
            partitions: vec![0, 3],
            from: Start::Offset(u64::MAX),
            follow: true,
            positions: vec![Position { partition: 3, offset: 7 }],
            search: Some(Search {
                condition: Some("amount > 100".into()),
                key: Some(SearchKey(b"order-1\xff"[..].into())),
                scan_bytes_max: u64::MAX,
                events_max: 10,
            }),
            trace: Some(trace()),
        }),
        Open::CheckBacks { group: name("shop"), trace: Some(trace()) },
    ]
}

/// Every kind of answer but the response.
pub(crate) fn openeds() -> Vec<Opened> {
    vec![
        Opened::Hello(HelloAnswer {
            protocol: 1,
            version: "0.1.0".into(),
            engine_id: "e".into(),
            start_id: "s".into(),
            server_time_ms: 5,
            limits: Limits::of_this_version(2),
            principal: "payment".into(),
        }),
        Opened::Publish {
            partitions: 4,
            durability: Durability::Sync,
            backlog_max_events: 9,
            backlog_max_bytes: 70,
        },
        Opened::Subscribe(Subscribed {
            created: true,
            partitions: 1,
            positions: vec![Position { partition: 0, offset: 9 }],
            stored_before: 9,
            standby: true,
            ack_timeout_ms: 30_000,
        }),
        Opened::Read { positions: vec![Position { partition: 7, offset: 1 }] },
        Opened::CheckBacks,
    ]
}

fn topic_and_name() -> (TopicName, SubscriptionName) {
    (name("orders"), name("payment"))
}

/// Every request.
pub(crate) fn requests() -> Vec<Request> {
    let (topic, payment) = topic_and_name();
    let subscription = topic_and_name;
    let mut requests = vec![
        Request::Info,
        Request::CreateTopic { name: topic.clone(), settings: settings() },
        Request::ListTopics { limit: 100, after: Some("orders".into()) },
        Request::DescribeTopic { name: topic.clone() },
        Request::SetTopic { name: topic.clone(), settings: changes() },
        Request::PurgeTopic(purge_topic()),
        Request::DeleteTopic { name: topic.clone(), force: true, with_dead_letters: false },
        Request::CreateSubscription {
            topic: topic.clone(),
            name: payment,
            options: options(),
            from: Start::Earliest,
        },
        Request::ListSubscriptions {
            topic: Some(topic.clone()),
            limit: 100,
            after: Some("orders/payment".into()),
        },
        {
            let (topic, name) = subscription();
            Request::DescribeSubscription { topic, name }
        },
        {
            let (topic, name) = subscription();
            Request::DeleteSubscription { topic, name, force: false, with_dead_letters: true }
        },
        {
            let (topic, name) = subscription();
            Request::SetSubscription { topic, name, options: options() }
        },
        {
            let (topic, name) = subscription();
            Request::SeekSubscription { topic, name, to: Start::Time(5), partitions: vec![0, 3] }
        },
        {
            let (topic, name) = subscription();
            Request::PauseSubscription { topic, name }
        },
        {
            let (topic, name) = subscription();
            Request::ResumeSubscription { topic, name }
        },
        Request::SetPush(set_push()),
        Request::RemovePush { topic: topic.clone(), name: name("payment") },
        Request::DeployPlugin { name: name("filter"), size: 1 << 40, config: Some("{}".into()) },
        Request::ListPlugins { limit: 100, after: Some("filter@2".into()) },
        Request::RemovePlugin { name: name("filter"), version: Some(3) },
        Request::CreateRoute(route()),
        Request::ListRoutes { limit: 100, after: Some("big".into()) },
        Request::DeleteRoute { name: name("big"), force: true, with_dead_letters: true },
        Request::ResumeRoute { name: name("big") },
        Request::ListScheduled { topic: name("orders"), limit: 100, after: Some("7.1.1".into()) },
        Request::DescribeScheduled { topic: name("orders"), id: 7 },
        Request::CancelScheduled { topic: name("orders"), id: 7 },
    ];
    requests.extend(dead_letter_requests());
    requests.extend(transaction_requests());
    requests.push(Request::OpenProducer { topic: name("orders"), name: name("importer") });
    requests.extend(principal_requests());
    requests
}

/// Those about principals and tokens.
fn principal_requests() -> [Request; 8] {
    let new_token = || NewToken { description: "of the shop".into(), expires_in_ms: Some(5) };
    [
        Request::CreatePrincipal(CreatePrincipal {
            name: name("payment"),
            permissions: vec![name("publish shop.*")],
            certificates: vec![name("dns:payment.internal")],
            quotas: quotas(),
            token: Some(new_token()),
        }),
        Request::ChangePrincipal(ChangePrincipal {
            name: name("payment"),
            grant: vec![name("subscribe orders/payment")],
            revoke: vec![name("admin")],
            add_certificates: vec![name("uri:spiffe://prod/payment")],
            remove_certificates: vec![name("dns:payment.internal")],
            quotas: QuotaChanges { requests: Some(50), connections: Some(0), ..QuotaChanges::default() },
        }),
        Request::DeletePrincipal { name: name("payment") },
        Request::ListPrincipals { limit: 100, after: Some("payment".into()) },
        Request::DescribePrincipal { name: Some(name("payment")) },
        Request::CreateToken(CreateToken { principal: name("payment"), token: new_token() }),
        Request::ListTokens {
            principal: Some(name("payment")),
            limit: 100,
            after: Some(TokenId(4).to_string()),
        },
        Request::RevokeToken { id: TokenId(5) },
    ]
}

fn quotas() -> Quotas {
    Quotas {
        publish_events: 1_000,
        publish_bytes: 1 << 20,
        requests: 100,
        connections: 10,
        in_flight_bytes: 1 << 16,
    }
}

pub(crate) fn principal() -> PrincipalInfo {
    PrincipalInfo {
        name: name("payment"),
        permissions: vec![name("publish shop.*"), name("subscribe orders/payment")],
        certificates: vec![name("dns:payment.internal")],
        quotas: quotas(),
        tokens: 2,
        created_ms: 1_700_000_000_000,
        created_by: "admin".into(),
    }
}

pub(crate) fn token() -> TokenInfo {
    TokenInfo {
        id: TokenId(5),
        principal: name("payment"),
        state: TokenState::Revoked,
        description: "of the shop".into(),
        created_ms: 1_700_000_000_000,
        created_by: "admin".into(),
        expires_ms: Some(1_707_776_000_000),
        revoked_ms: Some(1_700_000_100_000),
        used_ms: Some(1_699_999_200_000),
    }
}

pub(crate) fn issued_token() -> IssuedToken {
    IssuedToken { token: Token::new(TokenId(5), [7; 32]).reveal(), info: token() }
}

fn push() -> PushInfo {
    PushInfo {
        max_in_flight: 32,
        timeout_ms: 15_000,
        previous_until_ms: Some(1_700_000_086_400),
        created_ms: 1_700_000_000_000,
        created_by: "admin".into(),
        state: PushState::Failing,
        delivered: 7,
        failed: 2,
        last_failure: Some(PushFailure { at_ms: 1_700_000_000_001, message: "status 500".into() }),
        ..PushInfo::new("https://shop.example/hooks")
    }
}

fn refused() -> Response {
    Response::Refused(Refusal::new(ErrorCode::Unknown(777), "no").retry_after(3))
}

fn push_answer() -> Response {
    let secret = Some(name("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    Response::Push(Box::new(IssuedPush { push: push(), secret }))
}

fn set_push() -> SetPush {
    SetPush {
        secret: Some(name("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        new_secret: true,
        previous_for_ms: Some(60_000),
        max_in_flight: Some(8),
        timeout_ms: Some(5_000),
        ..SetPush::new(name("orders"), name("payment"), Some("https://shop.example/hooks".into()))
    }
}

fn principal_answers() -> [Response; 5] {
    [
        Response::Principal { principal: principal(), issued: Some(issued_token()) },
        Response::Principals { principals: vec![principal()], next: Some("payment".into()) },
        Response::IssuedToken(Box::new(issued_token())),
        Response::Token(Box::new(token())),
        Response::Tokens { tokens: vec![token()], next: Some(TokenId(5).to_string()) },
    ]
}

/// Those about dead letters.
fn dead_letter_requests() -> [Request; 5] {
    [
        Request::ListDeadLetters {
            topic: Some(name("orders")),
            limit: 100,
            after: Some("dlq.orders.payment".into()),
        },
        Request::GroupDeadLetters(GroupDeadLetters {
            from: 7,
            until: Some(9),
            condition: Some("amount > 100".into()),
            ..GroupDeadLetters::new(dead_letters())
        }),
        Request::ListRedrives { topic: dead_letters(), from: 7, until: Some(u64::MAX) },
        Request::Redrive(redrive()),
        Request::PurgeDeadLetters(PurgeDeadLetters {
            topic: dead_letters(),
            before_ms: Some(1_700_000_000_000),
            until: Some(9),
            force: true,
        }),
    ]
}

/// Those about transactions.
fn transaction_requests() -> [Request; 4] {
    let (group, id) = (|| name("shop"), || name("order-42"));
    [
        Request::Transact(transact()),
        Request::DecideTransaction(DecideTransaction { group: group(), id: id(), commit: true }),
        Request::ListTransactions(ListTransactions {
            group: Some(group()),
            decided: true,
            limit: 100,
            after: Some("shop/order-41".into()),
        }),
        Request::DescribeTransaction { group: group(), id: id() },
    ]
}

pub(crate) fn transact() -> Transact {
    Transact {
        group: name("shop"),
        id: name("order-42"),
        topics: vec![name("orders"), name("payments")],
        partitions: vec![4, 1],
        batches: 2,
        bytes: 1_000,
        prepare: Some(Prepare { check_after_ms: 6_000 }),
        acks: Some(TransactionAcks {
            topic: name("orders"),
            subscription: name("payment"),
            deliveries: vec![AckedDelivery { token: 9, partition: 3, first: 7, last: 8, events: 2 }],
        }),
    }
}

pub(crate) fn check_back() -> CheckBack {
    CheckBack { id: name("order-42"), prepared_ms: 1_700_000_000_000, check: 2, checks_max: 15 }
}

pub(crate) fn transaction() -> TransactionInfo {
    TransactionInfo {
        group: name("shop"),
        id: name("order-42"),
        state: TransactionState::Committed,
        repeat: true,
        prepared_ms: Some(1_700_000_000_000),
        decided_ms: Some(1_700_000_006_000),
        checks: 2,
        next_check_ms: Some(1_700_000_036_000),
        batches: vec![TransactionBatch {
            topic: Some(name("orders")),
            partition: 3,
            events: 5,
            offset: Some(42),
            duplicates: vec![TransactionDuplicate { index: 1, offset: Some(7) }],
        }],
    }
}

pub(crate) fn producer() -> OpenedProducer {
    OpenedProducer { producer_id: ProducerId(0x100f_0e0d_0c0b_0a09_0807_0605 << 32), epoch: 3 }
}

fn dead_letters() -> TopicName {
    name("dlq.orders.payment")
}

fn purge_topic() -> PurgeTopic {
    let until = vec![Position { partition: 1, offset: 9 }, Position { partition: 0, offset: u64::MAX }];
    PurgeTopic { topic: name("orders"), until, before_ms: Some(1_700_000_000_000), force: true }
}

fn redrive() -> Redrive {
    let select = DeadLetterSelection::Offsets { offsets: vec![7, 8, u64::MAX] };
    let (topic, to) = (dead_letters(), Some(name("orders")));
    Redrive { topic, to, select, from: 7, until: Some(9), force: true }
}

/// Every way to say which dead letters are meant.
pub(crate) fn selections() -> Vec<DeadLetterSelection> {
    let condition = "header.region = \"eu\"".to_owned();
    vec![redrive().select, DeadLetterSelection::Where { condition }, DeadLetterSelection::All]
}

/// Everything that can become of a dead letter that is to be redriven.
pub(crate) fn outcomes() -> Vec<RedriveOutcome> {
    vec![
        RedriveOutcome::Redriven(redrive_info()),
        RedriveOutcome::AlreadyRedriven(RedriveInfo { alone: true, ..redrive_info() }),
        RedriveOutcome::OverLimit { offset: 8, redrives: 9 },
        RedriveOutcome::Refused { offset: 9, refusal: Refusal::new(ErrorCode::OffsetOutOfRange, "no") },
    ]
}

pub(crate) fn redrive_info() -> RedriveInfo {
    RedriveInfo {
        offset: 7,
        to: name("orders"),
        to_partition: 3,
        to_offset: u64::MAX,
        time_ms: 1_700_000_000_000,
        times: 2,
        alone: false,
    }
}

fn stretch() -> Stretch {
    Stretch { next: Some(8), until: 9, scanned_bytes: 1_000, scanned: 5, undecodable: 1 }
}

fn dead_letter_answers() -> [Response; 5] {
    let listed = DeadLetterTopic {
        count: 4,
        bytes: 1_000,
        oldest_ms: Some(1),
        newest_ms: Some(2),
        ..DeadLetterTopic::new(dead_letters())
    };
    let group = DeadLetterGroup {
        reason: "plugin_error".into(),
        plugin: Some("filter@2".into()),
        count: 4,
        redriven: 1,
        first: 7,
        last: 12,
        oldest_ms: 1,
        newest_ms: 2,
        error: "trapped".into(),
    };
    [
        Response::DeadLetterTopics { topics: vec![listed], next: Some("dlq.orders.payment".into()) },
        Response::DeadLetterGroups(DeadLetterGroups { groups: vec![group], stretch: stretch() }),
        Response::Redrives { redrives: vec![redrive_info()], next: Some(8) },
        Response::Redriven(Redriven { outcomes: outcomes(), stretch: stretch() }),
        Response::Purged(Purged { purged: 4, not_redriven: 3, start: 9 }),
    ]
}

fn topic_purged() -> Response {
    Response::TopicPurged(PurgedTopic { purged: 4, positions: purge_topic().until })
}

fn blocked_route() -> RouteInfo {
    let state = RunState::Blocked { target: Some(name("a")), code: ErrorCode::StorageFull };
    RouteInfo { state, ..RouteInfo::new(route()) }
}

/// Every response.
pub(crate) fn responses() -> Vec<Response> {
    let subscription = SubscriptionInfo {
        options: options(),
        consumers: vec!["a".into(), "b".into()],
        state: RunState::Paused { reason: PauseReason::Requested },
        unattended_since_ms: Some(7),
        unattended_for_ms: Some(86_400_000),
        alarms: vec![Alarm::Unattended, Alarm::Unknown],
        waiting_for: WaitingFor::Window {
            partition: 3,
            offset: 9,
            retry: Some(Retry { partition: 3, offset: 9, attempts: 2, at_ms: 1_234 }),
        },
        events_lost: 7,
        lost: vec![LostEvents { partition: 3, first: 2, last: 9, events: 7, earlier: 1 }],
        arriving_per_s: 1.5,
        settling_per_s: 2.5,
        clears_in_ms: Some(60_000),
        push: Some(Box::new(push())),
        ..SubscriptionInfo::new(name("orders"), name("payment"))
    };
    let topic = TopicInfo {
        settings: settings(),
        partitions: vec![PartitionInfo { partition: 1, start: 2, end: 3, bytes: 4 }],
        dedup: DedupInfo { ids: 5, duplicates: 6, forgotten_early: 7, window_ms: 8 },
        backlog: Some(BacklogInfo {
            events: 9,
            bytes: 10,
            oldest_age_ms: 11,
            slowest: "subscription orders/payment".into(),
            refused: 12,
            dropped: 13,
        }),
        ..TopicInfo::new(name("orders"))
    };
    let plugin =
        PluginInfo { interface: Interface::Events, seconds: 0.25, ..PluginInfo::new(name("filter"), 2) };
    let scheduled =
        ScheduledInfo { id: 7, deliver_at_ms: 9, key: Some("k".into()), ..ScheduledInfo::default() };
    let info = EngineInfo { cpu_seconds: 1.5, read_only: Some("full".into()), ..EngineInfo::default() };
    let [listed, grouped, redrives, redriven, purged] = dead_letter_answers();
    let mut responses = vec![
        Response::Done,
        Response::Deleted(deleted()),
        Response::Info(Box::new(info)),
        Response::Topic(topic.clone()),
        Response::Topics {
            topics: vec![topic, TopicInfo::new(name("dlq.orders.payment"))],
            next: Some("orders".into()),
        },
        topic_purged(),
        Response::Subscription(Box::new(subscription.clone())),
        Response::Subscriptions { subscriptions: vec![subscription], next: None },
        Response::Plugin(plugin.clone()),
        Response::Plugins { plugins: vec![plugin], next: Some("filter@2".into()) },
        Response::Route(blocked_route()),
        Response::Routes { routes: vec![blocked_route(), RouteInfo::new(route())], next: None },
        Response::Scheduled(scheduled.clone()),
        Response::ScheduledEvents { events: vec![scheduled], next: Some("9.7.7".into()) },
        listed,
        grouped,
        redrives,
        redriven,
        purged,
        Response::Transaction(Box::new(transaction())),
        Response::Transactions { transactions: vec![transaction()], next: Some("shop/order-42".into()) },
        Response::Producer(Box::new(producer())),
    ];
    responses.extend(principal_answers());
    responses.extend([push_answer(), refused()]);
    responses
}

/// Every notice.
pub(crate) fn notices() -> Vec<Notice> {
    let (topic, subscription) = topic_and_name();
    vec![
        Notice::GoAway { reason: "bye".into() },
        Notice::EventsLost { topic, subscription, partition: 1, first: 2, last: u64::MAX },
    ]
}

pub(crate) fn request(request: Request) -> Open {
    Open::Request(RequestEnvelope { id: 7, deadline_ms: 5_000, trace: Some(trace()), request })
}

pub(crate) fn response(response: Response) -> Opened {
    Opened::Response(ResponseEnvelope { id: 7, response })
}

fn settings() -> TopicSettings {
    TopicSettings {
        partitions: 4,
        retain: Retain::UntilAcked,
        max_bytes: 9,
        dedup_window_ms: 120_000,
        dedup_header: "source".into(),
        backlog_max_events: 1_000,
        on_full: OnFull::DropOldest,
        ..TopicSettings::default()
    }
}

fn deleted() -> Deleted {
    Deleted {
        topics: vec!["orders".into()],
        subscriptions: vec!["orders/payment".into()],
        dead_letters_kept: vec!["dlq.orders.payment".into()],
        count: 2,
        ..Deleted::default()
    }
}

fn changes() -> TopicChanges {
    TopicChanges {
        retain: Some(Retain::TimeAndSize),
        max_bytes: Some(9),
        backlog_max_age_ms: Some(5),
        on_full: Some(OnFull::Reject),
        ..TopicChanges::default()
    }
}

fn options() -> SubscriptionOptions {
    SubscriptionOptions {
        order: Some(Order::None),
        chain: Some(vec![stage()]),
        expire_after_ms: Some(604_800_000),
        ..SubscriptionOptions::default()
    }
}

fn stage() -> StageSpec {
    StageSpec {
        plugin: "filter@3".into(),
        on_error: Some(OnError::Pass),
        retries: Some(1),
        ..StageSpec::default()
    }
}

fn route() -> RouteSpec {
    RouteSpec {
        name: name("big"),
        from: name("orders"),
        to: vec![name("a"), name("b")],
        chain: vec![stage(), stage()],
        start: Start::Earliest,
    }
}

/// Every state of a subscription or route.
pub(crate) fn states() -> Vec<RunState> {
    let reason = PauseReason::Plugin { message: "m".into() };
    vec![
        RunState::Running,
        RunState::Paused { reason },
        RunState::Blocked { target: None, code: ErrorCode::StorageFull },
    ]
}

/// Everything that a subscription can wait for.
pub(crate) fn waiting() -> Vec<WaitingFor> {
    let retry = Retry { partition: 3, offset: 9, attempts: 2, at_ms: 1_234 };
    let oldest = Some(Holding { partition: 3, offset: 9, consumer: "a".into() });
    vec![
        WaitingFor::Nothing,
        WaitingFor::Events,
        WaitingFor::Consumer,
        WaitingFor::Credit { consumers: 2 },
        WaitingFor::Connection { consumers: 2 },
        WaitingFor::Acknowledgements { events: 7, oldest },
        WaitingFor::Retry(retry),
        WaitingFor::Failures { runs: 7, retry: Some(retry) },
        WaitingFor::Window { partition: 3, offset: 9, retry: Some(retry) },
        WaitingFor::Keys { events: 7, oldest: None, retry: None },
        WaitingFor::Rate { per_second: 100 },
        WaitingFor::Resume { why: "m".into() },
        WaitingFor::Recovery { why: "m".into() },
    ]
}

/// Every reason for a pause.
pub(crate) fn reasons() -> Vec<PauseReason> {
    let (code, message) = (ErrorCode::PluginNotFound, || "m".to_owned());
    vec![
        PauseReason::Requested,
        PauseReason::Push { message: message() },
        PauseReason::Plugin { message: message() },
        PauseReason::Breaker { message: message() },
        PauseReason::Chain { code, message: message() },
        PauseReason::Storage { code, message: message() },
    ]
}
