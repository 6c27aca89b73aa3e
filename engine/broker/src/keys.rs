//! The key table: every key the broker stores, in one place. Numbers are big endian, so that keys sort by value.
//!
//! | family | key | value | written by | goes |
//! | --- | --- | --- | --- | --- |
//! | meta | `0x01` | next id: version, u64 | catalogue changes | never |
//! | meta | `0x02` | engine id: text | first start | never |
//! | meta | `0x10` topic u32, partition u16 | log start: version, offset u64, dropped bytes u64 | retention | with the topic |
//! | meta | `0x11` topic u32, partition u16, offset u64 | segment: version, append time u64, bytes before u64 | appends | retention, with the topic |
//! | meta | `0x12` family u8, length u8, from, to | a range of dropped rows whose space is not given back yet: version | what drops them | when it is |
//! | meta | `0x13` topic u32, partition u16, offset u64 | clock set back: version, append time from there u64, before u64 | the writer | retention, with the topic |
//! | catalogue | `0x01` topic u32 | version, MessagePack `TopicRecord` | catalogue changes | with the topic |
//! | catalogue | `0x02` subscription u64 | version, MessagePack `SubscriptionRecord` | catalogue changes | with the subscription |
//! | catalogue | `0x03` plugin version u64 | version, MessagePack `PluginRecord` | catalogue changes | `plugin remove` |
//! | catalogue | `0x04` route u64 | version, MessagePack `RouteRecord` | catalogue changes | with the route |
//! | catalogue | `0x05` name | version, MessagePack `PluginNumbers` | removals of a plugin's newest version | never |
//! | log | topic u32, partition u16, offset u64 | see `levada_store::record` | appends | retention, with the topic |
//! | cursors | `0x01` subscription u64, partition u16, `0x00` | progress head, see `levada_delivery` | the subscription's fragments | with the subscription |
//! | cursors | `0x01` subscription u64, partition u16, `0x01`, chunk u64 | progress chunk | the subscription's fragments | when the floor passes it |
//! | cursors | `0x02` route u64, partition u16 | version, next offset u64 | the route's fragments | with the route |
//! | producers | topic u32, partition u16, producer u128 | see `levada_delivery::producer` | appends | once it is idle for long, with the topic |
//!
//! Ids are never reused, so a key of a deleted thing can never be taken for another's.

use bytes::{BufMut, Bytes, BytesMut};
use levada_protocol::ids::{Offset, PartitionId, ProducerId, RouteId, SubscriptionId, TopicId};
use levada_store::Family;

const META_NEXT_ID: u8 = 0x01;
const META_ENGINE_ID: u8 = 0x02;
const META_LOG_START: u8 = 0x10;
const META_SEGMENT: u8 = 0x11;
const META_DROPPED: u8 = 0x12;
const META_SETBACK: u8 = 0x13;
const CATALOGUE_TOPIC: u8 = 0x01;
const CATALOGUE_SUBSCRIPTION: u8 = 0x02;
const CATALOGUE_PLUGIN: u8 = 0x03;
const CATALOGUE_ROUTE: u8 = 0x04;
const CATALOGUE_PLUGIN_NUMBERS: u8 = 0x05;
const CURSOR_SUBSCRIPTION: u8 = 0x01;
const CURSOR_ROUTE: u8 = 0x02;
const PROGRESS_HEAD: u8 = 0x00;
const PROGRESS_CHUNK: u8 = 0x01;

/// A half-open range of keys.
pub(crate) type KeyRange = (Bytes, Bytes);

/// The value under [`dropped`].
pub(crate) const DROPPED_VALUE: Bytes = Bytes::from_static(&[1]);

/// Everything in a family of the broker's.
pub(crate) fn whole_family() -> KeyRange {
    (Bytes::from_static(&[0x00]), Bytes::from_static(&[0xff]))
}

pub(crate) fn next_id() -> Bytes {
    Bytes::from_static(&[META_NEXT_ID])
}

pub(crate) fn engine_id() -> Bytes {
    Bytes::from_static(&[META_ENGINE_ID])
}

pub(crate) fn log_start(topic: TopicId, partition: PartitionId) -> Bytes {
    place(&[META_LOG_START], topic, partition, &[])
}

pub(crate) fn segment(topic: TopicId, partition: PartitionId, base: Offset) -> Bytes {
    place(&[META_SEGMENT], topic, partition, &base.0.to_be_bytes())
}

