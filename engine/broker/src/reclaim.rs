//! Giving the space of dropped rows back: the one way for all that drops many, a deleted topic as well as retention.
//!
//! A commit that drops a range leaves a row that names it, and a task has the store compact what such rows
//! name. A row goes when that is done, so a restart or a full disk only puts it off. Where rows of a range live, its space
//! comes back by writing them again: that waits for room. It must not know why rows were dropped.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_store::{Deleted, Family, ScanLimit, Store};

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
                Ok(left) => {
                    pause = RETRY_FIRST;
                    let some_time = if left { RETRY_MAX } else { Duration::MAX };
                    // It ends at the latest when what was left is to be tried again.
                    let _ = tokio::time::timeout(some_time, self.shard.view().dropped()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, retry = ?pause, "the space of deleted events was not given back yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Gives the space back of all that is dropped and durable; true if some was left, as there is too little room.
    async fn reclaim(&self) -> Result<bool, Error> {
        loop {
            let (store, is_low) = (Arc::clone(&self.store), self.guard.measure_is_low());
            let Page { done, left, failed } =
                blocking(move || Ok(compact_page(store.as_ref(), is_low))).await?;
            let some = !done.is_empty();
            if some {
                self.shard.reclaimed(done).await?;
                self.guard.measure_is_low();
            }
            match failed {
                Some(error) => return Err(error),
                None if !some => return Ok(left),
                None => {}
            }
        }
    }
}

/// What became of some of the ranges that are noted.
#[derive(Default)]
struct Page {
    /// The notes of those that are done.
    done: Vec<Bytes>,
    /// True if others were left for want of room.
    left: bool,
    /// The error that ended it early.
    failed: Option<Error>,
}

/// Compacts some of the ranges that are noted; where there is little room, those alone of which no row lives.
fn compact_page(store: &dyn Store, is_low: bool) -> Page {
    let (from, to) = Dropped::all();
    let rows = match store.scan(Family::Meta, &from, &to, PAGE) {
        Ok(rows) => rows,
        Err(error) => return Page { failed: Some(error.into()), ..Page::default() },
    };
    let mut page = Page::default();
    let mut whole_topic = false;
    for (key, _) in rows {
        let Some(DroppedRange { family, from, to, deleted }) = Dropped::parse_key(&key) else {
            tracing::warn!(?key, "a note of dropped rows does not decode; their space may not be given back");
            page.done.push(key);
            continue;
        };
        if is_low && deleted == Deleted::Some {
            page.left = true;
            continue;
        }
        if let Err(error) = store.compact(family, &from, &to, deleted) {
            return Page { failed: Some(error.into()), ..page };
        }
        tracing::debug!(?family, ?from, ?to, "the space of dropped rows was given back");
        whole_topic |= is_whole_topic(&from);
        page.done.push(key);
    }
    // What a topic's events take in the log of commits is as much as a small topic takes in all.
    let flushed = if whole_topic { store.flush().err() } else { None };
    Page { failed: flushed.map(Error::from), ..page }
}
