//! Every row that the broker stores: its key, its value, and their bytes; one file a row. It knows neither when a row
//! is written nor what follows from it.
//!
//! Numbers in keys are big endian, so that keys sort by value; numbers in values are little endian. Every value begins
//! with a version byte and has exactly the bytes that its file describes: a longer or shorter one is damaged. The
//! catalogue's records are MessagePack maps, to which a field with a default may be added within a version.
//!
//! | family | key | value | written by | goes |
//! | --- | --- | --- | --- | --- |
//! | meta | `0x01` | [`NextId`] | catalogue changes | never |
//! | meta | `0x02` | [`EngineId`] | first start | never |
//! | meta | `0x10` topic u32, partition u16 | [`LogStart`] | retention, purges | with the topic |
//! | meta | `0x11` topic u32, partition u16, offset u64 | [`Segment`] | appends | retention, purges, with the topic |
//! | meta | `0x12` family u8, length u8, from, to | [`Dropped`] | whatever drops a range of rows, compaction | when its space was given back |
//! | meta | `0x13` topic u32, partition u16, offset u64 | [`Setback`] | the writer | retention, purges, with the topic |
//! | meta | `0x14` topic u32, partition u16 | [`Compacted`] | compaction | with the topic |
//! | catalogue | `0x01` topic u32 | [`TopicRecord`] | catalogue changes | with the topic |
//! | catalogue | `0x02` subscription u64 | [`SubscriptionRecord`] | catalogue changes | with the subscription |
//! | catalogue | `0x03` plugin version u64 | [`PluginRecord`] | catalogue changes | `plugin remove` |
//! | catalogue | `0x04` route u64 | [`RouteRecord`] | catalogue changes | with the route |
//! | catalogue | `0x05` name | [`PluginLineRecord`] | deployments and removals of the plugin's versions | never |
//! | catalogue | `0x06` principal u64 | [`PrincipalRecord`] | catalogue changes | with the principal |
//! | catalogue | `0x07` token u64 | [`TokenRecord`] | catalogue changes, the first use in an hour | 30 days after it has ended, when another is made; with the principal |
//! | catalogue | `0x08` subscription u64 | [`PushRecord`] | catalogue changes | when it is removed, with the subscription |
//! | log | topic u32, partition u16, offset u64 | [`levada_store::record`] | appends | retention, purges, with the topic |
//! | cursors | `0x01` subscription u64, partition u16, `0x00` | [`levada_delivery::progress::Head`] | the subscription | with the subscription |
//! | cursors | `0x01` subscription u64, partition u16, `0x01`, chunk u64 | [`levada_delivery::progress::Chunk`] | the subscription | when the floor passes it |
//! | cursors | `0x01` subscription u64, partition u16, `0x02`, index u64 | [`levada_delivery::progress::Failures`] | the subscription | with the last of its failed events |
//! | cursors | `0x02` route u64, partition u16 | [`RouteCursor`] | the route | with the route |
//! | cursors | `0x03` subscription u64, partition u16 | [`SubscriptionLoss`] | the subscription | with the subscription |
//! | cursors | `0x04` subscription u64 | [`UnattendedSince`] | creation of the subscription, its owner when the last consumer leaves | when a consumer attaches, with the subscription |
//! | dedup | `0x01` topic u32, partition u16, offset u64 | [`DedupIds`] | publishes to a topic with a dedup window | when its ids expire, with the window, with the topic |
//! | schedule | `0x01` topic u32, due u64, first id u64, `0x01` | [`Scheduled`] | delayed publishes | when it is due, with the topic |
//! | schedule | `0x01` topic u32, due u64, first id u64, `0x00` | [`Cancelled`] | cancels | with its batch |
//! | schedule | `0x02` topic u32, first id u64 | [`ScheduleIndex`] | delayed publishes | with its batch |
//! | schedule | `0x03` topic u32 | [`ScheduleSummary`] | whatever changes the topic's schedule | with the topic |
//! | schedule | `0x04` | [`ScheduleBegin`] | deletion of a topic that had a schedule | never |
//! | schedule | `0x05` topic u32 | [`ScheduleBytes`] | whatever changes the topic's schedule | with the topic |
//! | schedule | `0x06` topic u32, day u32, first id u64 | [`PastCancels`] | a batch that is due and had cancelled events | when something of the topic is due a week after its day, with the topic |
//! | prepared | `0x01` group, `0x00`, id, `0x00` | [`Transaction`] | transactions | 7 days after the decision, 10 minutes if it was committed at once |
//! | prepared | `0x02` group, `0x00`, id, `0x00`, index u16 | [`PreparedBatch`] | prepared transactions | with the decision |
//! | prepared | `0x03` group, `0x00`, id, `0x00` | [`Undecided`] | prepared transactions, check-backs | with the decision |
//! | prepared | `0x04` time u64, group, `0x00`, id, `0x00` | [`TransactionEnd`] | decisions | at that time |
//! | producers | topic u32, partition u16, producer u128 | [`levada_delivery::producer::Producer`] | appends | once it is idle for long, with the topic |
//! | side | `0x01` topic u32, partition u16, offset u64 | [`Redriven`] | redrives of the dead letter there | retention, purges, with the topic |
//! | side | `0x02` subscription u64, number u64 | [`QueuedEvent`] | redrives to the subscription | when it comes to its end, with the subscription |
//! | side | `0x03` subscription u64 | [`QueueEnd`] | redrives to the subscription | with the subscription |
//! | side | `0x04` topic u32, name | [`NamedProducer`] | openings of the name | once it is idle for long, with the topic |
//!
//! A subscription's progress in its queue is that in the partition [`QUEUE`], which no topic has.
//!
//! Ids are never reused, so a key of a deleted thing can never be taken for another's.

