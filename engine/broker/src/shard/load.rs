//! Building the writer's state from what the store holds.

use std::{collections::HashMap, sync::Arc};

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, RouteId, Timestamp, TopicId, TopicName},
};
use levada_store::{
    Family, ScanLimit, Store,
    record::{self, LogKey},
};

use super::state::{End, State};
use crate::{
    catalogue::Catalogue,
    error::Error,
    frames::slice_of,
    rows::{self, CatalogueRow, LogStart, NextId, RouteCursor, Segment, Setback, TopicRecord},
    tail::TailBudget,
    topic::{Extent, Topic},
};

const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 4 << 20 };

/// Reads everything that the writer owns. `present` are the topics that others already hold, after the store was
/// opened again: they keep their identity and take the extent that was found.
pub(super) fn load(
    store: &dyn Store,
    budget: &Arc<TailBudget>,
    present: Option<&HashMap<TopicId, Arc<Topic>>>,
) -> Result<State, Error> {
    // What was recovered becomes visible now, so it must be durable now.
    store.sync()?;
    read(store, budget, present)
}

/// The same without a write: also for a store that is only looked at.
pub(super) fn read(
    store: &dyn Store,
    budget: &Arc<TailBudget>,
    present: Option<&HashMap<TopicId, Arc<Topic>>>,
) -> Result<State, Error> {
    let next_id = rows::get::<NextId>(store, &())?.map_or(1, |next| next.0);
    let mut catalogue = Catalogue { next_id, ..Catalogue::default() };
    let mut topics = HashMap::new();
    let mut ends = HashMap::new();
    for row in rows::scan_catalogue(store)? {
        match row {
            CatalogueRow::Topic(record) => {
                let topic = load_topic(store, &record, budget, present, &mut ends)?;
                topics.insert(topic.id, Arc::clone(&topic));
                catalogue.topics.insert(topic.name.clone(), topic);
            }
            CatalogueRow::Subscription(record) => {
                let key = (TopicName::parse_any(&record.topic)?, record.name.parse()?);
                catalogue.subscriptions.insert(key, Arc::new(record));
            }
            CatalogueRow::Plugin(record) => {
                catalogue.plugins.insert((record.name.parse()?, record.version), Arc::new(record));
            }
            CatalogueRow::PluginNumbers(numbers) => {
                catalogue.plugin_numbers.insert(numbers.name.parse()?, numbers.last);
            }
            CatalogueRow::Route(record) => {
                catalogue.routes.insert(record.spec.name.parse()?, Arc::new(record));
            }
        }
    }
    let route_cursors = load_route_cursors(store, &catalogue)?;
    Ok(State {
        catalogue,
        topics,
        ends,
        producers: HashMap::new(),
        route_cursors,
        engine_id: rows::get(store, &())?,
        last: store.last(),
    })
}

fn load_topic(
    store: &dyn Store,
    record: &TopicRecord,
    budget: &Arc<TailBudget>,
    present: Option<&HashMap<TopicId, Arc<Topic>>>,
    ends: &mut HashMap<(TopicId, PartitionId), End>,
) -> Result<Arc<Topic>, Error> {
    let id = TopicId(record.id);
    let name = TopicName::parse_any(&record.name)?;
    let mut extents = Vec::with_capacity(usize::from(record.settings.partitions));
    for partition in (0..record.settings.partitions).map(PartitionId) {
        let (end, extent) = load_partition(store, id, partition).map_err(|error| named(&name, error))?;
        ends.insert((id, partition), end);
        extents.push(extent);
    }
    if let Some(topic) = present.and_then(|present| present.get(&id)) {
        for (partition, extent) in topic.partitions.iter().zip(extents) {
            partition.recover(extent);
        }
        topic.set_settings(record.settings.clone());
        topic.set_going(false);
        return Ok(Arc::clone(topic));
    }
    let created = Timestamp(record.created_ms);
    Ok(Arc::new(Topic::new(
        id,
        name,
        record.settings.clone(),
        created,
        record.owner.clone(),
        &extents,
        budget,
    )))
}

/// Finds a partition's end and size by its last record. Records from the last segment on are read, and must follow on
/// each other; how many bytes lie before them, they say themselves.
fn load_partition(store: &dyn Store, topic: TopicId, partition: PartitionId) -> Result<(End, Extent), Error> {
    let mut start = rows::get::<LogStart>(store, &(topic, partition))?.unwrap_or_default();
    let mut end = End { next: start.offset, bytes: start.dropped_bytes, ..End::default() };
    let segments = Segment::below(topic, partition, Offset(u64::MAX));
    if let Some(((_, _, base), segment)) = rows::last::<Segment>(store, &segments)? {
        (end.next, end.bytes, end.segment) = (base, segment.bytes_before, Some((base, segment)));
    }
    let key = |base| LogKey { topic, partition, base }.encode();
    let mut from = key(end.next);
    let to = key(Offset(u64::MAX));
    let mut is_first = true;
    loop {
        let rows = store.scan(Family::Log, &from, &to, PAGE)?;
        if rows.is_empty() {
            break;
        }
        for (key, value) in rows {
            let record = record::check(&key, value).map_err(|error| corrupt(error.to_string()))?;
            if std::mem::take(&mut is_first) {
                end.bytes = record.bytes_before;
                if record.key.base == start.offset {
                    start.dropped_bytes = record.bytes_before;
                }
            }
            if record.key.base != end.next || record.bytes_before != end.bytes {
                let what = format!(
                    "partition {partition}: events are missing before offset {}: expected a record at offset {} with {} \
                     bytes before it, got one with {}; restore the data directory from a backup",
                    record.key.base, end.next, end.bytes, record.bytes_before
                );
                return Err(corrupt(what));
            }
            end.bytes += record.bytes.len() as u64;
            end.append_time = record.append_time;
            end.next = slice_of(&record)?.end();
        }
        from = key(end.next);
    }
    let setbacks = Setback::below(topic, partition, Offset(u64::MAX));
    if let Some(((_, _, from), setback)) = rows::last::<Setback>(store, &setbacks)?
        && from == end.next
    {
        // Nothing was appended since.
        (end.append_time, end.segment) = (setback.time, None);
    }
    let LogStart { offset: start, dropped_bytes } = start;
    let extent = Extent { start, end: end.next, appended_bytes: end.bytes, dropped_bytes };
    Ok((end, extent))
}

/// The error of reading a topic's partition, with the name that people know it by.
fn named(topic: &TopicName, error: Error) -> Error {
    match error {
        Error::Store { code, message } => {
            Error::Store { code, message: format!("topic {topic} cannot be loaded: {message}") }
        }
        other => other,
    }
}

fn load_route_cursors(
    store: &dyn Store,
    catalogue: &Catalogue,
) -> Result<HashMap<(RouteId, PartitionId), Offset>, Error> {
    let mut cursors = HashMap::new();
    for record in catalogue.routes.values() {
        let id = RouteId(record.id);
        for (number, begin) in (0..).zip(&record.positions) {
            let partition = PartitionId(number);
            let stored = rows::get::<RouteCursor>(store, &(id, partition))?;
            let cursor = stored.map_or(Offset(*begin), |cursor| cursor.0);
            cursors.insert((id, partition), cursor);
        }
    }
    Ok(cursors)
}

fn corrupt(message: String) -> Error {
    Error::Store { code: ErrorCode::StorageCorrupt, message }
}
