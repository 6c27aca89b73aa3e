//! Bytes that no honest client sends: each gets its code, the connection goes where it must, nobody else notices.

use std::{net::SocketAddr, time::Duration};

use levada_client::{ErrorCode, TopicSettings};
use levada_protocol::{
    batch::BATCH_HEADER_BYTES,
    deliver::DeliverHeader,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, frame},
    ids::{DeliveryToken, Offset, PartitionId},
    limits::{FRAME_BYTES_MAX, REQUEST_BYTES_MAX, VERBS_MAX},
    publish::{AckOutcome, PUBLISH_HEADER_BYTES},
    request::{Hello, Open, Opened, Read, Request, Response, Subscribe, SubscriptionOptions},
    verbs::{Credit, Settled, Verb, VerbKind, Verbs},
};
use quinn::Connection;
use tempfile::TempDir;

use crate::support::{
    engine::Engine,
    events::{self, numbered},
    process::Process,
    raw::{self, Ask, PublishStream, Stream, batch, stored},
    until, within,
};

/// Half a frame: its length was never sent whole.
const HALF_A_HEADER: &[u8] = &[1, 0, 0];

/// An engine with a topic, and two sessions: one to misbehave on, one that must not notice.
struct Stage {
    engine: Engine,
    connection: Connection,
    beside: Connection,
    _controls: [Stream; 2],
}

impl Stage {
    async fn set() -> Self {
        let engine = Engine::start().await;
        let client = engine.connect().await;
        client.create_topic("orders", TopicSettings::default()).await.unwrap();
        client
            .create_subscription("orders", "s", SubscriptionOptions::default(), Default::default())
            .await
            .unwrap();
        let (quic, ca) = (engine.started.quic, engine.started.ca_pem_path.clone());
        let (connection, control, _) = raw::greet(quic, &ca).await;
        let (beside, other, _) = raw::greet(quic, &ca).await;
        Self { engine, connection, beside, _controls: [control, other] }
    }

    async fn stream(&self, bytes: &[u8]) -> Stream {
        Stream::with(&self.connection, bytes).await
    }

    /// The connection goes on.
    async fn still_stands(&self) {
        assert!(matches!(raw::request(&self.connection, Request::Info).await, Response::Info(_)));
    }

    /// The connection was closed with this code, and the one beside was not.
    async fn was_closed(self, code: ErrorCode) {
        assert_eq!(raw::closed_with(&self.connection).await, code);
        assert!(matches!(raw::request(&self.beside, Request::Info).await, Response::Info(_)));
        assert!(self.beside.close_reason().is_none());
    }

    /// What the topic holds.
    async fn stored(&self) -> usize {
        let client = self.engine.connect().await;
        events::read_all(&client, "orders").await.values().map(Vec::len).sum()
    }
}

/// A header that claims a length.
fn claims(kind: u8, len: u32) -> [u8; FRAME_HEADER_BYTES] {
    let len = len.to_le_bytes();
    [len[0], len[1], len[2], len[3], kind, 0, 0, 0]
}

#[tokio::test]
async fn a_stream_before_the_hello_ends_the_connection() {
    let engine = Engine::start().await;
    let (quic, ca) = (engine.started.quic, &engine.started.ca_pem_path);
    for open in [
        Open::Publish { topic: "orders".parse().unwrap(), trace: None },
        Open::Read(Read::new("orders".parse().unwrap())),
        Open::Unknown,
    ] {
        let connection = raw::connect(quic, ca).await;
        let mut stream = Stream::open(&connection, &open).await;
        assert_eq!(stream.refused().await, ErrorCode::HelloRequired, "{open:?}");
        assert_eq!(raw::closed_with(&connection).await, ErrorCode::HelloRequired);
    }
}

