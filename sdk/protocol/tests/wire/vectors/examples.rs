//! Examples beyond those that the document quotes: every shape that a client meets at least once.

use std::sync::Arc;

use bytes::BytesMut;
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    deliver::{DeliverHeader, EndEntry, Run},
    duplicates::Duplicates,
    error::{ErrorCode, Refusal},
    event::Event,
    frame::{FrameType, frame, message},
    ids::{DeliveryToken, Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    limits::DUPLICATE_RUNS_MAX,
    progress::{Progress, Scanned, SearchState},
    publish::{Ack, AckOutcome, PublishHeader},
    request::{
        DeadLetterSelection, DedupInfo, HelloAnswer, Limits, Notice, OnError, Open, Opened, Order,
        PartitionInfo, PauseReason, Position, Read, Redrive, Redriven, Request, RequestEnvelope, Response,
        ResponseEnvelope, Retain, RouteInfo, RouteSpec, RunState, Search, SearchKey, StageSpec, Start,
        Stretch, Subscribe, Subscribed, SubscriptionOptions, TopicInfo, TopicSettings,
    },
    schedule::Due,
    trace::TRACE_HEADER,
    verbs::{Credit, RefusedVerb, Settled, Verb, VerbKind, Verbs},
};

use crate::samples::{name, outcomes, trace, transact, transaction};

const TIME: u64 = 1_700_000_000_000;

/// Name and bytes of each frame.
pub(crate) fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let open = |open: Open| message(FrameType::Open, &open).to_vec();
    let opened = |opened: Opened| message(FrameType::Opened, &opened).to_vec();
    let request =
        |request| open(Open::Request(RequestEnvelope { id: 7, deadline_ms: 30_000, trace: None, request }));
    let response = |response| opened(Opened::Response(ResponseEnvelope { id: 7, response }));
    vec![
        ("hello_answer", opened(Opened::Hello(hello_answer()))),
        ("open_publish", open(Open::Publish { topic: name("orders"), trace: None })),
        ("open_publish_in_a_trace", open(Open::Publish { topic: name("orders"), trace: Some(trace()) })),
        ("open_subscribe_with_options", open(Open::Subscribe(subscribe()))),
        ("open_read", open(Open::Read(read()))),
        ("open_read_where", open(Open::Read(search()))),
        ("opened_subscribe", opened(Opened::Subscribe(subscribed()))),
        ("opened_read", opened(Opened::Read { positions: vec![position(0, 42), position(3, 0)] })),
        ("request_info", request(Request::Info)),
        (
            "request_create_topic",
            request(Request::CreateTopic { name: name("orders"), settings: settings() }),
        ),
        ("request_create_compacted_topic", request(create_compacted())),
        ("request_create_subscription", request(create_subscription())),
        ("request_list_topics", request(Request::ListTopics { limit: 100, after: None })),
        ("request_next_page", request(Request::ListTopics { limit: 100, after: Some("orders".into()) })),
        ("request_redrive_some", request(Request::Redrive(redrive()))),
        ("request_redrive_next_step", request(Request::Redrive(next_step()))),
        (
            "request_redrive_to_the_subscription_alone",
            request(Request::Redrive(Redrive { to: None, ..redrive() })),
        ),
        ("open_check_backs", open(Open::CheckBacks { group: name("shop"), trace: None })),
        ("opened_check_backs", opened(Opened::CheckBacks)),
        ("request_transact", request(Request::Transact(transact()))),
        ("response_transaction", response(Response::Transaction(Box::new(transaction())))),
        ("response_done", response(Response::Done)),
        ("response_topic", response(Response::Topic(topic()))),
        ("response_route_that_is_paused", response(Response::Route(route()))),
        (
            "response_page_of_topics",
            response(Response::Topics { topics: vec![topic()], next: Some("orders".into()) }),
        ),
        ("response_last_page_of_topics", response(Response::Topics { topics: Vec::new(), next: None })),
        ("response_redriven", response(Response::Redriven(redriven()))),
        (
            "response_refused",
            response(Response::Refused(Refusal::new(ErrorCode::TopicExists, "topic orders exists"))),
        ),
        ("events_lost", message(FrameType::Notice, &events_lost()).to_vec()),
        ("error_with_a_wait", message(FrameType::Error, &later()).to_vec()),
        ("publish_with_expectation", publish()),
        ("publish_at_a_time", delayed(Due::At(Timestamp(TIME)))),
        ("publish_after_a_delay", delayed(Due::After(1_800_000))),
        ("ack_appended_and_old_repeat", acks()),
        ("ack_of_duplicates_alone", duplicates()),
        ("ack_scheduled_and_old_repeat", scheduled_acks()),
        ("deliver_of_two_runs", two_runs()),
        ("deliver_of_a_cut_batch", cut()),
        ("deliver_to_a_reader", to_a_reader()),
        ("credit_without_end", Credit { events: u64::MAX, bytes: u64::MAX }.frame().to_vec()),
        ("verbs_in_progress_and_nack_after", verbs()),
        ("verbs_without_entries", Verbs { sequence: 6, verbs: Vec::new() }.frame().to_vec()),
        ("settled_without_refusals", Settled { sequence: 6, refused: Vec::new() }.frame().to_vec()),
        ("settled_of_a_later_frame", settled()),
        ("end_of_two_partitions", end()),
        ("progress_of_two_partitions", progress()),
    ]
}

