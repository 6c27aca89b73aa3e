//! Fixed bytes: one example per frame type, for a batch, a selection and a plugin's answer.
//!
//! They were worked out field by field from the diagrams, the checksums and the MessagePack with other
//! implementations than ours. PROTOCOL.md quotes them. If one of these tests fails, clients of other versions and
//! languages no longer understand us: the code is at fault, never the example.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use levada_protocol::{
    batch::{Batch, BatchBuilder, EventParts, Stamp},
    deliver::{DeliverHeader, EndEntry, Run, checked_batches},
    duplicates::Duplicates,
    error::{ErrorCode, Refusal},
    event::Event,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameType, frame, message, read_message},
    ids::{DeliveryToken, Epoch, Offset, PartitionId, ProducerId, Sequence, Timestamp},
    progress::{Progress, Scanned, SearchState},
    publish::{Ack, AckOutcome, Durability, PublishHeader},
    request::{CheckBack, Hello, Notice, Open, Opened, Request, RequestEnvelope, Response, Start, Subscribe},
    verbs::{Credit, RefusedVerb, Rejection, Settled, Verb, VerbKind, Verbs},
    verdict::{Change, HeadersChange, Output, Verdict, VerdictWriter, Verdicts},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::samples::{check_back, name, producer, response, trace};

/// The time in the examples.
const TIME: u64 = 1_700_000_000_000;
const PARTITION: PartitionId = PartitionId(3);
const TOKEN: DeliveryToken = DeliveryToken(0x1122_3344_5566_7788);

/// Every example: its name, our bytes, and the fixed ones.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let row = |name, ours: &[u8], fixed: &str| (name, ours.to_vec(), bytes_of(fixed));
    vec![
        row("batch", batch().bytes(), BATCH),
        row("selection", selection().bytes(), SELECTION),
        row("hello", &message(FrameType::Open, &hello()), HELLO),
        row("request", &message(FrameType::Open, &request()), REQUEST),
        row("subscribe", &message(FrameType::Open, &subscribe()), SUBSCRIBE),
        row("opened", &message(FrameType::Opened, &opened()), OPENED),
        row(
            "producer",
            &message(FrameType::Opened, &response(Response::Producer(Box::new(producer())))),
            PRODUCER,
        ),
        row("chunk", &frame(FrameType::Chunk, b"\0asm"), CHUNK),
        row("notice", &message(FrameType::Notice, &notice()), NOTICE),
        row("error", &message(FrameType::Error, &refusal()), ERROR),
        row("publish", &publish(), PUBLISH),
        row("ack", &ack_frame(&acks()), ACK),
        row("scheduled", &ack_frame(&scheduled()), SCHEDULED),
        row("ack of duplicates", &ack_frame(&duplicates()), ACK_OF_DUPLICATES),
        row("deliver", &deliver(), DELIVER),
        row("credit", &credit().frame(), CREDIT),
        row("verbs", &verbs().frame(), VERBS),
        row("settled", &settled().frame(), SETTLED),
        row("end", &EndEntry::frame(&[end()]), END),
        row("progress", &progress().frame(), PROGRESS),
        row("check back", &message(FrameType::CheckBack, &check_back()), CHECK_BACK),
        row("verdicts", &verdicts(), VERDICTS),
    ]
}

/// The bytes of an example: two digits each, `@` and the name for those of another, comments behind `#`.
pub(crate) fn bytes_of(example: &str) -> Vec<u8> {
    let lines = example.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(str::split_whitespace);
    words
        .flat_map(|word| match word {
            "@batch" => bytes_of(BATCH),
            "@selection" => bytes_of(SELECTION),
            digits => vec![u8::from_str_radix(digits, 16).unwrap()],
        })
        .collect()
}

#[test]
fn every_example_has_its_fixed_bytes() {
    for (name, ours, fixed) in all() {
        assert_eq!(ours, fixed, "{name}");
    }
}

