//! Bytes that must be refused: by the engine, each with its code and the place where that comes, and by clients.

use bytes::{BufMut, BytesMut};
use levada_protocol::{
    batch::{BATCH_HEADER_BYTES, Batch, BatchBuilder, Stamp},
    error::ErrorCode::{self, *},
    event::Event,
    frame::{FRAME_HEADER_BYTES, FrameType, frame, message},
    ids::{DeliveryToken, Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    limits::{
        CONSUMER_NAME_BYTES_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, FRAME_BYTES_MAX, HEADER_NAME_BYTES_MAX,
        HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, MESSAGE_DEPTH_MAX, REQUEST_BYTES_MAX,
    },
    publish::PublishHeader,
    request::{Hello, Open, Read, Start, Subscribe, SubscriptionOptions},
    verbs::{Verb, VerbKind, Verbs},
};
use serde_json::{Value, json};

use super::decoded::hex;
use crate::golden;

/// Where a client finds the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an `Ack` entry; the stream goes on.
    Ack,
    /// In a `Settled` entry; the stream goes on.
    Settled,
    /// In the response `refused`.
    Refused,
    /// In an `Error` frame, which ends the stream; the connection goes on.
    Error,
    /// In an `Error` frame on the stream, and then in the close of the connection.
    Close,
}

/// Bytes that the engine refuses.
pub(crate) struct Bad {
    name: &'static str,
    /// What the stream is on which they are sent.
    stream: &'static str,
    bytes: Vec<u8>,
    /// So many zero bytes follow.
    zeros: usize,
    /// The client finishes its direction behind them.
    finish: bool,
    place: Place,
    code: ErrorCode,
}

impl Bad {
    pub(crate) fn json(&self) -> Value {
        let place = match self.place {
            Place::Ack => "ack",
            Place::Settled => "settled",
            Place::Refused => "refused",
            Place::Error => "error",
            Place::Close => "close",
        };
        json!({
            "name": self.name,
            "stream": self.stream,
            "hex": hex(&self.bytes),
            "zeros": self.zeros,
            "finish": self.finish,
            "where": place,
            "code": self.code.as_str(),
            "number": self.code.number(),
        })
    }

    fn finished(self) -> Self {
        Self { finish: true, ..self }
    }
}

fn bad(
    stream: &'static str,
    name: &'static str,
    bytes: impl AsRef<[u8]>,
    place: Place,
    code: ErrorCode,
) -> Bad {
    Bad { name, stream, bytes: bytes.as_ref().to_vec(), zeros: 0, finish: false, place, code }
}

/// Everything that the engine must refuse.
pub(crate) fn for_the_engine() -> Vec<Bad> {
    [connections(), streams(), opens(), requests(), batches(), events(), publishes(), consumers(), readers()]
        .into_iter()
        .flatten()
        .collect()
}

/// A frame header that claims a length.
fn claims(kind: u8, len: u32) -> Vec<u8> {
    [&len.to_le_bytes()[..], &[kind, 0, 0, 0]].concat()
}

fn over(limit: usize) -> u32 {
    u32::try_from(limit).unwrap() + 1
}

/// An open frame of any map.
fn open(map: Value) -> Vec<u8> {
    message(FrameType::Open, &map).to_vec()
}

fn connections() -> Vec<Bad> {
    let publish = open(json!({"kind": "publish", "topic": "orders"}));
    let hello = Open::Hello(Hello { protocol_min: 2, protocol_max: 9, ..Hello::default() });
    vec![
        bad("connection", "a stream before the hello", publish, Place::Close, HelloRequired),
        bad(
            "connection",
            "no protocol version in common",
            message(FrameType::Open, &hello),
            Place::Close,
            UnsupportedVersion,
        ),
        bad(
            "connection",
            "a hello that is no map",
            frame(FrameType::Open, &[0xc1; 5]),
            Place::Close,
            Malformed,
        ),
        bad(
            "control",
            "anything behind the hello",
            frame(FrameType::Credit, &[0; 16]),
            Place::Close,
            Malformed,
        ),
        bad("new", "2 GiB to open", claims(1, 1 << 31), Place::Close, FrameTooLarge),
        bad("new", "all ones to open", claims(1, u32::MAX), Place::Close, FrameTooLarge),
        bad(
            "new",
            "one byte more than an open may have",
            claims(1, over(REQUEST_BYTES_MAX)),
            Place::Close,
            FrameTooLarge,
        ),
        bad(
            "publish",
            "one byte more than a publish may have",
            claims(16, over(FRAME_BYTES_MAX)),
            Place::Close,
            FrameTooLarge,
        ),
    ]
}