#[tokio::test]
async fn versions_without_overlap_are_refused_and_an_overlap_is_taken() {
    let engine = Engine::start().await;
    let (quic, ca) = (engine.started.quic, &engine.started.ca_pem_path);
    let hello =
        |protocol_min, protocol_max| Open::Hello(Hello { protocol_min, protocol_max, ..Hello::default() });
    for (min, max) in [(2, 9), (0, 0), (9, 2)] {
        let connection = raw::connect(quic, ca).await;
        let mut control = Stream::open(&connection, &hello(min, max)).await;
        let refusal = control.answer().await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::UnsupportedVersion);
        assert!(refusal.message.contains(&format!("{min} to {max}")), "{refusal}");
        assert_eq!(raw::closed_with(&connection).await, ErrorCode::UnsupportedVersion);
    }
    let connection = raw::connect(quic, ca).await;
    match Stream::open(&connection, &hello(0, 9)).await.answer().await {
        Ok(Opened::Hello(answer)) => assert_eq!(answer.protocol, 1),
        other => panic!("expected the hello's answer, got {other:?}"),
    }
}

#[tokio::test]
async fn frames_that_mean_nothing_cost_their_stream_alone() {
    let stage = Stage::set().await;
    let open = |open: &Open| levada_protocol::frame::message(FrameType::Open, open).to_vec();
    let publish = open(&Open::Publish { topic: "orders".parse().unwrap(), trace: None });
    let subscribe = open(&Open::Subscribe(Subscribe::new("orders".parse().unwrap(), "s".parse().unwrap())));
    let read = open(&Open::Read(Read { follow: true, ..Read::new("orders".parse().unwrap()) }));
    let no_messagepack = frame(FrameType::Open, &[0xc1; 5]).to_vec();
    let behind = |first: &[u8], then: &[u8]| [first, then].concat();
    for (what, bytes, code) in [
        ("an unknown type", claims(200, 0).to_vec(), ErrorCode::UnknownFrame),
        ("an unknown type behind an open", behind(&publish, &claims(99, 0)), ErrorCode::UnknownFrame),
        ("no MessagePack", no_messagepack, ErrorCode::Malformed),
        ("an empty open", claims(1, 0).to_vec(), ErrorCode::Malformed),
        ("a publish first", claims(16, 0).to_vec(), ErrorCode::Malformed),
        ("a second hello", open(&raw::hello()), ErrorCode::Malformed),
        ("an unknown kind of stream", open(&Open::Unknown), ErrorCode::Unsupported),
        (
            "a credit to a publisher",
            behind(&publish, &frame(FrameType::Credit, &[0; 16])),
            ErrorCode::Malformed,
        ),
        (
            "half a publish header",
            behind(&publish, &frame(FrameType::Publish, &[0; 23])),
            ErrorCode::Malformed,
        ),
        (
            "a publish to a consumer",
            behind(&subscribe, &frame(FrameType::Publish, &[0; 99])),
            ErrorCode::Malformed,
        ),
        ("half a credit", behind(&subscribe, &frame(FrameType::Credit, &[0; 15])), ErrorCode::Malformed),
        ("half a verb", behind(&subscribe, &frame(FrameType::Verbs, &[1; 20])), ErrorCode::Malformed),
        ("an unknown verb", behind(&subscribe, &frame(FrameType::Verbs, &[9; 42])), ErrorCode::Malformed),
        ("verbs to a reader", behind(&read, &frame(FrameType::Verbs, &[0; 8])), ErrorCode::Malformed),
    ] {
        let mut stream = stage.stream(&bytes).await;
        assert_eq!(stream.refused().await, code, "{what}");
        assert!(stream.frame().await.is_none(), "{what}: the stream ends with its refusal");
        stage.still_stands().await;
    }
}