/// Name and bytes of each batch.
pub(crate) fn batches() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("batch_of_every_field", full().bytes().to_vec()),
        (
            "batch_of_a_tombstone",
            one(Event { payload: None, ..Event::default() }.with_key("gone")).bytes().to_vec(),
        ),
        (
            "batch_in_a_trace",
            one(Event::new("x").with_header(TRACE_HEADER, trace().to_string())).bytes().to_vec(),
        ),
        ("batch_of_an_empty_key", one(Event::new("x").with_key("")).bytes().to_vec()),
    ]
}

fn hello_answer() -> HelloAnswer {
    HelloAnswer {
        protocol: 1,
        version: "0.1.0".into(),
        engine_id: "e1".into(),
        start_id: "s1".into(),
        server_time_ms: TIME,
        limits: Limits::of_this_version(1_024),
        principal: "local".into(),
    }
}

fn stage() -> StageSpec {
    StageSpec {
        plugin: "json-filter@1".into(),
        config: r#"{"where":"amount > 5"}"#.into(),
        on_error: Some(OnError::Skip),
        ..StageSpec::default()
    }
}

fn options() -> SubscriptionOptions {
    SubscriptionOptions {
        order: Some(Order::None),
        chain: Some(vec![stage()]),
        ack_timeout_ms: Some(5_000),
        ..Default::default()
    }
}

fn subscribe() -> Subscribe {
    Subscribe {
        consumer: "a".into(),
        options: Some(options()),
        from: Start::Earliest,
        ..Subscribe::new(name("orders"), name("payment"))
    }
}

fn read() -> Read {
    Read { partitions: vec![0, 3], from: Start::Time(TIME), follow: true, ..Read::new(name("orders")) }
}

fn search() -> Read {
    let search = Search {
        condition: Some("amount > 100 and header.region = \"eu\"".into()),
        key: Some(SearchKey(b"order-1"[..].into())),
        scan_bytes_max: 1 << 30,
        events_max: 100,
    };
    let positions = vec![position(0, 42), position(3, 0)];
    Read { from: Start::Earliest, positions, search: Some(search), ..Read::new(name("orders")) }
}

fn position(partition: u16, offset: u64) -> Position {
    Position { partition, offset }
}

fn subscribed() -> Subscribed {
    Subscribed {
        created: false,
        partitions: 2,
        positions: vec![position(0, 1_000), position(1, 0)],
        stored_before: 1_000,
        standby: false,
        ack_timeout_ms: 30_000,
    }
}

fn create_compacted() -> Request {
    let settings = TopicSettings { retain: Retain::Compact, ..TopicSettings::default() };
    Request::CreateTopic { name: name("prices"), settings }
}

fn settings() -> TopicSettings {
    TopicSettings { partitions: 4, ..TopicSettings::default() }
}

fn create_subscription() -> Request {
    let (topic, name) = (name("orders"), name("payment"));
    Request::CreateSubscription { topic, name, options: options(), from: Start::Offset(42) }
}