fn streams() -> Vec<Bad> {
    let hello = quoted("hello");
    vec![
        bad("new", "an unknown frame type", claims(200, 0), Place::Error, UnknownFrame),
        bad("new", "2 GiB of an unknown frame type", claims(77, 1 << 31), Place::Error, UnknownFrame),
        bad("new", "a second hello", hello, Place::Error, Malformed),
        bad("new", "a publish frame first", claims(16, 0), Place::Error, Malformed),
        bad("new", "nothing, and the end", [], Place::Error, Malformed).finished(),
        bad("new", "half a frame header, and the end", [1, 0, 0], Place::Error, Malformed).finished(),
        bad("new", "half a payload, and the end", &quoted("request")[..40], Place::Error, Malformed)
            .finished(),
    ]
}

fn opens() -> Vec<Bad> {
    let error = |name, bytes, code| bad("new", name, bytes, Place::Error, code);
    let publish = |topic: &str| open(json!({"kind": "publish", "topic": topic}));
    let subscribe = |subscribe: Subscribe| message(FrameType::Open, &Open::Subscribe(subscribe)).to_vec();
    let to = |subscription: &str| Subscribe {
        topic: "orders".into(),
        subscription: subscription.into(),
        ..Subscribe::default()
    };
    let other = SubscriptionOptions { ack_timeout_ms: 5_000, ..SubscriptionOptions::default() };
    let wrong = SubscriptionOptions { ack_timeout_ms: 9, ..SubscriptionOptions::default() };
    let read = |partition: u16, from| {
        let read = Read { topic: "orders".into(), partitions: vec![partition], from, follow: false };
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

/// An open frame around a payload.
fn raw_open(payload: &[u8]) -> Vec<u8> {
    frame(FrameType::Open, payload).to_vec()
}

/// A publish stream's open frame with a field that nobody knows, nested so deep.
fn nested(depth: usize) -> Vec<u8> {
    [&b"\x83\xa4kind\xa7publish\xa5topic\xa6orders\xa1x"[..], &vec![0x91; depth - 1], &[0xc0]].concat()
}

fn requests() -> Vec<Bad> {
    let request = |request: Value| open(json!({"kind": "request", "id": 7, "request": request}));
    let error = |name, map| bad("new", name, request(map), Place::Error, Malformed);
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
        error("a request without a required field", json!({"kind": "create_topic"})),
        error("an unknown word in a request", create(json!({"retain": "sometimes"}))),
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
        refused("a topic of no name", json!({"kind": "create_topic", "name": "Orders!"}), InvalidName),
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

/// A publish frame with correlation 1, to partition 0, of any bytes for a batch.
fn publish(batch: &[u8]) -> Vec<u8> {
    publish_with(header(), batch)
}

fn header() -> PublishHeader {
    PublishHeader { correlation: 1, partition: PartitionId(0), durability: None, expect_offset: None }
}

fn publish_with(header: PublishHeader, batch: &[u8]) -> Vec<u8> {
    [&header.frame_prefix(batch.len())[..], batch].concat()
}

/// A sound batch of two events and no producer.
fn sound() -> Vec<u8> {
    let first = Event::new("hello").with_key("k").with_header("h", "v").at(Timestamp(1_700_000_000_000));
    of(&[first, Event::new("x").at(Timestamp(1_700_000_000_005))])
}

fn of(events: &[Event]) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    events.iter().for_each(|event| builder.push(event).unwrap());
    builder.finish(Stamp::ENGINE).bytes().to_vec()
}

/// The checksum made true.
fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&batch[..20]), &batch[24..]);
    batch[20..24].copy_from_slice(&crc.to_le_bytes());
    batch
}