#[test]
fn every_frame_type_has_an_example() {
    let examples = all();
    let types: Vec<u8> = examples
        .iter()
        .filter(|(name, ..)| !["batch", "selection", "verdicts"].contains(name))
        .map(|(name, _, fixed)| {
            let header = FrameHeader::read(fixed.first_chunk().unwrap()).unwrap();
            assert_eq!(header.len, fixed.len() - FRAME_HEADER_BYTES, "{name}");
            header.kind as u8
        })
        .collect();
    for number in 0..=u8::MAX {
        assert_eq!(FrameType::from_u8(number).is_some(), types.contains(&number), "type {number}");
    }
}

fn payload_of(example: &str) -> Bytes {
    Bytes::from(bytes_of(example)).slice(FRAME_HEADER_BYTES..)
}

fn is_read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(example: &str, expected: &T) {
    assert_eq!(read_message::<T>(&payload_of(example)).as_ref(), Ok(expected));
}

#[test]
fn fixed_messages_are_read() {
    is_read(HELLO, &hello());
    is_read(REQUEST, &request());
    is_read(SUBSCRIBE, &subscribe());
    is_read(OPENED, &opened());
    is_read(PRODUCER, &response(Response::Producer(Box::new(producer()))));
    is_read(NOTICE, &notice());
    is_read(ERROR, &refusal());
    assert_eq!(payload_of(CHUNK), &b"\0asm"[..]);
}

#[test]
fn fixed_batches_are_read() {
    let plain = Batch::check(bytes_of(BATCH).into()).unwrap();
    let events: Vec<Event> = plain.events().map(|event| event.to_event(&plain)).collect();
    assert_eq!(events, batch_events());
    assert_eq!(plain.header().first_sequence, 7);
    let selection = Batch::check(bytes_of(SELECTION).into()).unwrap();
    let parts = selection.events().map(|it| (it.offset_delta(), it.id(), it.ttl_ms(), it.payload()));
    let expected = [(0, Some("e1"), None, Some(&b"x"[..])), (3, None, Some(60_000), None)];
    assert!(parts.eq(expected));
}

#[test]
fn fixed_data_frames_are_read() {
    let mut payload = payload_of(PUBLISH);
    assert_eq!(PublishHeader::read(&mut payload), Ok(publish_header()));
    assert_eq!(Batch::check(payload), Ok(batch()));
    assert_eq!(Ack::read_all(&payload_of(ACK)), Ok(acks()));
    assert_eq!(Ack::read_all(&payload_of(ACK_OF_DUPLICATES)), Ok(duplicates()));
    let mut payload = payload_of(DELIVER);
    assert_eq!(DeliverHeader::read(&mut payload), Ok(deliver_header()));
    let placed = checked_batches(payload).unwrap();
    let at = &placed[0];
    assert_eq!((at.base, at.append_time, at.hops), (Offset(1_000), Timestamp(TIME + 9), 1));
    assert_eq!((placed.len(), &at.batch), (1, &selection()));
    assert_eq!(Credit::read(&payload_of(CREDIT)), Ok(credit()));
    assert_eq!(Verbs::read(&payload_of(VERBS)), Ok(verbs()));
    assert_eq!(Settled::read(&payload_of(SETTLED)), Ok(settled()));
    assert_eq!(EndEntry::read_all(&payload_of(END)), Ok(vec![end()]));
    assert_eq!(Progress::read(&payload_of(PROGRESS)), Ok(progress()));
    assert_eq!(read_message::<CheckBack>(&payload_of(CHECK_BACK)), Ok(check_back()));
}

#[test]
fn a_fixed_answer_of_a_plugin_is_read() {
    let answer = bytes_of(VERDICTS);
    let read: Vec<Verdict<'_>> = Verdicts::new(&answer).map(Result::unwrap).collect();
    let emit = Verdict::Emit(vec![output()]);
    assert_eq!(
        read,
        [Verdict::Keep(3), Verdict::Drop(1), Verdict::Reject("bad"), Verdict::Undecodable("no"), emit]
    );
}

fn batch_events() -> [Event; 2] {
    let first = Event::new("hello").with_key("k1").with_header("h", "v").at(Timestamp(TIME));
    [first, Event::new("").at(Timestamp(TIME + 5))]
}

fn batch() -> Batch {
    let mut builder = BatchBuilder::new();
    batch_events().iter().for_each(|event| builder.push(event).unwrap());
    let producer_id =
        ProducerId(u128::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]));
    builder.finish(Stamp { producer_id, epoch: Epoch(0), first_sequence: Sequence(7) })
}