mod codec;
mod key;
mod record;

mod cancelled;
mod compacted;
mod dedup_ids;
mod dropped;
mod engine_id;
mod log_start;
mod named_producer;
mod next_id;
mod past_cancels;
mod plugin;
mod plugin_line;
mod prepared_batch;
mod principal;
mod producer;
mod progress_chunk;
mod progress_failures;
mod progress_head;
mod progress_part;
mod push;
mod queue_end;
mod queued_event;
mod redriven;
mod route;
mod route_cursor;
mod schedule_begin;
mod schedule_bytes;
mod schedule_index;
mod schedule_summary;
mod scheduled;
mod segment;
mod setback;
mod subscription;
mod subscription_loss;
mod token;
mod topic;
mod transaction;
mod transaction_end;
mod transaction_key;
mod unattended_since;
mod undecided;

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::progress::{Chunk, Failures, Head};
use levada_protocol::{
    error::ErrorCode,
    ids::{PartitionId, SubscriptionId},
};
use levada_store::{Family, Op, ScanLimit, Store};

use self::codec::{Damage, Fields};
pub(crate) use self::{
    cancelled::Cancelled,
    compacted::Compacted,
    dedup_ids::DedupIds,
    dropped::{Dropped, DroppedRange, drop_rows},
    engine_id::EngineId,
    key::{KeyRange, whole_family},
    log_start::LogStart,
    named_producer::NamedProducer,
    next_id::NextId,
    past_cancels::{
        PastCancels, day_of, days as days_of_past_cancels, forgotten as forgotten_cancels,
        of_topic as past_cancels_of_topic, that_may_hold as past_cancels_of,
    },
    plugin::PluginRecord,
    plugin_line::PluginLineRecord,
    prepared_batch::PreparedBatch,
    principal::PrincipalRecord,
    producer::{of_name as producers_of_name, of_topic as producers_of_topic},
    progress_chunk::of_partition as chunks_of_partition,
    progress_failures::of_partition as failures_of_partition,
    progress_head::of_subscription as progress_of_subscription,
    push::{PreviousSecret, PushRecord},
    queue_end::QueueEnd,
    queued_event::QueuedEvent,
    redriven::Redriven,
    route::RouteRecord,
    route_cursor::RouteCursor,
    schedule_begin::ScheduleBegin,
    schedule_bytes::ScheduleBytes,
    schedule_index::{
        ScheduleIndex, of_topic as schedule_index_of_topic, that_may_hold as schedule_index_of,
    },
    schedule_summary::ScheduleSummary,
    scheduled::{Place, Scheduled, between as scheduled_between, of_topic as scheduled_of_topic},
    segment::Segment,
    setback::Setback,
    subscription::SubscriptionRecord,
    subscription_loss::SubscriptionLoss,
    token::TokenRecord,
    topic::TopicRecord,
    transaction::{Share, Transaction, Verdict},
    transaction_end::TransactionEnd,
    transaction_key::TransactionKey,
    unattended_since::UnattendedSince,
    undecided::Undecided,
};
use crate::error::Error;

/// In place of a partition in the rows of a subscription's progress: the queue of what was redriven to it.
pub(crate) const QUEUE: PartitionId = PartitionId(u16::MAX);

