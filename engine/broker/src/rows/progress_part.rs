//! What rows of a subscription's progress share: the keys of those that each hold some offsets of a partition, and how the
//! history of a failed run is written.

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::progress::History;
use levada_protocol::ids::{PartitionId, SubscriptionId};

use super::{
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
    tag,
};

/// Bytes of a history.
pub(super) const HISTORY_BYTES: usize = 28;

/// Subscription, partition, and the index of the row among those of its kind there.
pub(super) type PartKey = (SubscriptionId, PartitionId, u64);

/// All rows of a kind in one partition.
pub(super) fn of_partition(kind: u8, id: SubscriptionId, partition: PartitionId) -> KeyRange {
    KeyBuilder::new(12).u8(tag::CURSOR_SUBSCRIPTION).u64(id.0).u16(partition.0).u8(kind).range()
}

pub(super) fn key(kind: u8, (id, partition, index): &PartKey) -> Bytes {
    let key = KeyBuilder::new(20).u8(tag::CURSOR_SUBSCRIPTION).u64(id.0).u16(partition.0);
    key.u8(kind).u64(*index).finish()
}

pub(super) fn parse_key(kind: u8, key: &[u8]) -> Option<PartKey> {
    let mut fields = KeyFields::after(&[tag::CURSOR_SUBSCRIPTION], key)?;
    let (id, partition) = (SubscriptionId(fields.u64()?), PartitionId(fields.u16()?));
    (fields.array()? == [kind]).then_some(())?;
    let index = fields.u64()?;
    fields.finish((id, partition, index))
}

/// Writes [`HISTORY_BYTES`].
pub(super) fn write_history(out: &mut BytesMut, history: &History) {
    out.put_u16_le(history.attempts);
    out.put_u8(history.returned);
    out.put_u8(0);
    out.put_u64_le(history.first_failure_ms);
    out.put_u64_le(history.last_failure_ms);
    out.put_u64_le(history.not_before_ms);
}

pub(super) fn read_history(fields: &mut Fields<'_>) -> Result<History, Damage> {
    let (attempts, returned) = (fields.u16()?, fields.u8()?);
    fields.reserved::<1>()?;
    let (first_failure_ms, last_failure_ms, not_before_ms) = (fields.u64()?, fields.u64()?, fields.u64()?);
    Ok(History { attempts, returned, first_failure_ms, last_failure_ms, not_before_ms })
}
