//! Giving the space of dropped rows back: the one way for all that drops many, a deleted topic as well as retention.
//!
//! A commit that drops a range leaves a row that names it, and a task has the store compact what such rows
//! name. A row goes when that is done, so a restart or a full disk only puts it off. It must not know why rows were
//! dropped.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_store::{Family, ScanLimit, Store};

use crate::{
    error::Error,
    guard::Guard,
    log::blocking,
    rows::{Dropped, DroppedRange, Row},
    shard::ShardHandle,
};

/// Ranges that are looked up at a time.
const PAGE: ScanLimit = ScanLimit { rows: 256, bytes: 1 << 20 };
/// How long a range is left alone that could not be compacted, at first and at most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// True if a range that begins so is all that its family holds of a topic.
fn is_whole_topic(from: &[u8]) -> bool {
    from.len() == size_of::<u32>()
}

/// What gives the space back.
pub(crate) struct Reclaimer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shard: ShardHandle,
    pub(crate) guard: Arc<Guard>,
}

impl Reclaimer {
    /// Gives space back whenever some is to be given back. Never ends. May be dropped at any await: what is not done is
    /// still noted, and the store ends a compaction, which can take minutes, when it closes.
    pub(crate) async fn run(self) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.reclaim().await {
                Ok(()) => {
                    pause = RETRY_FIRST;
                    self.shard.view().dropped().await;
                }
                Err(error) => {
                    tracing::warn!(%error, retry = ?pause, "the space of deleted events was not given back yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Gives the space back of all that is dropped and durable.
    async fn reclaim(&self) -> Result<(), Error> {
        loop {
            let store = Arc::clone(&self.store);
            let (done, failed) = blocking(move || Ok(compact_page(store.as_ref()))).await?;
            let some = !done.is_empty();
            if some {
                self.shard.reclaimed(done).await?;
                self.guard.measure_is_low();
            }
            match failed {
                Some(error) => return Err(error),
                None if !some => return Ok(()),
                None => {}
            }
        }
    }
}

/// Compacts some of the ranges that are noted; returns the notes of those that are done, and the error that ended it
/// early.
fn compact_page(store: &dyn Store) -> (Vec<Bytes>, Option<Error>) {
    let (from, to) = Dropped::all();
    let rows = match store.scan(Family::Meta, &from, &to, PAGE) {
        Ok(rows) => rows,
        Err(error) => return (Vec::new(), Some(error.into())),
    };
    let mut done = Vec::new();
    let mut whole_topic = false;
    for (key, _) in rows {
        let Some(DroppedRange { family, from, to, deleted }) = Dropped::parse_key(&key) else {
            tracing::warn!(?key, "a note of dropped rows does not decode; their space may not be given back");
            done.push(key);
            continue;
        };
        if let Err(error) = store.compact(family, &from, &to, deleted) {
            return (done, Some(error.into()));
        }
        tracing::debug!(?family, ?from, ?to, "the space of dropped rows was given back");
        whole_topic |= is_whole_topic(&from);
        done.push(key);
    }
    // What a topic's events take in the log of commits is as much as a small topic takes in all.
    let flushed = if whole_topic { store.flush().err() } else { None };
    (done, flushed.map(Error::from))
}