fn selection() -> Batch {
    let mut builder = BatchBuilder::selection();
    let (key, payload, time) = (Some(&b"k1"[..]), Some(&b"x"[..]), Timestamp(TIME));
    let first = EventParts { key, payload, time, id: Some("e1"), ttl_ms: None };
    let last = EventParts { time: Timestamp(TIME + 1), ttl_ms: Some(60_000), ..EventParts::default() };
    builder.push_parts(0, &first, std::iter::empty()).unwrap();
    builder.push_parts(3, &last, std::iter::empty()).unwrap();
    builder.finish(Stamp::ENGINE)
}

fn hello() -> Open {
    let client = "docs/1".to_owned();
    Open::Hello(Hello { protocol_min: 1, protocol_max: 1, client, token: None, features: Vec::new() })
}

fn request() -> Open {
    let request = Request::DescribeTopic { name: name("orders") };
    Open::Request(RequestEnvelope { id: 7, deadline_ms: 5_000, trace: Some(trace()), request })
}

fn subscribe() -> Open {
    Open::Subscribe(Subscribe {
        consumer: "a".to_owned(),
        from: Start::Offset(42),
        ..Subscribe::new(name("orders"), name("payment"))
    })
}

fn opened() -> Opened {
    Opened::Publish {
        partitions: 4,
        durability: Durability::Sync,
        backlog_max_events: 0,
        backlog_max_bytes: 0,
    }
}

fn notice() -> Notice {
    Notice::GoAway { reason: "bye".to_owned() }
}

fn refusal() -> Refusal {
    Refusal::new(ErrorCode::TopicNotFound, "topic orders does not exist")
}

fn publish_header() -> PublishHeader {
    let durability = Some(Durability::Sync);
    PublishHeader { correlation: 9, partition: PARTITION, durability, expect_offset: None, due: None }
}

fn publish() -> Vec<u8> {
    let batch = batch();
    [&publish_header().frame_prefix(batch.bytes().len())[..], batch.bytes()].concat()
}

fn acks() -> Vec<Ack> {
    let repeat =
        AckOutcome::Appended { base: Some(Offset(1_000)), count: 2, duplicate: true, duplicates: None };
    let refused = AckOutcome::Refused(Refusal::new(ErrorCode::StorageFull, "full").retry_after(1_000));
    vec![
        Ack { correlation: 9, partition: PARTITION, outcome: repeat },
        Ack { correlation: 10, partition: PARTITION, outcome: refused },
    ]
}

/// Of a batch of five events, and of one that met another offset.
fn duplicates() -> Vec<Ack> {
    let mut found = None;
    for (index, first) in [(0, 1_000), (1, 1_001), (3, 7)] {
        Duplicates::note(&mut found, index, Offset(first));
    }
    let (base, duplicates) = (Some(Offset(1_002)), found.map(Arc::new));
    let appended = AckOutcome::Appended { base, count: 2, duplicate: false, duplicates };
    let mismatch = AckOutcome::OffsetMismatch { next: Offset(1_004), message: "moved".to_owned() };
    vec![
        Ack { correlation: 11, partition: PARTITION, outcome: appended },
        Ack { correlation: 12, partition: PARTITION, outcome: mismatch },
    ]
}

fn ack_frame(acks: &[Ack]) -> Bytes {
    let mut payload = BytesMut::new();
    acks.iter().for_each(|ack| ack.write(&mut payload));
    frame(FrameType::Ack, &payload)
}

fn scheduled() -> Vec<Ack> {
    let outcome = AckOutcome::Scheduled { first: Some(7), count: 2, duplicate: false };
    vec![Ack { correlation: 9, partition: PARTITION, outcome }]
}

#[test]
fn the_fixed_schedule_is_read() {
    assert_eq!(Ack::read_all(&payload_of(SCHEDULED)), Ok(scheduled()));
}

fn deliver_header() -> DeliverHeader {
    DeliverHeader { partition: PARTITION, built: true, attempt: 2, count: 2, token: TOKEN, span: 4 }
}