/// The sound batch with other bytes somewhere, and a true checksum.
fn changed(at: usize, value: &[u8]) -> Vec<u8> {
    let mut batch = sound();
    batch[at..at + value.len()].copy_from_slice(value);
    sealed(batch)
}

/// A batch around one record, given from its `key_len` on.
fn record(flags: u16, rest: &[u8]) -> Vec<u8> {
    let mut batch = vec![1, 0];
    let len = u32::try_from(4 + rest.len()).unwrap();
    batch.put_u16_le(flags);
    for field in [1, 1, len, len] {
        batch.put_u32_le(field);
    }
    batch.resize(BATCH_HEADER_BYTES, 0);
    batch.put_u32_le(len);
    batch.extend(rest);
    sealed(batch)
}

fn batches() -> Vec<Bad> {
    let body = BATCH_HEADER_BYTES;
    let mut flipped = sound();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = sound();
    longer.push(0);
    let rows: Vec<(&'static str, Vec<u8>)> = vec![
        ("an unknown version", changed(0, &[2])),
        ("a codec", changed(1, &[1])),
        ("unknown flags", changed(2, &[0, 128])),
        ("a count too high", changed(4, &3_u32.to_le_bytes())),
        ("a count too low", changed(4, &1_u32.to_le_bytes())),
        ("a count of none", changed(4, &0_u32.to_le_bytes())),
        ("a count over the limit", changed(4, &10_001_u32.to_le_bytes())),
        ("a span that is not the count", changed(8, &7_u32.to_le_bytes())),
        ("a body longer than it is", changed(12, &9_999_u32.to_le_bytes())),
        ("a body of 4 GiB", changed(12, &u32::MAX.to_le_bytes())),
        ("another uncompressed length", changed(16, &1_u32.to_le_bytes())),
        ("a time span before the epoch", changed(56, &[0; 8])),
        ("a flipped bit", flipped),
        ("a byte too many", longer),
        ("half a header", sound()[..40].to_vec()),
        ("no bytes", Vec::new()),
        ("a selection", quoted("selection")),
        ("an event longer than its batch", changed(body, &9_999_u32.to_le_bytes())),
        ("an event of no length", changed(body, &0_u32.to_le_bytes())),
        ("a key longer than its event", changed(body + 4, &999_u16.to_le_bytes())),
        ("more headers than fit", changed(body + 6, &60_u16.to_le_bytes())),
        ("a time outside the span", changed(body + 8, &6_u32.to_le_bytes())),
        ("a tombstone with a payload", record(0, &[0xff, 0xff, 0, 0x80, 0, 0, 0, 0, b'x'])),
        ("an id that is not UTF-8", record(2, &[0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0xff])),
        ("a header name that is not UTF-8", record(0, &[0xff, 0xff, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0xff])),
    ];
    rows.into_iter()
        .map(|(name, batch)| {
            let refused_by_its_bytes = Batch::check(batch.clone().into()).map_err(|error| error.code());
            assert!(name == "a selection" || refused_by_its_bytes == Err(BatchInvalid), "{name}");
            bad("publish", name, publish(&batch), Place::Ack, BatchInvalid)
        })
        .collect()
}