/// Rows that one scan of the store returns at most.
const PAGE: ScanLimit = ScanLimit { rows: 1_000, bytes: 4 << 20 };

/// The first bytes of keys, by family.
mod tag {
    pub(super) const META_NEXT_ID: u8 = 0x01;
    pub(super) const META_ENGINE_ID: u8 = 0x02;
    pub(super) const META_LOG_START: u8 = 0x10;
    pub(super) const META_SEGMENT: u8 = 0x11;
    pub(super) const META_DROPPED: u8 = 0x12;
    pub(super) const META_SETBACK: u8 = 0x13;
    pub(super) const META_COMPACTED: u8 = 0x14;
    pub(super) const CATALOGUE_TOPIC: u8 = 0x01;
    pub(super) const CATALOGUE_SUBSCRIPTION: u8 = 0x02;
    pub(super) const CATALOGUE_PLUGIN: u8 = 0x03;
    pub(super) const CATALOGUE_ROUTE: u8 = 0x04;
    pub(super) const CATALOGUE_PLUGIN_LINE: u8 = 0x05;
    pub(super) const CATALOGUE_PRINCIPAL: u8 = 0x06;
    pub(super) const CATALOGUE_TOKEN: u8 = 0x07;
    pub(super) const CATALOGUE_PUSH: u8 = 0x08;
    pub(super) const CURSOR_SUBSCRIPTION: u8 = 0x01;
    pub(super) const CURSOR_ROUTE: u8 = 0x02;
    pub(super) const CURSOR_LOSS: u8 = 0x03;
    pub(super) const CURSOR_UNATTENDED: u8 = 0x04;
    pub(super) const DEDUP_IDS: u8 = 0x01;
    pub(super) const SCHEDULE_BATCH: u8 = 0x01;
    pub(super) const SCHEDULE_INDEX: u8 = 0x02;
    pub(super) const SCHEDULE_SUMMARY: u8 = 0x03;
    pub(super) const SCHEDULE_BEGIN: u8 = 0x04;
    pub(super) const SCHEDULE_BYTES: u8 = 0x05;
    pub(super) const SCHEDULE_PAST_CANCELS: u8 = 0x06;
    pub(super) const SIDE_REDRIVEN: u8 = 0x01;
    pub(super) const SIDE_QUEUED: u8 = 0x02;
    pub(super) const SIDE_QUEUE_END: u8 = 0x03;
    pub(super) const SIDE_NAMED_PRODUCER: u8 = 0x04;
    pub(super) const TRANSACTION: u8 = 0x01;
    pub(super) const PREPARED_BATCH: u8 = 0x02;
    pub(super) const UNDECIDED: u8 = 0x03;
    pub(super) const TRANSACTION_END: u8 = 0x04;
}

/// A kind of row. A value of the type is what one row holds.
pub(crate) trait Row: Sized {
    /// Its name in error messages.
    const NAME: &'static str;
    /// The family that holds it.
    const FAMILY: Family;
    /// The layout that is written.
    const VERSION: u8;
    /// The oldest layout that is read, as the one that is written.
    const VERSION_MIN: u8 = Self::VERSION;
    /// What distinguishes one such row from another.
    type Key: std::fmt::Debug;

    /// The bytes of a key.
    fn key(key: &Self::Key) -> Bytes;

    /// What a key names; `None` if it is not one of this kind.
    fn parse_key(key: &[u8]) -> Option<Self::Key>;

    /// How many bytes [`Row::write`] writes, as far as that is known beforehand.
    fn len(&self) -> usize;

    /// Writes what follows the version byte.
    fn write(&self, out: &mut BytesMut);

    /// Reads what follows the version byte.
    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage>;

    /// The value's bytes.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + self.len());
        out.put_u8(Self::VERSION);
        self.write(&mut out);
        out.freeze()
    }

    /// Reads a value's bytes, all of them.
    fn decode(value: &[u8]) -> Result<Self, RowError> {
        let damaged = |detail| RowError::Damaged { row: Self::NAME, detail };
        let (version, rest) = value.split_first().ok_or_else(|| damaged(Damage::from("it is empty")))?;
        if *version > Self::VERSION {
            return Err(RowError::Newer { row: Self::NAME, found: *version, supported: Self::VERSION });
        }
        if *version < Self::VERSION_MIN {
            return Err(damaged(format!("version {version} never was").into()));
        }
        let mut fields = Fields::new(rest);
        let row = Self::read(&mut fields).map_err(damaged)?;
        fields.finish().map_err(damaged)?;
        Ok(row)
    }

    /// Writes this row.
    fn put(&self, key: &Self::Key) -> Op {
        Op::Put { family: Self::FAMILY, key: Self::key(key), value: self.encode() }
    }

    /// Deletes a row of this kind.
    fn delete(key: &Self::Key) -> Op {
        Op::Delete { family: Self::FAMILY, key: Self::key(key) }
    }

    /// Deletes the rows of a range of keys.
    fn delete_range((from, to): KeyRange) -> Op {
        Op::DeleteRange { family: Self::FAMILY, from, to }
    }
}