fn deliver() -> Vec<u8> {
    let mut runs = BytesMut::new();
    let (base, append_time) = (Offset(1_000), Timestamp(TIME + 9));
    Run { base, append_time, hops: 1, batches: selection().bytes().clone() }.write(&mut runs);
    [&deliver_header().frame_prefix(runs.len())[..], &runs].concat()
}

fn credit() -> Credit {
    Credit { events: 1_000, bytes: 1 << 20 }
}

fn verbs() -> Verbs {
    let verb = |kind, first, last| {
        let (first, last) = (Offset(first), Offset(last));
        Verb { kind, partition: PARTITION, token: TOKEN, first, last }
    };
    let reject = VerbKind::reject("bad");
    let nack = VerbKind::Nack { delay_ms: None };
    let undecodable = VerbKind::Reject { reason: "no".to_owned(), kind: Rejection::Undecodable };
    let ack = verb(VerbKind::Ack, 1_000, 1_001);
    let rest = [verb(nack, 1_002, 1_002), verb(reject, 1_003, 1_003), verb(undecodable, 1_004, 1_004)];
    Verbs { sequence: 5, verbs: [&[ack][..], &rest].concat() }
}

fn settled() -> Settled {
    let (first, last) = (Offset(1_000), Offset(1_001));
    let refused = RefusedVerb { partition: PARTITION, first, last, code: ErrorCode::DeliveryExpired };
    Settled { sequence: 5, refused: vec![refused] }
}

fn end() -> EndEntry {
    EndEntry { partition: PARTITION, next: Offset(1_004) }
}

fn progress() -> Progress {
    let scanned = Scanned { bytes: 65_536, events: 1_000, matched: 7, undecodable: 2, withheld: 1 };
    Progress { scanned, state: SearchState::Limited, positions: vec![end()] }
}

fn output() -> Output<'static> {
    Output {
        target: Some("t2"),
        key: Change::Set(b"k2"),
        headers: HeadersChange::Patch(vec![("h", b"w")], vec!["h2"]),
        payload: Change::Set(b"new"),
        ..Output::default()
    }
}

fn verdicts() -> Vec<u8> {
    let mut writer = VerdictWriter::new();
    (0..3).for_each(|_| writer.keep());
    writer.drop_event();
    writer.reject("bad");
    writer.undecodable("no");
    writer.emit(&[output()]);
    writer.finish()
}

const BATCH: &str = r#"
01 00 00 00                                      # version 1, codec 0, flags 0
02 00 00 00 02 00 00 00                          # count 2, span 2
24 00 00 00 24 00 00 00                          # body_len and uncompressed_len 36
31 3c a1 91                                      # crc32c 0x91a13c31
01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10  # producer_id
00 00 00 00 05 00 00 00                          # epoch 0, time_span_ms 5
07 00 00 00 00 00 00 00                          # first_sequence 7
05 68 e5 cf 8b 01 00 00                          # max_event_time 1700000000005
18 00 00 00 02 00 01 00                          # event: len 24, key_len 2, 1 header
00 00 00 00                                      # time_delta 0
6b 31                                            # key "k1"
01 01 00 68 76                                   # header: name_len 1, value_len 1, "h", "v"
68 65 6c 6c 6f                                   # payload "hello"
0c 00 00 00 ff ff 00 00                          # event: len 12, no key, no headers
05 00 00 00                                      # time_delta 5; the payload is empty
"#;

const SELECTION: &str = r#"
01 00 07 00                                      # version 1, codec 0, flags 7
02 00 00 00 04 00 00 00                          # count 2, span 4
31 00 00 00 31 00 00 00                          # body_len and uncompressed_len 49
0f 44 38 f4                                      # crc32c 0xf438440f
00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  # producer_id
00 00 00 00 01 00 00 00                          # epoch 0, time_span_ms 1
00 00 00 00 00 00 00 00                          # first_sequence 0
01 68 e5 cf 8b 01 00 00                          # max_event_time 1700000000001
1b 00 00 00 02 00 00 00                          # event: len 27, key_len 2, no headers
00 00 00 00                                      # time_delta 0
00 00 00 00 02 00 00 00 00 00                    # offset_delta 0, id_len 2, ttl_ms 0 (none)
6b 31 65 31 78                                   # key "k1", id "e1", payload "x"
16 00 00 00 ff ff 00 80                          # event: len 22, no key, no headers, no payload
01 00 00 00                                      # time_delta 1
03 00 00 00 00 00 60 ea 00 00                    # offset_delta 3, id_len 0 (none), ttl_ms 60000
"#;

