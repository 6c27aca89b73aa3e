//! A receiver on a real socket: it reads requests and responds with whatever bytes a test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// As long as anything may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The number of the connection that it came on.
    pub(crate) connection: usize,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} in {self:?}")).to_str().unwrap()
    }

    /// What identifies the message, and when the attempt was made.
    pub(crate) fn id_and_time(&self) -> (String, u64) {
        let time = self.header("webhook-timestamp").parse().unwrap();
        (self.header("webhook-id").to_owned(), time)
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data of the event, which the tests publish as a number.
    pub(crate) fn number(&self) -> u64 {
        self.event()["data"].as_u64().unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes, and the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and then this piece again and again for as long as somebody takes it.
    Endless(Vec<u8>, Vec<u8>),
    /// This response, once there is a permit.
    Held(Arc<Semaphore>, Box<Self>),
    /// Nothing, and the connection stays open.
    Nothing,
    /// Nothing, and the connection ends.
    HangUp,
}

/// A response without headers of its own.
pub(crate) fn status(status: u16, body: &str) -> Reply {
    with_header(status, "x-test: 1", body)
}

pub(crate) fn with_header(status: u16, header: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 {status} Something\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// Decides what to do with the request of this number, counted from 0.
type Script = dyn Fn(usize, &Got) -> Reply + Send + Sync;

/// A receiver, until it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: mpsc::Receiver<Got>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(script: impl Fn(usize, &Got) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(None, script).await
    }

    pub(crate) async fn with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Got) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel(10_000);
        let (script, count): (Arc<Script>, _) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, script, count) = (sender.clone(), Arc::clone(&script), Arc::clone(&count));
                let tls = tls.clone();
                connections.spawn(async move {
                    let of = Of { sender, script, count, connection };
                    match tls {
                        None => of.serve(stream).await,
                        // A client that does not trust the certificate ends the connection.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                of.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks?for=test", self.address)
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Got {
        timeout(SOON, self.requests.recv()).await.expect("a request comes").unwrap()
    }

    /// So many requests.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Got> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// True if nothing has come that was not looked at.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// One connection.
struct Of {
    sender: mpsc::Sender<Got>,
    script: Arc<Script>,
    count: Arc<AtomicUsize>,
    connection: usize,
}

impl Of {
    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(got) = read(&mut stream, self.connection).await {
            let reply = (self.script)(self.count.fetch_add(1, Ordering::SeqCst), &got);
            // A test that has seen enough is gone.
            let _ = self.sender.send(got).await;
            let reply = match reply {
                Reply::Held(gate, reply) => {
                    gate.acquire().await.unwrap().forget();
                    *reply
                }
                reply => reply,
            };
            match reply {
                Reply::Held(..) => return,
                Reply::Bytes(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Reply::Endless(head, piece) => {
                    let mut written = stream.write_all(&head).await;
                    while written.is_ok() {
                        written = stream.write_all(&piece).await;
                    }
                    return;
                }
                Reply::Nothing => {
                    let _ = stream.read(&mut [0]).await;
                    return;
                }
                Reply::HangUp => return,
            }
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), connection: usize) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Got { line, headers, body, connection })
}