/// The base offset in a segment's key.
pub(crate) fn segment_base(key: &[u8]) -> Option<Offset> {
    key.get(7..).and_then(|base| base.try_into().ok()).map(u64::from_be_bytes).map(Offset)
}

/// The segments of a partition that begin before `below`.
pub(crate) fn segments_below(topic: TopicId, partition: PartitionId, below: Offset) -> KeyRange {
    (segment(topic, partition, Offset(0)), segment(topic, partition, below))
}

/// All rows of one partition under one of meta's per-partition prefixes, or of the producers.
pub(crate) fn partition_segments(topic: TopicId, partition: PartitionId) -> KeyRange {
    (
        segment(topic, partition, Offset(0)),
        place(&[META_SEGMENT], topic, PartitionId(partition.0), &[0xff; 9]),
    )
}

/// The note that the space of a range is to be given back.
pub(crate) fn dropped(family: Family, (from, to): &KeyRange) -> Bytes {
    let len = u8::try_from(from.len()).expect("a range of ours begins with a short key");
    let mut key = BytesMut::with_capacity(3 + from.len() + to.len());
    key.put_slice(&[META_DROPPED, family.number(), len]);
    key.put_slice(from);
    key.put_slice(to);
    key.freeze()
}

/// All such notes.
pub(crate) fn all_dropped() -> KeyRange {
    (Bytes::from_static(&[META_DROPPED]), Bytes::from_static(&[META_DROPPED + 1]))
}

/// The range that such a note names.
pub(crate) fn dropped_range(key: &Bytes) -> Option<(Family, KeyRange)> {
    let (family, len) = (*key.get(1)?, usize::from(*key.get(2)?));
    let family = Family::ALL.into_iter().find(|known| known.number() == family)?;
    (key.len() >= 3 + len).then(|| (family, (key.slice(3..3 + len), key.slice(3 + len..))))
}

/// True if a range that begins so is all that its family holds of a topic.
pub(crate) fn is_whole_topic(from: &[u8]) -> bool {
    from.len() == size_of::<u32>()
}

/// A place in a partition from where on append times are of a clock that was set back.
pub(crate) fn setback(topic: TopicId, partition: PartitionId, from: Offset) -> Bytes {
    place(&[META_SETBACK], topic, partition, &from.0.to_be_bytes())
}

/// The offset in such a key.
pub(crate) fn setback_offset(key: &[u8]) -> Option<Offset> {
    segment_base(key)
}

/// Those of a partition, before `below`.
pub(crate) fn setbacks_below(topic: TopicId, partition: PartitionId, below: Offset) -> KeyRange {
    (setback(topic, partition, Offset(0)), setback(topic, partition, below))
}

pub(crate) fn topic_setbacks(topic: TopicId) -> KeyRange {
    topic_range(&[META_SETBACK], topic)
}

pub(crate) fn topic_log_starts(topic: TopicId) -> KeyRange {
    topic_range(&[META_LOG_START], topic)
}

pub(crate) fn topic_segments(topic: TopicId) -> KeyRange {
    topic_range(&[META_SEGMENT], topic)
}

pub(crate) fn topic_producers(topic: TopicId) -> KeyRange {
    topic_range(&[], topic)
}

pub(crate) fn topic_log(topic: TopicId) -> KeyRange {
    topic_range(&[], topic)
}

pub(crate) fn producer((topic, partition, producer): (TopicId, PartitionId, ProducerId)) -> Bytes {
    place(&[], topic, partition, &producer.0.to_be_bytes())
}

/// What the key of a producer's row names.
pub(crate) fn producer_of(key: &[u8]) -> Option<(TopicId, PartitionId, ProducerId)> {
    let (topic, rest) = key.split_first_chunk()?;
    let (partition, producer) = rest.split_first_chunk()?;
    let producer = ProducerId(u128::from_be_bytes(producer.try_into().ok()?));
    Some((TopicId(u32::from_be_bytes(*topic)), PartitionId(u16::from_be_bytes(*partition)), producer))
}

pub(crate) fn log(topic: TopicId, partition: PartitionId, base: Offset) -> Bytes {
    place(&[], topic, partition, &base.0.to_be_bytes())
}

pub(crate) fn catalogue_topic(topic: TopicId) -> Bytes {
    prefixed(CATALOGUE_TOPIC, &topic.0.to_be_bytes())
}

pub(crate) fn catalogue_subscription(id: SubscriptionId) -> Bytes {
    prefixed(CATALOGUE_SUBSCRIPTION, &id.0.to_be_bytes())
}

