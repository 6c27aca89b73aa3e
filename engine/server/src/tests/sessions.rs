//! What a session answers to a client that does not keep to the protocol, and who else notices.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use levada_protocol::{
    error::ErrorCode,
    frame::{self, FrameHeader, FrameType},
    request::{Hello, Limits, Open, Opened, Read, Request, RequestEnvelope, Response},
};
use tokio::time::Duration;
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use super::{
    against,
    client::{self, ClientStream},
    config, with,
};

/// Half a frame: its length was never sent whole.
const HALF_A_HEADER: &[u8] = &[1, 0, 0];

#[tokio::test]
async fn a_hello_is_answered_with_names_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let connection = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
        let mut control = ClientStream::open(&connection, &client::hello()).await;
        let Ok(Opened::Hello(answer)) = control.answer().await else { panic!("expected the hello's answer") };
        assert_eq!(answer.protocol, 1);
        assert_eq!(answer.limits, Limits::of_this_version(1_024));
        assert!(!answer.engine_id.is_empty() && !answer.start_id.is_empty() && answer.server_time_ms > 0);
    })
    .await;
}

#[tokio::test]
async fn anything_else_than_a_hello_first_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let connection = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
        let mut stream =
            ClientStream::open(&connection, &Open::Read(Read::new("orders".parse().unwrap()))).await;
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::HelloRequired);
        assert_eq!(client::closed_with(&connection).await, ErrorCode::HelloRequired);
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_hello_is_closed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.listen.hello_timeout = Duration::from_millis(300));
    against(config, async |server| {
        let silent = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
        let slow = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
        let _stream = ClientStream::with(&slow, HALF_A_HEADER).await;
        assert_eq!(client::closed_with(&silent).await, ErrorCode::HelloRequired);
        assert_eq!(client::closed_with(&slow).await, ErrorCode::HelloRequired);
    })
    .await;
}

#[tokio::test]
async fn versions_without_overlap_are_refused_with_both_ranges() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let connection = client::connect(server.quic, &server.ca_pem_path).await.unwrap();
        let hello = Hello { protocol_min: 7, protocol_max: 9, ..Hello::default() };
        let mut control = ClientStream::open(&connection, &Open::Hello(hello)).await;
        let refusal = control.answer().await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::UnsupportedVersion);
        assert!(refusal.message.contains("7 to 9") && refusal.message.contains("1 to 1"), "{refusal}");
        assert_eq!(client::closed_with(&connection).await, ErrorCode::UnsupportedVersion);
    })
    .await;
}

#[tokio::test]
async fn a_fault_on_one_stream_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let unknown_type = [0, 0, 0, 0, 200, 0, 0, 0];
    let publish_first = FrameHeader::bytes(FrameType::Publish, 0);
    let no_messagepack = [&FrameHeader::bytes(FrameType::Open, 3)[..], &[0xc1, 0xc1, 0xc1]].concat();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        for (bytes, code) in [
            (&unknown_type[..], ErrorCode::UnknownFrame),
            (&publish_first, ErrorCode::Malformed),
            (&no_messagepack, ErrorCode::Malformed),
        ] {
            let mut stream = ClientStream::with(&connection, bytes).await;
            assert_eq!(stream.answer().await.unwrap_err().code, code);
            assert!(stream.frame().await.is_none(), "the stream ends after its error");
        }
        // A frame that is cut off by the end of its stream.
        let mut cut = ClientStream::with(&connection, HALF_A_HEADER).await;
        cut.send.finish().unwrap();
        assert_eq!(cut.answer().await.unwrap_err().code, ErrorCode::Malformed);
        let second_hello = ClientStream::open(&connection, &client::hello()).await.answer().await;
        assert_eq!(second_hello.unwrap_err().code, ErrorCode::Malformed);
        let unknown_kind = ClientStream::open(&connection, &Open::Unknown).await.answer().await;
        assert_eq!(unknown_kind.unwrap_err().code, ErrorCode::Unsupported);
        assert!(matches!(client::request(&connection, Request::Info).await, Response::Info(_)));
    })
    .await;
}

