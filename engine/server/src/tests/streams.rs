//! Each kind of stream against the real broker and store: what is answered, in which order, and how it ends.

use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    deliver::DeliverHeader,
    error::ErrorCode,
    event::Event,
    frame::{self, FrameType},
    ids::{Epoch, PartitionId, ProducerId, Sequence},
    limits::ARTEFACT_BYTES_MAX,
    publish::{Ack, AckOutcome, Durability, PublishHeader},
    request::{
        Open, Opened, Order, Read, Request, RequestEnvelope, Response, Start, Subscribe, SubscriptionInfo,
        SubscriptionOptions, TopicSettings,
    },
    verbs::Credit,
};
use quinn::Connection;

use super::{
    against,
    client::{self, ClientStream},
    config, with,
};

const TOPIC: &str = "orders";

async fn topic(connection: &Connection) {
    let request = Request::CreateTopic { name: TOPIC.parse().unwrap(), settings: TopicSettings::default() };
    let response = client::request(connection, request).await;
    assert!(matches!(response, Response::Topic(_) | Response::Done), "{response:?}");
}

/// A batch of one event, the producer's `sequence`th.
fn batch(sequence: u64) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.push(&Event::new(format!("event {sequence}"))).unwrap();
    builder.finish(Stamp { producer_id: ProducerId(1), epoch: Epoch(0), first_sequence: Sequence(sequence) })
}

/// A publish frame around these bytes, which need be no batch.
fn publish(correlation: u32, batch: &[u8]) -> Vec<u8> {
    let header = PublishHeader {
        correlation,
        partition: PartitionId(0),
        durability: None,
        expect_offset: None,
        due: None,
    };
    [&header.frame_prefix(batch.len())[..], batch].concat()
}

async fn publisher(connection: &Connection) -> ClientStream {
    let mut stream =
        ClientStream::open(connection, &Open::Publish { topic: TOPIC.parse().unwrap(), trace: None }).await;
    let opened = stream.answer().await.unwrap();
    assert_eq!(
        opened,
        Opened::Publish {
            partitions: 1,
            durability: Durability::Sync,
            backlog_max_events: 0,
            backlog_max_bytes: 0
        }
    );
    stream
}

/// Acknowledgements until there are `count`, by correlation.
async fn acks(stream: &mut ClientStream, count: usize) -> Vec<Ack> {
    let mut acks = Vec::new();
    while acks.len() < count {
        let (kind, payload) = stream.frame().await.expect("more acknowledgements");
        assert_eq!(kind, FrameType::Ack);
        acks.extend(Ack::read_all(&payload).unwrap());
    }
    acks.sort_by_key(|ack| ack.correlation);
    acks
}

fn code(ack: &Ack) -> Option<ErrorCode> {
    match &ack.outcome {
        AckOutcome::Appended { .. } | AckOutcome::Scheduled { .. } => None,
        AckOutcome::OffsetMismatch { .. } => Some(ErrorCode::OffsetMismatch),
        AckOutcome::Refused(refusal) => Some(refusal.code),
    }
}

#[tokio::test]
async fn a_bad_batch_is_refused_by_its_number_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut stream = publisher(&connection).await;
        let mut damaged = batch(0).bytes().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let mut lying = batch(0).bytes().to_vec();
        lying[4] = 9;
        let frames =
            [publish(1, &damaged), publish(2, &lying), publish(3, b""), publish(4, batch(0).bytes())];
        stream.send.write_all(&frames.concat()).await.unwrap();
        let acks = acks(&mut stream, 4).await;
        let invalid = Some(ErrorCode::BatchInvalid);
        assert_eq!(acks.iter().map(code).collect::<Vec<_>>(), [invalid, invalid, invalid, None]);
    })
    .await;
}

#[tokio::test]
async fn what_was_accepted_is_acknowledged_after_the_client_has_said_its_last() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut stream = publisher(&connection).await;
        for sequence in 0..50 {
            stream.send.write_all(&publish(sequence, batch(u64::from(sequence)).bytes())).await.unwrap();
        }
        stream.send.finish().unwrap();
        let acks = acks(&mut stream, 50).await;
        assert!(acks.iter().all(|ack| code(ack).is_none()));
        assert!(stream.frame().await.is_none(), "the stream ends after the last acknowledgement");
    })
    .await;
}

#[tokio::test]
async fn what_was_accepted_is_acknowledged_before_nonsense_ends_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut stream = publisher(&connection).await;
        let unknown_type = vec![0, 0, 0, 0, 200, 0, 0, 0];
        let frames = [publish(1, batch(0).bytes()), unknown_type];
        stream.send.write_all(&frames.concat()).await.unwrap();
        assert_eq!(code(&acks(&mut stream, 1).await[0]), None);
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::UnknownFrame);
    })
    .await;
}