fn topic() -> TopicInfo {
    TopicInfo {
        name: name("orders"),
        id: 3,
        settings: TopicSettings::default(),
        created_ms: TIME,
        partitions: vec![PartitionInfo { partition: 0, start: 5, end: 1_005, bytes: 123_456 }],
        dedup: DedupInfo::default(),
        scheduled: 17,
        backlog: None,
    }
}

fn route() -> RouteInfo {
    let spec = RouteSpec::new(name("big"), name("orders"), [name("orders.big")]);
    let message = "no plugin content-router".to_owned();
    let reason = PauseReason::Chain { code: ErrorCode::PluginNotFound, message };
    RouteInfo { id: 4, created_ms: TIME, state: RunState::Paused { reason }, ..RouteInfo::new(spec) }
}

fn redrive() -> Redrive {
    let select = DeadLetterSelection::Offsets { offsets: vec![7, 8] };
    let (topic, to) = (name("dlq.orders.payment"), Some(name("orders")));
    Redrive { topic, to, select, from: 0, until: None, force: false }
}

fn next_step() -> Redrive {
    let select = DeadLetterSelection::Where { condition: "header.lv-dlq-reason = \"rejected\"".into() };
    Redrive { select, from: 1_000, until: Some(2_500), ..redrive() }
}

fn redriven() -> Redriven {
    let stretch =
        Stretch { next: Some(1_000), until: 2_500, scanned_bytes: 9_000, scanned: 4, undecodable: 0 };
    Redriven { outcomes: outcomes(), stretch }
}

fn events_lost() -> Notice {
    let (topic, subscription) = (name("orders"), name("payment"));
    Notice::EventsLost { topic, subscription, partition: 3, first: 1_000, last: 1_999 }
}

fn later() -> Refusal {
    Refusal::new(ErrorCode::ShuttingDown, "the engine is going away").retry_after(500)
}

fn publish() -> Vec<u8> {
    let batch = one(Event::new("only if it is the first"));
    let (partition, expect_offset) = (PartitionId(0), Some(Offset(0)));
    let header = PublishHeader { correlation: 1, partition, durability: None, expect_offset, due: None };
    [&header.frame_prefix(batch.bytes().len())[..], batch.bytes()].concat()
}

fn delayed(due: Due) -> Vec<u8> {
    let batch = one(Event::new("not now"));
    let (partition, due) = (PartitionId(0), Some(due));
    let header = PublishHeader { correlation: 1, partition, durability: None, expect_offset: None, due };
    [&header.frame_prefix(batch.bytes().len())[..], batch.bytes()].concat()
}

fn scheduled_acks() -> Vec<u8> {
    let scheduled = |first, duplicate| AckOutcome::Scheduled { first, count: 2, duplicate };
    let mut payload = BytesMut::new();
    for (correlation, outcome) in [(1, scheduled(Some(7), false)), (2, scheduled(None, true))] {
        Ack { correlation, partition: PartitionId(0), outcome }.write(&mut payload);
    }
    frame(FrameType::Ack, &payload).to_vec()
}

fn acks() -> Vec<u8> {
    let appended = |base, duplicate| AckOutcome::Appended { base, count: 2, duplicate, duplicates: None };
    let mut payload = BytesMut::new();
    for (correlation, outcome) in [(1, appended(Some(Offset(0)), false)), (2, appended(None, true))] {
        Ack { correlation, partition: PartitionId(0), outcome }.write(&mut payload);
    }
    frame(FrameType::Ack, &payload).to_vec()
}

/// All events of a batch are duplicates; of the last ones it is not said where the first ones are.
fn duplicates() -> Vec<u8> {
    let mut found = None;
    let count = u32::try_from(DUPLICATE_RUNS_MAX).unwrap() + 2;
    (0..count).for_each(|index| Duplicates::note(&mut found, index, Offset(u64::from(index) * 2)));
    let outcome =
        AckOutcome::Appended { base: None, count: 0, duplicate: false, duplicates: found.map(Arc::new) };
    let mut payload = BytesMut::new();
    Ack { correlation: 3, partition: PartitionId(0), outcome }.write(&mut payload);
    frame(FrameType::Ack, &payload).to_vec()
}

