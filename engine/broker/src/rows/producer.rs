//! What is known of one producer in one partition: 23 bytes after the version byte, then one entry of 28 bytes and its
//! details per remembered outcome, oldest first.
//!
//! ```text
//!  0         1          2        4       8               16           24
//!  +---------+----------+--------+-------+---------------+------------+---------+
//!  | version | reserved | count  | epoch | next_sequence | last_used  | entries |
//!  | u8 = 2  | u8       | u16    | u32   | u64           | u64 (ms)   |         |
//!  +---------+----------+--------+-------+---------------+------------+---------+
//!
//!  0                8       16          20       24     25         26          28
//!  +----------------+-------+-----------+--------+------+----------+-----------+---------+
//!  | first_sequence | base  | sequences | events | kind | reserved | details   | details |
//!  | u64            | u64   | u32       | u32    | u8   | u8       | u16 bytes |         |
//!  +----------------+-------+-----------+--------+------+----------+-----------+---------+
//! ```
//!
//! An entry is a run of sequences that follow on each other: one batch, or several whose events follow on each other in
//! the log too. `sequences` are counted by the producer, `events` are stored: fewer if a plugin or a repeated event id
//! left some out. `kind` 0 is appended, 1 is scheduled: `base` is the first event's schedule id; other numbers are free for
//! prepared and refused outcomes. The details of an appended entry are its duplicates ([`Duplicates`]), if there are any. In
//! version 1 no entry has details.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use levada_delivery::producer::{Appended, Producer};
use levada_protocol::duplicates::Duplicates;
use levada_protocol::ids::{Epoch, PartitionId, ProducerId, Sequence, Timestamp, TopicId};
use levada_store::Family;

use super::{
    Row,
    codec::{Damage, Fields},
    key::{KeyBuilder, KeyFields, KeyRange},
};

const HEADER_BYTES: usize = 23;
const ENTRY_BYTES: usize = 28;
const KIND_APPENDED: u8 = 0;
const KIND_SCHEDULED: u8 = 1;

/// The producers of a topic.
pub(crate) fn of_topic(topic: TopicId) -> KeyRange {
    KeyBuilder::new(4).u32(topic.0).range()
}

/// The producers of a topic's partition whose ids have this base: those of one name.
pub(crate) fn of_name(topic: TopicId, partition: PartitionId, base: ProducerId) -> KeyRange {
    let shared = (base.0 >> u32::BITS).to_be_bytes();
    KeyBuilder::new(18).u32(topic.0).u16(partition.0).bytes(&shared[4..]).range()
}

impl Row for Producer {
    const NAME: &'static str = "producer";
    const FAMILY: Family = Family::Producers;
    const VERSION: u8 = 2;
    const VERSION_MIN: u8 = 1;
    type Key = (TopicId, PartitionId, ProducerId);

    fn key((topic, partition, producer): &Self::Key) -> Bytes {
        KeyBuilder::new(22).u32(topic.0).u16(partition.0).u128(producer.0).finish()
    }

    fn parse_key(key: &[u8]) -> Option<Self::Key> {
        let mut fields = KeyFields::after(&[], key)?;
        let (topic, partition) = (TopicId(fields.u32()?), PartitionId(fields.u16()?));
        let producer = ProducerId(u128::from_be_bytes(fields.array()?));
        fields.finish((topic, partition, producer))
    }

