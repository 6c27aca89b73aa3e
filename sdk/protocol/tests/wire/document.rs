//! PROTOCOL.md against the code: every number, name, field and byte in it that a test can know.

use levada_protocol::{
    access::{Action, Requires, Scope},
    error::{ErrorCode, Refusal},
    frame::FrameType,
    ids::PartitionId,
    limits,
    partition::partition_of,
    request::{
        AckedDelivery, BacklogInfo, ChangePrincipal, CheckBack, CreatePrincipal, CreateToken,
        DeadLetterGroup, DeadLetterGroups, DeadLetterSelection, DeadLetterTopic, DecideTransaction,
        DedupInfo, Deleted, EngineInfo, EventLimits, GroupDeadLetters, Hello, HelloAnswer, IssuedPush,
        Limits, ListTransactions, LostEvents, NewToken, OpenedProducer, PartitionInfo, PluginInfo, Position,
        Prepare, PrincipalInfo, PurgeDeadLetters, PurgeTopic, Purged, PurgedTopic, PushFailure, PushInfo,
        QuotaChanges, Quotas, Read, Redrive, RedriveInfo, Redriven, Request, RequestEnvelope, Response,
        ResponseEnvelope, RouteInfo, RouteSpec, Search, SetPush, StageSpec, Stretch, Subscribe, Subscribed,
        SubscriptionInfo, SubscriptionOptions, TokenInfo, TokenState, TopicChanges, TopicInfo, TopicSettings,
        Transact, TransactionBatch, TransactionDuplicate, TransactionInfo, TransactionLimits,
        TransactionState,
    },
    schedule::ScheduledInfo,
    token::Token,
    version::{ALPN, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN},
};
use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    golden,
    samples::{self, check_back, name, transact, transaction},
};

const DOCUMENT: &str = include_str!("../../../PROTOCOL.md");

/// The text under a heading, up to the next heading of any level.
fn section(heading: &str) -> &'static str {
    let mut parts = DOCUMENT.split("\n#").map(|part| part.trim_start_matches('#').trim_start());
    let found = parts.find_map(|part| part.strip_prefix(heading)?.strip_prefix('\n'));
    found.unwrap_or_else(|| panic!("PROTOCOL.md has no section {heading:?}"))
}

/// The cells of the table under a heading, without its two head lines.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let lines = section(heading).lines().filter(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between the first two backticks.
fn code(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_else(|| panic!("{cell:?} holds no code"))
}