/// Why a stored row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    /// A later release wrote it.
    #[error("the {row} row has version {found}, this release reads up to {supported}")]
    Newer { row: &'static str, found: u8, supported: u8 },
    /// It is not as this release writes it.
    #[error("the {row} row is damaged: {detail}")]
    Damaged { row: &'static str, detail: Damage },
    /// Its key is of no kind that this release knows.
    #[error("a key of the {family} family is of an unknown kind: {key:02x?}")]
    Key { family: &'static str, key: Bytes },
}

impl RowError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Newer { .. } => ErrorCode::StorageNewer,
            Self::Damaged { .. } | Self::Key { .. } => ErrorCode::StorageCorrupt,
        }
    }

    /// The error of reading the row under this key.
    fn of(self, key: &impl std::fmt::Debug) -> Error {
        Error::Store { code: self.code(), message: format!("{self}; it is the one of {key:?}") }
    }
}

impl From<RowError> for Error {
    fn from(error: RowError) -> Self {
        Self::Store { code: error.code(), message: error.to_string() }
    }
}

/// Reads one row, if it is there.
pub(crate) fn get<R: Row>(store: &dyn Store, key: &R::Key) -> Result<Option<R>, Error> {
    let value = store.get(R::FAMILY, &R::key(key))?;
    value.map(|value| R::decode(&value).map_err(|error| error.of(key))).transpose()
}

/// Reads the row with the largest key in a range, if there is one.
pub(crate) fn last<R: Row>(store: &dyn Store, (from, to): &KeyRange) -> Result<Option<(R::Key, R)>, Error> {
    let Some((key, value)) = store.last_before(R::FAMILY, from, to)? else { return Ok(None) };
    decode_pair(&key, &value).map(Some)
}

/// Reads all rows of a range in the order of their keys. Blocks on the disk.
pub(crate) fn scan<R: Row>(store: &dyn Store, range: KeyRange) -> Result<Vec<(R::Key, R)>, Error> {
    let mut rows = Vec::new();
    each(store, R::FAMILY, range, |key, value| {
        rows.push(decode_pair(key, value)?);
        Ok(())
    })?;
    Ok(rows)
}

/// The first rows of a range.
pub(crate) struct Page<R: Row> {
    pub(crate) rows: Vec<(R::Key, R)>,
    /// There are more behind them.
    pub(crate) more: bool,
}

/// Reads the first rows of a range in the order of their keys, as many as one scan returns. Blocks on the disk.
pub(crate) fn page<R: Row>(store: &dyn Store, (from, to): &KeyRange) -> Result<Page<R>, Error> {
    let rows = store.scan(R::FAMILY, from, to, PAGE)?;
    let next = rows.last().map(|(last, _)| [last.as_ref(), &[0]].concat());
    let more = match next {
        Some(next) => !store.scan(R::FAMILY, &next, to, ScanLimit { rows: 1, ..PAGE })?.is_empty(),
        None => false,
    };
    let rows = rows.iter().map(|(key, value)| decode_pair(key, value)).collect::<Result<_, _>>()?;
    Ok(Page { rows, more })
}

/// Reads the first rows of a range in the order of their keys: at least one if there is any, and none behind the one with
/// which they come to `bytes_max`. Blocks on the disk.
pub(crate) fn first<R: Row>(
    store: &dyn Store,
    (from, to): &KeyRange,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Vec<(R::Key, R)>, Error> {
    let rows = store.scan(R::FAMILY, from, to, ScanLimit { rows: rows_max, bytes: bytes_max })?;
    rows.iter().map(|(key, value)| decode_pair(key, value)).collect()
}

/// Reads the keys of the first rows of a range in order, at most so many. Blocks on the disk.
pub(crate) fn keys<R: Row>(
    store: &dyn Store,
    (mut from, to): KeyRange,
    max: usize,
) -> Result<Vec<R::Key>, Error> {
    let mut keys = Vec::new();
    while keys.len() < max {
        let limit = ScanLimit { rows: PAGE.rows.min(max - keys.len()), ..PAGE };
        let rows = store.scan(R::FAMILY, &from, &to, limit)?;
        let Some((last, _)) = rows.last() else { break };
        from = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            keys.push(decode_pair::<R>(&key, &value)?.0);
        }
    }
    Ok(keys)
}