    fn len(&self) -> usize {
        HEADER_BYTES + self.outcomes().len() * ENTRY_BYTES + self.duplicates_bytes()
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(0);
        out.put_u16_le(u16::try_from(self.outcomes().len()).expect("at most 64 outcomes are kept"));
        out.put_u32_le(self.epoch().0);
        out.put_u64_le(self.next_sequence().0);
        out.put_u64_le(self.last_used().0);
        for outcome in self.outcomes() {
            out.put_u64_le(outcome.first_sequence);
            out.put_u64_le(outcome.base);
            out.put_u32_le(outcome.sequences);
            out.put_u32_le(outcome.events);
            let kind = if outcome.scheduled { KIND_SCHEDULED } else { KIND_APPENDED };
            out.put_u16_le(kind.into());
            let details = outcome.duplicates.as_ref().map_or(0, |duplicates| duplicates.encoded_len());
            out.put_u16_le(u16::try_from(details).expect("bounded by Duplicates::BYTES_MAX"));
            if let Some(duplicates) = &outcome.duplicates {
                duplicates.write(out);
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        fields.reserved::<1>()?;
        let (count, epoch) = (fields.u16()?, Epoch(fields.u32()?));
        let (next_sequence, last_used) = (Sequence(fields.u64()?), Timestamp(fields.u64()?));
        if fields.left() < usize::from(count) * ENTRY_BYTES {
            return Err(format!("{count} entries in {} bytes", fields.left()).into());
        }
        let outcomes = (0..count).map(|_| read_entry(fields)).collect::<Result<Vec<_>, _>>()?;
        Self::restore(epoch, next_sequence, last_used, outcomes)
            .ok_or_else(|| "its outcomes do not follow on each other".into())
    }
}

fn read_entry(fields: &mut Fields<'_>) -> Result<Appended, Damage> {
    let (first_sequence, base) = (fields.u64()?, fields.u64()?);
    let (sequences, events) = (fields.u32()?, fields.u32()?);
    let scheduled = match fields.u8()? {
        KIND_APPENDED => false,
        KIND_SCHEDULED => true,
        kind => return Err(format!("an outcome of kind {kind} is unknown").into()),
    };
    fields.reserved::<1>()?;
    let duplicates = match fields.u16()? {
        0 => None,
        details => {
            let read = Duplicates::read(fields.take(details.into())?);
            Some(Arc::new(read.ok_or("the duplicates of an outcome are malformed")?))
        }
    };
    Ok(Appended { first_sequence, sequences, base, events, scheduled, duplicates })
}

#[cfg(test)]
mod tests {
    use levada_protocol::ids::Offset;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::rows::check;

    #[test]
    fn the_bytes_are_these() {
        let mut producer = Producer::default();
        producer.record(Timestamp(7), Epoch(2), Sequence(0), 4, (Offset(9), 3, None));
        let key = (TopicId(1), PartitionId(2), ProducerId(3));
        let expected = "02 00 0100 02000000 0400000000000000 0700000000000000 \
            0000000000000000 0900000000000000 04000000 03000000 00 00 0000";
        check::bytes(&key, &producer, "00000001 0002 00000000000000000000000000000003", expected);
        // The bytes of version 1, which had no details.
        let older = [&[1], &producer.encode()[1..]].concat();
        assert_eq!(Producer::decode(&older), Ok(producer.clone()));
        let mut found = None;
        Duplicates::note(&mut found, 1, Offset(5));
        producer.record(Timestamp(8), Epoch(2), Sequence(4), 2, (Offset(12), 1, found.map(Arc::new)));
        let expected = "02 00 0200 02000000 0600000000000000 0800000000000000 \
            0000000000000000 0900000000000000 04000000 03000000 00 00 0000 \
            0400000000000000 0c00000000000000 02000000 01000000 00 00 1100 \
            0100 0000 01000000 0500000000000000 02";
        check::bytes(&key, &producer, "00000001 0002 00000000000000000000000000000003", expected);
    }

    #[test]
    fn a_scheduled_outcome_is_of_kind_1() {
        let mut producer = Producer::default();
        producer.record_scheduled(Timestamp(7), Epoch(2), Sequence(0), 4, 9);
        let key = (TopicId(1), PartitionId(2), ProducerId(3));
        let expected = "02 00 0100 02000000 0400000000000000 0700000000000000 \
            0000000000000000 0900000000000000 04000000 04000000 01 000000";
        check::bytes(&key, &producer, "00000001 0002 00000000000000000000000000000003", expected);
    }

    proptest! {
        #[test]
        fn it_comes_back(
            topic in any::<u32>(), partition in any::<u16>(), id in any::<u128>(), epoch in any::<u32>(), time in any::<u64>(),
            batches in vec((1..1_000u32, 0..1_000u32, 0..10u64, 0..4_u32), 0..80),
        ) {
            let (mut producer, mut sequence, mut base) = (Producer::default(), 0, 0);
            for (sequences, events, gap, duplicates) in batches {
                let mut found = None;
                (0..duplicates.min(sequences)).for_each(|at| Duplicates::note(&mut found, at, Offset(gap * u64::from(at))));
                let events = events.min(sequences - duplicates.min(sequences));
                let stored = (Offset(base + gap), events, found.map(Arc::new));
                producer.record(Timestamp(time), Epoch(epoch), Sequence(sequence), sequences, stored);
                (sequence, base) = (sequence + u64::from(sequences), base + gap + u64::from(events));
            }
            let key = (TopicId(topic), PartitionId(partition), ProducerId(id));
            check::comes_back(&key, &producer);
            check::is_within::<Producer>(&key, &of_topic(key.0));
            check::is_within::<Producer>(&key, &of_name(key.0, key.1, key.2.base()));
            let (from, to) = of_name(key.0, key.1, ProducerId(key.2.0 ^ 1 << 32).base());
            let bytes = Producer::key(&key);
            prop_assert!(bytes < from || to <= bytes, "one of another name");
        }

        #[test]
        fn garbage_is_refused_or_reads_back_as_it_was(garbage in vec(any::<u8>(), 0..200)) {
            check::garbage::<Producer>(&garbage);
        }
    }
}