/// Events over each limit, and what else is refused of an event.
fn events() -> Vec<Bad> {
    let no_key = [0xff, 0xff];
    let zeros = [0; 4];
    let key_len = u16::try_from(KEY_BYTES_MAX + 1).unwrap().to_le_bytes();
    let id_len = u16::try_from(EVENT_ID_BYTES_MAX + 1).unwrap().to_le_bytes();
    let count = u16::try_from(HEADERS_MAX + 1).unwrap().to_le_bytes();
    let name_len = u8::try_from(HEADER_NAME_BYTES_MAX + 1).unwrap();
    let value_len = u16::try_from(HEADERS_BYTES_MAX - 3).unwrap().to_le_bytes();
    let parts = |parts: &[&[u8]]| parts.concat();
    let rows: Vec<(&'static str, u16, Vec<u8>)> = vec![
        ("a key over the limit", 0, parts(&[&key_len, &[0, 0], &zeros, &[b'k'; KEY_BYTES_MAX + 1]])),
        (
            "an id over the limit",
            2,
            parts(&[&no_key, &[0, 0], &zeros, &id_len, &[b'i'; EVENT_ID_BYTES_MAX + 1]]),
        ),
        ("a header too many", 0, parts(&[&no_key, &count, &zeros, &[0; 3 * (HEADERS_MAX + 1)]])),
        (
            "a header name over the limit",
            0,
            parts(&[&no_key, &[1, 0], &zeros, &[name_len, 0, 0], &[b'n'; HEADER_NAME_BYTES_MAX + 1]]),
        ),
        (
            "headers over the limit together",
            0,
            parts(&[&no_key, &[1, 0], &zeros, &[1], &value_len, &[b'n'; HEADERS_BYTES_MAX - 2]]),
        ),
    ];
    let mut all: Vec<Bad> = rows
        .into_iter()
        .map(|(name, flags, rest)| {
            let batch = record(flags, &rest);
            assert_eq!(
                Batch::check(batch.clone().into()).map_err(|error| error.code()),
                Err(EventTooLarge),
                "{name}"
            );
            bad("publish", name, publish(&batch), Place::Ack, EventTooLarge)
        })
        .collect();
    // Its payload is all zeros, which the file leaves out.
    let payload = EVENT_BYTES_MAX + 1 - 12;
    let whole = publish(&record(0, &parts(&[&no_key, &[0, 0], &zeros, &vec![0; payload]])));
    let head = &whole[..whole.len() - payload];
    let large = bad("publish", "an event over the limit", head, Place::Ack, EventTooLarge);
    all.push(Bad { zeros: payload, ..large });
    let ttl = of(&[Event { ttl_ms: Some(60_000), ..Event::new("x") }]);
    all.push(bad("publish", "an event with a time to live", publish(&ttl), Place::Ack, Unsupported));
    all
}

fn publishes() -> Vec<Bad> {
    let ack = |name, bytes, code| bad("publish", name, bytes, Place::Ack, code);
    let error = |name, bytes: Vec<u8>, code| bad("publish", name, bytes, Place::Error, code);
    let changed_header = |at: usize, value: u8| {
        let mut bytes = publish(&sound());
        bytes[FRAME_HEADER_BYTES + at] = value;
        bytes
    };
    let expecting = PublishHeader { expect_offset: Some(Offset(99)), ..header() };
    let elsewhere = PublishHeader { partition: PartitionId(4), ..header() };
    let mut unknown = BatchBuilder::new();
    unknown.push(&Event::new("x")).unwrap();
    let stamp = Stamp { producer_id: ProducerId(9), epoch: Epoch(0), first_sequence: Sequence(7) };
    let unknown = unknown.finish(stamp);
    vec![
        ack("a partition that does not exist", publish_with(elsewhere, &sound()), PartitionNotFound),
        ack("an expectation that does not hold", publish_with(expecting, &sound()), OffsetMismatch),
        ack("a producer that is not known above sequence 0", publish(unknown.bytes()), ProducerUnknown),
        error("half a publish header", frame(FrameType::Publish, &[0; 23]).to_vec(), Malformed),
        error("an unknown durability", changed_header(6, 3), Malformed),
        error("a delivery time", changed_header(16, 1), Malformed),
        error("credit from a publisher", frame(FrameType::Credit, &[0; 16]).to_vec(), Malformed),
        error("an unknown frame type behind an open", claims(99, 0), UnknownFrame),
        bad("publish", "half a batch, and the end", &publish(&sound())[..60], Place::Error, Malformed)
            .finished(),
    ]
}

fn verb(kind: VerbKind, first: u64, last: u64) -> Verb {
    let (partition, token) = (PartitionId(0), DeliveryToken(7));
    Verb { kind, partition, token, first: Offset(first), last: Offset(last) }
}

fn verbs(sequence: u64) -> Vec<u8> {
    Verbs { sequence, verbs: vec![verb(VerbKind::Ack, 0, 9)] }.frame().to_vec()
}

