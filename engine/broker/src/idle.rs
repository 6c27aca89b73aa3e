//! Finds producers that were idle for long, a little in every retention round, so that the store does not keep a row
//! of every publisher that there ever was.
//!
//! It owns the position of the search. The shard decides whether a producer still is idle.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_delivery::producer::Producer;
use levada_protocol::ids::Timestamp;
use levada_store::{Family, ScanLimit, Store};
use tokio::sync::Mutex;

use crate::{
    error::Error,
    log::blocking,
    rows::{Row, whole_family},
    shard::{ProducerKey, ShardHandle},
};

/// What one scan of the store returns at most.
const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 1 << 20 };
/// Pages that one round scans at most.
const PAGES_PER_ROUND: usize = 16;
/// Producers that are forgotten at once: the writer looks up each of them, and publishes wait behind it.
const FORGOTTEN_AT_ONCE_MAX: usize = 128;
/// A search begins again after this part of the idle time.
const SEARCHES_PER_IDLE_TIME: u64 = 64;

/// Finds idle producers and has them forgotten.
pub(crate) struct IdleProducers {
    store: Arc<dyn Store>,
    shard: ShardHandle,
    /// How long a producer is remembered after its last publish.
    idle_ms: u64,
    search: Mutex<Search>,
}

/// How far the search has come.
#[derive(Debug, Default)]
struct Search {
    /// Where it continues; `None` between two searches.
    next: Option<Bytes>,
    /// No search begins before.
    begins: Timestamp,
}

impl IdleProducers {
    /// Producers last used `idle` ago or earlier are idle.
    pub(crate) fn new(store: Arc<dyn Store>, shard: ShardHandle, idle: Duration) -> Self {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        Self { store, shard, idle_ms, search: Mutex::default() }
    }

    /// One round: continues the search, or begins one if it is time.
    ///
    /// # Errors
    /// If the store fails; what was forgotten until then stays forgotten.
    pub(crate) async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let before = Timestamp(now.0.saturating_sub(self.idle_ms));
        let pause_ms = self.idle_ms / SEARCHES_PER_IDLE_TIME;
        let mut search = self.search.lock().await;
        // It is more than a pause ahead only if the clock was set back.
        if search.next.is_none() && now < search.begins && search.begins.0 - now.0 <= pause_ms {
            return Ok(());
        }
        for _ in 0..PAGES_PER_ROUND {
            let (begin, end) = whole_family();
            let from = search.next.take().unwrap_or(begin);
            let store = Arc::clone(&self.store);
            let (idle, next) = blocking(move || idle_of_page(store.as_ref(), &from, &end, before)).await?;
            for some in idle.chunks(FORGOTTEN_AT_ONCE_MAX) {
                tracing::debug!(producers = some.len(), "idle producers are forgotten");
                self.shard.forget(some.to_vec(), before).await?;
            }
            search.next = next;
            if search.next.is_none() {
                search.begins = Timestamp(now.0.saturating_add(pause_ms));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The idle producers of one page, and where the next page begins, if there is one.
fn idle_of_page(
    store: &dyn Store,
    from: &[u8],
    to: &[u8],
    before: Timestamp,
) -> Result<(Vec<ProducerKey>, Option<Bytes>), Error> {
    let rows = store.scan(Family::Producers, from, to, PAGE)?;
    let next = rows.last().map(|(last, _)| [last.as_ref(), &[0]].concat().into());
    let mut idle = Vec::new();
    for (key, row) in rows {
        match (Producer::parse_key(&key), Producer::decode(&row)) {
            (Some(producer), Ok(known)) if known.last_used() < before => idle.push(producer),
            (Some(_), Ok(_)) => {}
            // One damaged row must not keep the others for ever; its producer gets an error when it publishes.
            (None, _) | (_, Err(_)) => tracing::warn!(?key, "a producer's row does not decode"),
        }
    }
    Ok((idle, next))
}