const HELLO: &str = r#"
47 00 00 00 01 00 00 00                          # frame: 71 bytes, type 1 (open)
86 a4 6b 69 6e 64 a5 68 65 6c 6c 6f ac 70 72 6f  # map
74 6f 63 6f 6c 5f 6d 69 6e 01 ac 70 72 6f 74 6f
63 6f 6c 5f 6d 61 78 01 a6 63 6c 69 65 6e 74 a6
64 6f 63 73 2f 31 a5 74 6f 6b 65 6e c0 a8 66 65
61 74 75 72 65 73 90
"#;

const REQUEST: &str = r#"
6b 00 00 00 01 00 00 00                          # frame: 107 bytes, type 1 (open)
85 a4 6b 69 6e 64 a7 72 65 71 75 65 73 74 a2 69  # map
64 07 ab 64 65 61 64 6c 69 6e 65 5f 6d 73 cd 13
88 a5 74 72 61 63 65 c4 19 4b f9 2f 35 77 b3 4d
a6 a3 ce 92 9d 0e 0e 47 36 00 f0 67 aa 0b a9 02
b7 01 a7 72 65 71 75 65 73 74 82 a4 6b 69 6e 64
ae 64 65 73 63 72 69 62 65 5f 74 6f 70 69 63 a4
6e 61 6d 65 a6 6f 72 64 65 72 73
"#;

const SUBSCRIBE: &str = r#"
64 00 00 00 01 00 00 00                          # frame: 100 bytes, type 1 (open)
87 a4 6b 69 6e 64 a9 73 75 62 73 63 72 69 62 65  # map
a5 74 6f 70 69 63 a6 6f 72 64 65 72 73 ac 73 75
62 73 63 72 69 70 74 69 6f 6e a7 70 61 79 6d 65
6e 74 a8 63 6f 6e 73 75 6d 65 72 a1 61 a7 6f 70
74 69 6f 6e 73 c0 a4 66 72 6f 6d 82 a2 61 74 a6
6f 66 66 73 65 74 a5 76 61 6c 75 65 2a a5 74 72
61 63 65 c0
"#;

const OPENED: &str = r#"
2a 00 00 00 02 00 00 00                          # frame: 42 bytes, type 2 (opened)
83 a4 6b 69 6e 64 a7 70 75 62 6c 69 73 68 aa 70  # map
61 72 74 69 74 69 6f 6e 73 04 aa 64 75 72 61 62
69 6c 69 74 79 a4 73 79 6e 63
"#;

const PRODUCER: &str = r#"
50 00 00 00 02 00 00 00                          # frame: 80 bytes, type 2 (opened)
83 a4 6b 69 6e 64 a8 72 65 73 70 6f 6e 73 65 a2  # map
69 64 07 a8 72 65 73 70 6f 6e 73 65 83 a4 6b 69
6e 64 a8 70 72 6f 64 75 63 65 72 ab 70 72 6f 64
75 63 65 72 5f 69 64 c4 10 00 00 00 00 05 06 07
08 09 0a 0b 0c 0d 0e 0f 10 a5 65 70 6f 63 68 03
"#;

const CHUNK: &str = r#"
04 00 00 00 03 00 00 00                          # frame: 4 bytes, type 3 (chunk)
00 61 73 6d                                      # raw bytes of the artefact
"#;

const NOTICE: &str = r#"
19 00 00 00 04 00 00 00                          # frame: 25 bytes, type 4 (notice)
82 a4 6b 69 6e 64 a7 67 6f 5f 61 77 61 79 a6 72  # map
65 61 73 6f 6e a3 62 79 65
"#;

