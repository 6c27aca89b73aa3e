//! All connections of a client: one, and further ones once the engine allows no more streams on those that stand.
//!
//! Owns how many there are. Must not know what their streams are for.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use levada_protocol::request::Notice;
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

    /// What the engine tells unasked, on whichever connection.
    pub(crate) fn notices(&self) -> broadcast::Receiver<Notice> {
        self.first.notices().subscribe()
    }

    /// Opens something on a connection that has a free stream; makes another connection if none has one.
    pub(crate) async fn open<T, F: Future<Output = Result<T, Error>>>(
        &self,
        open: impl Fn(Link) -> F,
    ) -> Result<T, Error> {
        loop {
            let all = self.all();
            let roomy = self.shared.roomy.load(Ordering::Relaxed);
            let mut full = None;
            for step in 0..all.len() {
                let at = (roomy + step) % all.len();
                match open(all[at].clone()).await {
                    Err(error @ Error::NoStream { .. }) => full = Some(error),
                    other => {
                        self.shared.roomy.store(at, Ordering::Relaxed);
                        return other;
                    }
                }
            }
            if let Some(error) = full
                && all.len() >= CONNECTIONS_MAX
            {
                return Err(error);
            }
            self.grow(all.len()).await?;
        }
    }

    /// Makes another connection, unless somebody has made one since there were `known`.
    async fn grow(&self, known: usize) -> Result<(), Error> {
        let _growing = self.shared.growing.lock().await;
        if self.all().len() > known {
            return Ok(());
        }
        let another = self.first.another().await?;
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.roomy.store(all.len(), Ordering::Relaxed);
        all.push(another);
        Ok(())
    }

    fn all(&self) -> Vec<Link> {
        self.shared.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every connection and waits until the engine was told.
    pub(crate) async fn close(&self) {
        // One that is being made meanwhile would be forgotten.
        let _growing = self.shared.growing.lock().await;
        for link in self.all() {
            link.close().await;
        }
    }
}
