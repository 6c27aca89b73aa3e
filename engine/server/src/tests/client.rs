//! A client of bare frames: quinn, and nothing that would keep it from misbehaving.

use std::{net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use levada_protocol::{
    error::{ErrorCode, Refusal},
    frame::{self, FRAME_HEADER_BYTES, FrameHeader, FrameType},
    request::{Hello, Open, Opened, Request, RequestEnvelope, Response},
    version::{ALPN, PROTOCOL_VERSION},
};
use quinn::{Connection, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    version::TLS13,
};

use super::issuer::Signed;

/// Shakes hands and says nothing.
pub(crate) async fn connect(address: SocketAddr, ca: &Path) -> Result<Connection, quinn::ConnectionError> {
    connect_by(address, ca, "localhost", None).await
}

/// The same, by this name of the server and with this certificate.
pub(crate) async fn connect_by(
    address: SocketAddr,
    ca: &Path,
    name: &str,
    shown: Option<&Signed>,
) -> Result<Connection, quinn::ConnectionError> {
    connect_as(address, name, tls(ca, &[&TLS13], ALPN, shown), quinn::TransportConfig::default()).await
}

/// A client that trusts this CA, and shows this certificate.
pub(crate) fn tls(
    ca: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocol: &[u8],
    shown: Option<&Signed>,
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match shown {
        Some(signed) => builder.with_client_auth_cert(signed.chain.clone(), signed.private_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls
}

async fn connect_as(
    address: SocketAddr,
    name: &str,
    tls: rustls::ClientConfig,
    mut transport: quinn::TransportConfig,
) -> Result<Connection, quinn::ConnectionError> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    transport.keep_alive_interval(Some(std::time::Duration::from_millis(100)));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.connect_with(config, address, name).unwrap().await
}

/// A stream as its client holds it.
pub(crate) struct ClientStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl ClientStream {
    /// Opens a stream and sends these bytes.
    pub(crate) async fn with(connection: &Connection, bytes: &[u8]) -> Self {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        Self { send, recv }
    }

    /// Opens a stream and says what it is.
    pub(crate) async fn open(connection: &Connection, open: &Open) -> Self {
        Self::with(connection, &frame::message(FrameType::Open, open)).await
    }

    /// The next frame; `None` at the stream's end.
    pub(crate) async fn frame(&mut self) -> Option<(FrameType, Bytes)> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.recv.read_exact(&mut header).await.ok()?;
        let header = FrameHeader::read(&header).unwrap();
        let mut payload = vec![0; header.len];
        self.recv.read_exact(&mut payload).await.unwrap();
        Some((header.kind, payload.into()))
    }

    /// The answer to the open frame, or why there is none.
    pub(crate) async fn answer(&mut self) -> Result<Opened, Refusal> {
        match self.frame().await.unwrap() {
            (FrameType::Opened, payload) => Ok(frame::read_message(&payload).unwrap()),
            (FrameType::Error, payload) => Err(frame::read_message(&payload).unwrap()),
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}

/// A hello in the versions that this build speaks.
pub(crate) fn hello() -> Open {
    Open::Hello(Hello { protocol_min: 1, protocol_max: PROTOCOL_VERSION, ..Hello::default() })
}

/// Shakes hands and says hello. The control stream comes with it: a client that drops it hears nothing more.
pub(crate) async fn greet(address: SocketAddr, ca: &Path) -> (Connection, ClientStream) {
    say_hello(connect(address, ca).await.unwrap()).await
}

/// The same, as a client that takes no more than so many bytes of a stream which it does not read.
pub(crate) async fn greet_with_window(
    address: SocketAddr,
    ca: &Path,
    bytes: u32,
) -> (Connection, ClientStream) {
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(bytes.into());
    say_hello(connect_as(address, "localhost", tls(ca, &[&TLS13], ALPN, None), transport).await.unwrap())
        .await
}

/// Shakes hands and says hello with this token; what the engine answers.
pub(crate) async fn greet_with_token(
    address: SocketAddr,
    ca: &Path,
    token: Option<&str>,
) -> (Connection, ClientStream, Result<Opened, Refusal>) {
    let connection = connect(address, ca).await.unwrap();
    let token = token.map(str::to_owned);
    let hello = Hello { protocol_min: 1, protocol_max: PROTOCOL_VERSION, token, ..Hello::default() };
    let mut control = ClientStream::open(&connection, &Open::Hello(hello)).await;
    let answer = control.answer().await;
    (connection, control, answer)
}

async fn say_hello(connection: Connection) -> (Connection, ClientStream) {
    let control = say_hello_on(&connection).await;
    (connection, control)
}

/// Says hello; the control stream.
pub(crate) async fn say_hello_on(connection: &Connection) -> ClientStream {
    let mut control = ClientStream::open(connection, &hello()).await;
    assert!(matches!(control.answer().await, Ok(Opened::Hello(_))));
    control
}

/// Asks one thing.
pub(crate) async fn request(connection: &Connection, request: Request) -> Response {
    let envelope = RequestEnvelope { id: 7, deadline_ms: 0, trace: None, request };
    let mut stream = ClientStream::open(connection, &Open::Request(envelope)).await;
    match stream.answer().await {
        Ok(Opened::Response(envelope)) if envelope.id == 7 => envelope.response,
        other => panic!("expected the response, got {other:?}"),
    }
}

/// The code with which the connection was closed.
pub(crate) async fn closed_with(connection: &Connection) -> ErrorCode {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ErrorCode::from_number(u16::try_from(close.error_code.into_inner()).unwrap())
        }
        other => panic!("expected a close with a code, got {other}"),
    }
}