/// Everything that stands between backticks.
fn codes(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn yes(cell: &str) -> bool {
    match cell {
        "yes" => true,
        "no" => false,
        other => panic!("expected yes or no, got {other:?}"),
    }
}

#[test]
fn the_table_of_error_codes_is_that_of_the_code() {
    let rows = table("Error codes");
    let documented = rows.iter().map(|row| {
        let [number, name, retry, no_effect, http, meaning] = row[..] else { panic!("{row:?}") };
        let (number, http): (u16, u16) = (number.parse().unwrap(), http.parse().unwrap());
        (number, code(name), yes(retry), yes(no_effect), http, meaning)
    });
    let expected = ErrorCode::all().map(|code| {
        let (retry, no_effect) = (code.is_retryable(), code.has_no_side_effects());
        (code.number(), code.as_str(), retry, no_effect, code.http_status(), code.meaning())
    });
    assert_eq!(documented.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

macro_rules! limits {
    ($($name:ident)*) => { [$((stringify!($name), u64::try_from(limits::$name).unwrap())),*] };
}

#[test]
fn every_limit_is_documented() {
    let expected = limits![
        EVENT_BYTES_MAX KEY_BYTES_MAX EVENT_ID_BYTES_MAX HEADERS_MAX HEADER_NAME_BYTES_MAX HEADERS_BYTES_MAX
        BATCH_BODY_BYTES_MAX BATCH_EVENTS_MAX BATCH_BYTES_TARGET PRODUCER_IN_FLIGHT_MAX NAMED_PRODUCERS_MAX
        DUPLICATE_RUNS_MAX
        DEDUP_WINDOW_MS_MAX DELAY_MS_MAX CANCEL_REMEMBERED_MS EXPIRE_AFTER_MS_MIN EXPIRE_AFTER_MS_MAX PARTITIONS_MAX
        TOPIC_NAME_BYTES_MAX TOPIC_NAME_BYTES_MAX_INTERNAL NAME_BYTES_MAX FRAME_BYTES_MAX REQUEST_BYTES_MAX
        MESSAGE_DEPTH_MAX VERBS_MAX REASON_BYTES_MAX CONSUMER_NAME_BYTES_MAX ARTEFACT_BYTES_MAX PLUGIN_CONFIG_BYTES_MAX CHAIN_STAGES_MAX INSTANCE_MEMORY_BYTES_MAX
        ROUTE_TARGETS_MAX HOPS_MAX CALL_EVENTS_MAX CALL_BYTES_MAX CALL_OUTPUT_BYTES_MAX CALL_OUTPUT_EVENTS_MAX
        ENGINE_HEADERS_MAX ENGINE_HEADERS_BYTES_MAX REDRIVES_MAX REDRIVE_EVENTS_MAX DEAD_LETTER_GROUPS_MAX
        TRANSACTION_ID_BYTES_MAX TRANSACTION_BYTES_MAX TRANSACTION_EVENTS_MAX TRANSACTION_BATCHES_MAX TRANSACTION_ACKS_MAX
        PREPARED_BYTES_MAX PREPARED_MAX DECISION_REMEMBERED_MS TRANSACTION_REMEMBERED_MS CHECK_AFTER_MS_MAX
        PERMISSION_BYTES_MAX PERMISSIONS_MAX CERTIFICATES_MAX CERTIFICATE_NAME_BYTES_MAX TOKENS_MAX
        TOKEN_DESCRIPTION_BYTES_MAX TOKEN_EXPIRES_MS_MAX
        PUSH_URL_BYTES_MAX PUSH_IN_FLIGHT_MAX PUSH_TIMEOUT_MS_MIN PUSH_TIMEOUT_MS_MAX PUSH_PREVIOUS_FOR_MS_MAX
    ];
    let rows = table("Limits");
    let documented: Vec<(&str, u64)> =
        rows.iter().map(|row| (code(row[0]), row[1].replace(',', "").parse().unwrap())).collect();
    assert_eq!(documented, expected);
    let source = include_str!("../../src/limits.rs");
    let defined = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    assert!(defined.eq(expected.iter().map(|(name, _)| *name)), "this list is that of limits.rs");
}

#[test]
fn every_frame_type_is_documented_with_its_limit() {
    let rows = table("Frames");
    let documented = rows.iter().map(|row| {
        (row[0].parse::<u8>().unwrap(), code(row[1]).to_owned(), row[2].replace(',', "").parse().unwrap())
    });
    let types = (0..=u8::MAX).filter_map(FrameType::from_u8);
    let expected = types.map(|kind| (kind as u8, format!("{kind:?}"), kind.payload_bytes_max()));
    assert_eq!(documented.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[test]
fn quoted_bytes_are_the_fixed_ones() {
    let mut quoted: Vec<(&str, Vec<u8>)> = DOCUMENT
        .split("\n```hex ")
        .skip(1)
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            (name, golden::bytes_of(rest.split("\n```").next().unwrap()))
        })
        .collect();
    let mut fixed: Vec<(&str, Vec<u8>)> =
        golden::all().into_iter().map(|(name, _, fixed)| (name, fixed)).collect();
    quoted.sort();
    fixed.sort();
    assert_eq!(quoted, fixed);
}

#[test]
fn the_tokens_to_test_with_are_those_of_the_code() {
    let rows = table("Tokens to test with");
    assert_eq!(rows.len(), 3);
    for row in rows {
        let token = Token::parse(code(row[2])).unwrap();
        let secret: String = token.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((token.id().0.to_string().as_str(), secret.as_str()), (code(row[0]), code(row[1])));
        assert_eq!(Token::new(token.id(), *token.secret()).reveal(), code(row[2]));
    }
}

#[test]
fn partition_vectors_are_true() {
    let rows = table("Partition of an event");
    assert!(rows.len() >= 6);
    for row in rows {
        // `k`, 129 times
        let times =
            row[0].strip_suffix(" times").map_or(1, |cell| cell.rsplit(' ').next().unwrap().parse().unwrap());
        let key = codes(row[0]).first().copied().unwrap_or_default().repeat(times);
        assert_eq!(format!("{:016x}", xxh3_64(key.as_bytes())), row[1], "{key:?}");
        for (cell, partitions) in row[2..].iter().zip([1, 3, 4, 1024]) {
            let expected = PartitionId(cell.parse().unwrap());
            assert_eq!(partition_of(key.as_bytes(), partitions), expected, "{key:?} of {partitions}");
        }
    }
}

#[test]
fn versions_are_documented() {
    let alpn = str::from_utf8(ALPN).unwrap();
    assert!(section("Connection").contains(&format!("`{alpn}`")));
    let range = format!("`protocol_min` {PROTOCOL_VERSION_MIN} and `protocol_max` {PROTOCOL_VERSION}");
    assert!(section("Hello").contains(&range), "{range}");
}

/// Compares a table of fields with a value whose fields have their defaults; those of `required` have none.
fn has_fields(name: &str, value: &impl Serialize, required: &[&str]) {
    let value = serde_json::to_value(value).unwrap();
    let fields = value.as_object().unwrap();
    let rows = table(name);
    let mut documented: Vec<&str> = rows.iter().map(|row| code(row[0])).collect();
    documented.sort_unstable();
    let mut expected: Vec<&str> = fields.keys().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(documented, expected, "the fields of {name}");
    for row in &rows {
        let (field, default) = (code(row[0]), row[2]);
        let expected = match &fields[field] {
            _ if required.contains(&field) => "required".to_owned(),
            Value::Object(start) if start.contains_key("at") => "`latest`".to_owned(),
            Value::Object(state) if state.contains_key("kind") => {
                format!("`{}`", state["kind"].as_str().unwrap())
            }
            Value::Object(_) => "its defaults".to_owned(),
            plain => format!("`{plain}`"),
        };
        assert_eq!(default, expected, "the default of {name}.{field}");
    }
}

#[test]
fn every_message_has_its_fields_and_defaults() {
    has_fields("`Hello`", &Hello::default(), &[]);
    has_fields("`HelloAnswer`", &HelloAnswer::default(), &[]);
    has_fields("`Limits`", &Limits::default(), &[]);
    has_fields("`EventLimits`", &EventLimits::default(), &[]);
    has_fields("`TransactionLimits`", &TransactionLimits::default(), &[]);
    has_fields("`Subscribe`", &Subscribe::new(name("t"), name("s")), &["topic", "subscription"]);
    has_fields("`Subscribed`", &Subscribed::default(), &[]);
    // A field that is left out where an engine without it could not tell the difference.
    let mut options = serde_json::to_value(SubscriptionOptions::default()).unwrap();
    options.as_object_mut().unwrap().insert("expire_after_ms".into(), Value::Null);
    has_fields("`SubscriptionOptions`", &options, &[]);
    has_fields("`StageSpec`", &StageSpec::default(), &[]);
    has_fields("`Position`", &Position::default(), &["partition", "offset"]);
    // So are these.
    let mut read = serde_json::to_value(Read::new(name("t"))).unwrap();
    read.as_object_mut()
        .unwrap()
        .extend([("positions".into(), Value::Array(Vec::new())), ("search".into(), Value::Null)]);
    has_fields("`Read`", &read, &["topic"]);
    has_fields("`Search`", &Search::default(), &[]);
    let request = RequestEnvelope { id: 0, deadline_ms: 0, trace: None, request: Request::Info };
    has_fields("`RequestEnvelope`", &request, &["id", "request"]);
    let response = ResponseEnvelope { id: 0, response: Response::Done };
    has_fields("`ResponseEnvelope`", &response, &["id", "response"]);
    has_fields("`TopicSettings`", &TopicSettings::default(), &[]);
    has_fields("`Deleted`", &Deleted::default(), &[]);
    has_fields("`DeadLetterTopic`", &DeadLetterTopic::new(name("dlq.t.s")), &["name"]);
    has_fields("`GroupDeadLetters`", &GroupDeadLetters::new(name("dlq.t.s")), &["topic"]);
    has_fields("`DeadLetterGroups`", &DeadLetterGroups::default(), &[]);
    has_fields("`DeadLetterGroup`", &DeadLetterGroup::default(), &[]);
    has_fields("`Stretch`", &Stretch::default(), &[]);
    let (topic, to) = (name("dlq.t.s"), None);
    let select = DeadLetterSelection::All;
    let redrive = Redrive { topic, to, select, from: 0, until: None, force: false };
    has_fields("`Redrive`", &redrive, &["topic", "select"]);
    has_fields("`Redriven`", &Redriven::default(), &[]);
    let info = RedriveInfo {
        offset: 0,
        to: name("t"),
        to_partition: 0,
        to_offset: 0,
        time_ms: 0,
        times: 0,
        alone: false,
    };
    has_fields("`RedriveInfo`", &info, &["to"]);
    let purge = PurgeDeadLetters { topic: name("dlq.t.s"), before_ms: None, until: None, force: false };
    has_fields("`PurgeDeadLetters`", &purge, &["topic"]);
    has_fields("`Purged`", &Purged::default(), &[]);
    let purge = PurgeTopic { topic: name("t"), until: Vec::new(), before_ms: None, force: false };
    has_fields("`PurgeTopic`", &purge, &["topic"]);
    has_fields("`PurgedTopic`", &PurgedTopic::default(), &[]);
    has_fields("`TopicChanges`", &TopicChanges::default(), &[]);
    has_fields("`TopicInfo`", &TopicInfo::new(name("t")), &["name"]);
    has_fields("`BacklogInfo`", &BacklogInfo::default(), &[]);
    has_fields("`DedupInfo`", &DedupInfo::default(), &[]);
    has_fields("`PartitionInfo`", &PartitionInfo::default(), &[]);
    has_fields("`LostEvents`", &LostEvents::default(), &[]);
    has_fields("`ScheduledInfo`", &ScheduledInfo::default(), &[]);
    has_fields("`SubscriptionInfo`", &SubscriptionInfo::new(name("t"), name("s")), &["topic", "name"]);
    let spec = RouteSpec::new(name("r"), name("a"), [name("b")]);
    has_fields("`RouteSpec`", &spec, &["name", "from", "to"]);
    has_fields("`RouteInfo`", &RouteInfo::new(spec), &["spec"]);
    has_fields("`PluginInfo`", &PluginInfo::new(name("p"), 0), &["name"]);
    has_fields("`EngineInfo`", &EngineInfo::default(), &[]);
    let opened = OpenedProducer { epoch: 0, ..samples::producer() };
    has_fields("`OpenedProducer`", &opened, &["producer_id", "epoch"]);
    has_fields("`Refusal`", &Refusal::new(ErrorCode::Malformed, ""), &["code"]);
}

#[test]
fn every_message_about_principals_has_its_fields_and_defaults() {
    let (permissions, certificates) = (Vec::new(), Vec::new());
    let quotas = Quotas::default();
    let create = CreatePrincipal { name: name("p"), permissions, certificates, quotas, token: None };
    has_fields("`CreatePrincipal`", &create, &["name"]);
    has_fields("`ChangePrincipal`", &ChangePrincipal::new(name("p")), &["name"]);
    has_fields("`Quotas`", &Quotas::default(), &[]);
    has_fields("`QuotaChanges`", &QuotaChanges::default(), &[]);
    let token = CreateToken { principal: name("p"), token: NewToken::default() };
    has_fields("`CreateToken`", &token, &["principal"]);
    has_fields("`NewToken`", &NewToken::default(), &[]);
    has_fields("`IssuedToken`", &samples::issued_token(), &["token", "info"]);
    let info = PrincipalInfo {
        permissions: Vec::new(),
        certificates: Vec::new(),
        quotas,
        tokens: 0,
        created_ms: 0,
        created_by: String::new(),
        ..samples::principal()
    };
    has_fields("`PrincipalInfo`", &info, &["name"]);
    let info = TokenInfo {
        state: TokenState::Unknown,
        description: String::new(),
        created_ms: 0,
        created_by: String::new(),
        expires_ms: None,
        revoked_ms: None,
        used_ms: None,
        ..samples::token()
    };
    has_fields("`TokenInfo`", &info, &["id", "principal"]);
}

#[test]
fn every_message_about_pushes_has_its_fields_and_defaults() {
    has_fields("`SetPush`", &SetPush::new(name("t"), name("s"), None), &["topic", "name"]);
    let issued = IssuedPush { push: PushInfo::new("u"), secret: None };
    has_fields("`IssuedPush`", &issued, &["push"]);
    has_fields("`PushInfo`", &PushInfo::new("u"), &["url"]);
    has_fields("`PushFailure`", &PushFailure { at_ms: 0, message: String::new() }, &["at_ms"]);
}

#[test]
fn every_message_about_transactions_has_its_fields_and_defaults() {
    let zero = Transact {
        topics: Vec::new(),
        partitions: Vec::new(),
        batches: 0,
        bytes: 0,
        prepare: None,
        acks: None,
        ..transact()
    };
    has_fields("`Transact`", &zero, &["group", "id", "topics", "batches", "bytes"]);
    has_fields("`TransactionAcks`", &transact().acks, &["topic", "subscription", "deliveries"]);
    has_fields("`AckedDelivery`", &AckedDelivery::default(), &[]);
    has_fields("`Prepare`", &Prepare::default(), &[]);
    let decide = DecideTransaction { group: name("g"), id: name("i"), commit: true };
    has_fields("`DecideTransaction`", &decide, &["group", "id", "commit"]);
    has_fields("`ListTransactions`", &ListTransactions::default(), &[]);
    let info = TransactionInfo {
        state: TransactionState::Unknown,
        repeat: false,
        prepared_ms: None,
        decided_ms: None,
        checks: 0,
        next_check_ms: None,
        batches: Vec::new(),
        ..transaction()
    };
    has_fields("`TransactionInfo`", &info, &["group", "id"]);
    has_fields("`TransactionBatch`", &TransactionBatch::default(), &[]);
    has_fields("`TransactionDuplicate`", &TransactionDuplicate::default(), &[]);
    let check = CheckBack { prepared_ms: 0, check: 0, checks_max: 0, ..check_back() };
    has_fields("`CheckBack`", &check, &["id"]);
}

/// Compares a table of kinds, each with its fields or with the struct whose fields it has, with samples.
fn has_kinds(heading: &str, samples: &[impl Serialize]) {
    let rows = table(heading);
    let kinds: Vec<Value> = samples.iter().map(|sample| serde_json::to_value(sample).unwrap()).collect();
    assert!(rows.iter().map(|row| code(row[0])).eq(kinds.iter().map(|kind| kind["kind"].as_str().unwrap())));
    for (row, kind) in rows.iter().zip(&kinds) {
        if row[1].starts_with("those of ") {
            section(&format!("`{}`", code(row[1])));
            continue;
        }
        let mut documented = codes(row[1]);
        documented.sort_unstable();
        let mut fields: Vec<&str> = kind.as_object().unwrap().keys().map(String::as_str).collect();
        fields.retain(|field| *field != "kind");
        fields.sort_unstable();
        assert_eq!(documented, fields, "{heading}: {}", row[0]);
    }
}

/// What is needed, as the document writes it; each pair of action and kind once.
fn needs(asked: &impl Requires) -> String {
    let mut needs: Vec<String> = Vec::new();
    for (action, scope) in asked.required() {
        let need = format!("`{action}` {}", scope.kind());
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    needs.join(", ")
}

#[test]
fn every_request_and_stream_has_its_action_in_the_tables() {
    let documented = table("Requests");
    let requests = samples::requests();
    assert_eq!(documented.len(), requests.len());
    for (row, request) in documented.iter().zip(&requests) {
        assert_eq!(row[3], needs(request), "{}", row[0]);
        assert!(!request.required().is_empty(), "{}: nobody is allowed everything", row[0]);
    }
    let opens = samples::opens();
    for (row, open) in table("Open").iter().zip(&opens) {
        assert_eq!(row[3], needs(open), "{}", row[0]);
    }
    let request = samples::request(Request::DescribeTopic { name: name("t") });
    assert_eq!(request.required(), [(Action::Browse, Scope::Topic(name("t")))], "as the request in it");
    let actions = table("Access");
    assert!(actions.iter().map(|row| code(row[0])).eq(Action::ALL.map(Action::as_str)));
}

#[test]
fn every_kind_of_message_is_documented() {
    let opens = samples::opens().into_iter().chain([samples::request(Request::Info)]);
    has_kinds("Open", &opens.collect::<Vec<_>>());
    let openeds = samples::openeds().into_iter().chain([samples::response(Response::Done)]);
    has_kinds("Opened", &openeds.collect::<Vec<_>>());
    has_kinds("Requests", &samples::requests());
    has_kinds("Responses", &samples::responses());
    has_kinds("Notices", &samples::notices());
    has_kinds("`DeadLetterSelection`", &samples::selections());
    has_kinds("`RedriveOutcome`", &samples::outcomes());
    has_kinds("`RunState`", &samples::states());
    has_kinds("`PauseReason`", &samples::reasons());
    has_kinds("`WaitingFor`", &samples::waiting());
}
