//! A receiver of pushes on this machine: it responds 204 to every request and counts the ids of their deliveries.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::http_client::{header, split_head};
use crate::{clock::Clock, endpoint::Endpoint};

const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const BUFFER_BYTES: usize = 16 * 1024;

/// What came.
#[derive(Debug, Default)]
struct Came {
    ids: HashSet<String>,
    requests: u64,
    first: u64,
    last: u64,
}

/// The receiver; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) url: String,
    came: Arc<Mutex<Came>>,
    _serving: Endpoint<()>,
}

/// What a receiver has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Different deliveries.
    pub(super) deliveries: u64,
    /// Requests, repeated ones among them.
    pub(super) requests: u64,
    /// From the first to the last request that brought a delivery, in nanoseconds.
    pub(super) nanoseconds: u64,
}

impl Receiver {
    pub(super) async fn start(clock: Clock) -> anyhow::Result<Self> {
        let came = Arc::new(Mutex::new(Came::default()));
        let (bound, port) = oneshot::channel();
        let shared = Arc::clone(&came);
        let serving = Endpoint::spawn("receiver", move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for pushes")?;
            // It fails if nobody waits for it any more.
            let _unwanted = bound.send(listener.local_addr()?);
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await?;
                connections.spawn(serve(stream, Arc::clone(&shared), clock));
                while connections.try_join_next().is_some() {}
            }
        })?;
        let address = port.await.context("the receiver did not start")?;
        Ok(Self { url: format!("http://{address}/"), came, _serving: serving })
    }

    pub(super) fn received(&self) -> Received {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        Received {
            deliveries: came.ids.len() as u64,
            requests: came.requests,
            nanoseconds: came.last.saturating_sub(came.first),
        }
    }
}

async fn serve(mut stream: TcpStream, came: Arc<Mutex<Came>>, clock: Clock) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let whole = split_head(&buffer).and_then(|(head, body)| {
            let length: usize = header(head, "content-length")?.parse().ok()?;
            let id = header(head, "webhook-id")?.to_owned();
            (body.len() >= length).then(|| (id, buffer.len() - body.len() + length))
        });
        let Some((id, length)) = whole else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        buffer.drain(..length);
        {
            let now = clock.now();
            let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
            came.requests += 1;
            if came.ids.is_empty() {
                came.first = now;
            }
            if came.ids.insert(id) {
                came.last = now;
            }
        }
        stream.write_all(RESPONSE).await?;
    }
}