async fn subscriber(connection: &Connection, consumer: &str) -> (ClientStream, bool) {
    let subscribe = Subscribe {
        consumer: consumer.to_owned(),
        options: Some(SubscriptionOptions {
            order: Some(Order::Partition),
            ..SubscriptionOptions::default()
        }),
        from: Start::Earliest,
        ..Subscribe::new(TOPIC.parse().unwrap(), "payment".parse().unwrap())
    };
    let mut stream = ClientStream::open(connection, &Open::Subscribe(subscribe)).await;
    match stream.answer().await.unwrap() {
        Opened::Subscribe(subscribed) => (stream, subscribed.standby),
        other => panic!("expected the subscription, got {other:?}"),
    }
}

async fn describe(connection: &Connection) -> SubscriptionInfo {
    let request =
        Request::DescribeSubscription { topic: TOPIC.parse().unwrap(), name: "payment".parse().unwrap() };
    match client::request(connection, request).await {
        Response::Subscription(info) => *info,
        other => panic!("expected the subscription, got {other:?}"),
    }
}

/// The next delivery's event count; other frames are passed over.
async fn delivered(stream: &mut ClientStream) -> u32 {
    loop {
        let (kind, mut payload) = stream.frame().await.expect("a delivery");
        if kind == FrameType::Deliver {
            return DeliverHeader::read(&mut payload).unwrap().count;
        }
    }
}

#[tokio::test]
async fn a_consumer_that_resets_its_stream_is_detached_and_another_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut publisher = publisher(&connection).await;
        publisher.send.write_all(&publish(1, batch(0).bytes())).await.unwrap();
        acks(&mut publisher, 1).await;

        let credit = Credit { events: 10, bytes: 1 << 20 }.frame();
        let (mut first, standby) = subscriber(&connection, "first").await;
        assert!(!standby);
        first.send.write_all(&credit).await.unwrap();
        assert_eq!(delivered(&mut first).await, 1);
        let (mut second, standby) = subscriber(&connection, "second").await;
        assert!(standby);
        second.send.write_all(&credit).await.unwrap();
        first.send.reset(0_u32.into()).unwrap();
        assert_eq!(delivered(&mut second).await, 1, "what the first had not acknowledged");
        assert_eq!(describe(&connection).await.consumers, ["second"]);
    })
    .await;
}

#[tokio::test]
async fn a_consumer_of_a_deleted_topic_hears_so_whatever_it_is_saying() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        for _ in 0..20 {
            topic(&connection).await;
            let (ClientStream { mut send, recv }, _) = subscriber(&connection, "first").await;
            // More than its owner takes at once, until the engine wants to hear no more.
            let credits = Credit { events: 1, bytes: 1 }.frame().repeat(1_000);
            let talk = async { while send.write_all(&credits).await.is_ok() {} };
            let delete =
                Request::DeleteTopic { name: TOPIC.parse().unwrap(), force: true, with_dead_letters: false };
            let (_, deleted) = tokio::join!(talk, client::request(&connection, delete));
            assert!(matches!(deleted, Response::Deleted(_)), "{deleted:?}");
            let mut stream = ClientStream { send, recv };
            assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::TopicNotFound);
        }
    })
    .await;
}

#[tokio::test]
async fn consumers_of_a_connection_that_is_gone_are_detached() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let (other, _other_control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let (_consumer, _) = subscriber(&connection, "first").await;
        assert_eq!(describe(&other).await.consumers, ["first"]);
        connection.close(0_u32.into(), b"");
        while !describe(&other).await.consumers.is_empty() {}
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_has_granted_all_it_will_reads_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut publisher = publisher(&connection).await;
        publisher.send.write_all(&publish(1, batch(0).bytes())).await.unwrap();
        acks(&mut publisher, 1).await;

        let read = Read { from: Start::Earliest, ..Read::new(TOPIC.parse().unwrap()) };
        let mut reader = ClientStream::open(&connection, &Open::Read(read)).await;
        assert!(matches!(reader.answer().await, Ok(Opened::Read { .. })));
        reader.send.write_all(&Credit { events: 10, bytes: 1 << 20 }.frame()).await.unwrap();
        reader.send.finish().unwrap();
        assert_eq!(delivered(&mut reader).await, 1);
        assert!(matches!(reader.frame().await, Some((FrameType::End, _))));
        assert!(reader.frame().await.is_none());
    })
    .await;
}

/// Announces an artefact of `size` bytes and sends these chunks, then ends the stream.
async fn deploy(
    connection: &Connection,
    size: u64,
    chunks: &[&[u8]],
    deadline_ms: u32,
    end: bool,
) -> ClientStream {
    let request = Request::DeployPlugin { name: "filter".parse().unwrap(), size, config: None };
    let envelope = RequestEnvelope { id: 1, deadline_ms, trace: None, request };
    let mut stream = ClientStream::open(connection, &Open::Request(envelope)).await;
    for chunk in chunks {
        stream.send.write_all(&frame::frame(FrameType::Chunk, chunk)).await.unwrap();
    }
    if end {
        stream.send.finish().unwrap();
    }
    stream
}

