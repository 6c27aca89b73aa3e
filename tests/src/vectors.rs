//! The protocol's vectors of bad bytes, sent to an engine: each is refused with its code, where the file says.

use levada_client::{ErrorCode, Refusal, SubscriptionOptions};
use levada_protocol::{
    frame::{self, FrameType},
    publish::{Ack, AckOutcome},
    request::{Open, Opened, Read, Request, Response, ResponseEnvelope, Subscribe},
    verbs::Settled,
};
use quinn::Connection;
use serde::Deserialize;

use crate::support::{
    engine::Engine,
    events::{self, numbered},
    raw::{self, Ask, PublishStream, Stream, batch, stored},
};

const VECTORS: &str = include_str!("../../sdk/protocol/vectors.json");

#[derive(Debug, Deserialize)]
struct Vectors {
    refused_by_engine: Vec<Bad>,
}

#[derive(Debug, Deserialize)]
struct Bad {
    name: String,
    stream: String,
    hex: String,
    zeros: usize,
    finish: bool,
    #[serde(rename = "where")]
    place: String,
    code: String,
    number: u16,
}

impl Bad {
    fn bytes(&self) -> Vec<u8> {
        let digits = self.hex.as_bytes().chunks(2);
        let mut bytes: Vec<u8> =
            digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect();
        bytes.resize(bytes.len() + self.zeros, 0);
        bytes
    }

    fn open(&self) -> Option<Open> {
        let topic = "orders".parse().unwrap();
        match self.stream.as_str() {
            "connection" | "control" | "new" => None,
            "publish" => Some(Open::Publish { topic, trace: None }),
            "subscribe" => Some(Open::Subscribe(Subscribe::new(topic, "s".parse().unwrap()))),
            "read" => Some(Open::Read(Read { follow: true, ..Read::new(topic) })),
            other => panic!("{}: there is no stream {other}", self.name),
        }
    }
}

/// Where the first refusal comes and its code, or what comes instead.
async fn refusal(stream: &mut Stream) -> Result<(&'static str, ErrorCode), String> {
    while let Some((kind, payload)) = stream.frame().await {
        match kind {
            FrameType::Error => {
                let refusal: Refusal = frame::read_message(&payload).expect("a refusal's bytes");
                let last = stream.frame().await.is_none() && !refusal.message.is_empty();
                return if last { Ok(("error", refusal.code)) } else { Err(format!("{refusal}, and more")) };
            }
            FrameType::Ack => {
                let acks = Ack::read_all(&payload).expect("an acknowledgement's bytes");
                let [Ack { correlation: 1, outcome, .. }] = &acks[..] else {
                    return Err(format!("{acks:?}"));
                };
                return match outcome {
                    AckOutcome::Refused(refusal) => Ok(("ack", refusal.code)),
                    AckOutcome::OffsetMismatch { .. } => Ok(("ack", ErrorCode::OffsetMismatch)),
                    AckOutcome::Appended { .. } | AckOutcome::Scheduled { .. } => Err(format!("{acks:?}")),
                };
            }
            FrameType::Settled => {
                // What came before a bad frame may be answered first.
                let settled = Settled::read(&payload).expect("a settled frame's bytes");
                if let Some(refused) = settled.refused.first().filter(|_| settled.sequence == 1) {
                    return Ok(("settled", refused.code));
                }
            }
            FrameType::Opened => match frame::read_message(&payload).expect("an answer's bytes") {
                Opened::Response(ResponseEnvelope { response: Response::Refused(refusal), .. }) => {
                    return Ok(("refused", refusal.code));
                }
                other => return Err(format!("{other:?}")),
            },
            other => return Err(format!("a frame of type {other:?}")),
        }
    }
    Err("the stream's end".to_owned())
}

#[tokio::test]
async fn every_bad_vector_is_refused_with_its_code_where_the_file_says() {
    let engine = Engine::start().await;
    let client = engine.connect().await;
    client.create_topic("orders", events::partitions(4)).await.unwrap();
    client
        .create_subscription("orders", "s", SubscriptionOptions::default(), Default::default())
        .await
        .unwrap();
    let (quic, ca) = (engine.started.quic, &engine.started.ca_pem_path);
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert!(vectors.refused_by_engine.len() > 100);
    let (shared, _control, _) = raw::greet(quic, ca).await;
    let mut wrong = Vec::new();
    for bad in &vectors.refused_by_engine {
        // A stream that is refused leaves its connection as it was; one that closes it has its own.
        let (connection, mut control) = match (bad.stream.as_str(), bad.place.as_str()) {
            ("connection", _) => (raw::connect(quic, ca).await, None),
            (_, "close") => {
                let (connection, control, _) = raw::greet(quic, ca).await;
                (connection, Some(control))
            }
            _ => (shared.clone(), None),
        };
        let mut opened;
        let stream = match (bad.stream.as_str(), &mut control) {
            ("control", Some(control)) => control,
            _ => {
                opened = begin(&connection, bad).await;
                &mut opened
            }
        };
        if bad.open().is_some() || bad.stream == "control" {
            stream.send(&bad.bytes()).await;
        }
        if bad.finish {
            stream.send.finish().unwrap();
        }
        let got = refusal(stream).await;
        let expected = if bad.place == "close" { "error" } else { bad.place.as_str() };
        if !got.as_ref().is_ok_and(|(place, code)| {
            (*place, code.as_str(), code.number()) == (expected, &*bad.code, bad.number)
        }) {
            wrong.push(format!("{}: expected {} {}, got {got:?}", bad.name, bad.place, bad.code));
        } else if bad.place == "close" {
            assert_eq!(raw::closed_with(&connection).await.number(), bad.number, "{}", bad.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(shared.close_reason().is_none());
    assert!(matches!(raw::request(&shared, Request::Info).await, Response::Info(_)));
    assert!(events::read_all(&client, "orders").await.values().all(Vec::is_empty), "nothing bad was stored");
    // And what is sound is still taken.
    let mut publishing = PublishStream::open(&shared, "orders").await;
    let sound = batch(0, 0, 0, &[numbered(0)]);
    assert_eq!(publishing.publish(Ask::default(), sound.bytes()).await, stored(0, 1, false));
}

/// The stream on which the bytes are sent; a new one begins with them.
async fn begin(connection: &Connection, bad: &Bad) -> Stream {
    match bad.open() {
        None => Stream::with(connection, &bad.bytes()).await,
        Some(open) => {
            let mut stream = Stream::open(connection, &open).await;
            assert!(stream.answer().await.is_ok(), "{}", bad.name);
            stream
        }
    }
}