const ERROR: &str = r#"
3b 00 00 00 05 00 00 00                          # frame: 59 bytes, type 5 (error)
83 a4 63 6f 64 65 14 a7 6d 65 73 73 61 67 65 bb  # map
74 6f 70 69 63 20 6f 72 64 65 72 73 20 64 6f 65
73 20 6e 6f 74 20 65 78 69 73 74 ae 72 65 74 72
79 5f 61 66 74 65 72 5f 6d 73 c0
"#;

const PUBLISH: &str = r#"
7c 00 00 00 10 00 00 00                          # frame: 124 bytes, type 16 (publish)
09 00 00 00 03 00 02 00                          # correlation 9, partition 3, durability 2 (sync)
ff ff ff ff ff ff ff ff                          # expect_offset: none
00 00 00 00 00 00 00 00                          # deliver_at 0
@batch                                           # the batch above, 100 bytes
"#;

const ACK: &str = r#"
44 00 00 00 11 00 00 00                          # frame: 68 bytes, type 17 (ack)
09 00 00 00 00 01 03 00                          # correlation 9, outcome 0 (appended), flags 1 (repeat), partition 3
e8 03 00 00 00 00 00 00 02 00 00 00              # value 1000 (first offset), count 2
00 00 00 00 00 00 00 00 00 00 00 00              # code, extra_len, retry_after_ms, reserved: 0
0a 00 00 00 03 00 03 00                          # correlation 10, outcome 3 (refused), partition 3
ff ff ff ff ff ff ff ff 00 00 00 00              # value: none, count 0
25 00 04 00 e8 03 00 00 00 00 00 00              # code 37, extra_len 4, retry_after_ms 1000, reserved
66 75 6c 6c                                      # text "full"
"#;

const ACK_OF_DUPLICATES: &str = r#"
62 00 00 00 11 00 00 00                          # frame: 98 bytes, type 17 (ack)
0b 00 00 00 00 02 03 00                          # correlation 11, outcome 0 (appended), flags 2 (duplicates), partition 3
ea 03 00 00 00 00 00 00 02 00 00 00              # value 1002 (first stored offset), count 2
00 00 1d 00 00 00 00 00 00 00 00 00              # code 0, extra_len 29, retry_after_ms, reserved: 0
02 00 00 00                                      # 2 runs
02 00 00 00 e8 03 00 00 00 00 00 00              # the first 2 duplicates are of the events at 1000 and 1001
01 00 00 00 07 00 00 00 00 00 00 00              # the next one is of the event at 7
0b                                               # bitmap: events 0, 1 and 3; so 2 and 4 are stored, at 1002 and 1003
0c 00 00 00 03 00 03 00                          # correlation 12, outcome 3 (refused), partition 3
ec 03 00 00 00 00 00 00 00 00 00 00              # value 1004 (the partition's next offset), count 0
23 00 05 00 00 00 00 00 00 00 00 00              # code 35 (OFFSET_MISMATCH), extra_len 5, retry_after_ms, reserved
6d 6f 76 65 64                                   # text "moved"
"#;

const SCHEDULED: &str = r#"
20 00 00 00 11 00 00 00                          # frame: 32 bytes, type 17 (ack)
09 00 00 00 01 00 03 00                          # correlation 9, outcome 1 (scheduled), flags 0, partition 3
07 00 00 00 00 00 00 00 02 00 00 00              # value 7 (first schedule id), count 2
00 00 00 00 00 00 00 00 00 00 00 00              # code, extra_len, retry_after_ms, reserved: 0
"#;

const DELIVER: &str = r#"
a1 00 00 00 20 00 00 00                          # frame: 161 bytes, type 32 (deliver)
03 00 01 02 02 00 00 00                          # partition 3, flags 1 (built), attempt 2, count 2
88 77 66 55 44 33 22 11 04 00 00 00 00 00 00 00  # token, span 4, reserved
e8 03 00 00 00 00 00 00 09 68 e5 cf 8b 01 00 00  # run: base_offset 1000, append_time
71 00 00 00 01 00 00 00                          # len 113, hops 1, reserved
@selection                                       # the selection above
"#;

const CREDIT: &str = r#"
10 00 00 00 21 00 00 00                          # frame: 16 bytes, type 33 (credit)
e8 03 00 00 00 00 00 00                          # events 1000
00 00 10 00 00 00 00 00                          # bytes 1048576
"#;