#[tokio::test]
async fn a_frame_cut_off_anywhere_is_malformed() {
    let stage = Stage::set().await;
    let whole = levada_protocol::frame::message(
        FrameType::Open,
        &Open::Publish { topic: "orders".parse().unwrap(), trace: None },
    );
    for cut in (1..whole.len()).step_by(3) {
        let mut stream = stage.stream(&whole[..cut]).await;
        stream.send.finish().unwrap();
        assert_eq!(stream.refused().await, ErrorCode::Malformed, "cut after {cut}");
    }
    // In the middle of a batch.
    let mut publishing = PublishStream::open(&stage.connection, "orders").await;
    let batch = batch(0, 0, 0, &[numbered(0)]);
    let header = FrameHeader::bytes(FrameType::Publish, PUBLISH_HEADER_BYTES + batch.bytes().len());
    publishing.stream.send(&[&header[..], &[0; PUBLISH_HEADER_BYTES], &batch.bytes()[..50]].concat()).await;
    publishing.stream.send.finish().unwrap();
    assert_eq!(publishing.stream.refused().await, ErrorCode::Malformed);
    stage.still_stands().await;
    assert_eq!(stage.stored().await, 0);
}

#[tokio::test]
async fn a_stream_reset_in_the_middle_is_forgotten() {
    let stage = Stage::set().await;
    for _ in 0..50 {
        let mut stream = stage.stream(HALF_A_HEADER).await;
        stream.send.reset(0_u32.into()).unwrap();
        let mut publishing = PublishStream::open(&stage.connection, "orders").await;
        publishing.stream.send(&claims(16, 1_000)).await;
        publishing.stream.send.reset(0_u32.into()).unwrap();
    }
    stage.still_stands().await;
    assert_eq!(stage.stored().await, 0);
}

#[tokio::test]
async fn a_length_over_the_limit_closes_the_connection() {
    let over = |max: usize| u32::try_from(max).unwrap() + 1;
    for (what, header) in [
        ("2 GiB to open", claims(1, 1 << 31)),
        ("all ones", claims(1, u32::MAX)),
        ("one more than an open may have", claims(1, over(REQUEST_BYTES_MAX))),
        ("one more than a publish may have", claims(16, over(FRAME_BYTES_MAX))),
    ] {
        let stage = Stage::set().await;
        let mut stream = stage.stream(&header).await;
        assert_eq!(stream.refused().await, ErrorCode::FrameTooLarge, "{what}");
        stage.was_closed(ErrorCode::FrameTooLarge).await;
    }
    let stage = Stage::set().await;
    let mut publishing = PublishStream::open(&stage.connection, "orders").await;
    publishing.stream.send(&claims(16, 1 << 31)).await;
    assert_eq!(publishing.stream.refused().await, ErrorCode::FrameTooLarge);
    stage.was_closed(ErrorCode::FrameTooLarge).await;
}

