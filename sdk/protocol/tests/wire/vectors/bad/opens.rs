//! Streams that are refused when they are opened, requests among them.

use levada_protocol::{
    error::ErrorCode::*,
    frame::{FrameType, frame, message},
    limits::{CONSUMER_NAME_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_DEPTH_MAX},
    request::{Open, Read, Search, SearchKey, Start, Subscribe, SubscriptionOptions},
};
use serde_json::{Value, json};

use super::{Bad, Place, bad, claims, open};
use crate::samples::name;

pub(super) fn opens() -> Vec<Bad> {
    let error = |name, bytes, code| bad("new", name, bytes, Place::Error, code);
    let publish = |topic: &str| open(json!({"kind": "publish", "topic": topic}));
    let subscribe = |subscribe: Subscribe| message(FrameType::Open, &Open::Subscribe(subscribe)).to_vec();
    let to = |subscription: &str| Subscribe::new(name("orders"), name(subscription));
    let other = SubscriptionOptions { ack_timeout_ms: Some(5_000), ..SubscriptionOptions::default() };
    let wrong = SubscriptionOptions { ack_timeout_ms: Some(9), ..SubscriptionOptions::default() };
    let read = |partition: u16, from| {
        let read = Read { partitions: vec![partition], from, ..Read::new(name("orders")) };
        message(FrameType::Open, &Open::Read(read)).to_vec()
    };
    vec![
        error("an open without payload", claims(1, 0), Malformed),
        error("an open that is no MessagePack", frame(FrameType::Open, &[0xc1; 5]).to_vec(), Malformed),
        error("an open that is no map", open(json!("publish")), Malformed),
        error("an open without kind", open(json!({"topic": "orders"})), Malformed),
        error("an open of an unknown kind", open(json!({"kind": "teleport"})), Unsupported),
        error("an open whose kind is a number", open(json!({"kind": 77})), Unsupported),
        error("an open without a required field", open(json!({"kind": "publish"})), Malformed),
        error("a number for a string", open(json!({"kind": "publish", "topic": 5})), Malformed),
        error("text that is not UTF-8", raw_open(b"\x82\xa4kind\xa7publish\xa5topic\xa2\xff\xfe"), Malformed),
        error("a field twice", raw_open(b"\x83\xa4kind\xa7publish\xa5topic\xa1a\xa5topic\xa1b"), Malformed),
        error(
            "a byte behind the map",
            raw_open(b"\x82\xa4kind\xa7publish\xa5topic\xa6orders\xc0"),
            Malformed,
        ),
        error("nil for a string", open(json!({"kind": "publish", "topic": null})), Malformed),
        error("a float for an integer", open(json!({"kind": "hello", "protocol_min": 1.5})), Malformed),
        error(
            "an unknown word",
            open(json!({"kind": "read", "topic": "orders", "from": {"at": "noon"}})),
            Malformed,
        ),
        error("a trace context that is cut off", traced(&[1; 24]), Malformed),
        error("a trace id of zeros", traced(&[&[0; 16][..], &[1; 9]].concat()), Malformed),
        error("maps nested too deep", raw_open(&nested(MESSAGE_DEPTH_MAX + 1)), Malformed),
        error("a publish stream to no topic", publish("absent"), TopicNotFound),
        error("a publish stream to no name", publish("Orders!"), InvalidName),
        error("a publish stream to dead letters", publish("dlq.orders.s"), InvalidArgument),
        error("a consumer of no subscription", subscribe(to("absent")), SubscriptionNotFound),
        error(
            "a consumer with other options",
            subscribe(Subscribe { options: Some(other), ..to("s") }),
            SubscriptionMismatch,
        ),
        error(
            "a consumer with impossible options",
            subscribe(Subscribe { options: Some(wrong), ..to("new") }),
            InvalidArgument,
        ),
        error(
            "a consumer of too long a name",
            subscribe(Subscribe { consumer: "x".repeat(CONSUMER_NAME_BYTES_MAX + 1), ..to("s") }),
            InvalidArgument,
        ),
        error("a reader of no partition", read(4, Start::Earliest), PartitionNotFound),
        error("a reader behind the end", read(0, Start::Offset(1_000_000)), OffsetOutOfRange),
    ]
}