async fn refusal_in_response(mut stream: ClientStream) -> ErrorCode {
    match stream.answer().await.unwrap() {
        Opened::Response(envelope) => match envelope.response {
            Response::Refused(refusal) => refusal.code,
            other => panic!("expected a refusal, got {other:?}"),
        },
        other => panic!("expected a response, got {other:?}"),
    }
}

#[tokio::test]
async fn an_artefact_must_be_as_long_as_announced_and_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let over = ARTEFACT_BYTES_MAX as u64 + 1;
        let too_large = deploy(&connection, over, &[], 0, true).await;
        assert_eq!(refusal_in_response(too_large).await, ErrorCode::PluginTooLarge);
        for chunks in [&[b"12345", &b"6789"[..]][..], &[b"12345", b"678901"]] {
            let mut stream = deploy(&connection, 10, chunks, 0, true).await;
            assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::Malformed);
        }
        let no_component = deploy(&connection, 10, &[b"12345", b"67890"], 0, true).await;
        assert_eq!(refusal_in_response(no_component).await, ErrorCode::PluginInvalid);
    })
    .await;
}

#[tokio::test]
async fn a_request_is_answered_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let stalled = deploy(&connection, 10, &[b"1"], 50, false).await;
        assert_eq!(refusal_in_response(stalled).await, ErrorCode::DeadlineExceeded);
    })
    .await;
}

#[tokio::test]
async fn the_packet_size_in_force_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let Response::Info(info) = client::request(&connection, Request::Info).await else { panic!("info") };
        assert!(info.mtu >= 1_200, "{}", info.mtu);
    })
    .await;
}

#[tokio::test]
async fn what_was_accepted_is_acknowledged_before_a_bad_length_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut stream = publisher(&connection).await;
        let mut frames: Vec<u8> = (0..5).flat_map(|at| publish(at, batch(u64::from(at)).bytes())).collect();
        frames.extend([0, 0, 0, 0x80, 16, 0, 0, 0]);
        stream.send.write_all(&frames).await.unwrap();
        assert!(acks(&mut stream, 5).await.iter().all(|ack| code(ack).is_none()));
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::FrameTooLarge);
        assert_eq!(client::closed_with(&connection).await, ErrorCode::FrameTooLarge);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_takes_none_of_what_it_asked_for_is_reset_and_its_consumer_detached() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        with(config(&dir), |config| config.subscribe.unread_timeout = std::time::Duration::from_millis(300));
    against(config, async |server| {
        let (connection, _control) =
            client::greet_with_window(server.quic, &server.ca_pem_path, 10_000).await;
        let (other, _other_control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&other).await;
        let mut publisher = publisher(&other).await;
        for sequence in 0..500 {
            let mut builder = BatchBuilder::new();
            builder.push(&Event::new(vec![0; 1_000])).unwrap();
            let stamp =
                Stamp { producer_id: ProducerId(1), epoch: Epoch(0), first_sequence: Sequence(sequence) };
            publisher.send.write_all(&publish(1, builder.finish(stamp).bytes())).await.unwrap();
            acks(&mut publisher, 1).await;
        }
        let (mut consumer, _) = subscriber(&connection, "deaf").await;
        let endless = Credit { events: u64::MAX, bytes: u64::MAX }.frame();
        consumer.send.write_all(&endless).await.unwrap();
        let stopped = consumer.send.stopped().await.unwrap();
        assert_eq!(stopped, Some(u32::from(ErrorCode::DeadlineExceeded.number()).into()));
        while !describe(&other).await.consumers.is_empty() {}
        assert!(matches!(client::request(&connection, Request::Info).await, Response::Info(_)));
    })
    .await;
}

#[tokio::test]
async fn stalled_uploads_give_their_slot_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| {
        config.plugins.upload_stall_timeout = std::time::Duration::from_millis(100)
    });
    against(config, async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut stalled = Vec::new();
        for _ in 0..2 {
            stalled.push(deploy(&connection, 10, &[b"1"], 0, false).await);
        }
        let next = deploy(&connection, 10, &[b"12345", b"67890"], 0, true).await;
        assert_eq!(refusal_in_response(next).await, ErrorCode::PluginInvalid);
    })
    .await;
}

#[tokio::test]
async fn frames_that_stay_unfinished_are_bounded_and_make_room_for_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| {
        config.streams.connection_unfinished_bytes_max = bytesize::ByteSize::mib(1)
    });
    against(config, async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        topic(&connection).await;
        let mut unfinished = Vec::new();
        for _ in 0..8 {
            let mut stream = publisher(&connection).await;
            let frame = publish(1, &vec![0; 300_000]);
            stream.send.write_all(&frame[..frame.len() - 1]).await.unwrap();
            unfinished.push(stream);
        }
        // Those that bring nothing are ended, the last of them when there is room enough again.
        assert_eq!(unfinished[0].answer().await.unwrap_err().code, ErrorCode::LimitExceeded);
        let mut honest = publisher(&connection).await;
        honest.send.write_all(&publish(1, batch(0).bytes())).await.unwrap();
        assert_eq!(code(&acks(&mut honest, 1).await[0]), None);
    })
    .await;
}
