//! Finding producers that were idle for long, a little in every retention pass, so that the store does not keep a row
//! of every publisher that there ever was.
//!
//! It owns how far the search has come. Whether a producer still is idle, the shard decides.

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

/// Rows that one look into the store brings at most.
const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 1 << 20 };
/// Looks that one pass takes at most.
const PAGES_PER_PASS: usize = 16;
/// Producers that are forgotten in one go: the writer looks each of them up, and publishes wait behind it.
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
    /// Where it goes on; `None` between two searches.
    next: Option<Bytes>,
    /// No search begins before.
    begins: Timestamp,
}

impl IdleProducers {
    /// Producers are idle that were last used so long ago.
    pub(crate) fn new(store: Arc<dyn Store>, shard: ShardHandle, idle: Duration) -> Self {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        Self { store, shard, idle_ms, search: Mutex::default() }
    }

    /// One pass: goes on with the search, or begins one if it is time.
    ///
    /// # Errors
    /// If the store fails; what was forgotten until then stays forgotten.
    pub(crate) async fn forget(&self, now: Timestamp) -> Result<(), Error> {
        let before = Timestamp(now.0.saturating_sub(self.idle_ms));
        let pause_ms = self.idle_ms / SEARCHES_PER_IDLE_TIME;
        let mut search = self.search.lock().await;
        // More than a pause ahead it is only if the clock was set back.
        if search.next.is_none() && now < search.begins && search.begins.0 - now.0 <= pause_ms {
            return Ok(());
        }
        for _ in 0..PAGES_PER_PASS {
            let (begin, end) = whole_family();
            let from = search.next.take().unwrap_or(begin);
            let store = Arc::clone(&self.store);
            let (idle, next) = blocking(move || look(store.as_ref(), &from, &end, before)).await?;
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
fn look(
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
            // One damaged row must not keep the others for ever; its producer hears of it when it publishes.
            (None, _) | (_, Err(_)) => tracing::warn!(?key, "a producer's row does not decode"),
        }
    }
    Ok((idle, next))
}
