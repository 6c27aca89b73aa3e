//! A record that lost events, and how it is stored.

use bytes::Bytes;
use levada_protocol::{
    batch::Batch,
    ids::{CommitIndex, Offset, PartitionId, Timestamp, TopicId},
};
use levada_store::{
    Family, Op,
    commit::OP_HEADER_BYTES,
    record::{self, LOG_KEY_BYTES, LogKey, Prefix, RECORD_PREFIX_BYTES},
};

/// A record without the events that were superseded: it takes the place of the one that is stored at its base, and of those
/// behind it that have none left.
#[derive(Debug, Clone)]
pub(crate) struct Rewritten {
    pub(crate) base: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) hops: u8,
    pub(crate) bytes_before: u64,
    /// How many offsets it covers, with those of the records that it takes the place of.
    pub(crate) span: u32,
    /// What is left, back to back.
    pub(crate) batches: Vec<Batch>,
    /// The bases of the records that it takes the place of.
    pub(crate) merged: Vec<Offset>,
    /// By how many bytes of batches it is shorter than what it takes the place of.
    pub(crate) saved_bytes: u64,
}

impl Rewritten {
    /// How many bytes it takes in a commit.
    pub(crate) fn encoded_len(&self) -> usize {
        let batches = self.batches.iter().map(|batch| batch.bytes().len()).sum::<usize>();
        let key = OP_HEADER_BYTES + LOG_KEY_BYTES;
        key + RECORD_PREFIX_BYTES + batches + self.merged.len() * key
    }

    /// The operations that store it.
    pub(super) fn ops(&self, (topic, partition): (TopicId, PartitionId), index: CommitIndex) -> Vec<Op> {
        let key = |base| LogKey { topic, partition, base };
        let bytes = |key: LogKey| Bytes::copy_from_slice(&key.encode());
        let Self { base, append_time, hops, bytes_before, span, ref batches, ref merged, saved_bytes: _ } =
            *self;
        let prefix = Prefix { hops, append_time, commit_index: index, bytes_before, span };
        let batches: Vec<&Batch> = batches.iter().collect();
        let value = record::encode(&key(base), &prefix, &batches);
        let deleted = merged.iter().map(|base| Op::Delete { family: Family::Log, key: bytes(key(*base)) });
        let put = Op::Put { family: Family::Log, key: bytes(key(base)), value };
        std::iter::once(put).chain(deleted).collect()
    }
}
