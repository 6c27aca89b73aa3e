//! `vectors.json`: what this codec says, for clients in other languages to compare with.
//!
//! `WRITE_VECTORS=1 cargo test -p levada-protocol` writes the file anew. Do that only for a new example: bytes that are in
//! the file already are what other clients speak.

mod bad;
pub(crate) mod decoded;
mod examples;

use std::path::PathBuf;

use levada_protocol::{
    frame::{FrameHeader, FrameType},
    partition::partition_of,
    version::PROTOCOL_VERSION,
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use self::decoded::hex;
use crate::golden;

/// Where it is now, not where it was compiled, as several clones may share one build folder.
fn path() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    PathBuf::from(package).join("vectors.json")
}

const ABOUT: [&str; 7] = [
    "Test vectors of the Levada protocol; PROTOCOL.md explains every field.",
    "Bytes are hexadecimal digits, in `value` too (keys, payloads, header values, artefacts); null is an absent value.",
    "Integers above 2^53 - 1 are decimal text, so that every JSON reader keeps them.",
    "`examples`: whole frames, batches and a plugin's answer; `value` is what they say, for messages the map itself, with `trace` as the text of a traceparent header.",
    "`partitions`: keys with their XXH3-64 (the number, in hexadecimal) and their partition of 1, 3, 4 and 1,024.",
    "`refused_by_engine`: send `hex`, then `zeros` zero bytes, finish your direction if `finish`, on a `stream` that is: connection, the first stream of a new connection; control, the control stream after the hello; new, a new stream; publish, subscribe or read, such a stream after its answer (topic orders of 4 partitions, subscription s with default options, both existing, following reader). The refusal comes in an `ack` or `settled` entry, in the response `refused`, in an `error` frame that ends the stream, or in that and the `close` of the connection.",
    "`refused_by_client`: frames from an engine that a client must treat as malformed.",
];

/// Who sends a frame of this type.
fn sender(kind: FrameType) -> &'static str {
    match kind {
        FrameType::Open | FrameType::Chunk | FrameType::Publish | FrameType::Credit | FrameType::Verbs => {
            "client"
        }
        FrameType::Opened
        | FrameType::Notice
        | FrameType::Error
        | FrameType::Ack
        | FrameType::Deliver
        | FrameType::Settled
        | FrameType::End
        | FrameType::Progress
        | FrameType::CheckBack => "engine",
    }
}

fn example(name: &str, what: &str, from: &str, bytes: &[u8], value: Result<Value, String>) -> Value {
    let value = value.unwrap_or_else(|error| panic!("{name}: {error}"));
    json!({ "name": name, "what": what, "from": from, "hex": hex(bytes), "value": value })
}

fn frame_example(name: &str, bytes: &[u8]) -> Value {
    let kind = FrameHeader::read(bytes.first_chunk().unwrap()).unwrap().kind;
    example(name, &format!("{kind:?}"), sender(kind), bytes, decoded::frame(bytes))
}

fn examples() -> Vec<Value> {
    let quoted = golden::all().into_iter().map(|(name, _, bytes)| match name {
        "batch" => example(name, "batch", "client", &bytes, decoded::batch(&bytes)),
        "selection" => example(name, "batch", "engine", &bytes, decoded::batch(&bytes)),
        "verdicts" => example(name, "verdicts", "plugin", &bytes, decoded::verdicts(&bytes)),
        name => frame_example(name, &bytes),
    });
    let batches = examples::batches().into_iter();
    let batches =
        batches.map(|(name, bytes)| example(name, "batch", "client", &bytes, decoded::batch(&bytes)));
    let frames = examples::frames().into_iter().map(|(name, bytes)| frame_example(name, &bytes));
    quoted.chain(batches).chain(frames).collect()
}

/// Keys of every range of lengths that XXH3 treats in its own way.
fn partitions() -> Vec<Value> {
    let plain: [&[u8]; 7] = [
        b"",
        b"a",
        b"order-42",
        b"customer-7",
        b"0123456789abcdef",
        b"0123456789abcdefg",
        "schlüssel".as_bytes(),
    ];
    let long = [64, 128, 129, 240, 241, 1_025, 4_096].map(|len| vec![b'k'; len]);
    let keys = plain.into_iter().map(<[u8]>::to_vec).chain(long);
    keys.map(|key| {
        let of = |count| partition_of(&key, count).0;
        json!({
            "key": hex(&key),
            "xxh3": format!("{:016x}", xxh3_64(&key)),
            "of": { "1": of(1), "3": of(3), "4": of(4), "1024": of(1_024) },
        })
    })
    .collect()
}

fn refused_by_clients() -> Vec<Value> {
    let refused = |(name, bytes): (&str, Vec<u8>)| {
        assert!(decoded::frame(&bytes).is_err(), "{name}");
        json!({ "name": name, "hex": hex(&bytes) })
    };
    bad::for_clients().into_iter().map(refused).collect()
}

fn vectors() -> Value {
    json!({
        "about": ABOUT,
        "protocol": PROTOCOL_VERSION,
        "examples": examples(),
        "checksums": [{ "bytes": hex(b"123456789"), "crc32c": format!("{:08x}", crc32c::crc32c(b"123456789")) }],
        "partitions": partitions(),
        "refused_by_engine": bad::for_the_engine().iter().map(bad::Bad::json).collect::<Vec<_>>(),
        "refused_by_client": refused_by_clients(),
    })
}

#[test]
fn the_file_of_vectors_is_what_the_code_says() {
    let ours = vectors();
    if std::env::var_os("WRITE_VECTORS").is_some() {
        std::fs::write(path(), format!("{}\n", serde_json::to_string_pretty(&ours).unwrap())).unwrap();
    }
    let stored: Value = serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    for list in ["examples", "partitions", "refused_by_engine", "refused_by_client"] {
        let (ours, stored) = (ours[list].as_array().unwrap(), stored[list].as_array().unwrap());
        for (ours, stored) in ours.iter().zip(stored) {
            assert_eq!(ours, stored, "an entry of {list}");
        }
        assert_eq!(ours.len(), stored.len(), "entries of {list}");
    }
    assert_eq!(ours, stored);
}

#[test]
fn names_of_vectors_are_unique() {
    let vectors = vectors();
    for list in ["examples", "refused_by_engine", "refused_by_client"] {
        let names: Vec<&str> =
            vectors[list].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        let distinct: std::collections::HashSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{list}: {names:?}");
    }
}
