//! Bytes that must be refused: by the engine, each with its code and the place where that comes, and by clients.

mod opens;
mod publishes;

use bytes::BytesMut;
use levada_protocol::{
    error::ErrorCode::{self, *},
    frame::{FRAME_HEADER_BYTES, FrameType, frame, message},
    ids::{DeliveryToken, Offset, PartitionId},
    limits::{FRAME_BYTES_MAX, REQUEST_BYTES_MAX},
    request::{Hello, Open},
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
    [
        connections(),
        streams(),
        opens::opens(),
        opens::searches(),
        opens::requests(),
        publishes::batches(),
        publishes::events(),
        publishes::publishes(),
        consumers(),
        readers(),
    ]
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
    let reject = VerbKind::reject("bad");
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
        error("a publish from a consumer", publishes::publish(&publishes::sound())),
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
        ("an acknowledgement with a reserved outcome", changed("ack", 4, 2)),
        ("an acknowledgement that is cut off", cut("ack", 1)),
        ("an acknowledgement without the duplicates that it speaks of", changed("ack", 5, 2)),
        ("a delivery shorter than its header", frame(FrameType::Deliver, &[0; 23]).to_vec()),
        ("a delivery of fewer events than it says", changed("deliver", 4, 3)),
        ("a delivery with a run that is cut off", cut("deliver", 1)),
        ("a delivery with a flipped bit in a batch", changed("deliver", 24 + 24 + 64 + 26, 0xff)),
        ("a settled frame that is cut off", cut("settled", 1)),
        ("an end that is cut off", cut("end", 1)),
        ("progress that is cut off", cut("progress", 1)),
        ("progress in an unknown state", changed("progress", 40, 3)),
    ]
}

fn quoted(name: &str) -> Vec<u8> {
    let found = golden::all().into_iter().find(|(found, ..)| *found == name);
    found.unwrap_or_else(|| panic!("there is no example {name}")).2
}
