//! A client of bare frames: quinn, and nothing that would keep it from misbehaving.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use levada_client::{ErrorCode, Event, Refusal};
use levada_protocol::{
    batch::{Batch, BatchBuilder, Stamp},
    frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameType},
    ids::{Epoch, Offset, PartitionId, ProducerId, Sequence},
    publish::{Ack, AckOutcome, Durability, PublishHeader},
    request::{Hello, HelloAnswer, Open, Opened, Request, RequestEnvelope, Response},
    version::{ALPN, PROTOCOL_VERSION},
};
use quinn::{Connection, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::within;

/// A connection without a hello.
pub(crate) async fn connect(address: SocketAddr, ca: &Path) -> Connection {
    connect_as(address, ca, quinn::TransportConfig::default()).await
}

/// The same, as a client that takes no more than so many bytes of a stream which it does not read.
pub(crate) async fn greet_with_window(address: SocketAddr, ca: &Path, bytes: u32) -> (Connection, Stream) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(bytes.into());
    let connection = connect_as(address, ca, transport).await;
    let mut control = Stream::open(&connection, &hello()).await;
    assert!(matches!(control.answer().await, Ok(Opened::Hello(_))));
    (connection, control)
}

async fn connect_as(address: SocketAddr, ca: &Path, mut transport: quinn::TransportConfig) -> Connection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the CA is there")).expect("the CA is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has QUIC's first cipher suite");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    transport.keep_alive_interval(Some(Duration::from_millis(500)));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket can be had");
    let connecting = endpoint.connect_with(config, address, "localhost").expect("the address is one");
    within("a handshake", connecting).await.expect("the engine shakes hands")
}

/// A connection whose hello was answered. The control stream comes with it: without it the session ends.
pub(crate) async fn greet(address: SocketAddr, ca: &Path) -> (Connection, Stream, HelloAnswer) {
    let connection = connect(address, ca).await;
    let mut control = Stream::open(&connection, &hello()).await;
    match control.answer().await {
        Ok(Opened::Hello(answer)) => (connection, control, answer),
        other => panic!("expected the hello's answer, got {other:?}"),
    }
}

/// A hello in this build's versions.
pub(crate) fn hello() -> Open {
    Open::Hello(Hello { protocol_min: 1, protocol_max: PROTOCOL_VERSION, ..Hello::default() })
}

/// The code with which a connection is closed.
pub(crate) async fn closed_with(connection: &Connection) -> ErrorCode {
    match within("the connection's end", connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ErrorCode::from_number(u16::try_from(close.error_code.into_inner()).expect("codes are small"))
        }
        other => panic!("expected a close with a code, got {other}"),
    }
}