/// Readers that look for something.
pub(super) fn searches() -> Vec<Bad> {
    let error = |name, bytes, code| bad("new", name, bytes, Place::Error, code);
    let search = |change: fn(&mut Search)| {
        let mut search = Search::default();
        change(&mut search);
        let read = Read { search: Some(search), ..Read::new(name("orders")) };
        message(FrameType::Open, &Open::Read(read)).to_vec()
    };
    vec![
        error(
            "a search whose condition is none",
            search(|it| it.condition = Some("amount >".into())),
            InvalidArgument,
        ),
        error(
            "a search that reads a field twice",
            raw_open(
                b"\x83\xa4kind\xa4read\xa5topic\xa6orders\xa6search\x82\xa3key\xc4\x01a\xa3key\xc4\x01a",
            ),
            Malformed,
        ),
        error(
            "a search for a key that is a text",
            open(json!({"kind": "read", "topic": "orders", "search": {"key": "a"}})),
            Malformed,
        ),
        error(
            "a search for a key over the limit",
            search(|it| it.key = Some(SearchKey(vec![b'k'; KEY_BYTES_MAX + 1].into()))),
            InvalidArgument,
        ),
        error(
            "a search that may scan more than the engine allows",
            search(|it| it.scan_bytes_max = u64::MAX),
            InvalidArgument,
        ),
    ]
}

/// A publish stream's open frame with a trace context of these bytes.
fn traced(trace: &[u8]) -> Vec<u8> {
    let len = u8::try_from(trace.len()).unwrap();
    raw_open(&[&b"\x83\xa4kind\xa7publish\xa5topic\xa6orders\xa5trace\xc4"[..], &[len], trace].concat())
}

/// An open frame around a payload.
fn raw_open(payload: &[u8]) -> Vec<u8> {
    frame(FrameType::Open, payload).to_vec()
}

/// A publish stream's open frame with a field that nobody knows, nested so deep.
fn nested(depth: usize) -> Vec<u8> {
    [&b"\x83\xa4kind\xa7publish\xa5topic\xa6orders\xa1x"[..], &vec![0x91; depth - 1], &[0xc0]].concat()
}

pub(super) fn requests() -> Vec<Bad> {
    let request = |request: Value| open(json!({"kind": "request", "id": 7, "request": request}));
    let error = |name, map, code| bad("new", name, request(map), Place::Error, code);
    let refused = |name, map, code| bad("new", name, request(map), Place::Refused, code);
    let create = |settings: Value| json!({"kind": "create_topic", "name": "new", "settings": settings});
    let deploy = json!({"kind": "deploy_plugin", "name": "p", "size": 3});
    let chunk = frame(FrameType::Chunk, b"\0asm").to_vec();
    vec![
        bad(
            "new",
            "a request without id",
            open(json!({"kind": "request", "request": {"kind": "info"}})),
            Place::Error,
            Malformed,
        ),
        error("a request without a required field", json!({"kind": "create_topic"}), Malformed),
        error("an unknown word in a request", create(json!({"retain": "sometimes"})), Malformed),
        bad(
            "new",
            "more of an artefact than was announced",
            [request(deploy.clone()), chunk].concat(),
            Place::Error,
            Malformed,
        ),
        bad("new", "less of an artefact than was announced", request(deploy), Place::Error, Malformed)
            .finished(),
        refused("a request of an unknown kind", json!({"kind": "teleport"}), Unsupported),
        error("a topic of no name", json!({"kind": "create_topic", "name": "Orders!"}), InvalidName),
        refused(
            "a topic of the engine's own",
            json!({"kind": "create_topic", "name": "dlq.a.b"}),
            InvalidName,
        ),
        refused("a topic that exists", json!({"kind": "create_topic", "name": "orders"}), TopicExists),
        refused("a topic without partitions", create(json!({"partitions": 0})), InvalidArgument),
        refused("a topic of an unknown durability", create(json!({"durability": "ram"})), InvalidArgument),
        refused(
            "a topic that does not exist",
            json!({"kind": "describe_topic", "name": "absent"}),
            TopicNotFound,
        ),
        refused(
            "a deletion that takes a subscription along",
            json!({"kind": "delete_topic", "name": "orders"}),
            TopicInUse,
        ),
        refused("a page of topics behind no name", json!({"kind": "list_topics", "after": "!"}), InvalidName),
        refused(
            "a page of subscriptions behind no path",
            json!({"kind": "list_subscriptions", "after": "orders"}),
            InvalidArgument,
        ),
        refused(
            "a page of plugins behind no version",
            json!({"kind": "list_plugins", "after": "filter"}),
            InvalidArgument,
        ),
        refused(
            "an artefact over the limit",
            json!({"kind": "deploy_plugin", "name": "p", "size": 1_u64 << 40}),
            PluginTooLarge,
        ),
        refused(
            "a route to no topic",
            json!({"kind": "create_route", "name": "r", "from": "orders", "to": []}),
            InvalidArgument,
        ),
    ]
}