fn full() -> Batch {
    let event = Event { id: Some("e1".into()), ..Event::new("hello") };
    let event = event.with_key("k1").with_header("a", "1").with_header("a", "").at(Timestamp(TIME));
    one(event)
}

fn one(event: Event) -> Batch {
    several(&[event], Stamp::ENGINE)
}

fn several(events: &[Event], stamp: Stamp) -> Batch {
    let mut builder = BatchBuilder::new();
    events.iter().for_each(|event| builder.push(event).unwrap());
    builder.finish(stamp)
}

/// A publisher's batch of events with these payloads.
fn published(first_sequence: u64, payloads: &[&str]) -> Batch {
    let events: Vec<Event> =
        payloads.iter().map(|text| Event::new(text.to_string()).at(Timestamp(TIME))).collect();
    let first_sequence = Sequence(first_sequence);
    several(&events, Stamp { producer_id: ProducerId(7), epoch: Epoch(0), first_sequence })
}

fn delivery(header: DeliverHeader, runs: &[Run]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    runs.iter().for_each(|run| run.write(&mut bytes));
    [&header.frame_prefix(bytes.len())[..], &bytes].concat()
}

fn header(built: bool, count: u32, span: u32) -> DeliverHeader {
    DeliverHeader { partition: PartitionId(0), built, attempt: 1, count, token: DeliveryToken(99), span }
}

fn run(base: u64, append_time: u64, batches: &[Batch]) -> Run {
    let mut bytes = BytesMut::new();
    batches.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
    Run { base: Offset(base), append_time: Timestamp(append_time), hops: 0, batches: bytes.freeze() }
}

fn two_runs() -> Vec<u8> {
    let first = run(10, TIME + 5, &[published(0, &["a", "b"]), published(2, &["c"])]);
    let second = run(13, TIME + 9, &[published(3, &["d", "e"])]);
    delivery(header(false, 5, 5), &[first, second])
}

/// Offsets 11 and 12 of a batch of three from offset 10 on.
fn cut() -> Vec<u8> {
    let whole = published(0, &["a", "b", "c"]);
    let mut builder = BatchBuilder::selection();
    for (delta, event) in (0..).zip(whole.events().skip(1)) {
        builder.push_ref(delta, &event).unwrap();
    }
    delivery(header(true, 2, 2), &[run(11, TIME, &[builder.finish(Stamp::ENGINE)])])
}

fn to_a_reader() -> Vec<u8> {
    let header = DeliverHeader { token: DeliveryToken(0), ..header(false, 1, 1) };
    delivery(header, &[run(0, TIME, &[published(0, &["a"])])])
}

fn verbs() -> Vec<u8> {
    let verb = |kind, first, last| Verb {
        kind,
        partition: PartitionId(0),
        token: DeliveryToken(99),
        first: Offset(first),
        last: Offset(last),
    };
    let nack = VerbKind::Nack { delay_ms: Some(2_500) };
    Verbs { sequence: 2, verbs: vec![verb(VerbKind::InProgress, 10, 14), verb(nack, 10, 10)] }
        .frame()
        .to_vec()
}

fn settled() -> Vec<u8> {
    let (first, last) = (Offset(10), Offset(10));
    let refused = |code| RefusedVerb { partition: PartitionId(0), first, last, code };
    let refused = vec![refused(ErrorCode::OutcomeUnknown), refused(ErrorCode::DeliveryExpired)];
    Settled { sequence: 3, refused }.frame().to_vec()
}

fn progress() -> Vec<u8> {
    let entry = |partition, next| EndEntry { partition: PartitionId(partition), next: Offset(next) };
    let scanned = Scanned { bytes: 1 << 60, events: 9, matched: 1, undecodable: 0, withheld: 2 };
    let positions = vec![entry(0, 1_005), entry(3, 0)];
    Progress { scanned, state: SearchState::Running, positions }.frame().to_vec()
}

fn end() -> Vec<u8> {
    let entry = |partition, next| EndEntry { partition: PartitionId(partition), next: Offset(next) };
    EndEntry::frame(&[entry(0, 1_005), entry(3, 0)]).to_vec()
}