pub(crate) fn catalogue_plugin(id: u64) -> Bytes {
    prefixed(CATALOGUE_PLUGIN, &id.to_be_bytes())
}

pub(crate) fn catalogue_route(id: RouteId) -> Bytes {
    prefixed(CATALOGUE_ROUTE, &id.0.to_be_bytes())
}

pub(crate) fn catalogue_plugin_numbers(name: &str) -> Bytes {
    prefixed(CATALOGUE_PLUGIN_NUMBERS, name.as_bytes())
}

/// Which record a catalogue key names.
pub(crate) enum CatalogueKind {
    Topic,
    Subscription,
    Plugin,
    Route,
    PluginNumbers,
}

/// What kind of record lies under a catalogue key.
pub(crate) fn catalogue_kind(key: &[u8]) -> Option<CatalogueKind> {
    match *key.first()? {
        CATALOGUE_TOPIC => Some(CatalogueKind::Topic),
        CATALOGUE_SUBSCRIPTION => Some(CatalogueKind::Subscription),
        CATALOGUE_PLUGIN => Some(CatalogueKind::Plugin),
        CATALOGUE_ROUTE => Some(CatalogueKind::Route),
        CATALOGUE_PLUGIN_NUMBERS => Some(CatalogueKind::PluginNumbers),
        _ => None,
    }
}

pub(crate) fn progress_head(id: SubscriptionId, partition: PartitionId) -> Bytes {
    progress(id, partition, &[PROGRESS_HEAD])
}

pub(crate) fn progress_chunk(id: SubscriptionId, partition: PartitionId, chunk: u64) -> Bytes {
    let mut rest = [PROGRESS_CHUNK; 9];
    rest[1..].copy_from_slice(&chunk.to_be_bytes());
    progress(id, partition, &rest)
}

/// The chunk number in a progress chunk's key.
pub(crate) fn progress_chunk_number(key: &[u8]) -> Option<u64> {
    key.get(12..).and_then(|chunk| chunk.try_into().ok()).map(u64::from_be_bytes)
}

/// All progress chunks of one partition.
pub(crate) fn progress_chunks(id: SubscriptionId, partition: PartitionId) -> KeyRange {
    (progress(id, partition, &[PROGRESS_CHUNK]), progress(id, partition, &[PROGRESS_CHUNK + 1]))
}

/// Everything of a subscription.
pub(crate) fn subscription_cursors(id: SubscriptionId) -> KeyRange {
    (
        prefixed(CURSOR_SUBSCRIPTION, &id.0.to_be_bytes()),
        prefixed(CURSOR_SUBSCRIPTION, &(id.0 + 1).to_be_bytes()),
    )
}

pub(crate) fn route_cursor(id: RouteId, partition: PartitionId) -> Bytes {
    let mut rest = [0; 10];
    rest[..8].copy_from_slice(&id.0.to_be_bytes());
    rest[8..].copy_from_slice(&partition.0.to_be_bytes());
    prefixed(CURSOR_ROUTE, &rest)
}

/// Everything of a route.
pub(crate) fn route_cursors(id: RouteId) -> KeyRange {
    (prefixed(CURSOR_ROUTE, &id.0.to_be_bytes()), prefixed(CURSOR_ROUTE, &(id.0 + 1).to_be_bytes()))
}

fn progress(id: SubscriptionId, partition: PartitionId, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(11 + rest.len());
    key.put_u8(CURSOR_SUBSCRIPTION);
    key.put_u64(id.0);
    key.put_u16(partition.0);
    key.put_slice(rest);
    key.freeze()
}

fn place(prefix: &[u8], topic: TopicId, partition: PartitionId, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(prefix.len() + 6 + rest.len());
    key.put_slice(prefix);
    key.put_u32(topic.0);
    key.put_u16(partition.0);
    key.put_slice(rest);
    key.freeze()
}

fn topic_range(prefix: &[u8], topic: TopicId) -> KeyRange {
    let edge = |topic: u32| {
        let mut key = BytesMut::with_capacity(prefix.len() + 4);
        key.put_slice(prefix);
        key.put_u32(topic);
        key.freeze()
    };
    (edge(topic.0), edge(topic.0.saturating_add(1)))
}

fn prefixed(prefix: u8, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + rest.len());
    key.put_u8(prefix);
    key.put_slice(rest);
    key.freeze()
}
