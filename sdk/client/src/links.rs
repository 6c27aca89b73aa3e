//! All connections of a client: one, and further ones once the engine allows no more streams on those that stand.
//!
//! Owns how many there are. Must not know what their streams are for.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use levada_protocol::{error::ErrorCode, request::Notice};
use tokio::sync::broadcast;

use crate::{config::ClientConfig, error::Error, link::Link};

/// Most connections of one client.
const CONNECTIONS_MAX: usize = 64;

/// A handle on them. Cheap to clone; they end with the last clone and with what was opened on each.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    shared: Arc<Shared>,
    first: Link,
}

#[derive(Debug)]
struct Shared {
    /// In the order in which they were made, never empty.
    all: Mutex<Vec<Link>>,
    /// The one that had a free stream last.
    roomy: AtomicUsize,
    /// Held while another one is made.
    growing: tokio::sync::Mutex<()>,
}

impl Links {
    /// Makes the first connection.
    pub(crate) async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let first = Link::connect(config).await?;
        let shared = Shared {
            all: Mutex::new(vec![first.clone()]),
            roomy: AtomicUsize::new(0),
            growing: tokio::sync::Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared), first })
    }

    /// The first connection.
    pub(crate) fn first(&self) -> &Link {
        &self.first
    }

    /// The engine's notices, of any connection.
    pub(crate) fn notices(&self) -> broadcast::Receiver<Notice> {
        self.first.notices().subscribe()
    }

    /// Opens something on a connection that has a free stream; makes another connection if none has one.
    pub(crate) async fn open<T, F: Future<Output = Result<T, Error>>>(
        &self,
        open: impl Fn(Link) -> F,
    ) -> Result<T, Error> {
        let mut made = None;
        loop {
            let all = self.all();
            let roomy = self.shared.roomy.load(Ordering::Relaxed);
            let mut full = None;
            for step in 0..all.len() {
                let at = (roomy + step) % all.len();
                match open(all[at].clone()).await {
                    Err(error) if is_full(&error) => full = Some(error),
                    other => {
                        self.shared.roomy.store(at, Ordering::Relaxed);
                        return other;
                    }
                }
            }
            let Some(error) = full else { continue };
            if let Some(made) = made {
                // A connection of its own is refused as well: the limit is another than that of streams.
                self.forget(made);
                return Err(error);
            }
            if all.len() >= CONNECTIONS_MAX {
                return Err(error);
            }
            made = Some(self.grow(all.len()).await?);
        }
    }

    /// Opens another connection, unless one was opened since there were `known`; returns its index.
    async fn grow(&self, known: usize) -> Result<usize, Error> {
        let _growing = self.shared.growing.lock().await;
        let count = self.all().len();
        if count > known {
            return Ok(count - 1);
        }
        let another = self.first.another().await?;
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.roomy.store(all.len(), Ordering::Relaxed);
        all.push(another);
        Ok(all.len() - 1)
    }

    /// Opens no more streams on the last connection; it ends with those that it has.
    fn forget(&self, index: usize) {
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        if index > 0 && index + 1 == all.len() {
            all.pop();
            self.shared.roomy.store(0, Ordering::Relaxed);
        }
    }

    fn all(&self) -> Vec<Link> {
        self.shared.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every connection and waits until the engine was notified.
    pub(crate) async fn close(&self) {
        // One that is being made meanwhile would be forgotten.
        let _growing = self.shared.growing.lock().await;
        for link in self.all() {
            link.close().await;
        }
    }
}

/// True if the connection may have no more streams: the engine withholds or refuses one.
fn is_full(error: &Error) -> bool {
    match error {
        Error::NoStream { .. } => true,
        Error::Refused(refusal) => refusal.code == ErrorCode::LimitExceeded,
        _ => false,
    }
}
