//! Building the writer's state from what the store holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use levada_protocol::{
    error::ErrorCode,
    ids::{Offset, PartitionId, RouteId, Timestamp, TopicId, TopicName},
};
use levada_store::{Family, ScanLimit, Store, record};

use super::state::{End, Segment, State, read_pair};
use crate::{
    catalogue::{
        Catalogue, PluginNumbers, PluginRecord, RouteRecord, SubscriptionRecord, TopicRecord, decode,
        read_cursor,
    },
    error::Error,
    frames::Piece,
    keys::{self, CatalogueKind},
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
    let next_id = match store.get(Family::Meta, &keys::next_id())? {
        Some(value) => read_cursor(&value)?.0,
        None => 1,
    };
    let mut catalogue = Catalogue { next_id, ..Catalogue::default() };
    let mut topics = HashMap::new();
    let mut ends = HashMap::new();
    for (key, value) in scan_all(store, Family::Catalogue, keys::whole_family())? {
        match keys::catalogue_kind(&key) {
            Some(CatalogueKind::Topic) => {
                let record: TopicRecord = decode(&value)?;
                let topic = load_topic(store, &record, budget, present, &mut ends)?;
                topics.insert(topic.id, Arc::clone(&topic));
                catalogue.topics.insert(topic.name.clone(), topic);
            }
            Some(CatalogueKind::Subscription) => {
                let record: SubscriptionRecord = decode(&value)?;
                let key = (TopicName::parse_any(&record.topic)?, record.name.parse()?);
                catalogue.subscriptions.insert(key, Arc::new(record));
            }
            Some(CatalogueKind::Plugin) => {
                let record: PluginRecord = decode(&value)?;
                catalogue.plugins.insert((record.name.parse()?, record.version), Arc::new(record));
            }
            Some(CatalogueKind::PluginNumbers) => {
                let numbers: PluginNumbers = decode(&value)?;
                catalogue.plugin_numbers.insert(numbers.name.parse()?, numbers.last);
            }
            Some(CatalogueKind::Route) => {
                let record: RouteRecord = decode(&value)?;
                catalogue.routes.insert(record.spec.name.parse()?, Arc::new(record));
            }
            None => return Err(corrupt("a catalogue key of an unknown kind".to_owned())),
        }
    }
    let route_cursors = load_route_cursors(store, &catalogue)?;
    Ok(State { catalogue, topics, ends, producers: HashMap::new(), route_cursors, applied: store.applied() })
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

/// Finds a partition's end by its last record, and its size by its last segment and what follows that.
fn load_partition(store: &dyn Store, topic: TopicId, partition: PartitionId) -> Result<(End, Extent), Error> {
    let (start, dropped_bytes) = match store.get(Family::Meta, &keys::log_start(topic, partition))? {
        Some(value) => read_pair(&value).ok_or_else(|| corrupt("a log start does not decode".to_owned()))?,
        None => (0, 0),
    };
    let mut end = End { next: Offset(start), bytes: dropped_bytes, ..End::default() };
    let (from, to) = keys::partition_segments(topic, partition);
    if let Some((key, value)) = store.last_before(Family::Meta, &from, &to)? {
        let decoded = keys::segment_base(&key).zip(read_pair(&value));
        let (base, (append_time, bytes_before)) =
            decoded.ok_or_else(|| corrupt("a segment row does not decode".to_owned()))?;
        end.segment = Some(Segment { append_time: Timestamp(append_time), bytes_before });
        end.bytes = bytes_before;
        end.next = base;
    }
    let mut from = keys::log(topic, partition, end.next);
    let to = keys::log(topic, partition, Offset(u64::MAX));
    loop {
        let rows = store.scan(Family::Log, &from, &to, PAGE)?;
        if rows.is_empty() {
            break;
        }
        for (key, value) in rows {
            let record = record::check(&key, value).map_err(|error| corrupt(error.to_string()))?;
            end.bytes += record.bytes.len() as u64;
            end.append_time = record.append_time;
            end.next = Piece::of(record.run(), true)?.end();
        }
        from = keys::log(topic, partition, end.next);
    }
    let (from, to) = keys::setbacks_below(topic, partition, Offset(u64::MAX));
    if let Some((key, value)) = store.last_before(Family::Meta, &from, &to)?
        && keys::setback_offset(&key) == Some(end.next)
    {
        // Nothing was appended since.
        let (time, _) = read_pair(&value).ok_or_else(|| corrupt("a set-back does not decode".to_owned()))?;
        (end.append_time, end.segment) = (Timestamp(time), None);
    }
    let extent = Extent { start: Offset(start), end: end.next, appended_bytes: end.bytes, dropped_bytes };
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
            let stored = store.get(Family::Cursors, &keys::route_cursor(id, partition))?;
            let cursor = stored.map_or(Ok(Offset(*begin)), |value| read_cursor(&value))?;
            cursors.insert((id, partition), cursor);
        }
    }
    Ok(cursors)
}

/// All rows of a range, page by page.
pub(crate) fn scan_all(
    store: &dyn Store,
    family: Family,
    (mut from, to): keys::KeyRange,
) -> Result<BTreeMap<bytes::Bytes, bytes::Bytes>, Error> {
    let mut all = BTreeMap::new();
    loop {
        let rows = store.scan(family, &from, &to, PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(all) };
        from = [last.as_ref(), &[0]].concat().into();
        all.extend(rows);
    }
}

fn corrupt(message: String) -> Error {
    Error::Store { code: ErrorCode::StorageCorrupt, message }
}