const VERBS: &str = r#"
95 00 00 00 22 00 00 00                          # frame: 149 bytes, type 34 (verbs)
05 00 00 00 00 00 00 00                          # sequence 5
01 00 03 00 00 00 00 00                          # verb 1 (ack), partition 3, delay_ms 0
88 77 66 55 44 33 22 11 e8 03 00 00 00 00 00 00  # token, first 1000
e9 03 00 00 00 00 00 00 00 00                    # last 1001, extra_len 0
02 00 03 00 ff ff ff ff                          # verb 2 (nack by backoff), partition 3, delay_ms all ones
88 77 66 55 44 33 22 11 ea 03 00 00 00 00 00 00  # token, first 1002
ea 03 00 00 00 00 00 00 00 00                    # last 1002, extra_len 0
04 00 03 00 00 00 00 00                          # verb 4 (reject), partition 3, delay_ms 0
88 77 66 55 44 33 22 11 eb 03 00 00 00 00 00 00  # token, first 1003
eb 03 00 00 00 00 00 00 03 00                    # last 1003, extra_len 3
62 61 64                                         # reason "bad"
04 01 03 00 00 00 00 00                          # verb 4 (reject), flags 1 (undecodable), partition 3, delay_ms 0
88 77 66 55 44 33 22 11 ec 03 00 00 00 00 00 00  # token, first 1004
ec 03 00 00 00 00 00 00 02 00                    # last 1004, extra_len 2
6e 6f                                            # reason "no"
"#;

const SETTLED: &str = r#"
20 00 00 00 23 00 00 00                          # frame: 32 bytes, type 35 (settled)
05 00 00 00 00 00 00 00                          # sequence 5
03 00 35 00 00 00 00 00                          # partition 3, code 53, reserved
e8 03 00 00 00 00 00 00 e9 03 00 00 00 00 00 00  # first 1000, last 1001
"#;

const END: &str = r#"
10 00 00 00 24 00 00 00                          # frame: 16 bytes, type 36 (end)
03 00 00 00 00 00 00 00                          # partition 3, reserved
ec 03 00 00 00 00 00 00                          # next_offset 1004
"#;

const PROGRESS: &str = r#"
40 00 00 00 25 00 00 00                          # frame: 64 bytes, type 37 (progress)
00 00 01 00 00 00 00 00                          # scanned 65536
e8 03 00 00 00 00 00 00                          # events 1000
07 00 00 00 00 00 00 00                          # matched 7
02 00 00 00 00 00 00 00                          # undecodable 2
01 00 00 00 00 00 00 00                          # withheld 1
02 00 00 00 00 00 00 00                          # state 2 (limited), reserved
03 00 00 00 00 00 00 00                          # partition 3, reserved
ec 03 00 00 00 00 00 00                          # next_offset 1004
"#;

const CHECK_BACK: &str = r#"
35 00 00 00 30 00 00 00                          # frame: 53 bytes, type 48 (check back)
84 a2 69 64 a8 6f 72 64 65 72 2d 34 32 ab 70 72  # map
65 70 61 72 65 64 5f 6d 73 cf 00 00 01 8b cf e5
68 00 a5 63 68 65 63 6b 02 aa 63 68 65 63 6b 73
5f 6d 61 78 0f
"#;

const VERDICTS: &str = r#"
01 00 03 00                                      # keep the next 3 events
00 00 01 00                                      # drop 1
02 00 03 00 62 61 64                             # reject 1, reason of 3 bytes: "bad"
02 01 02 00 6e 6f                                # reject 1 with flags 1 (undecodable), reason of 2 bytes: "no"
03 00 01 00                                      # emit: 1 event becomes 1 output
27 00 00 00 c3 00                                # output: len 39, fields 195 (target, key, patched headers, payload)
02 00 02 00 00 00                                # target_len 2, key_len 2, id_len 0
01 00 01 00 00 00 00 00 00 00 00 00              # headers 1, removed 1, time 0 (not given)
74 32 6b 32                                      # target "t2", key "k2"
01 01 00 68 77                                   # set: name_len 1, value_len 1, "h", "w"
02 68 32                                         # removed: name_len 2, "h2"
6e 65 77                                         # payload "new"
"#;