/// A stream as its client holds it.
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl Stream {
    /// Opens a stream and sends these bytes.
    pub(crate) async fn with(connection: &Connection, bytes: &[u8]) -> Self {
        let (mut send, recv) = within("a stream", connection.open_bi()).await.expect("the connection stands");
        send.write_all(bytes).await.expect("the stream is new");
        Self { send, recv }
    }

    /// Opens a stream and says what it is.
    pub(crate) async fn open(connection: &Connection, open: &Open) -> Self {
        Self::with(connection, &frame::message(FrameType::Open, open)).await
    }

    /// Sends bytes; those of an engine that no longer listens are lost.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.send.write_all(bytes).await;
    }

    /// The next frame; `None` at the stream's end.
    pub(crate) async fn frame(&mut self) -> Option<(FrameType, Bytes)> {
        let mut header = [0; FRAME_HEADER_BYTES];
        within("a frame", self.recv.read_exact(&mut header)).await.ok()?;
        let header = FrameHeader::read(&header).expect("the engine writes frames");
        let mut payload = vec![0; header.len];
        within("a payload", self.recv.read_exact(&mut payload))
            .await
            .expect("the engine writes whole frames");
        Some((header.kind, payload.into()))
    }

    /// The answer to the open frame, or why there is none.
    pub(crate) async fn answer(&mut self) -> Result<Opened, Refusal> {
        match self.frame().await.expect("an answer") {
            (FrameType::Opened, payload) => Ok(frame::read_message(&payload).expect("an answer's bytes")),
            (FrameType::Error, payload) => Err(frame::read_message(&payload).expect("a refusal's bytes")),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    /// The code with which the engine ends the stream.
    pub(crate) async fn refused(&mut self) -> ErrorCode {
        loop {
            match self.frame().await.expect("a refusal") {
                (FrameType::Error, payload) => {
                    return frame::read_message::<Refusal>(&payload).expect("a refusal's bytes").code;
                }
                (FrameType::Opened | FrameType::Ack, _) => {}
                other => panic!("expected a refusal, got {other:?}"),
            }
        }
    }
}

/// Asks one thing.
pub(crate) async fn request(connection: &Connection, request: Request) -> Response {
    let envelope = RequestEnvelope { id: 7, deadline_ms: 0, trace: None, request };
    let mut stream = Stream::open(connection, &Open::Request(envelope)).await;
    match stream.answer().await {
        Ok(Opened::Response(envelope)) if envelope.id == 7 => envelope.response,
        other => panic!("expected the response, got {other:?}"),
    }
}

/// A publish stream by hand.
pub(crate) struct PublishStream {
    pub(crate) stream: Stream,
    correlation: u32,
}

/// What one publish asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask {
    pub(crate) partition: u16,
    pub(crate) durability: Option<Durability>,
    pub(crate) expect_offset: Option<u64>,
}

impl PublishStream {
    pub(crate) async fn open(connection: &Connection, topic: &str) -> Self {
        let mut stream =
            Stream::open(connection, &Open::Publish { topic: topic.parse().unwrap(), trace: None }).await;
        assert!(matches!(stream.answer().await, Ok(Opened::Publish { .. })));
        Self { stream, correlation: 0 }
    }

    /// Sends a batch, whatever its bytes are.
    pub(crate) async fn send(&mut self, ask: Ask, batch: &[u8]) {
        self.correlation += 1;
        let header = PublishHeader {
            correlation: self.correlation,
            partition: PartitionId(ask.partition),
            durability: ask.durability,
            expect_offset: ask.expect_offset.map(Offset),
            due: None,
        };
        let mut bytes = BytesMut::from(&header.frame_prefix(batch.len())[..]);
        bytes.extend_from_slice(batch);
        self.stream.send(&bytes).await;
    }

    /// Sends a batch and waits for what became of it.
    pub(crate) async fn publish(&mut self, ask: Ask, batch: &[u8]) -> AckOutcome {
        self.send(ask, batch).await;
        let (kind, payload) = self.stream.frame().await.expect("an acknowledgement");
        assert_eq!(kind, FrameType::Ack);
        let mut acks = Ack::read_all(&payload).expect("an acknowledgement's bytes");
        let ack = acks.pop().expect("one acknowledgement");
        assert_eq!((ack.correlation, acks.len()), (self.correlation, 0));
        ack.outcome
    }
}

/// A batch of these events, of a producer with this number.
pub(crate) fn batch(producer: u128, epoch: u32, first_sequence: u64, events: &[Event]) -> Batch {
    let mut builder = BatchBuilder::new();
    for event in events {
        builder.push(event).expect("the events fit a batch");
    }
    builder.finish(Stamp {
        producer_id: ProducerId(producer),
        epoch: Epoch(epoch),
        first_sequence: Sequence(first_sequence),
    })
}

/// The outcome of a batch that was stored.
pub(crate) fn stored(base: u64, count: u32, duplicate: bool) -> AckOutcome {
    AckOutcome::Appended { base: Some(Offset(base)), count, duplicate, duplicates: None }
}

/// The code of a batch that was refused.
pub(crate) fn refused(outcome: &AckOutcome) -> ErrorCode {
    match outcome {
        AckOutcome::Refused(refusal) => refusal.code,
        AckOutcome::OffsetMismatch { .. } => ErrorCode::OffsetMismatch,
        AckOutcome::Appended { .. } | AckOutcome::Scheduled { .. } => {
            panic!("expected a refusal, got {outcome:?}")
        }
    }
}
