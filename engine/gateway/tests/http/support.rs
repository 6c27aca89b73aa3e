//! A gateway on a real socket, before a broker on the memory store, and a client that writes what a test wants it to.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use levada_broker::{Broker, BrokerConfig, Principal};
use levada_gateway::{Gateway, GatewayConfig, router};
use levada_protocol::{
    error::ErrorCode,
    ids::Timestamp,
    request::{Request, TopicSettings},
};
use levada_stage::{Artefact, AttachError, AttachSpec, BoxFuture, Inspected, Interface, Plugins, Stage};
use levada_store::MemoryStore;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// As long as anything may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The gateway's time of day: 2026-01-31T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_769_860_800_000);

/// Takes any artefact but `broken`, and runs none.
struct NoPlugins;

impl Plugins for NoPlugins {
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>> {
        Box::pin(async move {
            if artefact == "broken" {
                return Err(AttachError::new(ErrorCode::PluginInvalid, "no component"));
            }
            let mut sha256 = [0; 32];
            sha256.iter_mut().zip(&artefact).for_each(|(to, from)| *to = *from);
            Ok(Inspected { sha256, interface: Interface::Batch })
        })
    }

    fn attach(
        &self,
        _artefact: Artefact,
        _spec: AttachSpec,
    ) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>> {
        Box::pin(async { Err(AttachError::new(ErrorCode::PluginInvalid, "no plugins here")) })
    }
}

/// What a test talks to.
pub(crate) struct Engine {
    pub(crate) broker: Broker,
    pub(crate) address: SocketAddr,
    /// Ends the streams.
    pub(crate) ending: CancellationToken,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(it, _)| it.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| Some(line.split_once(": ")?.1))
    }

    /// The code of a problem, whose other members are looked at, too.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{problem}");
        for member in ["type", "title", "detail", "code", "happened"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {problem}");
        }
        assert!(problem["retry"].is_boolean(), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// Runs a test against a gateway with a topic `orders` of so many partitions.
pub(crate) async fn against(partitions: u16, body: impl AsyncFnOnce(Engine)) {
    with(partitions, |_| {}, body).await;
}

/// The same with other settings.
pub(crate) async fn with(
    partitions: u16,
    change: impl FnOnce(&mut GatewayConfig),
    body: impl AsyncFnOnce(Engine),
) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    start(dir.path(), store, (change, |_| {}), with_orders(partitions, body)).await;
}

/// The same with other settings of the broker, and a topic of one partition.
pub(crate) async fn with_broker(change: impl FnOnce(&mut BrokerConfig), body: impl AsyncFnOnce(Engine)) {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path(), Arc::new(MemoryStore::new()), (|_| {}, change), with_orders(1, body)).await;
}

fn with_orders(partitions: u16, body: impl AsyncFnOnce(Engine)) -> impl AsyncFnOnce(Engine) {
    async move |engine: Engine| {
        engine.topic("orders", TopicSettings { partitions, ..TopicSettings::default() }).await;
        body(engine).await;
    }
}

/// The same with what is in a store already, and without the topic.
pub(crate) async fn on(dir: &Path, store: Arc<MemoryStore>, body: impl AsyncFnOnce(Engine)) {
    start(dir, store, (|_| {}, |_| {}), body).await;
}

async fn start(
    dir: &Path,
    store: Arc<MemoryStore>,
    (change, change_broker): (impl FnOnce(&mut GatewayConfig), impl FnOnce(&mut BrokerConfig)),
    body: impl AsyncFnOnce(Engine),
) {
    let mut config = BrokerConfig { disk_reserve_bytes: 0, ..BrokerConfig::new(dir) };
    change_broker(&mut config);
    let broker = Broker::start(config, store, Arc::new(NoPlugins)).unwrap();
    let mut config = GatewayConfig::new(|| NOW);
    change(&mut config);
    let ending = CancellationToken::new();
    let gateway = Gateway::new(broker.clone(), config, ending.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let engine = Engine { broker: broker.clone(), address, ending };
    tokio::select! {
        served = async { axum::serve(listener, router(gateway)).await } => panic!("{served:?}"),
        () = body(engine) => {}
    }
    broker.shutdown().await;
}

impl Engine {
    pub(crate) async fn topic(&self, name: &str, settings: TopicSettings) {
        let request = Request::CreateTopic { name: name.parse().unwrap(), settings };
        self.broker.request(&Principal::Local, request, None).await.unwrap();
    }

    /// Sends bytes and reads whatever comes until the connection ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The gateway may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer");
        assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
        parse(&answer)
    }

    pub(crate) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], b"").await
    }

    /// Publishes to `orders`.
    pub(crate) async fn publish(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.send("POST /v1/topics/orders/events", headers, body.as_ref()).await
    }
}

fn parse(answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer);
    let (head, _) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let head = head.to_owned();
    let mut body = answer[head.len() + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = dechunked(&body);
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        if len == 0 {
            break;
        }
        body.extend_from_slice(&rest[at + 2..at + 2 + len]);
        rest = &rest[at + 2 + len + 2..];
    }
    body
}