#[tokio::test]
async fn a_length_of_two_gibibytes_closes_its_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (other, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut header = FrameHeader::bytes(FrameType::Open, 0);
        header[..4].copy_from_slice(&(1_u32 << 31).to_le_bytes());
        let mut stream = ClientStream::with(&connection, &header).await;
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::FrameTooLarge);
        assert_eq!(client::closed_with(&connection).await, ErrorCode::FrameTooLarge);
        assert!(matches!(client::request(&other, Request::Info).await, Response::Info(_)));
    })
    .await;
}

#[tokio::test]
async fn a_text_that_does_not_fit_a_refusal_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let topic = "x".repeat(200_000);
        let open = BTreeMap::from([("kind", "publish"), ("topic", &topic)]);
        let open = frame::message(FrameType::Open, &open);
        let refusal = ClientStream::with(&connection, &open).await.answer().await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidName);
        assert!(refusal.message.len() <= 1_024);
    })
    .await;
}

#[tokio::test]
async fn a_frame_on_the_control_stream_after_the_hello_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    against(config(&dir), async |server| {
        let (connection, mut control) = client::greet(server.quic, &server.ca_pem_path).await;
        control.send.write_all(&FrameHeader::bytes(FrameType::Publish, 0)).await.unwrap();
        assert_eq!(client::closed_with(&connection).await, ErrorCode::Malformed);
    })
    .await;
}

/// What becomes of a stream that asks for something.
async fn asked(connection: &quinn::Connection) -> Result<Opened, levada_protocol::error::Refusal> {
    let envelope = RequestEnvelope { id: 1, deadline_ms: 0, trace: None, request: Request::Info };
    ClientStream::open(connection, &Open::Request(envelope)).await.answer().await
}

#[tokio::test]
async fn more_streams_are_granted_as_they_are_used_and_one_too_many_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.streams.connection_max = 300);
    against(config, async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut open = Vec::new();
        while open.len() < 299 {
            open.push(ClientStream::with(&connection, HALF_A_HEADER).await);
        }
        // The limit counts the control stream too.
        for _ in 0..200 {
            let mut one_more =
                ClientStream::open(&connection, &Open::Read(Read::new("orders".parse().unwrap()))).await;
            assert_eq!(one_more.answer().await.unwrap_err().code, ErrorCode::LimitExceeded);
        }
        drop(open.pop());
        while !matches!(asked(&connection).await, Ok(Opened::Response(_))) {}
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_does_not_say_what_it_is_is_refused_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| config.streams.open_timeout = Duration::from_millis(50));
    against(config, async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let mut slow = ClientStream::with(&connection, HALF_A_HEADER).await;
        assert_eq!(slow.answer().await.unwrap_err().code, ErrorCode::DeadlineExceeded);
        assert!(matches!(client::request(&connection, Request::Info).await, Response::Info(_)));
    })
    .await;
}

#[tokio::test]
async fn peers_that_say_no_hello_do_not_keep_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = with(config(&dir), |config| {
        config.listen.handshakes_max = 4;
        config.listen.hello_timeout = Duration::from_secs(60);
    });
    against(config, async |server| {
        let mut silent = Vec::new();
        for _ in 0..12 {
            silent.push(client::connect(server.quic, &server.ca_pem_path).await.unwrap());
        }
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        assert!(matches!(client::request(&connection, Request::Info).await, Response::Info(_)));
        assert_eq!(client::closed_with(&silent[0]).await, ErrorCode::HelloRequired);
    })
    .await;
}

/// Log lines, kept.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stream_in_a_trace_has_a_span_that_says_so() {
    let lines = Lines::default();
    let writer = lines.clone();
    // For the whole process: what one thread sees of a callsite, others decide too. No other test sets one.
    let log = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    registry().with(log).with("levada_server=debug".parse::<Targets>().unwrap()).try_init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    against(config(&dir), async |server| {
        let (connection, _control) = client::greet(server.quic, &server.ca_pem_path).await;
        let (topic, trace) = ("absent".parse().unwrap(), Some(trace.parse().unwrap()));
        let mut stream = ClientStream::open(&connection, &Open::Publish { topic, trace }).await;
        assert_eq!(stream.answer().await.unwrap_err().code, ErrorCode::TopicNotFound);
    })
    .await;
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let refused = lines.lines().find(|line| line.contains("TOPIC_NOT_FOUND"));
    assert!(refused.is_some_and(|line| line.contains(&format!("trace={trace}"))), "{lines}");
}
