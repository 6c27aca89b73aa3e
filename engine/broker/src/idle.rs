//! Finds producers that were idle for long, a little in every retention round, so that the store does not keep a row
//! of every publisher that there ever was; and behind them the names that have no producer any more.
//!
//! It owns the position of the search. The shard decides whether a producer or a name still is idle.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use levada_delivery::producer::Producer;
use levada_protocol::ids::{PartitionId, ProducerId, Timestamp, TopicId};
use levada_store::{Family, ScanLimit, Store};
use tokio::sync::Mutex;

use crate::{
    catalogue::Catalogue,
    error::Error,
    log::blocking,
    rows::{self, NamedProducer, Row, whole_family},
    shard::{Idle, NameKey, ProducerKey, ShardHandle},
};

/// What one scan of the store returns at most.
const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 1 << 20 };
/// The same of names: for one that nobody has opened for long, each partition of its topic is looked at.
const PAGE_OF_NAMES: ScanLimit = ScanLimit { rows: 100, ..PAGE };
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
    next: Option<Place>,
    /// No search begins before.
    begins: Timestamp,
}

/// How far a search has come: it looks at the producers first, so that it finds the names which have none any more.
#[derive(Debug)]
enum Place {
    Producers(Bytes),
    Names(Bytes),
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
            let place = search.next.take().unwrap_or_else(|| Place::Producers(whole_family().0));
            let (store, catalogue) = (Arc::clone(&self.store), self.shard.catalogue());
            let (idle, next) = blocking(move || page(store.as_ref(), &catalogue, place, before)).await?;
            for some in idle.producers.chunks(FORGOTTEN_AT_ONCE_MAX) {
                tracing::debug!(producers = some.len(), "idle producers are forgotten");
                self.shard.forget(Idle { producers: some.to_vec(), ..Idle::default() }, before).await?;
            }
            if !idle.names.is_empty() {
                tracing::debug!(names = idle.names.len(), "names of producers are forgotten");
                self.shard.forget(Idle { names: idle.names, ..Idle::default() }, before).await?;
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

/// What is idle of one page, and where the next page begins, if there is one.
fn page(
    store: &dyn Store,
    catalogue: &Catalogue,
    place: Place,
    before: Timestamp,
) -> Result<(Idle, Option<Place>), Error> {
    match place {
        Place::Producers(from) => {
            let (producers, next) = idle_producers(store, &from, before)?;
            let next = next.map_or_else(|| Place::Names(NamedProducer::all().0), Place::Producers);
            Ok((Idle { producers, ..Idle::default() }, Some(next)))
        }
        Place::Names(from) => {
            let (names, next) = idle_names(store, catalogue, &from, before)?;
            Ok((Idle { names, ..Idle::default() }, next.map(Place::Names)))
        }
    }
}

fn idle_producers(
    store: &dyn Store,
    from: &[u8],
    before: Timestamp,
) -> Result<(Vec<ProducerKey>, Option<Bytes>), Error> {
    let rows = store.scan(Family::Producers, from, &whole_family().1, PAGE)?;
    let next = behind(&rows);
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

/// The names that nobody has opened since, and of whose owners no producer's row is left.
fn idle_names(
    store: &dyn Store,
    catalogue: &Catalogue,
    from: &[u8],
    before: Timestamp,
) -> Result<(Vec<NameKey>, Option<Bytes>), Error> {
    let rows = store.scan(NamedProducer::FAMILY, from, &NamedProducer::all().1, PAGE_OF_NAMES)?;
    let next = behind(&rows);
    let mut idle = Vec::new();
    for (key, row) in rows {
        let (key, named) = rows::decode_pair::<NamedProducer>(&key, &row)?;
        if named.opened < before && !has_producers(store, catalogue, key.0, named.id)? {
            idle.push(key);
        }
    }
    Ok((idle, next))
}

/// True if a row is left of what was published under an id of this base.
fn has_producers(
    store: &dyn Store,
    catalogue: &Catalogue,
    topic: TopicId,
    base: ProducerId,
) -> Result<bool, Error> {
    let partitions = catalogue.topics.by_id(topic).map_or(0, |record| record.settings.partitions);
    for partition in (0..partitions).map(PartitionId) {
        let (from, to) = rows::producers_of_name(topic, partition, base);
        if !store.scan(Family::Producers, &from, &to, ScanLimit { rows: 1, ..PAGE })?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the page behind these rows begins, if there are any.
fn behind(rows: &[(Bytes, Bytes)]) -> Option<Bytes> {
    rows.last().map(|(last, _)| [last.as_ref(), &[0]].concat().into())
}