fn consumers() -> Vec<Bad> {
    let error = |name, bytes: Vec<u8>| bad("subscribe", name, bytes, Place::Error, Malformed);
    let credit = |len: usize| frame(FrameType::Credit, &vec![0; len]).to_vec();
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = verbs(1);
        let at = FRAME_HEADER_BYTES + 8 + at;
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let reject = VerbKind::Reject { reason: "bad".into() };
    let mut texted = Verbs { sequence: 1, verbs: vec![verb(reject, 0, 9)] }.frame().to_vec();
    texted[FRAME_HEADER_BYTES + 8] = 1;
    let cut = frame(FrameType::Verbs, &verbs(1)[FRAME_HEADER_BYTES..][..41]).to_vec();
    vec![
        bad("subscribe", "words about a delivery of nobody's", verbs(1), Place::Settled, DeliveryExpired),
        error("a credit too short", credit(15)),
        error("a credit too long", credit(17)),
        error("verbs that are cut off", cut),
        error("verbs without a sequence", frame(FrameType::Verbs, &[1; 7]).to_vec()),
        error("verb 0", changed(0, &[0])),
        error("verb 5", changed(0, &[5])),
        error("a range that runs backwards", changed(16, &10_u64.to_le_bytes())),
        error("a text beside an acknowledgement", texted),
        error("sequence 0", verbs(0)),
        error("a sequence twice", [verbs(2), verbs(2)].concat()),
        error("a sequence that goes back", [verbs(5), verbs(3)].concat()),
        error("a publish from a consumer", publish(&sound())),
    ]
}

fn readers() -> Vec<Bad> {
    let error = |name, bytes: Vec<u8>| bad("read", name, bytes, Place::Error, Malformed);
    vec![
        error("verbs from a reader", verbs(1)),
        error("a reader's credit too short", frame(FrameType::Credit, &[0; 15]).to_vec()),
        error("a reader's credit too long", frame(FrameType::Credit, &[0; 17]).to_vec()),
    ]
}

/// Frames from an engine that a client must not take for what they say they are.
pub(crate) fn for_clients() -> Vec<(&'static str, Vec<u8>)> {
    let changed = |name: &str, at: usize, value: u8| {
        let mut bytes = quoted(name);
        bytes[FRAME_HEADER_BYTES + at] = value;
        bytes
    };
    let cut = |name: &str, by: usize| {
        let bytes = quoted(name);
        let mut payload = BytesMut::from(&bytes[FRAME_HEADER_BYTES..bytes.len() - by]);
        let mut cut = BytesMut::from(&claims(bytes[4], u32::try_from(payload.len()).unwrap())[..]);
        cut.unsplit(payload.split());
        cut.to_vec()
    };
    vec![
        ("an unknown frame type", claims(200, 0)),
        ("an answer over the limit", claims(2, over(FRAME_BYTES_MAX))),
        ("an answer that is no map", frame(FrameType::Opened, &[0xc1]).to_vec()),
        ("an answer of an unknown kind", message(FrameType::Opened, &json!({"kind": "teleported"})).to_vec()),
        ("a refusal without code", message(FrameType::Error, &json!({"message": "no"})).to_vec()),
        ("an acknowledgement with a reserved outcome", changed("ack", 4, 1)),
        ("an acknowledgement that is cut off", cut("ack", 1)),
        ("a delivery shorter than its header", frame(FrameType::Deliver, &[0; 23]).to_vec()),
        ("a delivery of fewer events than it says", changed("deliver", 4, 3)),
        ("a delivery with a run that is cut off", cut("deliver", 1)),
        ("a delivery with a flipped bit in a batch", changed("deliver", 24 + 24 + 64 + 26, 0xff)),
        ("a settled frame that is cut off", cut("settled", 1)),
        ("an end that is cut off", cut("end", 1)),
    ]
}

fn quoted(name: &str) -> Vec<u8> {
    let found = golden::all().into_iter().find(|(found, ..)| *found == name);
    found.unwrap_or_else(|| panic!("there is no example {name}")).2
}