#[tokio::test]
async fn a_batch_that_lies_is_refused_by_its_number_and_the_next_is_taken() {
    let stage = Stage::set().await;
    let mut publishing = PublishStream::open(&stage.connection, "orders").await;
    let sound =
        batch(0, 0, 0, &[numbered(0).with_key("k").with_header("h", "v"), numbered(1)]).bytes().to_vec();
    let with = |at: usize, value: &[u8], sign: bool| {
        let mut bytes = sound.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        if sign {
            let crc = crc(&bytes);
            bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    };
    let mut longer = sound.clone();
    longer.push(0);
    let body = BATCH_HEADER_BYTES;
    for (what, bytes) in [
        ("a wrong checksum", with(20, &[1, 2, 3, 4], false)),
        ("a flipped bit in the payload", with(sound.len() - 1, b"X", false)),
        ("a count too high", with(4, &3_u32.to_le_bytes(), true)),
        ("a count too low", with(4, &1_u32.to_le_bytes(), true)),
        ("a count of none", with(4, &0_u32.to_le_bytes(), true)),
        ("a count beyond all", with(4, &u32::MAX.to_le_bytes(), true)),
        ("a wrong span", with(8, &7_u32.to_le_bytes(), true)),
        ("a body longer than it is", with(12, &9_999_u32.to_le_bytes(), true)),
        ("a body of 4 GiB", with(12, &u32::MAX.to_le_bytes(), true)),
        ("another uncompressed length", with(16, &u32::MAX.to_le_bytes(), true)),
        ("an unknown version", with(0, &[9], true)),
        ("a codec", with(1, &[1], true)),
        ("unknown flags", with(2, &[0, 128], true)),
        ("a selection", with(2, &[1, 0], true)),
        ("an event longer than its batch", with(body, &9_999_u32.to_le_bytes(), true)),
        ("an event of no length", with(body, &0_u32.to_le_bytes(), true)),
        ("a key longer than its event", with(body + 4, &999_u16.to_le_bytes(), true)),
        ("more headers than fit", with(body + 6, &60_u16.to_le_bytes(), true)),
        ("half a header", sound[..40].to_vec()),
        ("nothing", Vec::new()),
        ("a byte too many", longer),
    ] {
        let outcome = publishing.publish(Ask::default(), &bytes).await;
        let AckOutcome::Refused(refusal) = &outcome else { panic!("{what}: {outcome:?}") };
        assert!(
            matches!(refusal.code, ErrorCode::BatchInvalid | ErrorCode::EventTooLarge),
            "{what}: {refusal}"
        );
        assert!(!refusal.message.is_empty(), "{what}");
    }
    assert_eq!(publishing.publish(Ask::default(), &sound).await, stored(0, 2, false));
    assert_eq!(stage.stored().await, 2, "nothing that was refused was stored");
}

/// CRC-32C of a batch: all but the four bytes of the checksum itself.
fn crc(batch: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in batch[..20].iter().chain(&batch[24..]) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[tokio::test]
async fn words_about_deliveries_of_others_have_no_effect() {
    let stage = Stage::set().await;
    let client = stage.engine.connect().await;
    events::publish_numbers(&client, "orders", 0..10).await;
    let mut owner = events::subscribe_existing(&client, "orders", "s").await;
    events::take(&mut owner, 10, |_| {}).await;
    let subscribe = Subscribe::new("orders".parse().unwrap(), "s".parse().unwrap());
    let mut stream = Stream::open(&stage.connection, &Open::Subscribe(subscribe)).await;
    assert!(matches!(stream.answer().await, Ok(Opened::Subscribe(_))));
    let verbs = |sequence: u64, token: u64, partition: u16, first: u64, last: u64| {
        let (partition, token) = (PartitionId(partition), DeliveryToken(token));
        let verb = Verb { kind: VerbKind::Ack, partition, token, first: Offset(first), last: Offset(last) };
        Verbs { sequence, verbs: vec![verb] }.frame()
    };
    for (sequence, (token, partition, first, last)) in
        (1..).zip([(0, 0, 0, 9), (u64::MAX, 0, 0, u64::MAX), (7, 9, 0, 9), (1, u16::MAX, u64::MAX, u64::MAX)])
    {
        stream.send(&verbs(sequence, token, partition, first, last)).await;
        let (kind, payload) = stream.frame().await.expect("an answer to verbs");
        assert_eq!(kind, FrameType::Settled);
        let settled = Settled::read(&payload).unwrap();
        let codes: Vec<_> = settled.refused.iter().map(|refused| refused.code).collect();
        assert_eq!(codes, [ErrorCode::DeliveryExpired], "{settled:?}");
    }
    let described = client.describe_subscription("orders", "s").await.unwrap();
    assert_eq!((described.positions[0].offset, described.in_flight), (0, 10));
}

#[tokio::test]
async fn a_consumer_that_reads_nothing_and_says_too_much_is_detached_as_soon_as_it_resets_its_stream() {
    let engine = Engine::with(|config| config.subscribe.unread_timeout = Duration::from_secs(3_600)).await;
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::publish_numbers(&client, "orders", 0..1).await;
    drop(events::subscribe(&client, "orders", "s").await);
    let (connection, _control) =
        raw::greet_with_window(engine.started.quic, &engine.started.ca_pem_path, 4_096).await;
    let subscribe = Subscribe::new("orders".parse().unwrap(), "s".parse().unwrap());
    let mut stream = Stream::open(&connection, &Open::Subscribe(subscribe)).await;
    assert!(matches!(stream.answer().await, Ok(Opened::Subscribe(_))));
    stream.send(&Credit { events: 1, bytes: 1 << 20 }.frame()).await;
    let (kind, mut delivery) = stream.frame().await.expect("a delivery");
    assert_eq!(kind, FrameType::Deliver);
    let token = DeliverHeader::read(&mut delivery).unwrap().token;
    let ack = |token| {
        let (kind, partition) = (VerbKind::Ack, PartitionId(0));
        Verb { kind, partition, token, first: Offset(0), last: Offset(0) }
    };
    let late = |sequence| Verbs { sequence, verbs: vec![ack(DeliveryToken(0)); VERBS_MAX] }.frame();
    for sequence in 1..=15 {
        stream.send(&late(sequence)).await;
    }
    stream.send(&Verbs { sequence: 16, verbs: vec![ack(token)] }.frame()).await;
    let info = async || client.describe_subscription("orders", "s").await.unwrap();
    until("all of that is taken", async || (info().await.lag == 0).then_some(())).await;
    // Of these, not all can be taken before it reads.
    for sequence in 17..=20 {
        stream.send(&late(sequence)).await;
    }
    stream.send.reset(0_u32.into()).unwrap();
    until("it is detached", async || info().await.consumers.is_empty().then_some(())).await;
}

#[tokio::test]
async fn credit_without_measure_does_no_harm() {
    let stage = Stage::set().await;
    let client = stage.engine.connect().await;
    events::publish_numbers(&client, "orders", 0..100).await;
    let read = Open::Read(Read::new("orders".parse().unwrap()));
    let mut stream = Stream::open(&stage.connection, &read).await;
    for _ in 0..3 {
        let credit = Credit { events: u64::MAX, bytes: u64::MAX };
        stream.send(&credit.frame()).await;
    }
    let mut kinds = Vec::new();
    while let Some((kind, _)) = stream.frame().await {
        kinds.push(kind);
    }
    assert_eq!(kinds.first(), Some(&FrameType::Opened));
    assert_eq!(kinds.last(), Some(&FrameType::End));
    stage.still_stands().await;
}

/// Sessions that each claim 2 GiB, cut frames, and garbage, over and over.
async fn flood(quic: SocketAddr, ca: &std::path::Path, rounds: usize) {
    for round in 0..rounds {
        let (connection, _control, _) = raw::greet(quic, ca).await;
        let mut streams = Vec::new();
        for place in 0..40_u8 {
            // Within the limit, and never sent: nothing may be kept ready for it.
            let header = claims(1, u32::try_from(REQUEST_BYTES_MAX).unwrap());
            let bytes = if place % 2 == 0 { header.to_vec() } else { vec![place; 64] };
            let (mut send, recv) = within("a stream", connection.open_bi()).await.unwrap();
            let _ = send.write_all(&bytes).await;
            streams.push((send, recv));
        }
        let (mut send, _recv) = within("a stream", connection.open_bi()).await.unwrap();
        let _ = send.write_all(&claims(if round % 2 == 0 { 1 } else { 16 }, 1 << 31)).await;
        within("the end", connection.closed()).await;
    }
}

#[tokio::test]
async fn a_flood_of_impossible_lengths_leaves_memory_flat() {
    let dir = TempDir::new().unwrap();
    let engine = Process::start(dir.path()).await;
    let quic: SocketAddr = engine.quic.parse().unwrap();
    flood(quic, &engine.ca, 20).await;
    let before = engine.resident_bytes();
    flood(quic, &engine.ca, 200).await;
    let after = engine.resident_bytes();
    assert!(after < before + (16 << 20), "memory went from {before} to {after} bytes");
    let client = engine.connect().await;
    events::topic(&client, "orders").await;
    events::publish_numbers(&client, "orders", 0..10).await;
    client.close().await;
    engine.stop().await;
}