/// Hands all rows of a range over in the order of their keys. Blocks on the disk.
pub(crate) fn for_each<R: Row>(
    store: &dyn Store,
    range: KeyRange,
    mut row: impl FnMut(R::Key, R),
) -> Result<(), Error> {
    each(store, R::FAMILY, range, |key, value| {
        let (key, value) = decode_pair(key, value)?;
        row(key, value);
        Ok(())
    })
}

/// Reads a row as the store has it.
pub(crate) fn decode_pair<R: Row>(key: &[u8], value: &[u8]) -> Result<(R::Key, R), Error> {
    let unknown = || RowError::Key { family: R::FAMILY.name(), key: Bytes::copy_from_slice(key) };
    let key = R::parse_key(key).ok_or_else(unknown)?;
    let row = R::decode(value).map_err(|error| error.of(&key))?;
    Ok((key, row))
}

/// Hands all rows of a range over, page by page.
fn each(
    store: &dyn Store,
    family: Family,
    (mut from, to): KeyRange,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let rows = store.scan(family, &from, &to, PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = [last.as_ref(), &[0]].concat().into();
        for (key, value) in rows {
            row(&key, &value)?;
        }
    }
}

/// A row of a subscription's progress in a partition that says what is settled.
#[derive(Debug)]
pub(crate) enum ProgressRow {
    Head(Head),
    /// The index of a chunk, and the bytes of its row, which can be decoded.
    Chunk(u64, Bytes),
}

/// Hands all rows that say what a subscription is done with over, partition by partition; in each the head comes first. Blocks
/// on the disk.
pub(crate) fn for_each_progress(
    store: &dyn Store,
    id: SubscriptionId,
    mut row: impl FnMut(PartitionId, ProgressRow),
) -> Result<(), Error> {
    each(store, Family::Cursors, progress_of_subscription(id), |key, value| {
        if Head::parse_key(key).is_some() {
            let ((_, partition), head) = decode_pair::<Head>(key, value)?;
            row(partition, ProgressRow::Head(head));
            return Ok(());
        }
        if Failures::parse_key(key).is_some() {
            // Nothing is counted from these, but a damaged one is to be found now.
            decode_pair::<Failures>(key, value)?;
            return Ok(());
        }
        let ((_, partition, index), _) = decode_pair::<Chunk>(key, value)?;
        row(partition, ProgressRow::Chunk(index, Bytes::copy_from_slice(value)));
        Ok(())
    })
}

/// A row of the catalogue, of whichever kind.
#[derive(Debug)]
pub(crate) enum CatalogueRow {
    Topic(TopicRecord),
    Subscription(SubscriptionRecord),
    Plugin(PluginRecord),
    Route(RouteRecord),
    PluginLine(PluginLineRecord),
    Principal(PrincipalRecord),
    Token(TokenRecord),
    Push(PushRecord),
}

/// Reads the whole catalogue. Blocks on the disk.
pub(crate) fn scan_catalogue(store: &dyn Store) -> Result<Vec<CatalogueRow>, Error> {
    let mut rows = Vec::new();
    each(store, Family::Catalogue, whole_family(), |key, value| {
        rows.push(match key.first() {
            Some(&tag::CATALOGUE_TOPIC) => CatalogueRow::Topic(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_SUBSCRIPTION) => CatalogueRow::Subscription(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_PLUGIN) => CatalogueRow::Plugin(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_ROUTE) => CatalogueRow::Route(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_PLUGIN_LINE) => CatalogueRow::PluginLine(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_PRINCIPAL) => CatalogueRow::Principal(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_TOKEN) => CatalogueRow::Token(decode_pair(key, value)?.1),
            Some(&tag::CATALOGUE_PUSH) => CatalogueRow::Push(decode_pair(key, value)?.1),
            _ => {
                let (family, key) = (Family::Catalogue.name(), Bytes::copy_from_slice(key));
                return Err(RowError::Key { family, key }.into());
            }
        });
        Ok(())
    })?;
    Ok(rows)
}

#[cfg(test)]
mod check;
